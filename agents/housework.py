"""Housekeeping in a worker: its partitions one after the other, in a thread of its own.

The work is in pipeline.store.housekeeping; readers' catalogs are told of what it changed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from agents.worker import Worker
from pipeline import telemetry
from pipeline.allocator import release_memory
from pipeline.clocks import own_clocks
from pipeline.doors.overrides import Overrides
from pipeline.store.housekeeping import Housekeeper, Kept, Retention
from pipeline.store.objects import ObjectStore
from topics.errors import KafkaUnavailableError, SpanstreamError, StoreUnavailableError
from topics.settings import Settings

log = structlog.get_logger(__name__)


class Readers(Protocol):
    """Whoever is told. Both raise KafkaUnavailableError; readers find out by listing, later."""

    async def send_edited(self, partition: int) -> None: ...
    async def send_gone(self, partition: int, first: int) -> None: ...


class Housework:
    """What a worker does besides: removes what is too old, deletes what nothing names, merges small chunks, looks
    whether they are whole.
    """

    def __init__(
        self, settings: Settings, worker: Worker, store: ObjectStore, readers: Readers, worker_url: str
    ) -> None:
        self.settings = settings
        self._worker, self._readers = worker, readers
        self._overrides = Overrides(settings)
        self._pool = ThreadPoolExecutor(1, "housekeeping")
        self.keeper = Housekeeper(
            settings,
            store,
            topic=worker.topic,
            worker=worker_url,
            clocks=own_clocks(),
            retention=self._retention,
            busy=self._is_busy,
        )

    async def tick(self) -> None:
        """Look after each owned partition once. Never raises: what failed is begun again the next time."""
        self.keeper.slow_check.let_go(self._worker.owned.keys())
        for partition, owned in list(self._worker.owned.items()):
            if owned.state is None or owned.stop.is_set():
                continue
            try:
                loop = asyncio.get_running_loop()
                await self._tell(
                    partition, await loop.run_in_executor(self._pool, self.keeper.keep, partition, owned.stop)
                )
            except (StoreUnavailableError, KafkaUnavailableError) as error:
                telemetry.AWAY.labels(what="housekeeping").inc()
                log.warning("waiting", what="housekeeping", partition=partition, error=str(error))
            except SpanstreamError as error:
                log.error("housekeeping_failed", partition=partition, error=str(error))
            except Exception:
                log.exception("housekeeping_failed", partition=partition)

    async def _tell(self, partition: int, kept: Kept) -> None:
        if kept.edited:
            await self._readers.send_edited(partition)
        for first in kept.gone:
            await self._readers.send_gone(partition, first)

    def _is_busy(self) -> bool:
        """Asked between two portions: whether a range is being stored, for which what can wait does. Holes that merging
        leaves in memory are given back.
        """
        release_memory(above_bytes=self.settings.worker.resident_bytes_max)
        return any(owned.state is not None and owned.state.plan for owned in list(self._worker.owned.values()))

    def _retention(self) -> Retention:
        hours = self._overrides.chunk_retentions_h()
        default_s = self.settings.housekeeping.chunk_retention_h * 3600
        return Retention(default_s, {tenant: kept_h * 3600 for tenant, kept_h in hours.items()})

    def close(self) -> None:
        """Begin nothing more; what is under way may stop anywhere."""
        self._pool.shutdown(wait=False, cancel_futures=True)

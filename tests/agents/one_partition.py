"""One partition of a worker over a small Kafka and store, driven step by step by a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from agents.owned import SealTicket
from agents.ports import Assignment
from agents.worker import Worker
from pipeline.clocks import Clocks
from pipeline.partition.batch import SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.spans.dedup import span_keys
from pipeline.store.manifest import Manifest
from pipeline.store.tables import Tables
from topics.settings import Settings, WorkerSettings
from topics.spans_by_trace import DEFAULT_TENANT

TOPIC = "spans_by_trace"
NS = 1_000_000_000


def otlp(*span_ids: int) -> bytes:
    """One record: the spans of a single trace."""
    data = TracesData()
    for span_id in span_ids:
        span = data.resource_spans.add().scope_spans.add().spans.add()
        span.CopyFrom(Span(trace_id=b"t" * 16, span_id=span_id.to_bytes(8, "big"), name="s", start_time_unix_nano=NS))
    return data.SerializeToString()


class SimulatedStore:
    """The bucket: manifests by their first offset, each with the spans that its chunk would hold."""

    def __init__(self) -> None:
        self.manifests: dict[int, tuple[Manifest, SealedRange]] = {}
        self.refuse_next = False

    @property
    def mark(self) -> int:
        return max((manifest.last + 1 for manifest, _ in self.manifests.values()), default=0)

    def span_ids(self) -> list[int]:
        return [
            int.from_bytes(span_id, "big")
            for _, sealed in self.manifests.values()
            for span_id in sealed.spans.column("span_id").to_pylist()
        ]

    def put(self, sealed: SealedRange) -> Manifest | None:
        if sealed.first in self.manifests:
            return None
        manifest = Manifest(
            topic=sealed.topic,
            partition=sealed.partition,
            partitions=sealed.partitions,
            first=sealed.first,
            last=sealed.last,
            token=f"{len(self.manifests)}",
            worker="w",
            written_unix_ns=0,
            record_time_min_unix_ns=sealed.record_time_min_unix_ns,
            record_time_max_unix_ns=sealed.record_time_max_unix_ns,
            losses=sealed.losses,
            chunks=(),
        )
        self.manifests[sealed.first] = manifest, sealed
        return manifest


class SimulatedKafka:
    """One partition's log and the group's reading position. An offset whose value is None is never delivered."""

    def __init__(self) -> None:
        self.log: list[bytes | None] = []
        self.log_start = 0
        self.position = 0
        self.committed: int | None = None
        self.acked: set[int] = set()
        self.entries: list[int] = []
        self.dead: list[tuple[int, str]] = []

    async def ack(self, offset: int) -> None:
        self.acked.add(offset)
        start = self.committed or 0
        while start in self.acked or (start < len(self.log) and self.log[start] is None) or start < self.log_start:
            start += 1
        self.committed = start

    def fetch(self, count: int) -> list[SourceRecord]:
        """The next records that there are."""
        records: list[SourceRecord] = []
        self.position = max(self.position, self.log_start)
        while self.position < len(self.log) and len(records) < count:
            if (value := self.log[self.position]) is not None:
                records.append(SourceRecord(self.position, DEFAULT_TENANT, value, NS * (1 + self.position)))
            self.position += 1
        return records

    async def send_entry(self, manifest: Manifest) -> None:
        self.entries.append(manifest.first)

    async def send_dead(self, _partition: int, record: SourceRecord, reason: str) -> None:
        self.dead.append((record.offset, reason))


class SourceView:
    """agents.worker.Source over the simulated log."""

    def __init__(self, kafka: SimulatedKafka) -> None:
        self._kafka = kafka
        self.send_entry = kafka.send_entry
        self.send_dead = kafka.send_dead

    def end(self, _partition: int) -> int:
        return len(self._kafka.log)

    async def seek(self, _partition: int, offset: int) -> None:
        self._kafka.position = offset

    async def next_record(self, _partition: int, offset: int) -> int:
        log, start = self._kafka.log, max(offset, self._kafka.log_start)
        return next((at for at in range(start, len(log)) if log[at] is not None), len(log))

    async def log_start(self, _partition: int) -> int:
        return self._kafka.log_start

    async def committed(self, _partition: int) -> int | None:
        return self._kafka.committed


class RangesView:
    """agents.worker.Ranges over the simulated store."""

    def __init__(self, store: SimulatedStore, kafka: SimulatedKafka) -> None:
        self._store, self._kafka = store, kafka

    def assignment(self, _partition: int, secret: bytes, _keys_max: int) -> Assignment:
        held = sorted(self._store.manifests.values(), key=lambda pair: pair[0].first)
        return Assignment(
            mark=self._store.mark,
            newest=held[-1][0] if held else None,
            window=[(span_keys(s.spans, secret), m.record_time_max_unix_ns, m.last) for m, s in held],
            log_start=self._kafka.log_start,
            committed=self._kafka.committed,
        )

    def store(self, sealed: SealedRange, _stop: threading.Event) -> Manifest | None:
        return self._store.put(sealed)


class Simulation:
    """One worker at a time on one partition, and what a schedule may do to it."""

    def __init__(self, path: Path) -> None:
        self.kafka, self.store, self.path = SimulatedKafka(), SimulatedStore(), path
        self.clock_ns = 10 * NS
        self.set_by_ns = 0  # the wall clock is so far from where it was
        self.worker = self._new_worker(self.kafka)

    def _new_worker(self, kafka: SimulatedKafka) -> Worker:
        self.clock_ns += NS
        return Worker(
            Settings(worker=WorkerSettings(seal_age_s=10**6, drop_grace_s=0)),
            topic=TOPIC,
            partitions=1,
            source=SourceView(kafka),
            ranges=RangesView(self.store, kafka),
            tables=Tables(self.path / f"tables-{self.clock_ns}", rocksdb_bytes=4 << 20),
            secret=b"s" * 32,
            clocks=Clocks(lambda: self.clock_ns + self.set_by_ns, lambda: self.clock_ns),
        )

    def produce(self, *span_ids: int) -> None:
        self.kafka.log.append(otlp(*span_ids))

    def limit(self, **limits: float) -> None:
        """Other settings of the worker from now on, those that no configuration may have among them."""
        found = self.worker.settings.worker.model_copy(update=limits)
        self.worker.settings = self.worker.settings.model_copy(update={"worker": found})

    async def own(self) -> None:
        await self.worker.assigned({0})
        await self.worker.owned[0].loaded.wait()

    async def deliver(self, count: int, *, dropped: int = 0) -> None:
        """Hand the next records to the actor; the first `dropped` are fetched and never reach it."""
        taken = self.kafka.fetch(dropped + count)[dropped:]
        if taken:
            await self.worker.owned[0].loaded.wait()
            await self.worker.take(0, taken, [partial(self.kafka.ack, record.offset) for record in taken])

    async def seal(self) -> None:
        owned = self.worker.owned[0]
        await owned.loaded.wait()
        assert owned.state is not None
        if (plan := owned.state.seal()) is not None:
            await self.worker.store(SealTicket(owned, owned.state, plan))

    async def rebalance_and_stay(self) -> None:
        """Faust fetches a partition that stays again from the committed offset."""
        self.kafka.position = self.kafka.committed or 0
        await self.worker.assigned({0})

    async def crash(self) -> None:
        await self.worker.close()
        self.kafka.position = self.kafka.committed or 0
        self.worker = self._new_worker(self.kafka)
        await self.own()

    async def another_owner_stores(self) -> None:
        """A zombie's view: while we hold the partition, another worker reads on from the mark and stores a range."""
        mine, theirs = (self.worker, self.kafka), SimulatedKafka()
        theirs.log, theirs.log_start, theirs.position = self.kafka.log, self.kafka.log_start, self.store.mark
        self.worker, self.kafka = self._new_worker(theirs), theirs
        await self.own()
        await self.deliver(1000)
        await self.seal()
        await self.worker.close()
        self.worker, self.kafka = mine

    async def settle(self) -> None:
        """Deliver and seal until everything is stored: what any schedule must end in."""
        end = max((at for at, value in enumerate(self.kafka.log) if value is not None), default=-1) + 1
        for _ in range(60):
            await self.deliver(1000)
            await self.seal()
            self.clock_ns += 6 * NS
            await self.worker.tick()
            if self.store.mark >= end:
                return
        pytest.fail(f"stuck: stored up to {self.store.mark} of {end}")


def run(path: Path, story: Callable[[Simulation], Coroutine[Any, Any, None]]) -> Simulation:
    """Run a story on a new simulation and let it settle."""

    async def whole() -> Simulation:
        simulation = Simulation(path)
        await simulation.own()
        await story(simulation)
        await simulation.settle()
        await simulation.worker.close()
        return simulation

    return asyncio.run(whole())

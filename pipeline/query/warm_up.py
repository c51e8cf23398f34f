"""What the first questions would wait for, done before they come: live rows read, the newest chunks copied, modules
loaded that others load at first use.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

import numpy as np
import pyarrow as pa
import structlog

from pipeline.query.chunks import ChunkReader, ChunkRef, refs_of
from pipeline.query.engine import Engine, Session
from pipeline.query.snapshot import Snapshots
from pipeline.query.tenant_spans import TimeChunks
from topics.errors import SpanstreamError

log = structlog.get_logger(__name__)
POLL_S = 0.05
NEWEST_NS = 3600 * 10**9
CHUNKS_MAX = 256
AT_ONCE = 16  # chunks


class WarmStored(TimeChunks, Protocol):
    """The catalog, as far as this needs it."""

    def tenants(self) -> Iterable[str]:
        """Everybody with a chunk."""

    def missing(self) -> str:
        """Why it does not know all yet, in a sentence; empty when it does."""


async def warm_up(
    stored: WarmStored, snapshots: Snapshots, engine: Engine, seconds: float, *, copied_bytes_max: int = 0
) -> None:
    """Take a snapshot; copy the newest chunks, up to so many bytes, and read the footers of more.

    Gives up after so many seconds, or where a part is away: questions will tell.
    """
    try:
        async with asyncio.timeout(seconds):
            while stored.missing():
                await asyncio.sleep(POLL_S)
            snapshot = await snapshots.take()
            await engine.run(_load_modules)
            refs = await snapshots.in_thread(lambda: _newest(stored, snapshot.horizons))
            await engine.run(lambda session: _read(session, refs, copied_bytes_max))
    except (TimeoutError, SpanstreamError) as error:
        log.info("not_warmed_up", error=repr(error))


def _newest(stored: WarmStored, horizons: dict[int, int]) -> list[ChunkRef]:
    now_ns = time.time_ns()
    entries = [
        entry for tenant in stored.tenants() for entry in stored.chunks_for(tenant, now_ns - NEWEST_NS, 2**64 - 1)
    ]
    entries.sort(key=lambda entry: -entry.start_max_unix_ns)
    return refs_of(entries[:CHUNKS_MAX], horizons)


def _load_modules(session: Session) -> None:
    """With its first table the engine loads pyarrow.dataset, and pyarrow with its first numbers numpy.ma: 60 ms."""
    session.sql("SELECT count(*) FROM {live}", live=pa.table({"number": pa.array(np.arange(1))}))


def _read(session: Session, refs: list[ChunkRef], copied_bytes_max: int) -> None:
    """The newest chunks first, some at a time: what is done when time is over stays done.

    A footer once read is kept by the engine; the objects with a row a trace are small and copied whole.
    """
    reader = ChunkReader(session, [])
    ends = list(accumulate(ref.entry.bytes for ref in refs))
    copied = bisect_right(ends, copied_bytes_max)
    parts = [(refs[first : min(first + AT_ONCE, copied)], True) for first in range(0, copied, AT_ONCE)]
    for some, fetch in (*parts, (refs[copied:], False)):
        reader.read(some, _no_rows, fetch=fetch)
    reader.read(refs, _no_rows, traces=True)


def _no_rows(urls: list[str]) -> tuple[str, list[list[str]]]:
    rows = "SELECT * FROM read_parquet(?, union_by_name = true) LIMIT 0"
    return (rows, [urls]) if urls else ("SELECT 1 LIMIT 0", [])

"""One tenant's spans in a snapshot: which chunks a question opens, live rows beside them, whole traces of both."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from pipeline.query import trace_rows
from pipeline.query.blocks import LiveSegment
from pipeline.query.chunk_cache import Came, ChunkCache
from pipeline.query.chunks import (
    ChunkReader,
    ChunkRef,
    ForChunks,
    Present,
    all_more_keys,
    by_cover,
    numbered,
    refs_of,
    rows_of,
    told_damage,
)
from pipeline.query.conditions import SERVICE, Condition
from pipeline.query.executor import Asked, ChunkRows
from pipeline.query.explained import Watch
from pipeline.query.snapshot import Snapshot
from pipeline.query.trace_rows import TraceRows
from pipeline.spans import schema
from pipeline.spans.index import OTHERS
from pipeline.store.manifest import ChunkEntry
from topics.partitioner import partitions_of

FILTERED_TRACES_MAX = 64
UINT64_MAX = 2**64 - 1


class Covered(NamedTuple):
    """Chunks and live segments of which all rows lie within a range."""

    refs: list[ChunkRef]
    live: list[LiveSegment]


class TimeChunks(Protocol):
    """The catalog, as far as questions about many traces need it. May block."""

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """Chunks with spans in the range; their outliers count."""

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None, end_ns: int | None
    ) -> list[ChunkEntry]:
        """Chunks that may hold spans of the trace, by their filters and times."""


class TenantSpans:
    """Reads them. chunks, chunk_bytes: how much was looked through so far."""

    def __init__(self, catalog: TimeChunks, snapshot: Snapshot, reader: ChunkReader, tenant: str) -> None:
        self._catalog = catalog
        self.snapshot = snapshot
        self._tenant = tenant
        self._live_columns = snapshot.column_names()
        self.reader = reader
        self.chunks = self.chunk_bytes = 0
        if reader.session.watch is not None:
            self._introduce(reader.session.watch)

    def _introduce(self, watch: Watch) -> None:
        """What there is, whatever the question."""
        refs = self.refs(0, UINT64_MAX)
        watch.known.append((len(refs), sum(ref.entry.bytes for ref in refs)))
        watch.live_spans += self.live(["trace_id"]).num_rows

    def refs(self, start_ns: int, end_ns: int) -> list[ChunkRef]:
        """The chunks with spans in a range."""
        return self._told(refs_of(self._catalog.chunks_for(self._tenant, start_ns, end_ns), self.snapshot.horizons))

    def fitting(self, refs: Sequence[ChunkRef], condition: Condition) -> list[ChunkRef]:
        """The chunks of which the catalog's entries leave it possible that a row fulfils a condition."""
        if self.reader.session.watch is not None:
            why_not = [_why_not(ref.entry, condition) for ref in refs]
            self.reader.session.watch.chose(refs, why_not, (condition.sql, condition.values))
        return fitting(refs, condition)

    def around(self, trace_ids: Sequence[bytes], start_ns: int, end_ns: int, reach_ns: int) -> list[ChunkRef]:
        """Chunks within reach of a range that may hold rows of these traces: for few traces their filters are asked."""
        start_ns, end_ns = max(0, start_ns - reach_ns), min(UINT64_MAX, end_ns + reach_ns)
        if len(trace_ids) > FILTERED_TRACES_MAX:
            return self.refs(start_ns, end_ns)
        ids = np.frombuffer(b"".join(trace_ids), dtype=np.uint8).reshape(-1, 16)
        partitions = partitions_of(ids, len(self.snapshot.partitions)).tolist()
        found: dict[str, ChunkEntry] = {}
        for trace_id, partition in zip(trace_ids, partitions, strict=True):
            for entry in self._catalog.chunks_for_trace(self._tenant, partition, trace_id, start_ns, end_ns):
                found[entry.name] = entry
        return self._told(refs_of(found.values(), self.snapshot.horizons))

    def _told(self, refs: list[ChunkRef]) -> list[ChunkRef]:
        self.reader.tell(told_damage(refs))
        return refs

    def present(self, refs: Sequence[ChunkRef]) -> Present:
        """The columns of these chunks and of what is live."""
        return Present.of(refs, self._live_columns)

    def live(
        self, columns: Sequence[str], trace_ids: pa.Array | None = None, within: Snapshot | None = None
    ) -> pa.Table:
        """Live rows, of these traces where some are given. within: of these alone."""
        return (within or self.snapshot).rows(columns, self._tenant, trace_ids)

    def live_that_may_fit(
        self, columns: Sequence[str], condition: Condition, within: Snapshot | None = None
    ) -> pa.Table:
        """Those live rows that may fulfil a condition. within: of these alone."""
        fits = partial(_segment_may_fit, condition)
        return (within or self.snapshot).rows(columns, self._tenant, fits=fits, needs=condition.needs)

    def by_cover(
        self, refs: Iterable[ChunkRef], range_ns: tuple[int, int] | None
    ) -> tuple[Covered, list[ChunkRef], Snapshot]:
        """What has only spans that start in the range (None: of all times); the other chunks and live rows."""
        covered, others = by_cover(refs, range_ns)
        live, rest = self.snapshot.by_cover(self._tenant, range_ns)
        return Covered(covered, live), others, rest

    def no_live(self, columns: Sequence[str]) -> pa.Table:
        """No live rows, with these columns."""
        return self.snapshot.no_rows(columns)

    def read(
        self,
        refs: Sequence[ChunkRef],
        statement: ForChunks,
        columns: Sequence[str],
        condition: Condition,
        *,
        within: Snapshot | None = None,
    ) -> pa.Table:
        """A statement over chunks and those live rows, with `columns`, that may fulfil a condition.

        statement: as ChunkReader.read takes it; within: of the live rows, these alone.
        """
        self._opened(refs)
        live = self.live_that_may_fit(columns, condition, within)
        return self.reader.read(refs, statement, live=live)

    def of_traces(self, cache: ChunkCache, refs: Sequence[ChunkRef], asked: Asked) -> pa.Table | None:
        """The rows of each chunk's object with a row a trace, out of the cache where they are known."""
        return cache.rows(refs, asked, self.reader, opened=partial(self._opened, traces=True))

    def of_each(
        self,
        cache: ChunkCache,
        covered: Covered,
        of: ChunkRows,
        columns: Sequence[str],
        condition: Condition,
        came: Came | None = None,
    ) -> pa.Table | None:
        """The rows of each chunk and segment, out of the cache where they are known.

        columns, condition: as `read` takes them; came: as ChunkCache.rows has it.
        """
        fits = partial(_segment_may_fit, condition)
        rows = {
            f"live {segment.serial}": partial(self.snapshot.of_segment, segment, columns, fits, condition.needs)
            for segment in covered.live
        }
        asked = Asked(of, numbered(self.no_live(columns), 0))
        return cache.rows(covered.refs, asked, self.reader, live=rows, opened=self._opened, came=came)

    def _opened(self, refs: Sequence[ChunkRef], *, traces: bool = False) -> None:
        """Count what will be read, before live rows are looked at in vain. Raises QueryTooLargeError."""
        self.reader.session.open([ref.traces_wanted if traces else ref.wanted for ref in refs])
        self.chunks += len(refs)
        self.chunk_bytes += sum(ref.entry.bytes for ref in refs)

    def that_may_fit(self, condition: Condition, refs: Sequence[ChunkRef], trace_ids: pa.Array) -> pa.Array:
        """Those of the traces that fulfil a condition over all their rows."""
        live = self.live(sorted({"trace_id", *condition.columns}), trace_ids)

        def statement(urls: list[str]) -> tuple[str, list[Any]]:
            text = (
                f"SELECT trace_id FROM ({rows_of(urls)}) WHERE trace_id IN (SELECT trace_id FROM {{ids}}) "
                f"GROUP BY trace_id HAVING {condition.sql}"
            )
            return text, ([urls] if urls else []) + condition.values

        if condition.sql == "true" or not len(trace_ids):
            return trace_ids
        found = self.reader.read(refs, statement, live=live, ids=pa.table({"trace_id": trace_ids}))
        return found.column("trace_id").cast(pa.binary(16)).combine_chunks()

    def whole(self, refs: Sequence[ChunkRef], trace_ids: pa.Array, columns: Iterable[str]) -> TraceRows:
        """All rows of these traces, with these columns of rows and traces."""
        columns = list(columns)
        live = self.live(trace_rows.columns_read(columns), trace_ids)
        return trace_rows.read(self.reader, refs, live, trace_ids, columns)


def fitting(refs: Sequence[ChunkRef], condition: Condition) -> list[ChunkRef]:
    """The chunks of which the catalog's entries leave it possible that a row fulfils a condition."""
    return [ref for ref in refs if not _why_not(ref.entry, condition)]


def _why_not(entry: ChunkEntry, condition: Condition) -> str:
    """Why no row of a chunk can fulfil a condition; empty where one may."""
    service = condition.service
    more_keys = all_more_keys(entry)
    all_named = more_keys is not None and f"resource.{SERVICE}" not in more_keys and OTHERS not in entry.services
    if service is not None and all_named and not any(map(service, entry.services)):
        return "has no span of such a service"
    unmet = next((need for need in condition.needs if not need.met_by(entry.attributes, more_keys)), None)
    return f"has no {' or '.join(sorted(unmet.keys))}" if unmet is not None else ""


def _segment_may_fit(condition: Condition, columns: Container[str]) -> bool:
    rare = any(schema.more_column(scope) in columns for scope in ("resource", "span"))
    return condition.may_fit(columns, None if rare else ())

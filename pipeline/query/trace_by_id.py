"""One trace by its ID: its rows from chunks, from live segments and from Kafka, each span once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import ChunkReader, ChunkRef, check_found, refs_of, told_damage
from pipeline.query.engine import Engine, Session
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.turns import Lane
from pipeline.spans import dedup, schema
from pipeline.store.chunk import decode_rows
from pipeline.store.manifest import ChunkEntry
from topics.partitioner import partition_of

CHUNK_TYPES = {"parent_row": pa.int32(), "outside_parent_span_id": pa.binary()}


class TraceChunks(Protocol):
    """The catalog, as far as a trace by ID needs it. May block."""

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None, end_ns: int | None
    ) -> list[ChunkEntry]:
        """Chunks that may hold spans of the trace, by their filters and times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where spans of a trace were found. kind: `store`, `live` or `kafka`; [first, last]: of the chunk or segment."""

    kind: str
    tenant: str
    partition: int
    first: int
    last: int
    spans: int
    offsets: tuple[int, ...]
    url: str = ""
    bucket: str = ""
    chunk: str = ""


@dataclass(slots=True, kw_only=True)
class FoundTrace:
    """A trace: a span table with `parent_span_id`, sorted by (start, span ID, kind), no span twice.

    reasons: why it may not be complete; empty: it is. read_bytes: Arrow bytes that were looked at. copies: rows that
    stand in chunks or segments beside the ones given, of spans that came again after the deduplication window.
    """

    trace_id: bytes
    partition: int
    spans: pa.Table
    places: list[Place] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    read_bytes: int = 0
    copies: int = 0
    owner: str = ""


class TraceLookup:
    """Looks traces up. A span that came as several copies is given once: the first copy by offset, then by content.

    A CLIENT and a SERVER span with one ID are two spans, and stay as they were sent: OTLP that went in comes out
    (some servers give the SERVER span a new ID, which no other system knows).
    """

    def __init__(self, catalog: TraceChunks, snapshots: Snapshots, engine: Engine, *, partitions: int) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._engine = engine
        self._partitions = partitions

    async def find(
        self, tenants: Sequence[str], trace_id: bytes, start_ns: int | None = None, end_ns: int | None = None
    ) -> FoundTrace:
        """The trace, with the spans of all these tenants; no rows where there is none.

        start_ns, end_ns: only chunks whose times overlap are opened; live rows are always looked at. Raises
        QueryTimeoutError, StoreUnavailableError, KafkaUnavailableError.
        """
        partition = partition_of(trace_id, self._partitions)
        reasons: list[str] = []
        horizons = self._snapshots.horizons([partition])
        question = (tenants, partition, trace_id, start_ns, end_ns)
        (refs, stored), snapshot = await asyncio.gather(
            self._stored(question, horizons, reasons), self._snapshots.take_trace(partition, trace_id)
        )
        if snapshot.horizons != horizons:  # a worker had dropped what the catalog did not know yet
            known = {ref.entry.name for ref in refs}
            more, rows = await self._stored(question, snapshot.horizons, reasons, known)
            refs, stored = refs + more, stored + rows
        reasons += told_damage(refs)
        found = joined(trace_id, partition, stored, snapshot, tenants, reasons)
        check_found(reasons, found=found.spans.num_rows > 0)
        return found

    async def _stored(
        self, question: tuple[Any, ...], horizons: dict[int, int], reasons: list[str], known: Collection[str] = ()
    ) -> tuple[list[ChunkRef], list[tuple[ChunkRef, pa.Table]]]:
        """The chunks below `horizons` that may have rows, but for those `known` by name; and their rows."""
        tenants, *rest = question

        def look() -> list[ChunkRef]:
            entries = [entry for tenant in tenants for entry in self._catalog.chunks_for_trace(tenant, *rest)]
            return [ref for ref in refs_of(entries, horizons) if ref.entry.name not in known]

        refs = await self._snapshots.in_thread(look)
        return refs, await self._read(refs, question[2], reasons)

    async def _read(
        self, refs: Sequence[ChunkRef], trace_id: bytes, reasons: list[str]
    ) -> list[tuple[ChunkRef, pa.Table]]:
        if not refs:
            return []

        def work(session: Session) -> list[tuple[ChunkRef, pa.Table]]:
            reader = ChunkReader(session, reasons)
            return [(ref, rows) for ref in refs if (rows := _rows(reader, ref, trace_id)).num_rows]

        return await self._engine.run(work, lane=Lane.TRACE)


def _rows(reader: ChunkReader, ref: ChunkRef, trace_id: bytes) -> pa.Table:
    """One chunk a statement: parents stand as distances in the chunk's order, and no columns need to be matched."""

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        if not urls:
            return "SELECT 1 AS none WHERE false", []
        return "SELECT * FROM read_parquet(?) WHERE trace_id = ?", [urls[0], trace_id]

    rows = reader.read([ref], statement, fetch=False)
    return canonical(rows) if rows.num_rows else rows


def canonical(rows: pa.Table) -> pa.Table:
    """Rows from anywhere with the types of a span table, strings plain; columns null in every row are left out."""
    kept = {}
    for name in rows.column_names:
        column = rows.column(name)
        if column.null_count == len(column):
            continue
        type_ = CHUNK_TYPES.get(name) or schema.type_of(name)
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        kept[name] = column if column.type == type_ else column.cast(type_)
    return pa.table(kept)


def joined(
    trace_id: bytes,
    partition: int,
    stored: Sequence[tuple[ChunkRef, pa.Table]],
    snapshot: Snapshot,
    tenants: Sequence[str],
    reasons: list[str],
) -> FoundTrace:
    """Rows from everywhere to one trace."""
    places: list[Place] = []
    tables: list[pa.Table] = []
    tail: list[pa.Table] = []  # not yet taken by a worker, which may drop copies
    for ref, rows in stored:
        places.append(
            Place(
                kind="store",
                tenant=ref.entry.tenant,
                partition=ref.partition,
                first=ref.first,
                last=ref.last,
                spans=rows.num_rows,
                offsets=_offsets(rows),
                bucket=ref.entry.bucket,
                chunk=ref.entry.name,
            )
        )
        # A chunk does not keep the offsets of its records; its own place among the copies of a span is enough
        at = pa.array(np.full(rows.num_rows, ref.first))
        tables.append(decode_rows(rows).append_column("record_offset", at))
    for tenant in tenants:
        for view, segment, rows in snapshot.spans(tenant, trace_id):
            kind = "live" if segment in view.live else "kafka"
            places.append(
                Place(
                    kind=kind,
                    tenant=tenant,
                    partition=view.partition,
                    first=segment.first,
                    last=segment.last,
                    spans=rows.num_rows,
                    offsets=_offsets(rows),
                    url=view.url if kind == "live" else "",
                )
            )
            (tables if kind == "live" else tail).append(canonical(rows))
    for number, losses in snapshot.losses.items():
        reasons += [f"Kafka deleted offsets {a} to {b} of partition {number} before they were read" for a, b in losses]
    own = snapshot.partitions.get(partition)
    spans = each_once([*tables, *tail])
    taken = each_once(tables) if tail else spans
    return FoundTrace(
        trace_id=trace_id,
        partition=partition,
        spans=spans,
        places=places,
        reasons=reasons + snapshot.reasons,
        read_bytes=sum(table.nbytes for table in [*tables, *tail]),
        copies=sum(table.num_rows for table in tables) - taken.num_rows,
        owner=own.url if own is not None else "",
    )


def each_once(tables: Sequence[pa.Table]) -> pa.Table:
    """The spans of one trace from several tables, sorted by (start, span ID, kind), columns by name.

    Of copies the one at the least offset. So the answer does not depend on how spans were cut into records, segments
    or chunks.
    """
    if not tables:
        return schema.empty_table()
    spans = schema.concat(tables)
    ids = schema.fixed_bytes(spans, "span_id", 8).view(">u8")[:, 0]
    kinds = pc.fill_null(schema.column(spans, "kind"), 0).to_numpy()
    starts = spans.column("start_unix_ns").to_numpy()
    kept = dedup.least_copies((kinds, ids), schema.column(spans, "record_offset").to_numpy(), starts)
    kept = kept[np.argsort(starts[kept], kind="stable")]
    return spans.select(sorted(spans.column_names)).take(pa.array(kept))


def _offsets(rows: pa.Table) -> tuple[int, ...]:
    found = schema.column(rows, "record_offset").drop_null().unique().to_pylist()
    return tuple(sorted(found))

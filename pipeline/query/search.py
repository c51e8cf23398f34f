"""Search by tags: newest traces first, complete, the same however spans were cut into segments and chunks.

A trace is found when one of its spans overlaps the asked range and has, with its resource, all tags. What is said and
asked about the whole trace (start, duration, root, counts) comes from all its spans within `reach` of the range. Order:
start, newest first, then trace ID.

Live rows are looked at first, then chunks, newest first, in groups. A matching span's start is never before its
trace's, so candidates taken in the order of their matching spans' start bound what may follow: reading stops when
nothing that is left can be newer than the last trace of the answer.
"""

from __future__ import annotations

import base64
import heapq
import struct
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.query import plan, summary, trace_rows
from pipeline.query.chunks import IN_RANGE, MORE_KEYS_MAX, ChunkReader, ChunkRef, Present, refs_of, rows_of
from pipeline.query.conditions import SERVICE, TRACE_TAGS, Condition, conditions_of
from pipeline.query.engine import Engine, Session
from pipeline.query.plan import SpanSet
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.summary import Pick, TraceSummary
from pipeline.spans import schema
from pipeline.spans.index import OTHERS
from pipeline.store.manifest import ChunkEntry
from pipeline.traceql import tree
from topics.errors import BadQuestionError
from topics.partitioner import partition_of

GROUP_CHUNKS_MIN, GROUP_CHUNKS_MAX = 16, 256
BATCH_TRACES_MAX = 32_768
FILTERED_TRACES_MAX = 64
UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuestion:
    """What is searched. Times in Unix ns, inclusive; durations in ns; cursor: the `next_cursor` of an answer.

    query: a TraceQL pipeline, in the place of tags; span_set_spans: how many spans of each spanset are wanted.
    """

    tags: dict[str, str] = field(default_factory=dict)
    query: tree.Pipeline | None = None
    span_set_spans: int = 3
    start_ns: int = 0
    end_ns: int = UINT64_MAX
    limit: int = 20
    duration_min_ns: int | None = None
    duration_max_ns: int | None = None
    cursor: str = ""


@dataclass(slots=True, kw_only=True)
class SearchAnswer:
    """Traces, newest first. reasons: why some may be missing; next_cursor: for what may follow, empty at the end."""

    traces: list[TraceSummary] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    next_cursor: str = ""
    chunks: int = 0
    chunk_bytes: int = 0
    candidates: int = 0


class TimeChunks(Protocol):
    """The catalog, as far as a search needs it. May block."""

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """Chunks with spans in the range; their outliers count."""

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None, end_ns: int | None
    ) -> list[ChunkEntry]:
        """Chunks that may hold spans of the trace, by their filters and times."""


class Search:
    """Answers searches. reach_ns: how far around the asked range a found trace's other spans are looked for."""

    def __init__(self, catalog: TimeChunks, snapshots: Snapshots, engine: Engine, *, reach_ns: int) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._engine = engine
        self._reach_ns = reach_ns

    async def find(self, tenants: Sequence[str], question: SearchQuestion) -> SearchAnswer:
        """The newest `limit` traces. Raises BadQuestionError (cursor), QueryTimeoutError, QueryTooLargeError."""
        pick = pick_of(question)
        snapshot = await self._snapshots.take()
        reasons = snapshot.reasons + [
            f"Kafka deleted offsets {first} to {last} of partition {partition} before they were stored"
            for partition, losses in snapshot.losses.items()
            for first, last in losses
        ]

        def work(session: Session) -> SearchAnswer:
            reader = ChunkReader(session, reasons)
            answer, more = SearchAnswer(reasons=reasons), False
            for tenant in tenants:
                run = _Run(self._catalog, snapshot, reader, tenant, question, self._reach_ns)
                answer.traces += run.newest(pick)
                answer.chunks += run.chunks
                answer.chunk_bytes += run.chunk_bytes
                answer.candidates += run.seen
                more = more or run.more
            return _cut(answer, question.limit, more=more)

        return await self._engine.run(work)


def _cut(answer: SearchAnswer, limit: int, *, more: bool) -> SearchAnswer:
    """Keep the newest `limit`. more: what was not read may follow."""
    answer.traces.sort(key=TraceSummary.order)
    if len(answer.traces) > limit or (more and len(answer.traces) == limit):
        del answer.traces[limit:]
        start_ns, trace_id = answer.traces[-1].order()
        answer.next_cursor = base64.urlsafe_b64encode(struct.pack(">Q", -start_ns) + trace_id).decode()
    return answer


def pick_of(question: SearchQuestion) -> Pick:
    """What a search asks of whole traces: their durations, their roots, their place after the cursor.

    One more than the limit is wanted: it tells that something follows. Raises BadQuestionError.
    """
    parts, values = ["true"], list[Any]()
    if question.duration_min_ns is not None:
        parts.append("last - first >= ?")
        values.append(question.duration_min_ns)
    if question.duration_max_ns is not None:
        parts.append("last - first <= ?")
        values.append(question.duration_max_ns)
    for tag, field_name in TRACE_TAGS.items():
        if tag in question.tags:
            parts.append(f"contains(lower(coalesce(top.{field_name}, '')), lower(?))")
            values.append(question.tags[tag])
    if question.cursor:
        start_ns, trace_id = _cursor_key(question.cursor)
        parts.append("(first < ? OR (first = ? AND trace_id > ?))")
        values += [start_ns, start_ns, trace_id]
    return Pick(" AND ".join(parts), values, question.limit + 1)


def _cursor_key(cursor: str) -> tuple[int, bytes]:
    """Start and trace ID of the last trace before what is wanted."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode())
        (start_ns,) = struct.unpack(">Q", raw[:8])
        if len(raw) != 24:
            raise ValueError(cursor)
    except (ValueError, struct.error) as exc:
        raise BadQuestionError(f"invalid cursor: {cursor[:100]}") from exc
    return start_ns, raw[8:]


class _Run:
    """One tenant's search."""

    def __init__(
        self,
        catalog: TimeChunks,
        snapshot: Snapshot,
        reader: ChunkReader,
        tenant: str,
        question: SearchQuestion,
        reach_ns: int,
    ) -> None:
        self._catalog = catalog
        self._snapshot = snapshot
        self._reader = reader
        self._tenant = tenant
        self._question = question
        self._reach_ns = reach_ns
        entries = catalog.chunks_for(tenant, question.start_ns, question.end_ns)
        self._refs = refs_of(entries, snapshot.horizons)
        self._live_columns = snapshot.column_names()
        self._condition = self._condition_over(Present.of(self._refs, self._live_columns))
        self._refs = [ref for ref in self._refs if self._may_fit(ref)]
        self._live_rows: pa.Table | None = None
        self._batches = 0
        self.chunks = self.chunk_bytes = self.seen = 0
        self.more = False  # whether something was left unread

    def _condition_over(self, present: Present) -> Condition:
        query = self._question.query
        return conditions_of(self._question.tags, present) if query is None else plan.condition_of(query, present)

    def newest(self, pick: Pick) -> list[TraceSummary]:
        """The newest traces that fit, in order."""
        wanted, limit = pick.limit, self._question.limit
        groups = self._groups()
        pending = Candidates()
        found: list[TraceSummary] = []
        size = self._first_batch(wanted)
        unread = UINT64_MAX  # no span of the groups not yet read starts later
        while True:
            last = found[limit - 1].start_unix_ns if len(found) >= limit else -1
            if last > max(unread, pending.latest()):
                break
            worst = found[wanted - 1].start_unix_ns if len(found) >= wanted else -1
            batch = pending.take(size, floor=max(unread, worst))
            if batch:
                found = heapq.nsmallest(wanted, found + self._summaries(batch, pick), key=TraceSummary.order)
                # With enough found, all that may still be newer is looked at in one go
                size = BATCH_TRACES_MAX if len(found) == wanted else min(4 * size, BATCH_TRACES_MAX)
            elif unread >= 0:
                refs, unread = next(groups)
                pending.add(self._candidates(refs, with_live=not pending.groups))
            else:
                break
        self.seen = pending.taken
        self.more = max(unread, pending.latest()) >= 0
        return found

    def _groups(self) -> Iterator[tuple[list[ChunkRef], int]]:
        """No chunks, for what is live; then those of the range, newest first, in groups that grow.

        With each the latest start in what comes after.
        """
        bounds = [(self._bound(ref), ref) for ref in self._refs]
        bounds.sort(key=lambda pair: (-pair[0], pair[1].entry.name))
        at, size = 0, 0
        while True:
            after = at + size
            yield [ref for _, ref in bounds[at:after]], bounds[after][0] if after < len(bounds) else -1
            if after >= len(bounds):
                return
            at, size = after, min(max(4 * size, GROUP_CHUNKS_MIN), GROUP_CHUNKS_MAX)

    def _may_fit(self, ref: ChunkRef) -> bool:
        """Whether the catalog's entry leaves it possible that a row of the chunk has all tags."""
        entry, service = ref.entry, self._condition.service
        more_keys = None if len(entry.more_keys) >= MORE_KEYS_MAX else entry.more_keys
        all_named = more_keys is not None and f"resource.{SERVICE}" not in more_keys and OTHERS not in entry.services
        if service is not None and all_named and not any(map(service, entry.services)):
            return False
        return self._condition.may_fit(entry.attributes, more_keys)

    def _bound(self, ref: ChunkRef) -> int:
        """No span of the chunk within the range starts later."""
        outliers = [start for _, start in ref.entry.outliers if start <= self._question.end_ns]
        return min(max([ref.entry.start_max_unix_ns, *outliers]), self._question.end_ns)

    def _candidates(self, refs: list[ChunkRef], *, with_live: bool) -> pa.Table:
        """Trace IDs with a matching span, and the first start of those spans, latest first."""
        question, condition = self._question, self._condition
        self.chunks += len(refs)
        self.chunk_bytes += sum(ref.entry.bytes for ref in refs)
        columns = sorted({"trace_id", "start_unix_ns", "duration_ns", *condition.columns})
        live = self._snapshot.no_rows(columns)
        if with_live:
            fits = partial(_segment_may_fit, condition)
            live = self._snapshot.rows(columns, self._tenant, fits=fits, needs=condition.needs)

        every = question.query is not None and condition.sql == "true"

        def statement(urls: list[str]) -> tuple[str, list[Any]]:
            return _every_trace_sql(urls, question) if every else _candidate_sql(urls, condition, question)

        return self._reader.read(refs, statement, traces=every, live=live)

    def _first_batch(self, wanted: int) -> int:
        """How many candidates to look at first: more where something is asked that only whole traces tell."""
        question = self._question
        picky = question.duration_min_ns or question.duration_max_ns is not None or TRACE_TAGS & question.tags.keys()
        picky = picky or (question.query is not None and not plan.rows_decide(question.query))
        return max(2048, 4 * wanted) if picky else wanted + 4

    def _summaries(self, trace_ids: list[bytes], pick: Pick) -> list[TraceSummary]:
        ids = pa.array(trace_ids, pa.binary(16))
        refs = refs_of(self._entries_around(trace_ids), self._snapshot.horizons)
        span_sets: dict[bytes, list[SpanSet]] = {}
        if self._question.query is not None:
            span_sets = self._span_sets(self._question.query, refs, ids)
            ids = pa.array(list(span_sets), pa.binary(16))
            if not span_sets:
                return []
        found = summary.summaries(self._reader, refs, self._live_summaries(ids), ids, pick)
        for one in found:
            one.span_sets = span_sets.get(one.trace_id, [])
        return found

    def _span_sets(self, query: tree.Pipeline, refs: list[ChunkRef], ids: pa.Array) -> dict[bytes, list[SpanSet]]:
        """Of these traces those that the query finds, decided on all their rows."""
        question, present = self._question, Present.of(refs, self._live_columns)
        if not plan.rows_decide(query):
            ids = self._that_may_fit(plan.trace_condition_of(query, present), refs, ids)
        compiled = plan.Plan(query, present)
        live = self._snapshot.rows(trace_rows.columns_read(compiled.columns), self._tenant, ids)
        rows = trace_rows.read(self._reader, refs, live, ids, compiled.columns)
        return compiled.evaluate(
            self._reader.session, rows, (question.start_ns, question.end_ns), question.span_set_spans
        )

    def _that_may_fit(self, condition: Condition, refs: list[ChunkRef], ids: pa.Array) -> pa.Array:
        """Those of the traces that fulfil a condition over all their rows."""
        columns = sorted({"trace_id", *condition.columns})
        live = self._snapshot.rows(columns, self._tenant, ids)

        def statement(urls: list[str]) -> tuple[str, list[Any]]:
            text = (
                f"SELECT trace_id FROM ({rows_of(urls)}) WHERE trace_id IN (SELECT trace_id FROM {{ids}}) "
                f"GROUP BY trace_id HAVING {condition.sql}"
            )
            return text, ([urls] if urls else []) + condition.values

        if condition.sql == "true" or not len(ids):
            return ids
        found = self._reader.read(refs, statement, live=live, ids=pa.table({"trace_id": ids}))
        return found.column("trace_id").cast(pa.binary(16)).combine_chunks()

    def _live_summaries(self, ids: pa.Array) -> pa.Table:
        """Live rows of these traces; after the first batch all live rows are unpacked, once."""
        self._batches += 1
        if self._batches == 1:
            return self._snapshot.rows(summary.COLUMNS, self._tenant, ids)
        if self._live_rows is None:
            self._live_rows = self._snapshot.rows(summary.COLUMNS, self._tenant)
        return self._live_rows

    def _entries_around(self, trace_ids: list[bytes]) -> list[ChunkEntry]:
        """Chunks within reach that may hold rows of these traces: for few traces their filters are asked."""
        start_ns = max(0, self._question.start_ns - self._reach_ns)
        end_ns = min(UINT64_MAX, self._question.end_ns + self._reach_ns)
        if len(trace_ids) > FILTERED_TRACES_MAX:
            return self._catalog.chunks_for(self._tenant, start_ns, end_ns)
        partitions = len(self._snapshot.partitions)
        found: dict[str, ChunkEntry] = {}
        for trace_id in trace_ids:
            partition = partition_of(trace_id, partitions)
            for entry in self._catalog.chunks_for_trace(self._tenant, partition, trace_id, start_ns, end_ns):
                found[entry.name] = entry
        return list(found.values())


def _segment_may_fit(condition: Condition, columns: Container[str]) -> bool:
    rare = any(schema.more_column(scope) in columns for scope in ("resource", "span"))
    return condition.may_fit(columns, None if rare else ())


def _candidate_sql(urls: list[str], condition: Condition, question: SearchQuestion) -> tuple[str, list[Any]]:
    text = (
        f"SELECT trace_id, min(start_unix_ns) AS start FROM ({rows_of(urls)}) WHERE {IN_RANGE} AND {condition.sql} "
        "GROUP BY trace_id ORDER BY start DESC, trace_id"
    )
    values: list[Any] = [question.end_ns, question.start_ns, question.start_ns, *condition.values]
    return text, ([urls] if urls else []) + values


def _every_trace_sql(urls: list[str], question: SearchQuestion) -> tuple[str, list[Any]]:
    """Where rows alone say nothing, a row a trace does: who is too much, a decision over the whole trace leaves out."""
    traces = "SELECT trace_id, start_min_unix_ns AS started, end_max_unix_ns AS ended FROM read_parquet(?) UNION ALL "
    live = "SELECT trace_id, start_unix_ns, start_unix_ns::HUGEINT + greatest(duration_ns, 0) FROM {live}"
    text = (
        f"SELECT trace_id, min(started) AS start FROM ({traces if urls else ''}{live}) AS t(trace_id, started, ended) "
        "WHERE started <= ? AND ended >= ? GROUP BY trace_id ORDER BY start DESC, trace_id"
    )
    return text, [*([urls] if urls else []), question.end_ns, question.start_ns]


class Candidates:
    """Traces with a matching span, taken latest first, each once. 24 bytes a trace."""

    def __init__(self) -> None:
        self._runs: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]] = []
        self._at: list[int] = []
        self._taken: set[bytes] = set()

    @property
    def groups(self) -> int:
        """How many groups were added."""
        return len(self._runs)

    @property
    def taken(self) -> int:
        """How many traces were taken."""
        return len(self._taken)

    def add(self, table: pa.Table) -> None:
        """table: trace_id, start; latest first."""
        self._runs.append((table.column("start").to_numpy(), schema.bytes_of(table.column("trace_id"), 16)))
        self._at.append(0)

    def latest(self) -> int:
        """The start of the next one; -1 where none is left."""
        starts = [int(run[0][at]) for run, at in zip(self._runs, self._at, strict=True) if at < len(run[0])]
        return max(starts, default=-1)

    def take(self, count: int, *, floor: int) -> list[bytes]:
        """Up to `count` of the latest that start at `floor` or later and were not taken before."""
        batch: list[bytes] = []
        while len(batch) < count and (latest := self.latest()) >= max(floor, 0):
            for number, (starts, ids) in enumerate(self._runs):
                while self._at[number] < len(starts) and starts[self._at[number]] == latest:
                    trace_id = ids[self._at[number]].tobytes()
                    self._at[number] += 1
                    if trace_id not in self._taken:
                        self._taken.add(trace_id)
                        batch.append(trace_id)
        return batch

"""Search for traces: complete, in one order, the same however spans were cut into segments and chunks.

A trace is found when one of its spans overlaps the asked range and has, with its resource, all tags. What is said and
asked about the whole trace (start, duration, root, counts) comes from all its spans within `reach` of the range.

Live rows are looked at first, then chunks, newest first, in groups. A matching span's start is never before its
trace's, so candidates taken in the order of their matching spans' start bound what may follow: reading stops when
nothing that is left can be newer than the last trace of the answer. In any other order than newest first all
candidates are looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.query import candidates, plan, summary, trace_rows
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunks import (
    ChunkReader,
    ChunkRef,
    Present,
    check_found,
)
from pipeline.query.conditions import TRACE_TAGS, Condition, conditions_of
from pipeline.query.engine import Engine, Session
from pipeline.query.executor import Asked, ChunkRows
from pipeline.query.explained import SNAPSHOT_STEP, Watch
from pipeline.query.order import NEWEST, Order
from pipeline.query.plan import SpanSet
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.sql import TRUE
from pipeline.query.summary import Pick, TraceSummary
from pipeline.query.tenant_spans import UINT64_MAX, TenantSpans, TimeChunks
from pipeline.query.trace_rows import TraceRows
from pipeline.query.turns import Lane
from pipeline.traceql import tree

GROUP_CHUNKS_MIN, GROUP_CHUNKS_MAX = 16, 256
# The engine passes over row groups without any of 50 values, but looks at all of them for more
FEW_TRACES, MANY_TRACES, BATCH_TRACES_MAX = 48, 2048, 32_768
SPARE_TRACES = 4  # beside those wanted, where nearly all candidates are found
SPANS_MIN = 2
TRACES_MAX = 2_000_000  # of chunks that are looked at together, 100 bytes each
AT = "live_row"
Heard = Callable[[list["TraceSummary"]], None]  # is told from another thread, again and again, what is found so far


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
    order: Order = NEWEST
    cursor: str = ""


@dataclass(slots=True, kw_only=True)
class SearchAnswer:
    """Traces in order. reasons: why some may be missing; next_cursor: for what may follow, empty at the end."""

    traces: list[TraceSummary] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    next_cursor: str = ""
    chunks: int = 0
    chunk_bytes: int = 0
    candidates: int = 0


class Search:
    """Answers searches. reach_ns: how far around the asked range a found trace's other spans are looked for.

    cache: of the traces of a chunk that may be found.
    """

    def __init__(
        self, catalog: TimeChunks, snapshots: Snapshots, engine: Engine, *, reach_ns: int, cache: ChunkCache
    ) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._engine = engine
        self._reach_ns = reach_ns
        self._cache = cache

    async def find(
        self,
        tenants: Sequence[str],
        question: SearchQuestion,
        heard: Heard | None = None,
        watch: Watch | None = None,
        lane: Lane = Lane.LONG,
    ) -> SearchAnswer:
        """The first `limit` traces; `heard` is told the first of those found so far, in order; watch: looks on.

        Raises BadQuestionError (cursor), QueryTimeoutError, QueryTooLargeError.
        """
        pick = pick_of(question)
        with nullcontext() if watch is None else watch.step(SNAPSHOT_STEP):
            snapshot = await self._snapshots.take()
        reasons = snapshot.reasons + snapshot.told_losses()

        def work(session: Session) -> SearchAnswer:
            reader = ChunkReader(session, reasons)
            answer, more = SearchAnswer(reasons=reasons), False
            for tenant in tenants:
                spans = TenantSpans(self._catalog, snapshot, reader, tenant)
                run = _Run(spans, question, self._reach_ns, self._cache)
                if heard is not None:
                    run.told = partial(_tell, heard, question, list(answer.traces))
                answer.traces += run.first(pick)
                answer.chunks += spans.chunks
                answer.chunk_bytes += spans.chunk_bytes
                answer.candidates += run.seen
                more = more or run.more
            check_found(reasons, found=bool(answer.traces))
            return _cut(answer, question, more=more)

        return await self._engine.run(work, lane=lane, watch=watch)


def lane_of(question: SearchQuestion) -> Lane:
    """Where it begins: how many rows a trace has is found fastest by many threads, over all traces at once."""
    counts = question.query is not None and plan.spans_at_least(question.query) >= SPANS_MIN
    return Lane.LONG if counts else Lane.SHORT


def _tell(heard: Heard, question: SearchQuestion, before: list[TraceSummary], found: list[TraceSummary]) -> None:
    heard(heapq.nsmallest(question.limit, [*before, *found], key=question.order.key))


def _cut(answer: SearchAnswer, question: SearchQuestion, *, more: bool) -> SearchAnswer:
    """Keep the first `limit`. more: what was not read may follow."""
    limit = question.limit
    answer.traces.sort(key=question.order.key)
    if len(answer.traces) > limit or (more and len(answer.traces) == limit):
        del answer.traces[limit:]
        answer.next_cursor = question.order.cursor(answer.traces[-1])
    return answer


def pick_of(question: SearchQuestion) -> Pick:
    """What a search asks of whole traces: their durations, their roots, their place after the cursor.

    One more than the limit is wanted: it tells that something follows. Raises BadQuestionError.
    """
    parts, values = list[str](), list[Any]()
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
        after, place = question.order.after(question.cursor)
        parts.append(after)
        values += place
    return Pick(" AND ".join(parts) or summary.ANY, values, question.order.sorting, question.limit + 1)


class _Run:
    """One tenant's search."""

    def __init__(self, spans: TenantSpans, question: SearchQuestion, reach_ns: int, cache: ChunkCache) -> None:
        self._spans = spans
        self._cache = cache
        self._question = question
        self._reach_ns = reach_ns
        refs = spans.refs(question.start_ns, question.end_ns)
        self._condition = self._condition_over(spans.present(refs))
        self._anchored = False
        if question.query is not None and self._condition.sql == TRUE.text:
            # Rows of the answer may be any, but its traces may have to have certain others, also outside the range
            around = spans.refs(max(0, question.start_ns - reach_ns), min(UINT64_MAX, question.end_ns + reach_ns))
            anchor = plan.anchor_of(question.query, spans.present(around))
            if anchor is not None:
                refs, self._condition, self._anchored = around, anchor, True
        self._refs = spans.fitting(refs, self._condition)
        self._spans_min = self._counted(reach_ns)
        self._live_rows: pa.Table | None = None
        self._batches = 0
        self.seen = 0
        self.told: Heard = lambda _found: None
        self.more = False  # whether something was left unread

    def _counted(self, reach_ns: int) -> int:
        """How many spans a found trace has at least, where rows say nothing but all its rows can be counted at once."""
        question = self._question
        if question.query is None or self._condition.sql != TRUE.text:
            return 0
        least = plan.spans_at_least(question.query)
        around = self._spans.refs(max(0, question.start_ns - reach_ns), min(UINT64_MAX, question.end_ns + reach_ns))
        if least < SPANS_MIN or sum(ref.entry.traces for ref in around) > TRACES_MAX:
            return 0
        self._refs = around
        return least

    def _condition_over(self, present: Present) -> Condition:
        query = self._question.query
        return conditions_of(self._question.tags, present) if query is None else plan.condition_of(query, present)

    def first(self, pick: Pick) -> list[TraceSummary]:
        """The first traces that fit, in order."""
        return self._newest(pick) if self._question.order == NEWEST else self._of_all(pick)

    def _of_all(self, pick: Pick) -> list[TraceSummary]:
        pending = candidates.Candidates()
        for refs, _ in self._groups():
            with self._step("traces with a row that may match"):
                pending.add(self._candidates(refs, with_live=not pending.groups))
        found: list[TraceSummary] = []
        while batch := pending.take(BATCH_TRACES_MAX, floor=0):
            found = self._best(found + self._summaries(batch, pick), pick.limit)
            self.told(found)
        self.seen = pending.taken
        return found

    def _best(self, found: list[TraceSummary], count: int) -> list[TraceSummary]:
        return heapq.nsmallest(count, found, key=self._question.order.key)

    def _newest(self, pick: Pick) -> list[TraceSummary]:
        wanted, limit = pick.limit, self._question.limit
        groups = self._groups()
        pending = candidates.Candidates()
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
                found = self._best(found + self._summaries(batch, pick), wanted)
                self.told(found)
                # With enough found, all that may still be newer is looked at in one go
                size = BATCH_TRACES_MAX if len(found) == wanted else min(max(4 * size, MANY_TRACES), BATCH_TRACES_MAX)
            elif unread >= 0:
                refs, unread = next(groups)
                with self._step("traces with a row that may match"):
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
        if self._spans_min:
            yield self._refs, -1
            return
        bounds = [(self._bound(ref), ref) for ref in self._refs]
        bounds.sort(key=lambda pair: (-pair[0], pair[1].entry.name))
        traces = np.cumsum([0, *(ref.entry.traces for _, ref in bounds)])
        at, size, after = 0, 0, 0
        while True:
            yield [ref for _, ref in bounds[at:after]], bounds[after][0] if after < len(bounds) else -1
            if after >= len(bounds):
                return
            at, size = after, min(max(4 * size, GROUP_CHUNKS_MIN), GROUP_CHUNKS_MAX)
            few = int(np.searchsorted(traces, traces[at] + TRACES_MAX, side="right")) - 1
            after = min(at + size, max(at + 1, few))

    def _bound(self, ref: ChunkRef) -> int:
        """No span of the chunk within the range starts later."""
        outliers = [start for _, start in ref.entry.outliers if start <= self._question.end_ns]
        return min(max([ref.entry.start_max_unix_ns, *outliers]), self._question.end_ns)

    def _candidates(self, refs: list[ChunkRef], *, with_live: bool) -> pa.Table:
        """Trace IDs with a matching span, and the first start of those spans, latest first."""
        question, condition = self._question, self._condition
        columns = sorted({"trace_id", "start_unix_ns", "duration_ns", *condition.columns})
        within = None if self._anchored else (question.start_ns, question.end_ns)
        if not refs and not self._spans_min:
            return self._live_candidates(columns, within) if with_live else candidates.none()
        if question.query is not None and condition.sql == TRUE.text:
            rows = self._spans.live_that_may_fit(columns, condition, None if with_live else Snapshot())
            range_ns = question.start_ns, question.end_ns
            asked = Asked(ChunkRows(candidates.traces_sql, traces=True), candidates.NO_TRACES)
            stored = self._spans.of_traces(self._cache, refs, asked) or candidates.NO_TRACES
            return candidates.joined(stored, candidates.traces_of(rows, range_ns), range_ns, self._spans_min)
        covered, others, rest = self._spans.by_cover(refs, within)
        if not with_live:
            covered, rest = covered._replace(live=[]), Snapshot()
        direct = partial(candidates.rows_sql, condition=condition, within=within)
        tables = [candidates.none()]
        if others or rest.has_rows():
            tables.append(self._spans.read(others, direct, columns, condition, within=rest))
        by_chunk = partial(candidates.by_chunk_sql, condition=condition)
        found = self._spans.of_each(self._cache, covered, ChunkRows(by_chunk), columns, condition)
        tables += [] if found is None else [found]
        return candidates.latest_first(pa.concat_tables(tables))

    def _live_candidates(self, columns: list[str], within: tuple[int, int] | None) -> pa.Table:
        """The engine looks at what the condition reads; which traces those rows are of is found beside it."""
        condition = self._condition
        live = self._spans.live_that_may_fit(columns, condition)
        if not live.num_rows:
            return candidates.none()
        live = live.combine_chunks()
        inside = np.ones(live.num_rows, dtype=bool) if within is None else plan.overlap(live, within)
        if condition.sql != TRUE.text:
            numbered = live.select(sorted(condition.columns)).append_column(AT, pa.array(np.arange(live.num_rows)))
            text = f"SELECT {AT} FROM {{live}} WHERE {condition.sql}"
            fitting = self._spans.reader.session.sql(text, condition.values, live=numbered).column(AT).to_numpy()
            hits = fitting[inside[fitting]]
        else:
            hits = np.flatnonzero(inside)
        found = live.select(["trace_id", "start_unix_ns"])
        return candidates.first_starts(found if len(hits) == live.num_rows else found.take(pa.array(hits)))

    def _first_batch(self, wanted: int) -> int:
        """How many candidates to look at first.

        Where only whole traces tell, few find out whether most of them fit; then, if they do not, many are taken.
        """
        question = self._question
        picky = question.duration_min_ns or question.duration_max_ns is not None or TRACE_TAGS & question.tags.keys()
        picky = picky or (question.query is not None and not self._spans_min and not plan.rows_decide(question.query))
        return max(FEW_TRACES, 2 * wanted) if picky else wanted + SPARE_TRACES

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self._spans.reader.session.step(name)

    def _summaries(self, trace_ids: list[bytes], pick: Pick) -> list[TraceSummary]:
        step = f"whole traces: which of {len(trace_ids):,} match, and what is told of them"
        with self._spans.reader.session.step(step, whole=True):
            return self._summed_up(trace_ids, pick)

    def _summed_up(self, trace_ids: list[bytes], pick: Pick) -> list[TraceSummary]:
        ids = pa.array(trace_ids, pa.binary(16))
        refs = self._spans.around(trace_ids, self._question.start_ns, self._question.end_ns, self._reach_ns)
        any_newest = pick.is_any and self._question.order == NEWEST
        if self._question.query is None:
            live = self._live_summaries(ids)
            if any_newest and not refs:  # the engine takes ten times as long as a few live rows are worth
                rows = trace_rows.read(self._spans.reader, refs, live, ids, summary.MORE_COLUMNS)
                return summary.newest_of_rows(rows, set(trace_ids), pick.limit)
            return summary.summaries(self._spans.reader, refs, live, ids, pick)
        rows, span_sets = self._span_sets(self._question.query, refs, ids)
        if any_newest:
            found = summary.newest_of_rows(rows, span_sets, pick.limit)
        else:
            ids, own = pa.array(list(span_sets), pa.binary(16)), summary.of_whole_traces(rows)
            found = summary.summaries(self._spans.reader, [], own, ids, pick) if span_sets else []
        for one in found:
            one.span_sets = span_sets[one.trace_id]
        return found

    def _span_sets(
        self, query: tree.Pipeline, refs: list[ChunkRef], ids: pa.Array
    ) -> tuple[TraceRows, dict[bytes, list[SpanSet]]]:
        """The rows of these traces, and those of them that the query finds."""
        question, present = self._question, self._spans.present(refs)
        if not plan.rows_decide(query):
            condition = plan.trace_condition_of(query, present)
            if not self._spans_min or condition.sql != plan.counted(TRUE, self._spans_min).text:  # else it holds of all
                ids = self._spans.that_may_fit(condition, refs, ids)
        compiled = plan.Plan(query, present)
        rows = self._spans.whole(refs, ids, {*compiled.columns, *summary.MORE_COLUMNS})
        range_ns = question.start_ns, question.end_ns
        return rows, compiled.evaluate(self._spans.reader.session, rows, range_ns, question.span_set_spans)

    def _live_summaries(self, ids: pa.Array) -> pa.Table:
        """Live rows of these traces; after the first batch all live rows are unpacked, once."""
        self._batches += 1
        if self._batches == 1:
            return self._spans.live(summary.COLUMNS, ids)
        if self._live_rows is None:
            self._live_rows = self._spans.live(summary.COLUMNS)
        return self._live_rows

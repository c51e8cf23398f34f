"""Metrics queries: what spans of a pipeline come to, in intervals of their starts.

Where rows alone decide which spans are meant, one statement a tenant makes the cells; else whole traces are read in
batches, and what is left of each is added to the cells.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query import plan
from pipeline.query.chunk_cache import Came, ChunkCache
from pipeline.query.chunks import (
    CHUNK_NUMBER,
    ChunkReader,
    ChunkRef,
    ForChunks,
    Present,
    check_found,
    rows_by_chunk,
    rows_of,
)
from pipeline.query.comparison import Comparison, CountedSeries, compared
from pipeline.query.conditions import Condition
from pipeline.query.counting import Counting, CountsCache
from pipeline.query.engine import Engine, Session
from pipeline.query.executor import ChunkRows
from pipeline.query.explained import SNAPSHOT_STEP, Watch
from pipeline.query.fields import FieldSql, needs_trace
from pipeline.query.intervals import Intervals
from pipeline.query.measure import EXAMPLE, Measure, exemplars_of, longest, series_of, too_many
from pipeline.query.plain_cells import PlainCells
from pipeline.query.series import SeriesTable, Side, after, calculated
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.sql import TRUE, Sql, all_of, sql
from pipeline.query.tenant_spans import UINT64_MAX, Covered, TenantSpans, TimeChunks
from pipeline.query.turns import Lane
from pipeline.traceql import tree
from topics.errors import QueryTooLargeError

BATCH_TRACES_MAX = 32_768
EXAMPLES_OF, EXAMPLES_A_POINT, EXAMPLE_CHUNKS = 20_000, 2, 8
# Not by how trace IDs begin: some are short ones behind zeros, others begin with the time
SOME_ROWS = "(file_row_number < ? OR (file_row_number IS NULL AND hash(trace_id) % ?::UBIGINT = 0))"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsQuestion:
    """query: of metrics. exemplars: how many spans may be named; extrapolate: as of `Measure.of`."""

    query: tree.MetricsPipeline | tree.MetricsMath
    intervals: Intervals
    exemplars: int = 0
    extrapolate: bool = False


class SoFar(NamedTuple):
    """Series while they are measured: from the point with the number `first` on, as they will be in the answer."""

    series: SeriesTable
    first: int


Heard = Callable[[SoFar], None]  # is told from another thread, again and again


@dataclass(slots=True, kw_only=True)
class MetricsAnswer:
    """reasons: why some spans may be missing."""

    series: SeriesTable
    reasons: list[str] = field(default_factory=list)
    chunks: int = 0
    chunk_bytes: int = 0


class Metrics:
    """Answers metrics queries. cells_max: most groups and intervals of a query together; cache: of cells.

    Of what comparisons counted as much is kept.
    """

    def __init__(
        self,
        catalog: TimeChunks,
        snapshots: Snapshots,
        engine: Engine,
        *,
        reach_ns: int,
        cells_max: int,
        cache: ChunkCache,
    ) -> None:
        self._catalog = catalog
        self._snapshots = snapshots
        self._engine = engine
        self._reach_ns = reach_ns
        self._cells_max = cells_max
        self._cache = cache
        self._counts = CountsCache(cache.bytes_max)

    async def measure(
        self,
        tenants: Sequence[str],
        question: MetricsQuestion,
        heard: Heard | None = None,
        watch: Watch | None = None,
        lane: Lane = Lane.LONG,
    ) -> MetricsAnswer:
        """All series; `heard` is told those of the newest points, where they stay what they are; watch: looks on.

        Raises BadQuestionError, QueryTimeoutError, QueryTooLargeError.
        """
        with nullcontext() if watch is None else watch.step(SNAPSHOT_STEP):
            snapshot = await self._snapshots.take()
        reasons = snapshot.reasons + snapshot.told_losses()

        def work(session: Session) -> MetricsAnswer:
            reader = ChunkReader(session, reasons)
            spans = [TenantSpans(self._catalog, snapshot, reader, tenant) for tenant in tenants]
            limits = Limits(
                question.intervals,
                self._reach_ns,
                self._cells_max,
                self._cache,
                self._counts,
                exemplars=question.exemplars,
                heard=heard if len(tenants) == 1 and _points_stay(question.query) else None,
                extrapolate=question.extrapolate,
            )
            with session.step("series"):
                series = side_of(spans, question.query, limits)
            assert isinstance(series, SeriesTable)
            check_found(reasons, found=bool(series.labels))
            return MetricsAnswer(
                series=series,
                reasons=reasons,
                chunks=sum(one.chunks for one in spans),
                chunk_bytes=sum(one.chunk_bytes for one in spans),
            )

        return await self._engine.run(work, lane=lane, watch=watch)


class Limits(NamedTuple):
    """A query's intervals, how far around them the rest of a trace is looked for, the most cells and exemplars.

    heard: of Metrics.measure; extrapolate: as of `Measure.of`.
    """

    intervals: Intervals
    reach_ns: int
    cells_max: int
    cache: ChunkCache
    counts: CountsCache
    exemplars: int = 0
    heard: Heard | None = None
    extrapolate: bool = False


def _points_stay(query: tree.MetricsPipeline | tree.MetricsMath) -> bool:
    """Whether a point is known as soon as all spans of its interval are: no other series and no other time matters."""
    if isinstance(query, tree.MetricsMath) or isinstance(query.measure, tree.Compare):
        return False
    return not any(isinstance(stage, tree.Rank) for stage in query.second)


def side_of(spans: Sequence[TenantSpans], of: tree.MetricsPipeline | tree.MetricsMath | float, limits: Limits) -> Side:
    """The series of a query, or of a part of it, over the spans of several tenants together."""
    if isinstance(of, tree.MetricsMath):
        left, right = (side_of(spans, one, limits) for one in (of.left, of.right))
        return after(of.second, calculated(of.op, left, right))
    if not isinstance(of, tree.MetricsPipeline):
        return float(of)
    parts = [_Measured(one, of, limits, alone=len(spans) == 1) for one in spans]
    return after(of.second, _joined(of.measure, parts, limits))


def _joined(measure: tree.Metric | tree.Compare, parts: Sequence[_Measured], limits: Limits) -> SeriesTable:
    """The series of all tenants."""
    room = limits.cells_max
    cells: list[tuple[Measure | Comparison, list[pa.Table]]] = []
    for compiled, table in (one for part in parts for one in part.cells()):
        room -= compiled.room_of(table) if isinstance(compiled, Measure) else table.num_rows
        if room < 0:
            raise too_many(limits.cells_max)
        if not cells or cells[-1][0] is not compiled:
            cells.append((compiled, []))
        cells[-1][1].append(table)
    if isinstance(measure, tree.Compare):
        counted = [one for part in parts for one in part.counted]
        if sum(np.count_nonzero(one.spans) for one in counted) > room:
            raise too_many(limits.cells_max)
        pairs = [(one, tables) for one, tables in cells if isinstance(one, Comparison)]
        return compared(measure.top, pairs, counted, limits.intervals)
    tables = [table for _, tables in cells for table in tables]
    series = series_of(measure, tables, limits.intervals, limits.cells_max)
    if limits.exemplars and series.labels:
        matched = sum(pc.sum(table.column("spans")).as_py() or 0 for table in tables)
        examples = [one for part in parts if (one := part.examples(matched)) is not None]
        for one in examples:
            series.exemplars.extend(exemplars_of(measure, one, series, limits.exemplars - len(series.exemplars)))
    return series


class _Measured:
    """A pipeline's spans of one tenant. alone: no other tenant's are added to them."""

    def __init__(self, spans: TenantSpans, of: tree.MetricsPipeline, limits: Limits, *, alone: bool) -> None:
        self._spans = spans
        self._of = of
        self._intervals = limits.intervals
        self._range_ns = max(0, self._intervals.low_ns), min(self._intervals.high_ns, UINT64_MAX)
        self._reach_ns = limits.reach_ns
        self._exemplars = limits.exemplars
        self._cells_max = limits.cells_max
        self._heard = limits.heard
        self._extrapolate = limits.extrapolate
        self._cache = limits.cache
        self._counts = limits.counts
        self.counted: list[CountedSeries] = []
        self._left: pa.Table | None = None  # examples of whole traces
        self._alone = alone

    def cells(self) -> Iterator[tuple[Measure | Comparison, pa.Table]]:
        """Tables of cells, with what made each."""
        refs, present, condition = self._chosen
        if not self._rows_decide():
            yield from self._of_whole_traces(refs, condition)
            return
        compiled, covered = self._compiled(present, whole=self._alone), Covered([], [])
        rest: Snapshot | None = None
        if isinstance(compiled, Measure):
            covered, refs, rest = self._spans.by_cover(refs, self._intervals.starts_ns)
        counts = condition.expression
        where = all_of([self._intervals.holds(), counts])
        columns = sorted(compiled.columns | condition.columns)
        if isinstance(compiled, Comparison):
            self._spans.reader.session.open([ref.wanted for ref in refs])  # too many? Before anything is counted
        if isinstance(compiled, Comparison) and compiled.whole:
            counting = Counting(self._spans, compiled, self._intervals, counts, self._counts)
            self.counted = counting.series(refs, columns)
            compiled = compiled.without_plain()

        def read(by: Measure | Comparison) -> list[pa.Table]:
            each = (partial(_one_of, by, number, where) for number in range(by.statements_count))
            with self._step("cells of the other chunks and live rows"):
                return [self._spans.read(refs, statement, columns, condition, within=rest) for statement in each]

        tables = list[pa.Table]()
        if refs or rest is None or rest.has_rows():
            compiled, tables = _within_memory(compiled, read)
            yield from ((compiled, table) for table in tables)
        if any(covered) and (cells := self._cells_of_covered(covered, present, condition, tables)) is not None:
            yield compiled, cells

    def _cells_of_covered(
        self, covered: Covered, present: Present, condition: Condition, others: list[pa.Table]
    ) -> pa.Table | None:
        """The cells of what lies whole within the range. others: the cells of all else."""
        aligned = self._aligned(present)

        def came(found: pa.Table, left: list[ChunkRef]) -> None:
            assert self._heard is not None
            series = series_of(aligned.metric, [*others, aligned.added(found)], self._intervals, self._cells_max)
            latest_ns = max(ref.start_bound_unix_ns for ref in left)
            self._heard(SoFar(after(self._of.second, series), self._intervals.first_after(latest_ns)))

        columns = sorted(aligned.columns | condition.columns)
        newest_first = sorted(covered.refs, key=lambda ref: -ref.start_bound_unix_ns)
        with self._step("cells of chunks and live segments that lie within the range"):
            plain = PlainCells.of(aligned) if condition.sql == TRUE.text else None
            of = ChunkRows(_by_chunk(partial(_cells_by_chunk, aligned, condition.expression)), plain)
            told = came if self._heard is not None else None
            found = self._of_covered(Covered(newest_first, covered.live), columns, condition, of, told)
        return None if found is None else aligned.added(found)

    def _aligned(self, present: Present) -> Measure:
        """Over intervals that are the same when a range with this step is asked for again."""
        assert isinstance(self._of.measure, tree.Metric)
        aligned, _ = self._intervals.aligned()
        return Measure.of(self._of.measure, FieldSql(present), aligned, extrapolate=self._extrapolate)

    def _of_covered(
        self,
        covered: Covered,
        columns: Sequence[str],
        condition: Condition,
        of: ChunkRows,
        came: Came | None = None,
    ) -> pa.Table | None:
        """The rows of each chunk and segment, of those that were asked for before out of the cache.

        of: with aligned intervals; came: as ChunkCache.rows has it.
        """
        first = self._intervals.aligned()[1]

        def placed(found: pa.Table) -> pa.Table:
            return found.set_column(
                found.column_names.index("point"), "point", pc.subtract(found.column("point"), first)
            )

        tell = None if came is None else lambda found, left: came(placed(found), left)
        found = self._spans.of_each(self._cache, covered, of, columns, condition, tell)
        return None if found is None else placed(found)

    def _rows_decide(self) -> bool:
        """Whether rows alone tell which spans count, and for what."""
        return plan.rows_decide(self._of.pipeline) and not any(map(needs_trace, _read_by(self._of.measure)))

    @cached_property
    def _chosen(self) -> tuple[list[ChunkRef], Present, Condition]:
        """The chunks in which spans may count, the columns of those of the range, and what such a span fulfils."""
        refs = self._spans.refs(*self._range_ns)
        present = self._spans.present(refs)
        condition = plan.condition_of(self._of.pipeline, present)
        return self._spans.fitting(refs, condition), present, condition

    def examples(self, matched: int) -> pa.Table | None:
        """Some of the spans, as Measure.examples gives them. matched: how many count, of all tenants.

        Of many matches those of some rows are enough: of some chunks the first ones, which are whole traces, begun at
        any time; of live ones those of some traces.
        """
        if self._left is not None:
            return self._left
        measure = self._of.measure
        refs, present, condition = self._chosen
        compiled = Measure.of(measure, FieldSql(present), self._intervals) if isinstance(measure, tree.Metric) else None
        if compiled is None or not self._rows_decide():
            return None
        counts = condition.expression
        columns = sorted({*EXAMPLE, *compiled.columns, *condition.columns})
        # Powers of two, so that the statement stays the same while more and more spans match
        halvings = max(0, (matched // EXAMPLES_OF).bit_length() - 1)
        if halvings:
            refs = _some_of(refs)
            rows = (1 << max((ref.entry.spans for ref in refs), default=0).bit_length()) >> halvings
            counts = all_of([counts, Sql(SOME_ROWS, (max(1, rows), 1 << halvings))])
        covered, others, rest = self._spans.by_cover(refs, self._intervals.starts_ns)
        aligned, within = self._aligned(present), all_of([self._intervals.holds(), counts])

        def of_others(urls: list[str]) -> tuple[str, list[Any]]:
            found = compiled.examples(_source(urls, row_numbers=True), within, EXAMPLES_A_POINT)
            return found.text, list(found.values)

        def of_covered(source: Sql, number: Sql) -> Sql:
            return aligned.examples(source, counts, EXAMPLES_A_POINT, number)

        with self._step("exemplars"):
            of = ChunkRows(_by_chunk(of_covered, row_numbers=True))
            found = self._of_covered(covered, columns, condition, of)
            tables = [] if found is None else [found]
            if others or rest.has_rows() or not tables:
                tables.append(self._spans.read(others, of_others, columns, condition, within=rest))
            return longest(tables, EXAMPLES_A_POINT)

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self._spans.reader.session.step(name)

    def _compiled(self, present: Present, *, whole: bool) -> Measure | Comparison:
        measure = self._of.measure
        if isinstance(measure, tree.Compare):
            return Comparison.of(measure, FieldSql(present), present, self._intervals, whole=whole)
        return Measure.of(measure, FieldSql(present), self._intervals, extrapolate=self._extrapolate)

    def _of_whole_traces(
        self, refs: list[ChunkRef], condition: Condition
    ) -> Iterator[tuple[Measure | Comparison, pa.Table]]:
        ids = self._candidates(refs, condition)
        for first in range(0, len(ids), BATCH_TRACES_MAX):
            batch = ids.slice(first, BATCH_TRACES_MAX)
            session = self._spans.reader.session
            with session.step(f"whole traces: which of {len(batch):,} match", whole=True):
                around = self._spans.around(batch.to_pylist(), *self._range_ns, self._reach_ns)
                present = self._spans.present(around)
                batch = self._spans.that_may_fit(plan.trace_condition_of(self._of.pipeline, present), around, batch)
                compiled, evaluated = self._compiled(present, whole=False), plan.Plan(self._of.pipeline, present)
                rows = self._spans.whole(around, batch, {*compiled.columns, *evaluated.columns})
                left = rows.table.filter(pa.array(evaluated.surviving(session, rows)))
            source, where = Sql("SELECT * FROM {left}"), self._intervals.holds()
            for one in compiled.statements(source, where):
                yield compiled, session.sql(one.text, one.values, left=left)
            if self._left is None and self._exemplars and left.num_rows and isinstance(compiled, Measure):
                one = compiled.examples(source, where, EXAMPLES_A_POINT)
                self._left = session.sql(one.text, one.values, left=left)

    def _candidates(self, refs: list[ChunkRef], condition: Condition) -> pa.Array:
        """The IDs of traces of which a span may count."""
        where = all_of([self._intervals.holds(), condition.expression])

        def statement(urls: list[str]) -> tuple[str, list[Any]]:
            found = sql("SELECT DISTINCT trace_id FROM ({}) WHERE {} ORDER BY trace_id", _source(urls), where)
            return found.text, list(found.values)

        columns = sorted({"trace_id", "start_unix_ns", *condition.columns})
        with self._step("traces with a row that may count"):
            found = self._spans.read(refs, statement, columns, condition)
        return found.column("trace_id").cast(pa.binary(16)).combine_chunks()


def _within_memory(
    compiled: Measure | Comparison, read: Callable[[Measure | Comparison], list[pa.Table]]
) -> tuple[Measure | Comparison, list[pa.Table]]:
    """What `read` gives. Where memory does not do for many attributes at once, for fewer of them."""
    while True:
        try:
            return compiled, read(compiled)
        except QueryTooLargeError:
            fewer = compiled.with_fewer() if isinstance(compiled, Comparison) else None
            if fewer is None:
                raise
            compiled = fewer


def _some_of(refs: list[ChunkRef]) -> list[ChunkRef]:
    """EXAMPLE_CHUNKS of many chunks, or up to some more; the same ones while few others come."""
    share = 1 << max(0, (len(refs) // EXAMPLE_CHUNKS).bit_length() - 1)
    return [ref for ref in refs if zlib.crc32(ref.entry.name.encode()) % share == 0] or refs


def _source(urls: list[str], *, row_numbers: bool = False) -> Sql:
    return Sql(rows_of(urls, row_numbers=row_numbers), (urls,) if urls else ())


def _by_chunk(of: Callable[[Sql, Sql], Sql], *, row_numbers: bool = False) -> ForChunks:
    """of: from the rows and their chunk's number to a statement. row_numbers: as of rows_by_chunk."""

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        rows = Sql(rows_by_chunk(urls, row_numbers=row_numbers), (urls,) if urls else ())
        found = of(rows, Sql(CHUNK_NUMBER))
        return found.text, list(found.values)

    return statement


def _cells_by_chunk(measure: Measure, where: Sql, source: Sql, number: Sql) -> Sql:
    (found,) = measure.statements(source, where, number)
    return found


def _one_of(compiled: Measure | Comparison, number: int, where: Sql, urls: list[str]) -> tuple[str, list[Any]]:
    found = next(islice(compiled.statements(_source(urls), where), number, None))
    return found.text, list(found.values)


def _read_by(measure: tree.Metric | tree.Compare) -> Iterator[tree.Field]:
    if isinstance(measure, tree.Compare):
        yield measure.selection.condition
    else:
        yield from measure.by
        if measure.of is not None:
            yield measure.of

"""Counts values of columns over chunks and live rows: compare() asks how often each stands in two kinds of spans.

The engine says of each row its side and its interval; the columns are read beside it, as dictionaries and codes. What
chunks came to is kept: a question asked again reads new chunks alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunk_columns import UNREADABLE, opened, pieces
from pipeline.query.chunks import ChunkRef, by_cover, rows_of
from pipeline.query.comparison import Comparison, CountedSeries
from pipeline.query.intervals import Intervals
from pipeline.query.marks import Marks, Presence
from pipeline.query.series import WORDS
from pipeline.query.sql import Sql, sql
from pipeline.query.tenant_spans import TenantSpans
from pipeline.query.value_counts import LOW_BITS, POINT_BITS, Cells, Column, Ints, Tally, ValueCounts
from topics.errors import StoreUnavailableError

MARKED_SPANS_MAX = 8_000_000  # whose marks are kept for the second pass
LISTED_BYTES_MAX = 64 << 20  # rows of columns with many values: about 8 million, without a second pass
BEFORE = 1 << (POINT_BITS - 2)  # intervals before and after the first one, in which spans may start


class Kept(NamedTuple):
    """What some chunks came to. few: the intervals of chosen values of columns that have many."""

    urls: frozenset[str]
    counts: ValueCounts
    few: ValueCounts


class Marked(NamedTuple):
    """Rows, and what counts of them."""

    rows: pa.Table
    marks: Marks


class CountsCache:
    """Counts by statement, the least recently used go first. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, statement: str) -> Kept | None:
        """What is known of a statement."""
        with self._lock:
            if (found := self._kept.get(statement)) is not None:
                self._kept.move_to_end(statement)
            return found

    def put(self, statement: str, kept: Kept) -> None:
        """Keep it, as long as there is room."""
        with self._lock:
            self._kept[statement] = kept
            self._kept.move_to_end(statement)
            while sum(one.counts.nbytes + one.few.nbytes for one in self._kept.values()) > self._bytes_max:
                self._kept.popitem(last=False)


class Counting:
    """One tenant's spans, counted once. where: of chunks whose rows all lie in the range; holds: that a row does."""

    def __init__(
        self, spans: TenantSpans, comparison: Comparison, intervals: Intervals, where: Sql, cache: CountsCache
    ) -> None:
        self._spans = spans
        self._comparison = comparison
        self._intervals = intervals
        self._aligned, self._first = intervals.aligned()
        self._where = where
        self._cache = cache
        self._columns = {one.column: one for one in comparison.plain}
        self._read: list[str] = []
        self._base = 0
        self._marks: dict[str, Marks] = {}
        self._adding = threading.Lock()
        self._no_live = pa.table({})
        self._threads = ThreadPoolExecutor(pa.cpu_count(), "count")

    def series(self, refs: Sequence[ChunkRef], columns: Sequence[str]) -> list[CountedSeries]:
        """Of each column and side the most frequent values, and all values together. columns: that conditions read."""
        self._read = sorted(columns)
        self._no_live = self._spans.no_live(self._read)
        whole, others = by_cover(refs, self._intervals.starts_ns)
        statement = repr((self._marking(Sql("")), sorted(self._columns)))
        with self._threads:
            with self._step("values in chunks that lie within the range"):
                kept = self._known(statement, whole)
                counts, done = self._with_new(kept, whole)
            with self._step("values in the other chunks and live rows"):
                more = ValueCounts(counts.base)
                live = self._add_others(more, others)
            with self._step("the most frequent values, and when they are"):
                total = counts.with_most_of(more, self._comparison.shown_max, self._threads.map)
                many = {name: column for name, column in total.columns.items() if not column.few}
                chosen = dict(zip(many, self._threads.map(self._most_frequent, many.values()), strict=True))
                few = self._intervals_of(chosen, counts, kept, whole, done)
                self._cache.put(statement, Kept(frozenset(done), counts, few))
                some = few.copy()
                if chosen:
                    self._add_others(some, others, live)
                told = self._threads.map(partial(self._told, some), total.columns, total.columns.values())
                return [series for each in told for series in each]

    def _step(self, name: str) -> AbstractContextManager[None]:
        return self._spans.reader.session.step(name)

    def _known(self, statement: str, whole: Sequence[ChunkRef]) -> Kept:
        """What chunks came to when they were asked last."""
        kept = self._cache.get(statement)
        if (
            kept is None
            or not kept.urls <= {ref.url for ref in whole}
            or abs(kept.counts.base + BEFORE - self._first) > BEFORE // 2
        ):
            nothing = ValueCounts(self._first - BEFORE)
            kept = Kept(frozenset(), nothing, nothing.copy())
        self._base = kept.counts.base
        if self._spans.reader.session.watch is not None:
            self._spans.reader.session.watch.kept([ref for ref in whole if ref.url in kept.urls])
        return kept

    def _with_new(self, kept: Kept, whole: Sequence[ChunkRef]) -> tuple[ValueCounts, set[str]]:
        """With the chunks that came since, and the URLs of all that are counted."""
        counts, done = kept.counts.copy(), set(kept.urls)
        if not done:
            counts.listed_bytes_max = LISTED_BYTES_MAX
        done |= self._add_chunks(
            counts, [ref for ref in whole if ref.url not in kept.urls], list(self._columns), whole=True
        )
        counts.together(self._threads.map)
        return counts, done

    def _intervals_of(
        self, chosen: dict[str, pa.Array], counts: ValueCounts, kept: Kept, whole: Sequence[ChunkRef], done: set[str]
    ) -> ValueCounts:
        """The intervals of chosen values in chunks: of rows that are listed, else from another look at the chunks."""
        few = ValueCounts(counts.base, chosen)
        if counts.listed_bytes_max:
            names = [name for name in chosen if name in counts.columns]
            found = self._threads.map(lambda name: counts.columns[name].intervals_of(chosen[name]), names)
            few.columns = dict(zip(names, found, strict=True))
            counts.unlist()
            return few
        few.columns = {
            name: known
            for name, values in chosen.items()
            if (known := kept.few.columns.get(name)) is not None and known.values.equals(values)
        }
        new = [ref for ref in whole if ref.url not in kept.urls]
        return self._second(few, {name: new if name in few.columns else list(whole) for name in chosen}, done)

    def _second(self, few: ValueCounts, sources: dict[str, list[ChunkRef]], done: set[str]) -> ValueCounts:
        """The intervals of chosen values."""
        found = few.copy()
        by_names: dict[tuple[str, ...], list[ChunkRef]] = {}
        for ref in {ref.url: ref for refs in sources.values() for ref in refs if ref.url in done}.values():
            of_this = (name for name, refs in sources.items() if any(one.url == ref.url for one in refs))
            by_names.setdefault(tuple(of_this), []).append(ref)
        for names, refs in by_names.items():
            self._add_chunks(found, refs, names, whole=True)
        found.together(self._threads.map)
        return found

    def _add_others(self, counts: ValueCounts, others: Sequence[ChunkRef], live: Marked | None = None) -> Marked:
        """Chunks that do not lie in the range as a whole, and what is live."""
        names = list(counts.only or self._columns)
        self._add_chunks(counts, others, names, whole=False)
        live = live or self._live()
        tallies = self._threads.map(partial(self._tally, counts, live.rows, Presence(live.marks)), names)
        for name, tally in zip(names, tallies, strict=True):
            counts.add(name, tally)
        counts.together(self._threads.map)
        return live

    def _live(self) -> Marked:
        rows = self._spans.live(sorted({*self._read, *self._columns}))
        numbered = rows.append_column("file_row_number", pa.array(np.arange(rows.num_rows)))
        text, values = self._marking(Sql("SELECT * FROM {live}"), inside=True)
        return Marked(rows, Marks.of(self._spans.reader.session.sql(text, values, live=numbered), rows.num_rows))

    # ---- rows of one source

    def _marking(self, source: Sql, *, inside: bool = False) -> Sql:
        """inside: it is asked whether a row is in the range."""
        return sql(
            "SELECT file_row_number, {} AS selected, {} AS point FROM ({}) WHERE {}" + (" AND {}" if inside else ""),
            self._comparison.selected,
            self._aligned.number(),
            source,
            self._where,
            *([self._intervals.holds()] if inside else []),
        )

    def _add_chunks(
        self, counts: ValueCounts, refs: Sequence[ChunkRef], names: Sequence[str], *, whole: bool
    ) -> set[str]:
        """The URLs of those that could be read. One chunk a core: columns side by side would wait for the longest."""
        done, under_way = set[str](), deque[tuple[ChunkRef, Future[Marks]]]()
        try:
            for ref in refs:
                if (begun := self._begun(ref, inside=not whole)) is not None:
                    under_way.append((ref, self._threads.submit(self._count, counts, names, *begun)))
                if len(under_way) > pa.cpu_count():
                    done |= self._ended(*under_way.popleft())
            while under_way:
                done |= self._ended(*under_way.popleft())
        finally:
            for _, waiting in under_way:
                waiting.cancel()
        return done

    def _begun(self, ref: ChunkRef, *, inside: bool) -> tuple[str | pa.Buffer, pa.Table | Marks] | None:
        """The chunk's file, and which rows count; None where it cannot be read."""
        reader, marks = self._spans.reader, self._marks.get(ref.url)

        def statement(urls: list[str]) -> tuple[str, list[Any]]:
            text, values = self._marking(Sql(rows_of(urls, row_numbers=True), (urls,)), inside=inside)
            return (text, list(values)) if urls else ("SELECT 0 AS file_row_number WHERE false", [])

        marked = marks or reader.read([ref], statement, live=self._no_live)
        try:
            return (reader.source(ref), marked) if reader.can_read(ref.url) else None
        except StoreUnavailableError as exc:
            reader.leave_out(ref, str(exc))
            return None

    def _count(
        self, counts: ValueCounts, names: Sequence[str], source: str | pa.Buffer, marked: pa.Table | Marks
    ) -> Marks:
        """All of a chunk, or nothing; in a thread of its own. Raises what comes of one that cannot be read,
        QueryTimeoutError.
        """
        file = opened(source, {name for name in names if self._columns[name].type == "string"})
        marks = marked if isinstance(marked, Marks) else Marks.of(marked, file.metadata.num_rows)
        found = list[tuple[str, Tally | None]]()
        for first, rows in pieces(file, names):
            self._spans.reader.session.check()
            some = Presence(marks.slice(first, rows.num_rows))
            found += ((name, self._tally(counts, rows, some, name)) for name in names)
        with self._adding:
            for name, tally in found:
                counts.add(name, tally)
        return marks

    def _ended(self, ref: ChunkRef, counted: Future[Marks]) -> set[str]:
        """Its URL, where it could be read."""
        try:
            marks = counted.result()
        except UNREADABLE as exc:
            self._spans.reader.leave_out(ref, str(exc))
            return set()
        self._spans.reader.session.let_go([ref.url])
        self._spans.reader.session.release_memory()
        self._keep(ref, marks)
        return {ref.url}

    def _keep(self, ref: ChunkRef, marks: Marks) -> None:
        """For the second pass, as long as there is room."""
        if sum(len(one.group) for one in self._marks.values()) + len(marks.group) <= MARKED_SPANS_MAX:
            self._marks[ref.url] = marks

    def _tally(self, counts: ValueCounts, rows: pa.Table, some: Presence, name: str) -> Tally | None:
        counted = self._columns[name]
        if name in rows.column_names:
            values = rows.column(name)
            values = pc.fill_null(values, 0) if counted.type in WORDS else values
            return counts.tally(name, values, some, blank=bool(counted.scope) or counted.type in WORDS)
        if counted.type in WORDS:
            return counts.tally(name, pa.chunked_array([pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)]), some)
        return None

    # ---- what is told

    def _most_frequent(self, column: Column) -> pa.Array:
        codes = [column.most_frequent(side, self._comparison.shown_max) for side in (0, 1)]
        return column.values.take(pc.unique(pa.concat_arrays(codes)))

    def _told(self, some: ValueCounts, name: str, column: Column) -> list[CountedSeries]:
        """column: says which values; some: has the intervals of those of columns with many."""
        few = column if column.few else some.columns.get(name, column.without_rows())
        counted, found = self._columns[name], list[CountedSeries]()
        cells, there = Cells.added(few.cells), Cells.added(column.there)
        for side in (0, 1):
            codes = column.most_frequent(side, self._comparison.shown_max)
            values = column.values.take(codes)
            places = pc.fill_null(pc.index_in(values, value_set=few.values), -1).to_pylist()
            for place, value in zip(places, values.to_pylist(), strict=True):
                found.append(CountedSeries(counted, bool(side), value, self._points(cells, place, side)))
            if len(codes):
                found.append(CountedSeries(counted, bool(side), None, self._points(there, 0, side)))
        return found

    def _points(self, cells: Cells, code: int, side: int) -> Ints:
        first, last = np.searchsorted(cells.numbers, [code << POINT_BITS, (code + 1) << POINT_BITS])
        numbers, counts = cells.numbers[first:last], cells.counts[first:last]
        mine = (numbers & 1) == side
        found = np.zeros(self._intervals.points, dtype=np.int64)
        found[((numbers[mine] & LOW_BITS) >> 1) + self._base - self._first] = counts[mine]
        return found

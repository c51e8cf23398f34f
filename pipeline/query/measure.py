"""What a metric counts: SQL that makes cells, one for each group of spans and interval, and series of those cells.

Cells of several sources (chunks, batches of whole traces, tenants) are added up: all that they hold can be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.fields import FieldSql
from pipeline.query.intervals import Intervals
from pipeline.query.plan import keys_of
from pipeline.query.series import Exemplar, Floats, Label, Labels, SeriesTable, in_order, named, shown
from pipeline.query.sql import Sql, joined, sql
from pipeline.query.values import Value, scalars
from pipeline.traceql import tree
from pipeline.traceql.fields import NUMERIC
from pipeline.traceql.names import name_text
from topics.errors import QueryTooLargeError

Ints = npt.NDArray[np.int64]
NS_PER_S = 10**9
EXAMPLE = ("trace_id", "span_id", "start_unix_ns", "duration_ns")
# Quantiles: a number's bucket is of the powers of GROWTH. Its number has the number's sign and, beyond ZERO_BUCKET
# which no power of a double reaches, grows with its size; so buckets are in the order of their numbers
GROWTH = 1.02
ZERO_BUCKET = 100_000
LISTED_A_CELL = 32  # values in a list that take about as much memory as a cell
CLOSE = 2048  # buckets in a row, which reach from 1 to 10^17
DENSE_CELLS_MAX = 4_000_000  # of intervals and buckets that are counted at a time
COUNTED_AT_ONCE = 1 << 18  # values
# How many spans one stands for that a sampler kept, by the threshold in its trace state (`ot=th:`): of 56 bits, the
# zeros at its end left out. 1 where there is none
THRESHOLD = r"(?:^|,)\s*ot=(?:[^,;]*;)*th:([0-9a-f]{1,14})(?:[;,\s]|$)"
_OF_56_BITS = "('0x' || rpad(regexp_extract(coalesce(trace_state, ''), ?, 1), 14, '0'))::BIGINT"
WEIGHT = Sql(f"({float(2**56)} / ({2**56} - {_OF_56_BITS}))", (THRESHOLD,))
DURATION = tree.Intrinsic("span:duration")
EXACT_LOG2_MAX = 2**40  # log2 tells the next power of two of whole numbers up to here, and far beyond


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric over rows that have certain columns. weight: how many spans each stands for; None: itself."""

    metric: tree.Metric
    groups: tuple[Value, ...]
    value: Value
    intervals: Intervals
    columns: frozenset[str]
    weight: Sql | None = None

    @classmethod
    def of(cls, metric: tree.Metric, compiler: FieldSql, intervals: Intervals, *, extrapolate: bool = False) -> Measure:
        """Compiled for the columns that there are. extrapolate: a span counts for those that a sampler left out."""
        groups = tuple(compiler.value(each) for each in metric.by)
        value = Value() if metric.of is None else compiler.value(metric.of)
        columns = frozenset({*compiler.columns, "start_unix_ns", *(("trace_state",) if extrapolate else ())})
        return cls(metric, groups, value, intervals, columns, WEIGHT if extrapolate else None)

    statements_count = 1

    def statements(self, source: Sql, where: Sql, *also: Sql) -> Iterator[Sql]:
        """Cells: point, labels, and what is added up; with `also`, a row for each value of that."""
        selected = _list([*self._place(), *_aggregates(self.metric, self.value, self.weight), *also])
        yield sql("SELECT {} FROM ({}) WHERE {} GROUP BY ALL", selected, source, where)

    @property
    def lists(self) -> bool:
        """Whether a cell lists its values: each in a cell of its own, those of quantiles would be as many as spans."""
        return self.metric.function == "quantile_over_time"

    def room_of(self, cells: pa.Table) -> int:
        """How many groups and intervals take as much memory as these cells."""
        return (pc.sum(cells.column("spans")).as_py() or 0) // LISTED_A_CELL if self.lists else cells.num_rows

    def added(self, cells: pa.Table) -> pa.Table:
        """The cells of several sources as those of one. Where they list values they stay apart."""
        if self.lists:
            return cells
        folds = {name: self._fold(name) for name in ("spans", "value") if name in cells.column_names}
        keys = [name for name in cells.column_names if name not in folds]
        found = cells.group_by(keys).aggregate(list(folds.items()))
        return found.select([*keys, *(f"{name}_{fold}" for name, fold in folds.items())]).rename_columns(
            [*keys, *folds]
        )

    def _fold(self, column: str) -> str:
        function = self.metric.function.removesuffix("_over_time")
        return function if column == "value" and function in ("min", "max") else "sum"

    def _place(self) -> Iterator[Sql]:
        yield sql("{} AS point", self.intervals.number())
        for number, value in enumerate(self.groups):
            for type_, each in scalars(value).items():
                yield sql(f'{{}} AS "l{number}_{type_}"', each)

    def examples(self, source: Sql, where: Sql, each: int, *also: Sql) -> Sql:
        """Up to `each` spans of each interval, the longest: point, labels, value, and what says which spans.

        also: so many of each value of that, too.
        """
        measured = sql("{} AS value", number_of(self.metric, self.value))
        selected = _list([*self._place(), measured, *map(Sql, EXAMPLE), *also])
        return sql(
            "SELECT {} FROM ({}) WHERE {} QUALIFY row_number() OVER "
            f"(PARTITION BY {{}} ORDER BY duration_ns DESC, trace_id, span_id) <= {each}",
            selected,
            source,
            where,
            _list([Sql("point"), *also]),
        )


def _list(parts: Iterable[Sql]) -> Sql:
    parts = list(parts)
    return sql(", ".join(["{}"] * len(parts)), *parts)


def number_of(metric: tree.Metric, value: Value) -> Sql:
    """What is measured of a span, null where there is nothing. Durations of quantiles and histograms are in seconds;
    else that of the span alone, and others in nanoseconds.
    """
    in_seconds = metric.of == DURATION or metric.function in (
        "quantile_over_time",
        "histogram_over_time",
    )
    parts = []
    for type_ in NUMERIC:
        if type_ in value.of:
            number = sql("{}::DOUBLE", value.of[type_])
            number = sql(f"{{}} / {NS_PER_S}", number) if type_ == "duration" and in_seconds else number
            parts.append(sql("CASE WHEN isfinite({}) THEN {} END", number, number) if type_ == "float" else number)
    return sql("coalesce{}", joined(", ", [*parts, Sql("NULL")])) if parts else Sql("NULL::DOUBLE")


def _aggregates(metric: tree.Metric, value: Value, weight: Sql | None) -> list[Sql]:
    number = number_of(metric, value)
    spans = Sql("count(*) AS spans") if weight is None else sql("sum({}) AS spans", weight)
    match metric.function:
        case "rate" | "count_over_time":
            return [spans]
        case "histogram_over_time":
            return [sql("{} AS bucket", _power_of_two(value)), spans]
        case "quantile_over_time":
            return _listing(metric, number, weight)
        case "min_over_time" | "max_over_time":
            function = metric.function.removesuffix("_over_time")
            return [sql("count({}) AS spans", number), sql(f"{function}({{}}) AS value", number)]
    if weight is not None:
        counted = sql("coalesce(sum({}) FILTER ({} IS NOT NULL), 0) AS spans", weight, number)
        return [counted, sql("coalesce(fsum({} * {}), 0) AS value", number, weight)]
    return [sql("count({}) AS spans", number), sql("{} AS value", _sum(metric, value))]


def _listing(metric: tree.Metric, number: Sql, weight: Sql | None) -> list[Sql]:
    """Of quantiles: all values. Their buckets are told later: a logarithm takes the engine ten times as long."""
    number = sql("{}::FLOAT", number) if metric.of == DURATION else number  # at most 292 years; some values are 1e300
    lists = {"numbers": number} | ({} if weight is None else {"weights": weight})
    if metric.of == DURATION:  # each span has one
        return [*(sql(f"list({{}}) AS {name}", one) for name, one in lists.items()), Sql("count(*) AS spans")]
    each = [sql(f"list({{}}) FILTER (WHERE {{}} IS NOT NULL) AS {name}", one, number) for name, one in lists.items()]
    return [*each, sql("count({}) AS spans", number)]


def _sum(metric: tree.Metric, value: Value) -> Sql:
    """Whole numbers are summed as such."""
    parts = []
    for type_ in NUMERIC:
        if type_ in value.of:
            one = Value({type_: value.of[type_]})
            if type_ == "float":
                parts.append(sql("coalesce(fsum({}), 0)", number_of(metric, one)))
            else:
                per = NS_PER_S if type_ == "duration" and metric.of == DURATION else 1
                parts.append(sql(f"coalesce(sum({{}})::DOUBLE / {per}, 0)", value.of[type_]))
    return joined(" + ", parts) if parts else Sql("0::DOUBLE")


def _power_of_two(value: Value) -> Sql:
    """The exponent of the smallest power of two not below a whole number; null below 2."""
    parts = [value.of[type_] for type_ in ("int", "duration") if type_ in value.of]
    if not parts:
        return Sql("NULL::INTEGER")
    whole = sql("coalesce{}", joined(", ", [*(sql("TRY_CAST({} AS BIGINT)", each) for each in parts), Sql("NULL")]))
    exact = sql(f"CASE WHEN {{}} > {EXACT_LOG2_MAX} THEN length(bin({{}} - 1)) ELSE ceil(log2({{}})) END", *[whole] * 3)
    return sql("CASE WHEN {} >= 2 THEN ({})::INTEGER END", whole, exact)


# ---- from cells to series


def too_many(values_max: int) -> QueryTooLargeError:
    """The error of a query that has more groups and intervals than are allowed."""
    return QueryTooLargeError(
        f"the query has more than {values_max} groups and intervals together (querier.metrics_cells_max), or quantiles "
        f"of {LISTED_A_CELL} times as many values: group by something with fewer values, or ask for a longer step or a "
        "shorter range"
    )


def series_of(metric: tree.Metric, tables: Sequence[pa.Table], intervals: Intervals, values_max: int) -> SeriesTable:
    """All series of a metric, from the cells of all sources. Raises QueryTooLargeError beyond values_max points."""
    if not tables:
        return in_order([], np.zeros((0, intervals.points)), intervals.times_ns)
    cells = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    if "value" in cells.column_names or "bucket" in cells.column_names:
        cells = cells.filter(pc.is_valid(cells.column("value" if "value" in cells.column_names else "bucket")))
    some = pc.greater(cells.column("spans"), 0)
    if not pc.all(some).as_py():  # lists are long: they are copied only where they have to be
        cells = cells.filter(some).combine_chunks()
    if not cells.num_rows:
        return in_order([], np.zeros((0, intervals.points)), intervals.times_ns)
    groups, of = labels_of(metric, cells)
    if len(groups) * intervals.points * max(1, len(metric.quantiles)) > values_max:
        raise too_many(values_max)
    at, spans = cells.column("point").to_numpy(), cells.column("spans").to_numpy().astype(np.float64)
    if metric.function == "quantile_over_time":
        return _quantiles(metric, groups, of, cells, intervals)
    if metric.function == "histogram_over_time":
        groups, of = _with_bounds(metric, groups, of, cells.column("bucket").to_numpy())
        if len(groups) * intervals.points > values_max:
            raise too_many(values_max)
    shape = (len(groups), intervals.points)
    counts = np.zeros(shape)
    np.add.at(counts, (of, at), spans)
    match metric.function:
        case "rate":
            values = counts / (intervals.step_ns / NS_PER_S)
        case "count_over_time" | "histogram_over_time":
            values = counts
        case _:
            values = _folded(metric.function, cells.column("value").to_numpy(), of, at, counts)
    return in_order(groups, values, intervals.times_ns)


def _folded(function: str, found: Floats, of: Ints, at: Ints, counts: Floats) -> Floats:
    fold, start = {"min_over_time": (np.minimum, np.inf), "max_over_time": (np.maximum, -np.inf)}.get(
        function, (np.add, 0.0)
    )
    values = np.full(counts.shape, start)
    fold.at(values, (of, at), found)
    if function == "avg_over_time":
        values /= np.maximum(counts, 1)
    return np.where(counts > 0, values, np.nan)


def labels_of(metric: tree.Metric, cells: pa.Table) -> tuple[list[Labels], Ints]:
    """The labels of all groups, and which of them each cell belongs to."""
    if not metric.by:
        return ([(named(metric.function),)] if cells.num_rows else []), np.zeros(cells.num_rows, dtype=np.int64)
    names = [name_text(each) for each in metric.by]
    coded = [keys_of(cells, f"l{number}_") for number in range(len(names))]
    combinations, of = _distinct([keys.codes for keys in coded], [len(keys.values) for keys in coded])
    places: dict[Labels, int] = {}
    own = []
    for combination in combinations:
        held = [keys.values[code] for code, keys in zip(combination, coded, strict=True)]
        there = tuple(Label(name, *shown(*one)) for name, one in zip(names, held, strict=True) if one is not None)
        own.append(places.setdefault(there or (Label(names[0], "string", "nil"),), len(places)))
    return list(places), np.array(own, dtype=np.int64)[of]


def _distinct(columns: Sequence[Ints], sizes: Sequence[int]) -> tuple[list[list[int]], Ints]:
    """The combinations that rows of several columns have, and which is each row's. sizes: numbers lie below them."""
    combinations, of = [list[int]()], np.zeros(len(columns[0]), dtype=np.int64)
    for column, size in zip(columns, sizes, strict=True):
        coded = pa.array(of * size + column).dictionary_encode()
        before, of = combinations, coded.indices.to_numpy().astype(np.int64)
        combinations = [[*before[number // size], number % size] for number in coded.dictionary.to_pylist()]
    return combinations, of


def _with_bounds(metric: tree.Metric, groups: list[Labels], of: Ints, exponents: Ints) -> tuple[list[Labels], Ints]:
    """Groups split by the upper bound of their bucket."""
    assert metric.of is not None
    durations = isinstance(metric.of, tree.Intrinsic) and tree.INTRINSIC_TYPES[metric.of.name] == "duration"
    numbers, own = np.unique(np.stack([of, exponents]), axis=1, return_inverse=True)
    found = [
        (*groups[group], Label("__bucket", "float", float(2**exponent) / (NS_PER_S if durations else 1)))
        for group, exponent in numbers.T.tolist()
    ]
    return found, own.ravel()


def _quantiles(
    metric: tree.Metric, groups: list[Labels], of: Ints, cells: pa.Table, intervals: Intervals
) -> SeriesTable:
    """The smallest bucket that at least the share q of the values does not exceed; 0 where there are none."""
    places, own = np.unique(of * intervals.points + cells.column("point").to_numpy(), return_inverse=True)
    cells = _with_buckets(cells)
    distinct, codes = _coding(_flat(cells, "buckets"))
    at_once = max(1, DENSE_CELLS_MAX // len(distinct))
    several = at_once < len(places)
    if several:
        order = np.argsort(own, kind="stable")
        cells, own = cells.take(order).combine_chunks(), own[order]
    values = np.zeros((len(groups), len(metric.quantiles), intervals.points))
    for first in range(0, len(places), at_once):
        some = places[first : first + at_once]
        start, end = np.searchsorted(own, [first, first + at_once]) if several else (0, len(own))
        counts = _counted(cells.slice(start, end - start), own[start:end] - first, codes, (len(some), len(distinct)))
        below = counts.cumsum(axis=1)
        for number, q in enumerate(metric.quantiles):
            # A little less, as sums of weights are rounded: whole counts differ by more. The first value where q is 0
            rank = np.maximum(1, q * below[:, -1:]) * (1 - 1e-12)
            at = np.minimum((below < rank).sum(axis=1), len(distinct) - 1)
            values[some // intervals.points, number, some % intervals.points] = _middle(distinct[at])
    labels = [(*group, Label("p", "float", float(q))) for group in groups for q in metric.quantiles]
    return in_order(labels, values.reshape(len(labels), intervals.points), intervals.times_ns)


def _with_buckets(cells: pa.Table) -> pa.Table:
    """Lists of buckets in the place of those of numbers."""
    numbers = _flat(cells, "numbers")
    buckets = np.empty(len(numbers), dtype=np.int32)
    for first in range(0, len(numbers), COUNTED_AT_ONCE):
        rows = slice(first, first + COUNTED_AT_ONCE)
        buckets[rows] = _log_buckets(numbers[rows])
    ends = np.cumsum(cells.column("spans").to_numpy())
    lists = pa.LargeListArray.from_arrays(np.concatenate(([0], ends)), buckets)
    return cells.drop_columns("numbers").append_column("buckets", lists)


def _log_buckets(numbers: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    with np.errstate(divide="ignore"):
        sizes = np.ceil(np.log(np.abs(numbers)) * numbers.dtype.type(1 / math.log(GROWTH))) + ZERO_BUCKET
    buckets = np.copysign(sizes, numbers)
    buckets[numbers == 0] = 0
    return buckets


def _flat(cells: pa.Table, name: str) -> npt.NDArray[Any]:
    """What all lists hold, one after the other."""
    return pc.list_flatten(cells.column(name).chunk(0)).to_numpy()


def _counted(cells: pa.Table, own: Ints, codes: Callable[[Ints], Ints], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """How often each code is in the lists of each place. own: each list's place.

    Some lists at a time: what is made on the way stays in the processor's cache, and no page is new.
    """
    buckets = _flat(cells, "buckets")
    weights = _flat(cells, "weights") if "weights" in cells.column_names else None
    counts: npt.NDArray[Any] = np.zeros(shape, dtype=np.int64 if weights is None else np.float64)
    flat = counts.reshape(-1)
    lengths = cells.column("spans").to_numpy()
    ends = np.cumsum(lengths)
    at = 0
    while at < len(ends):
        first = int(ends[at] - lengths[at])
        stop = max(at + 1, int(np.searchsorted(ends, first + COUNTED_AT_ONCE)))
        rows = slice(first, int(ends[stop - 1]))
        cell = np.repeat(own[at:stop] * shape[1], lengths[at:stop])
        cell += codes(buckets[rows])
        np.add.at(flat, cell, 1 if weights is None else weights[rows])
        at = stop
    return counts


def _coding(buckets: npt.NDArray[np.int32]) -> tuple[Ints, Callable[[Ints], Ints]]:
    """The numbers that are there, in order, and what tells which of them each is; those that lie close together come
    with what lies between them.
    """
    low, high = int(buckets.min()), int(buckets.max())
    numbers = np.arange(low, high + 1)
    if len(numbers) <= CLOSE:
        return numbers, lambda some: some - low
    there = np.bincount(buckets - low) > 0
    places = np.cumsum(there) - 1
    return numbers[there], lambda some: places[some - low]


def _middle(bucket: npt.NDArray[np.int32]) -> Floats:
    """A number of the bucket that is at most 1 % from each other one."""
    size = GROWTH ** (np.abs(bucket).astype(np.float64) - ZERO_BUCKET - 0.5)
    return np.where(bucket == 0, 0.0, np.sign(bucket) * size)


# ---- exemplars


def longest(tables: Sequence[pa.Table], each: int) -> pa.Table:
    """Of the examples of several sources those that one statement over all of them would give."""
    found = pa.concat_tables(tables, promote_options="permissive")
    by = [("point", "ascending"), ("duration_ns", "descending"), ("trace_id", "ascending"), ("span_id", "ascending")]
    found = found.sort_by(by)
    point = found.column("point").to_numpy()
    place = np.arange(len(point)) - np.searchsorted(point, point)
    return found.filter(pa.array(place < each))


def exemplars_of(metric: tree.Metric, examples: pa.Table, series: SeriesTable, limit: int) -> list[Exemplar]:
    """Up to `limit` of the examples, one a trace and spread over the points; of counts the value is the series'."""
    groups, of = labels_of(metric, examples)
    rows = examples.select(["point", "value", "trace_id", "start_unix_ns"]).to_pylist()
    place = {labels: number for number, labels in reversed(list(enumerate(series.labels)))}
    starts = {
        group: next((at for labels, at in place.items() if labels[: len(group)] == group), None) for group in groups
    }
    ranks, seen = Counter[int](), set[bytes]()
    ranked: list[tuple[int, int, Exemplar]] = []
    for row, group in zip(rows, of.tolist(), strict=True):
        at, point = starts[groups[group]], row["point"]
        value = row["value"] if metric.of is not None or at is None else series.values[at, point]
        if at is None or value is None or row["trace_id"] in seen:
            continue
        seen.add(row["trace_id"])
        one = Exemplar(series.labels[at], point, row["trace_id"], row["start_unix_ns"], float(value))
        ranked.append((ranks[point], point, one))
        ranks[point] += 1
    ranked.sort(key=lambda each: each[:2])
    step = max(1, -(-sum(rank == 0 for rank, _, _ in ranked) // max(1, limit)))
    firsts = [one for rank, _, one in ranked if rank == 0][::step]
    return [*firsts, *(one for rank, _, one in ranked if rank)][:limit]

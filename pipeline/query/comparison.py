"""compare(): how often each value of each attribute stands in a selection of spans, and how often in the others.

One statement counts many attributes at once, by grouping sets. Attributes of events and links are left out, since a
span has many of them, and so is what is said of the whole trace.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.query.chunks import Present
from pipeline.query.engine import quoted
from pipeline.query.fields import ELEMENT_TYPES, FieldSql
from pipeline.query.identifiers import API_SCOPE_OF
from pipeline.query.intervals import Intervals
from pipeline.query.series import WORDS, Label, Labels, SeriesTable, in_order, shown
from pipeline.query.sql import TRUE, Sql, all_of, sql
from pipeline.query.values import TYPE_NAMES, scalars
from pipeline.spans import schema
from pipeline.traceql import tree
from pipeline.traceql.names import name_text

COUNTED_AT_ONCE, FEWER = 40, 4  # attributes of one statement; where memory ends, a fourth of them
INTRINSICS = {"name": "name", "statusMessage": "status_message", "status": "status_code", "kind": "kind"}
WORDS_MAX = max(map(len, WORDS.values())) + 1  # they are in the order of their numbers until they are shown
SIDES = ("baseline", "selection")
NIL = "nil"


class Counted(NamedTuple):
    """Values of a type that a span may have, null where it has none. scope: ours; empty for an intrinsic.

    column: the one column in which they all stand, just so; empty where there is none.
    """

    scope: str
    name: str
    type: str
    value: Sql
    column: str = ""


class CountedSeries(NamedTuple):
    """How many spans of a side have a value, in each interval; value None: any."""

    counted: Counted
    selected: bool
    value: Any
    spans: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """compare() over rows that have certain columns.

    whole: all rows come in one source. Then values that are too rare to be shown are left out at once.
    """

    compare: tree.Compare
    selected: Sql
    number: Sql
    counted: tuple[Counted, ...]
    columns: frozenset[str]
    whole: bool
    rare_scopes: tuple[str, ...]
    at_once: int = COUNTED_AT_ONCE

    @classmethod
    def of(
        cls, compare: tree.Compare, compiler: FieldSql, present: Present, intervals: Intervals, *, whole: bool
    ) -> Comparison:
        """Compiled for the columns that there are."""
        selected = compiler.truth(compare.selection.condition)
        if compare.window is not None:
            window = Sql("(start_unix_ns > ?::UBIGINT AND start_unix_ns <= ?::UBIGINT)", compare.window)
            selected = all_of([selected, window])
        counted = (*_intrinsics(), *_attributes(present, compiler))
        columns = {
            "start_unix_ns",
            *INTRINSICS.values(),
            *compiler.columns,
            *map(schema.more_column, schema.ROW_SCOPES),
        }
        rare = tuple(scope for scope in schema.ROW_SCOPES if present.has_more_of(scope))
        return cls(compare, selected, intervals.number(), counted, frozenset(columns), whole, rare)

    @property
    def plain(self) -> list[Counted]:
        """What stands in columns of its own."""
        return [one for one in self.counted if one.column]

    def without_plain(self) -> Comparison:
        """The rest of it."""
        return replace(self, counted=tuple(one for one in self.counted if not one.column))

    @property
    def shown_max(self) -> int:
        """How many values of an attribute are told at most, words apart from their order."""
        return max(self.compare.top, WORDS_MAX)

    @property
    def statements_count(self) -> int:
        """How many statements there are."""
        return -(-len(self.counted) // self.at_once) + len(self.rare_scopes)

    def with_fewer(self) -> Comparison | None:
        """The same with fewer attributes in each statement; None where there is one alone."""
        return replace(self, at_once=max(1, self.at_once // FEWER)) if self.at_once > 1 else None

    def statements(self, source: Sql, where: Sql) -> Iterator[Sql]:
        """Cells: selected, point, which (or scope and rare), value columns, spans, and summed.

        summed: rows without a value have the sums over all values; else the values come to them.
        """
        for first in range(0, len(self.counted), self.at_once):
            some = self.counted[first : first + self.at_once]
            shown = [sql(f"{{}} AS v{at}", one.value) for at, one in enumerate(some)]
            rows = sql(
                "SELECT * FROM (SELECT {} AS selected, {} AS point, " + ", ".join(["{}"] * len(shown)) + " FROM ({}) "
                "WHERE {}) WHERE " + " OR ".join(f"v{at} IS NOT NULL" for at in range(len(shown))),
                self.selected,
                self.number,
                *shown,
                source,
                where,
            )
            yield self._counting(rows, first, len(some))
        for scope in self.rare_scopes:
            yield self._counting_rare(scope, source, where)

    def _counting(self, rows: Sql, first: int, count: int) -> Sql:
        names = [f"v{at}" for at in range(count)]
        sets = ", ".join(f"(selected, point, {name})" for name in names)
        which = "CASE " + " ".join(f"WHEN GROUPING({name}) = 0 THEN {first + at}" for at, name in enumerate(names))
        there = " OR ".join(f"(which = {first + at} AND {name} IS NOT NULL)" for at, name in enumerate(names))
        grouped = sql(
            f"SELECT selected, point, {', '.join(names)}, {which} END AS which, count(*) AS spans FROM ({{}}) "
            f"GROUP BY GROUPING SETS ({sets})",
            rows,
        )
        return self._most_frequent(sql(f"SELECT * FROM ({{}}) WHERE {there}", grouped), "which", names)

    def _counting_rare(self, scope: str, source: Sql, where: Sql) -> Sql:
        """Of the keys of a map column, where they are not counted as columns."""
        entry = f"unnest(map_entries({quoted(schema.more_column(scope))})) AS entry"
        entries = sql(
            f"SELECT {{}} AS selected, {{}} AS point, {entry} FROM ({{}}) WHERE {{}}",
            self.selected,
            self.number,
            source,
            where,
        )
        names = [f'"{type_}"' for type_ in sorted(TYPE_NAMES.values())]
        values = [sql(f'{{}} AS "{name}"', self._rare(scope, type_)) for type_, name in TYPE_NAMES.items()]
        grouped = sql(
            "SELECT selected, point, entry.key AS rare, {}, count(*) AS spans FROM ({}) GROUP BY ALL",
            sql(", ".join(["{}"] * len(values)), *values),
            entries,
        )
        there = " OR ".join(f"{name} IS NOT NULL" for name in names)
        cells = sql(f"SELECT *, '{scope}' AS scope FROM ({{}}) WHERE {there}", grouped)
        return self._most_frequent(cells, "scope, rare", names)

    def _rare(self, scope: str, type_: str) -> Sql:
        """The value of an entry where it has this type; an array of one element is that."""
        elements = f"array_elements(entry.value.\"any\", '{type_}_value')"
        one = f"CASE WHEN len({elements}) = 1 THEN {elements}[1]::{ELEMENT_TYPES[type_]} END"
        known = [one.name for one in self.counted if (one.scope, one.type) == (scope, TYPE_NAMES[type_])]
        other = Sql("NOT list_contains(?::VARCHAR[], entry.key)", (known,)) if known else TRUE
        return sql(f'CASE WHEN {{}} THEN coalesce(entry.value."{type_}", {one}) END', other)

    def _most_frequent(self, cells: Sql, key: str, names: Sequence[str]) -> Sql:
        """With `whole` the most frequent values of each key, and rows of no value for all of them together."""
        if not self.whole:
            return sql("SELECT *, false AS summed FROM ({})", cells)
        values, side = ", ".join(names), f"selected, {key}"
        nothing = ", ".join(f"NULL AS {name}" for name in names)
        return sql(
            "WITH cells AS ({}), "
            f"totals AS (SELECT *, sum(spans) OVER (PARTITION BY {side}, {values}) AS total FROM cells), "
            f"ranked AS (SELECT *, dense_rank() OVER (PARTITION BY {side} ORDER BY total DESC, {values}) AS place "
            "FROM totals) "
            "SELECT * EXCLUDE (total, place), true AS summed FROM ranked "
            f"WHERE place <= {self.shown_max} UNION ALL BY NAME "
            f"SELECT {side}, point, {nothing}, sum(spans)::BIGINT AS spans, true AS summed FROM cells "
            f"GROUP BY {side}, point",
            cells,
        )


def _intrinsics() -> Iterator[Counted]:
    for name, column in INTRINSICS.items():
        if name in WORDS:
            yield Counted("", name, name, Sql(f"coalesce({column}, 0)"), column)
        else:
            yield Counted("", name, "string", Sql(f"nullif({column}, '')"), column)


def _attributes(present: Present, compiler: FieldSql) -> Iterator[Counted]:
    found = {(parsed.scope, parsed.key) for name in present.columns if (parsed := schema.parse_column(name))}
    for scope, key in sorted(found):
        if scope in schema.ROW_SCOPES:
            for type_, value in scalars(compiler.of_key(scope, key)).items():
                yield Counted(scope, key, type_, value, _column_of(scope, key, type_, present))


def _column_of(scope: str, key: str, type_: str, present: Present) -> str:
    """The column where all values of this type stand; empty where arrays or map columns may have some, too."""
    of_columns = next(name for name, one in TYPE_NAMES.items() if one == type_)
    column, arrays = (schema.column_name(scope, key, name) for name in (of_columns, f"{of_columns}[]"))
    return column if present.has(column) and not present.has(arrays) and not present.has_more(scope, key) else ""


def _key(scope: str, name: str) -> str:
    """The label: a scoped name, or an intrinsic's."""
    return name_text(tree.Attribute(API_SCOPE_OF[scope], name)) if scope else name


# ---- from cells to series

Value = tuple[str, Any]  # its type, and itself
Points = np.ndarray[Any, np.dtype[np.float64]]


def compared(
    top: int,
    cells: Sequence[tuple[Comparison, Sequence[pa.Table]]],
    counted: Sequence[CountedSeries],
    intervals: Intervals,
) -> SeriesTable:
    """The series of cells of several sources, each with what made it, and of what was counted otherwise."""
    found = _Counts(intervals)
    for one in counted:
        found.add_series(one)
    for comparison, tables in cells:
        for table in tables:
            if "which" in table.column_names:
                found.add_columns(table, comparison.counted)
            else:
                found.add_rare(table)
    labels, values = found.series(top)
    return in_order(labels, np.array(values).reshape(len(labels), intervals.points), intervals.times_ns)


class _Counts:
    """Spans by side, key and value in each interval, and by side and key."""

    def __init__(self, intervals: Intervals) -> None:
        self._points = intervals.points
        self._values: dict[tuple[bool, str], dict[Value, Points]] = defaultdict(dict)
        self._totals: dict[tuple[bool, str], Points] = {}

    def add_series(self, one: CountedSeries) -> None:
        side = one.selected, _key(one.counted.scope, one.counted.name)
        if one.value is None:
            self._totals.setdefault(side, np.zeros(self._points))[:] += one.spans
        else:
            value = shown(one.counted.type, one.value)
            self._values[side].setdefault(value, np.zeros(self._points))[:] += one.spans

    def add_columns(self, cells: pa.Table, counted: Sequence[Counted]) -> None:
        for row in cells.to_pylist():
            one = counted[row["which"]]
            values = (held for name, held in row.items() if name.startswith("v") and held is not None)
            self._add(row, _key(one.scope, one.name), next((shown(one.type, held) for held in values), None))

    def add_rare(self, cells: pa.Table) -> None:
        for row in cells.to_pylist():
            values = ((type_, row[type_]) for type_ in TYPE_NAMES.values() if row[type_] is not None)
            self._add(row, _key(row["scope"], row["rare"]), next(values, None))

    def _add(self, row: dict[str, Any], key: str, value: Value | None) -> None:
        side = row["selected"], key
        at, spans = row["point"], row["spans"]
        if value is not None:
            self._values[side].setdefault(value, np.zeros(self._points))[at] += spans
        if value is None or not row["summed"]:
            self._totals.setdefault(side, np.zeros(self._points))[at] += spans

    def series(self, top: int) -> tuple[list[Labels], list[Points]]:
        """Of each side and key the `top` most frequent values, of equals the smaller; and all values together."""
        labels: list[Labels] = []
        points: list[Points] = []
        for (selected, key), found in self._values.items():
            most = sorted(found.items(), key=lambda one: (-one[1].sum(), one[0][0], _order(one[0][1])))[:top]
            labels += [(_meta(SIDES[selected]), Label(key, *value)) for value, _ in most]
            points += [counts for _, counts in most]
        for (selected, key), counts in self._totals.items():
            labels.append((_meta(f"{SIDES[selected]}_total"), Label(key, "string", NIL)))
            points.append(counts)
        return labels, points


def _meta(side: str) -> Label:
    return Label("__meta_type", "string", side)


def _order(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value

"""Cells of all rows of a chunk, made of its columns in numpy: the engine takes three times as long to group them.

Where nothing is asked of a row, a group is what stands in a column, and spans are counted or their durations listed.
The cells are those that `Measure.statements` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.query import fields
from pipeline.query.chunk_columns import opened, pieces
from pipeline.query.conditions import SERVICE
from pipeline.query.intervals import Intervals
from pipeline.query.measure import DURATION, NS_PER_S, Measure
from pipeline.query.value_counts import Cells
from pipeline.query.values import Value
from pipeline.spans import schema
from pipeline.traceql import tree

GROUPS_MAX = 2  # attributes: the product of their values and of the intervals fits into 64 bits
NUMBERS_OF_16_BITS = 1 << 16  # they are put in order in a tenth of the time
COUNTED = ("rate", "count_over_time")
Ints = npt.NDArray[np.int64]


class Grouped(NamedTuple):
    """A column that rows are grouped by. type: as in Value.of; missing: what a row without a value has."""

    column: str
    type: str
    missing: str | int | None

    @classmethod
    def of(cls, node: tree.Field, value: Value) -> Grouped | None:
        """None where the values do not stand in one column, just so. value: what the compiler makes of it."""
        if isinstance(node, tree.Intrinsic) and node.name in ("span:name", "span:status", "span:kind"):
            _, column, type_ = fields.PLAIN[node.name]
            return cls(column, type_, "" if type_ == "string" else 0)
        if not isinstance(node, tree.Attribute) or node.parent or node.scope not in schema.ROW_SCOPES:
            return None
        if set(value.of) != {"string"}:  # with arrays, or keys of a map column, there are other types
            return None
        missing = "" if (node.scope, node.name) == ("resource", SERVICE) else None
        return cls(schema.column_name(node.scope, node.name, "string"), "string", missing)

    def coded(self, rows: pa.Table) -> tuple[pa.Array, Ints]:
        """The values, and the place among them of each row's."""
        type_ = pa.string() if self.type == "string" else pa.int32()
        missing = pa.array([self.missing], type_)
        if self.column not in rows.column_names:
            return missing, np.zeros(rows.num_rows, dtype=np.int64)
        found = rows.column(self.column)
        if not pa.types.is_dictionary(found.type):
            found = found.dictionary_encode()
        coded = found.unify_dictionaries().combine_chunks()
        values = pa.concat_arrays([coded.dictionary.cast(type_), missing])
        codes = coded.indices.fill_null(len(values) - 1) if coded.null_count else coded.indices
        return values, codes.to_numpy().astype(np.int64)


class PlainCells(NamedTuple):
    """How they are made. listed: the durations of their spans, in seconds, beside their number."""

    groups: tuple[Grouped, ...]
    intervals: Intervals
    listed: bool

    @classmethod
    def of(cls, measure: Measure) -> PlainCells | None:
        """None where the engine has to look at the rows."""
        metric = measure.metric
        listed = metric.function == "quantile_over_time" and metric.of == DURATION
        groups = [Grouped.of(node, value) for node, value in zip(metric.by, measure.groups, strict=True)]
        if measure.weight is not None or len(groups) > GROUPS_MAX or not (listed or metric.function in COUNTED):
            return None
        known = tuple(one for one in groups if one is not None)
        return cls(known, measure.intervals, listed) if len(known) == len(groups) else None

    @property
    def columns(self) -> list[str]:
        """What is read."""
        durations = ["duration_ns"] if self.listed else []
        return list(dict.fromkeys(["start_unix_ns", *durations, *(one.column for one in self.groups)]))

    def of_chunk(self, source: str | pa.Buffer, check: Callable[[], None]) -> pa.Table:
        """All of a chunk. check: is called now and then, and may raise. Raises what comes of a damaged one."""
        found = []
        for _, rows in pieces(opened(source, [one.column for one in self.groups]), self.columns):
            check()
            found.append(self.of_rows(rows))
        return pa.concat_tables(found)

    def of_rows(self, rows: pa.Table) -> pa.Table:
        """Cells: point, labels, spans, and the list `numbers`."""
        start = rows.column("start_unix_ns").to_numpy()
        low_ns = self.intervals.low_ns + 1
        since = start - np.uint64(low_ns) if low_ns >= 0 else start + np.uint64(-low_ns)
        point = (since // np.uint64(self.intervals.step_ns)).astype(np.int64)
        low = int(point.min()) if len(point) else 0
        cell, sizes = point - low, [int(point.max()) - low + 1 if len(point) else 1]
        values = list[pa.Array]()
        for one in self.groups:
            of_this, codes = one.coded(rows)
            cell = cell * len(of_this) + codes
            values.append(of_this)
            sizes.append(len(of_this))
        size = int(np.prod(sizes, dtype=np.float64))
        cells = Cells.tallied(cell, size)
        *places, at = _unravelled(cells.numbers, sizes)
        table = {"point": pa.array(at + low)}
        for number, (one, held, place) in enumerate(zip(self.groups, values, reversed(places), strict=True)):
            table[f"l{number}_{one.type}"] = held.take(pa.array(place))
        if self.listed:
            seconds = (rows.column("duration_ns").to_numpy() / NS_PER_S).astype(np.float32)
            table["numbers"] = _lists(cells, cell, size, seconds)
        return pa.table(table | {"spans": pa.array(cells.counts)})


def _lists(cells: Cells, cell: Ints, size: int, values: npt.NDArray[np.float32]) -> pa.Array:
    """Of each cell the values of its rows. cell: of each row; size: they lie below it."""
    if size <= NUMBERS_OF_16_BITS:
        order = np.argsort(cell.astype(np.uint16), kind="stable")
    else:
        order = np.argsort(np.searchsorted(cells.numbers, cell), kind="stable")
    ends = np.concatenate(([0], np.cumsum(cells.counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values[order]))


def _unravelled(numbers: Ints, sizes: Sequence[int]) -> list[Ints]:
    """The parts that a number was made of, the last one first."""
    parts = list[Ints]()
    for size in reversed(sizes[1:]):
        numbers, part = np.divmod(numbers, size)
        parts.append(part)
    return [*parts, numbers]

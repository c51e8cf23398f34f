"""How often each value of many columns stands in rows of two sides, by interval; columns, not rows, are gone through.

A column comes as a dictionary and codes, so counting is one pass over small numbers. Of a column with many values only
the totals are counted at first; the intervals of a few of them in a second pass (`only`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
FEW = 4096  # values of a column of which the intervals are counted in the first pass
POINT_BITS = 26  # of an interval, in a cell's number; below it one bit for the side
SIDES = 2
PILED, PILED_MIN = 2, 16_384  # cells lie beside what they are to be added to up to so many times as many, and some
SPARSE = 4  # cells are listed where there would be so many more of them than rows


class Marks(NamedTuple):
    """Of each row its group: interval and side in one number, `groups` where it does not count. low: interval of 0."""

    group: npt.NDArray[np.int32]
    low: int
    groups: int

    @classmethod
    def of(cls, table: pa.Table, rows: int) -> Marks:
        """table: `file_row_number`, `selected`, `point` of those of the rows that count."""
        at = table.column("file_row_number").to_numpy()
        point = table.column("point").to_numpy()
        low = int(point.min()) if len(point) else 0
        groups = SIDES * (int(point.max()) - low + 1) if len(point) else 0
        group = np.full(rows, groups, dtype=np.int32)
        group[at] = (point - low) * SIDES + table.column("selected").to_numpy()
        return cls(group, low, groups)

    def slice(self, first: int, count: int) -> Marks:
        """Of some of the rows; they have few of the intervals where rows are sorted by time."""
        return self._replace(group=self.group[first : first + count])


class Cells(NamedTuple):
    """Numbers of cells, each once, and what is in them."""

    numbers: Ints
    counts: Ints

    @classmethod
    def tallied(cls, numbers: Ints, size: int) -> Cells:
        """How often each number below `size` is there."""
        if size > SPARSE * len(numbers) + FEW:
            return cls(*np.unique(numbers, return_counts=True))
        counts = np.bincount(numbers, minlength=size)
        found = np.flatnonzero(counts)
        return cls(found, counts[found])

    @classmethod
    def added(cls, several: Iterable[Cells]) -> Cells:
        """All of them together."""
        several = list(several)
        if len(several) == 1:
            return several[0]
        numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(one.numbers for one in several)])
        counts = np.concatenate([np.zeros(0, dtype=np.int64), *(one.counts for one in several)])
        order = np.argsort(numbers, kind="stable")
        numbers, counts = numbers[order], counts[order]
        first = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])) if len(numbers) else numbers)
        return cls(numbers[first], np.add.reduceat(counts, first) if len(first) else counts)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's values, each once, and its cells: code, interval, side. there: cells of all values together.

    few: intervals are counted; else all stand in interval 0.
    """

    values: pa.Array
    cells: tuple[Cells, ...] = ()
    there: tuple[Cells, ...] = ()
    few: bool = True

    def with_cells(self, cells: Cells, there: Cells, *, few: bool) -> Column:
        """With the cells of further rows. few: they have intervals."""
        few = self.few and few and len(self.values) <= FEW
        own, new = self.cells, cells
        if not few:
            own, new = tuple(map(_without_points, own)) if self.few else own, _without_points(cells)
        return Column(self.values, _piled(own, new), _piled(self.there, there), few)

    def together(self) -> Column:
        """The same, added up."""
        return replace(self, cells=(Cells.added(self.cells),), there=(Cells.added(self.there),))

    def most_frequent(self, side: int, count: int) -> pa.Array:
        """The codes of the values that a side has most often; of equals the smaller values."""
        numbers, counts = Cells.added(self.cells)
        mine = (numbers & 1) == side
        totals = np.bincount(numbers[mine] >> POINT_BITS, weights=counts[mine], minlength=len(self.values))
        least = np.partition(totals, -count)[-count] if len(totals) > count else 1.0
        candidates = np.flatnonzero(totals >= max(1.0, least))
        values = self.values.take(pa.array(candidates))
        values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        table = pa.table({"total": totals[candidates], "value": values})
        order = pc.select_k_unstable(table, count, sort_keys=[("total", "descending"), ("value", "ascending")])
        return pa.array(candidates[order.to_numpy()])

    @property
    def nbytes(self) -> int:
        """What it takes."""
        cells = sum(one.numbers.nbytes + one.counts.nbytes for one in (*self.cells, *self.there))
        return cells + int(self.values.nbytes)


def _piled(parts: tuple[Cells, ...], new: Cells) -> tuple[Cells, ...]:
    """With further cells. They are added up when there are many more of them than were before: seldom."""
    parts = (*parts, new)
    first, *others = (len(one.numbers) for one in parts)
    return (Cells.added(parts),) if sum(others) > PILED * first + PILED_MIN else parts


class _Tally(NamedTuple):
    """Cells of some rows of a column: codes of its own dictionary, and of all values together."""

    codes: Ints
    low_bits: Ints  # interval and side
    counts: Ints
    there: Cells
    few: bool


def _tally(coded: pa.DictionaryArray, marks: Marks, base: int) -> _Tally:
    """One pass over the rows: what has no value or does not count has a number of its own."""
    values, (group, low, groups) = len(coded.dictionary), marks
    codes = pc.fill_null(coded.indices, values).to_numpy()
    few = values <= FEW
    by, size = (group, groups) if few else (np.where(group < groups, group & 1, SIDES).astype(np.int32), SIDES)
    if (values + 1) * (size + 1) >= np.iinfo(np.int32).max:
        codes = codes.astype(np.int64)
    numbers, counts = Cells.tallied(codes * codes.dtype.type(size + 1) + by, (values + 1) * (size + 1))
    found, at = np.divmod(numbers, size + 1)
    kept = (found < values) & (at < size)
    found, at, counts = found[kept], at[kept], counts[kept]
    shift = (low - base) << 1
    if few:
        order = np.argsort(at, kind="stable")
        first = np.flatnonzero(np.diff(at[order], prepend=-1))
        there = Cells(at[order][first] + shift, np.add.reduceat(counts[order], first) if len(first) else first)
        return _Tally(found, at + shift, counts, there, few)
    numbers, sums = Cells.tallied(group[codes < values], groups + 1)
    inside = numbers < groups
    return _Tally(found, at, counts, Cells(numbers[inside] + shift, sums[inside]), few)


def _without_points(cells: Cells) -> Cells:
    numbers = (cells.numbers >> POINT_BITS << POINT_BITS) | (cells.numbers & 1)
    return Cells.added([Cells(numbers, cells.counts), Cells(numbers[:0], cells.counts[:0])])


@dataclass(slots=True)
class ValueCounts:
    """Counts of columns over rows that are added. base: an interval far before the first one that may come.

    only: column -> the values that count. Copies share what does not change.
    """

    base: int
    only: Mapping[str, pa.Array] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)

    def copy(self) -> ValueCounts:
        """One that can be added to."""
        return ValueCounts(self.base, self.only, dict(self.columns))

    def add(self, name: str, values: pa.ChunkedArray, marks: Marks, *, blank: bool = True) -> None:
        """Some rows of a column, with nulls. blank: whether an empty text is a value."""
        coded = dictionary_of(values if blank else _without_blank(values))
        if not len(coded.dictionary):
            return
        known = self.only.get(name)
        if known is not None:
            places = pc.index_in(coded.dictionary, value_set=known)
            coded = pa.DictionaryArray.from_arrays(places.take(coded.indices), known)
        column = self.columns.get(name) or Column(coded.dictionary.slice(0, 0) if known is None else known)
        codes = np.arange(len(coded.dictionary))
        if known is None:
            places = pc.index_in(coded.dictionary, value_set=column.values)
            codes = pc.fill_null(places, -1).to_numpy().astype(np.int64)
            new = np.flatnonzero(codes < 0)
            codes[new] = len(column.values) + np.arange(len(new))
            column = replace(column, values=pa.concat_arrays([column.values, coded.dictionary.take(pa.array(new))]))
        found = _tally(coded, marks, self.base)
        cells = Cells(codes[found.codes] << POINT_BITS | found.low_bits, found.counts)
        self.columns[name] = column.with_cells(cells, found.there, few=found.few)

    def together(self) -> None:
        """Add up what came so far."""
        self.columns = {name: column.together() for name, column in self.columns.items()}

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return sum(column.nbytes for column in self.columns.values())


def _without_blank(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null in the place of an empty text."""
    blank = pc.equal(values, "")
    return pc.if_else(blank, pa.scalar(None, values.type), values) if pc.any(blank).as_py() else values


def dictionary_of(values: pa.ChunkedArray) -> pa.DictionaryArray:
    """One array of codes, every value of the dictionary once and none null; -0.0 is 0.0."""
    if pa.types.is_floating(values.type):
        values = pc.add(values, 0.0)
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    found: Any = values.combine_chunks()
    return found

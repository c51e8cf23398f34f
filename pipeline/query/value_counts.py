"""How often each value of many columns stands in rows of two sides, by interval; columns, not rows, are gone through.

A column comes as values and codes, so counting is one pass over small numbers, in any thread; tallies are added up in
one. Of a column with many values only the totals are counted; the intervals of a few of them come from its rows, which
are listed as long as there is room (`listed_bytes_max`), or from a second pass (`only`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.coded import Coded
from pipeline.query.marks import SIDES, Marks, Presence

Ints = npt.NDArray[np.int64]
Map = Callable[..., Iterable[Any]]  # the builtin, or that of threads
FEW = 4096  # values of a column of which the intervals are counted in the first pass
POINT_BITS = 26  # of an interval, in a cell's number; below it one bit for the side
LOW_BITS = (1 << POINT_BITS) - 1
PILED, PILED_MIN = 2, 16_384  # cells lie beside what they are to be added to up to so many times as many, and some
PILED_BYTES_MIN = 16 << 20  # the same of tallies
SPARSE = 4  # cells are listed where there would be so many more of them than rows
SPARSE_SUMS = 8  # or than cells to be added up: to sort these takes longer


class Cells(NamedTuple):
    """Numbers of cells, each once, and what is in them."""

    numbers: Ints
    counts: Ints

    @classmethod
    def tallied(cls, numbers: npt.NDArray[np.integer[Any]], size: int) -> Cells:
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
        return several[0] if len(several) == 1 else cls.summed(several)

    @classmethod
    def summed(cls, several: Sequence[Cells]) -> Cells:
        """The same where one of them may have a number several times."""
        numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(one.numbers for one in several)])
        counts = np.concatenate([np.zeros(0, dtype=np.int64), *(one.counts for one in several)])
        return cls._added_by_place(numbers, counts) or cls._added_in_order(numbers, counts)

    @classmethod
    def _added_by_place(cls, numbers: Ints, counts: Ints) -> Cells | None:
        """Where there are about as many codes and intervals as cells; to sort them takes ten times as long."""
        if not len(numbers):
            return cls(numbers, counts)
        codes, low_bits = numbers >> POINT_BITS, numbers & LOW_BITS
        low = low_bits.min()
        width, high = int(low_bits.max() - low) + 1, int(codes.max()) + 1
        if high * width > SPARSE_SUMS * len(numbers) + FEW:
            return None
        sums = np.bincount(codes * width + (low_bits - low), counts, high * width)
        found = np.flatnonzero(sums)
        code, point = np.divmod(found, width)
        return cls(code << POINT_BITS | (point + low), sums[found].astype(np.int64))

    @classmethod
    def _added_in_order(cls, numbers: Ints, counts: Ints) -> Cells:
        order = np.argsort(numbers, kind="stable")
        numbers, counts = numbers[order], counts[order]
        first = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])) if len(numbers) else numbers)
        return cls(numbers[first], np.add.reduceat(counts, first) if len(first) else counts)


class Rows(NamedTuple):
    """Rows that have a value and count: its code, interval and side. counts: how many of each there are; None: one."""

    codes: npt.NDArray[np.integer[Any]]
    low_bits: npt.NDArray[np.integer[Any]]
    counts: Ints | None = None

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.codes.nbytes + self.low_bits.nbytes + (0 if self.counts is None else self.counts.nbytes)


class Tally(NamedTuple):
    """What some rows of a column come to: the codes of its own values by interval and side, and all together.

    few: intervals are counted; else all stand in interval 0. rows: where intervals are not counted, if they are listed.
    once: each value is there once.
    """

    values: pa.Array
    codes: Ints
    low_bits: Ints  # interval and side
    counts: Ints
    there: Cells
    few: bool
    rows: Rows | None = None
    once: bool = True

    @property
    def nbytes(self) -> int:
        """What it takes beside its rows."""
        return int(self.values.nbytes) + self.codes.nbytes + self.low_bits.nbytes + self.counts.nbytes

    def pointed(self) -> Rows:
        """Its rows, listed or counted."""
        return self.rows or Rows(self.codes, self.low_bits, self.counts)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's values, each once, and its cells: code, interval, side. there: cells of all values together.

    few: intervals are counted; else all stand in interval 0. waiting: what is to be added to them. rows: all of them,
    where intervals are not counted; None: they are not listed.
    """

    values: pa.Array
    cells: tuple[Cells, ...] = ()
    there: tuple[Cells, ...] = ()
    few: bool = True
    waiting: tuple[Tally, ...] = ()
    rows: tuple[Rows, ...] | None = None

    def with_tally(self, tally: Tally) -> Column:
        """With further rows. To find out which values are new takes as long as to look at all: it is done seldom."""
        found = replace(self, waiting=(*self.waiting, tally))
        new = sum(one.nbytes for one in found.waiting)
        return found._joined() if new > PILED * self.nbytes + PILED_BYTES_MIN else found

    @property
    def has_few(self) -> bool:
        """As far as it is known: few values each, all together may be many."""
        return self.few and all(one.few for one in self.waiting)

    def _joined(self) -> Column:
        """With one dictionary. Its own values come first, so that their codes stay."""
        if not self.waiting:
            return self
        values = [held for held in (self.values, *(one.values for one in self.waiting)) if len(held)]
        if len(values) == 1 and all(one.once for one in self.waiting):
            coded = pa.DictionaryArray.from_arrays(np.arange(len(values[0]), dtype=np.int32), values[0])
        else:
            coded = pa.concat_arrays(values or [self.values]).dictionary_encode()
        of_all, first = coded.indices.to_numpy().astype(np.int64), len(self.values)
        most = max([FEW, *map(len, values)])  # of chosen values there may be more
        few = self.has_few and len(coded.dictionary) <= most
        cells, there, rows = self.cells, self.there, self.rows
        if self.few and not few:
            rows = None if rows is None else tuple(map(_rows_of, cells))
            cells = tuple(map(_without_points, cells))
        new = list[Cells]()
        for one in self.waiting:
            codes = of_all[first : first + len(one.values)]
            cell = Cells(codes[one.codes] << POINT_BITS | one.low_bits, one.counts)
            new.append(cell if few or not one.few else _without_points(cell))
            there = _piled(there, one.there)
            if rows is not None and not few:
                listed = one.pointed()
                rows = (*rows, listed._replace(codes=codes.astype(np.int32)[listed.codes]))
            first += len(one.values)
        return Column(coded.dictionary, _piled(cells, Cells.summed(new)), there, few, rows=rows)

    def unlisted(self) -> Column:
        """Without its rows."""
        return replace(self, rows=None, waiting=tuple(one._replace(rows=None) for one in self.waiting))

    def without_rows(self) -> Column:
        """One to which nothing came."""
        return Column(self.values.slice(0, 0))

    def intervals_of(self, values: pa.Array) -> Column:
        """The intervals of some values, added up: of a column with few, or of which all rows are listed."""
        rows = tuple(map(_rows_of, self.cells)) if self.few else self.rows
        assert rows is not None
        assert not self.waiting
        places = pc.fill_null(pc.index_in(self.values, value_set=values), -1).to_numpy()
        cells = [Cells(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))]
        for one in rows:
            codes = places[one.codes]
            kept = np.flatnonzero(codes >= 0)
            numbers = codes[kept].astype(np.int64) << POINT_BITS | one.low_bits[kept]
            counts = np.ones(len(kept), dtype=np.int64) if one.counts is None else one.counts[kept]
            cells.append(Cells(numbers, counts))
        return Column(values, (Cells.added(cells),))

    def together(self) -> Column:
        """The same, added up."""
        found = self._joined()
        return replace(found, cells=(Cells.added(found.cells),), there=(Cells.added(found.there),))

    def with_most_of(self, other: Column, count: int) -> Column:
        """With the cells of another one. Of many values only those are left that may then be among the `count` most
        frequent ones of a side: to find all of one in the other takes long.

        A value that leads has at least as much as the last of the most frequent ones here. So here it lacks at most
        what the other has at most; and where that is all of it, it may be in the other alone, with all of it there.
        """
        if self.few:
            return replace(self, waiting=(other._as_tally(),), rows=None).together()
        mine, theirs = (np.zeros(len(one.values), dtype=bool) for one in (self, other))
        for side in range(SIDES):
            own, others = self._totals(side), other._totals(side)
            least = _nth_largest(own, count)
            lacking = least - others.max(initial=0)
            mine |= own >= max(1, lacking)
            if lacking < 1:
                theirs |= others >= max(1, least)
        found = self._of(mine)
        theirs |= pc.is_in(other.values, value_set=found.values).to_numpy(zero_copy_only=False)
        return replace(found, waiting=(other._of(theirs)._as_tally(),), rows=None).together()

    def _of(self, kept: npt.NDArray[np.bool_]) -> Column:
        """Of some of the values."""
        codes = np.cumsum(kept) - 1
        numbers, counts = Cells.added(self.cells)
        mine = kept[numbers >> POINT_BITS]
        numbers = codes[numbers[mine] >> POINT_BITS] << POINT_BITS | (numbers[mine] & LOW_BITS)
        return replace(self, values=self.values.filter(pa.array(kept)), cells=(Cells(numbers, counts[mine]),))

    def _as_tally(self) -> Tally:
        numbers, counts = Cells.added(self.cells)
        codes, low_bits = numbers >> POINT_BITS, numbers & LOW_BITS
        return Tally(self.values, codes, low_bits, counts, Cells.added(self.there), self.few)

    def _totals(self, side: int) -> npt.NDArray[np.float64]:
        """How often a side has each value."""
        numbers, counts = Cells.added(self.cells)
        mine = (numbers & 1) == side
        totals = np.bincount(numbers[mine] >> POINT_BITS, weights=counts[mine], minlength=len(self.values))
        return totals.astype(np.float64, copy=False)

    def most_frequent(self, side: int, count: int) -> pa.Array:
        """The codes of the values that a side has most often; of equals the smaller values."""
        totals = self._totals(side)
        candidates = np.flatnonzero(totals >= max(1.0, _nth_largest(totals, count)))
        values = self.values.take(pa.array(candidates))
        values = values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values
        table = pa.table({"total": totals[candidates], "value": values})
        order = pc.select_k_unstable(table, count, sort_keys=[("total", "descending"), ("value", "ascending")])
        return pa.array(candidates[order.to_numpy()])

    @property
    def nbytes(self) -> int:
        """What it takes, once it is added up."""
        cells = sum(one.numbers.nbytes + one.counts.nbytes for one in (*self.cells, *self.there))
        return cells + int(self.values.nbytes)


def _nth_largest(numbers: npt.NDArray[np.float64], place: int) -> float:
    """0 where there are fewer."""
    return float(np.partition(numbers, -place)[-place]) if len(numbers) >= place else 0.0


def _piled(parts: tuple[Cells, ...], new: Cells) -> tuple[Cells, ...]:
    """With further cells. They are added up when there are many more of them than were before: seldom."""
    parts = (*parts, new)
    first, *others = (len(one.numbers) for one in parts)
    return (Cells.added(parts),) if sum(others) > PILED * first + PILED_MIN else parts


def tallied(coded: Coded, marks: Marks, base: int, *, few: bool, listed: bool = False) -> Tally:
    """One pass over the rows."""
    (values, codes, group, once), (_, low, groups) = coded, marks
    shift = (low - base) << 1
    by, width = (group, groups) if few else (group & 1, SIDES)
    wide = codes.astype(np.int64) if len(values) * width >= np.iinfo(np.int32).max else codes
    numbers, counts = Cells.tallied(wide * wide.dtype.type(width) + by, len(values) * width)
    found, at = np.divmod(numbers, width)
    if few:
        sums = np.bincount(at, counts).astype(np.int64)
        groups_there = np.flatnonzero(sums)
        there = Cells(groups_there + shift, sums[groups_there])
        return Tally(values, found, at + shift, counts, there, few, once=once)
    groups_there, sums = Cells.tallied(group, groups)
    rows = Rows(codes, group + np.int32(shift)) if listed else None
    return Tally(values, found, at, counts, Cells(groups_there + shift, sums), few, rows, once)


def _rows_of(cells: Cells) -> Rows:
    return Rows(cells.numbers >> POINT_BITS, cells.numbers & LOW_BITS, cells.counts)


def _without_points(cells: Cells) -> Cells:
    numbers = (cells.numbers >> POINT_BITS << POINT_BITS) | (cells.numbers & 1)
    return Cells.added([Cells(numbers, cells.counts), Cells(numbers[:0], cells.counts[:0])])


@dataclass(slots=True)
class ValueCounts:
    """Counts of columns over rows that are added. base: an interval far before the first one that may come.

    only: column -> the values that count. listed_bytes_max: as long as the rows of columns with many values take no
    more than that, they are listed; then it is 0. Copies share what does not change, and list no rows.
    """

    base: int
    only: Mapping[str, pa.Array] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    listed_bytes_max: int = 0
    _listed_bytes: int = 0

    def copy(self) -> ValueCounts:
        """One that can be added to."""
        return ValueCounts(self.base, self.only, dict(self.columns))

    def tally(self, name: str, values: pa.ChunkedArray, presence: Presence, *, blank: bool = True) -> Tally | None:
        """What some rows of a column come to; changes nothing. blank: whether an empty text is a value."""
        known, column = self.only.get(name), self.columns.get(name)
        coded = Coded.of(values, presence, once=column is None or column.has_few)
        coded = coded if blank else coded.without("")
        coded = coded if known is None else coded.among(known)._replace(once=True)
        if not len(coded.codes):
            return None
        few = known is not None or len(coded.values) <= FEW
        return tallied(coded, presence.marks, self.base, few=few, listed=bool(self.listed_bytes_max))

    def add(self, name: str, tally: Tally | None) -> None:
        """Some rows of a column."""
        if tally is None:
            return
        listing = bool(self.listed_bytes_max)
        column = self.columns.get(name) or Column(tally.values.slice(0, 0), rows=() if listing else None)
        self.columns[name] = column.with_tally(tally if listing else tally._replace(rows=None))
        if listing and tally.rows is not None:
            self._listed_bytes += tally.rows.nbytes
            if self._listed_bytes > self.listed_bytes_max:
                self.unlist()

    def unlist(self) -> None:
        """Without rows from now on."""
        self.listed_bytes_max = self._listed_bytes = 0
        self.columns = {name: column.unlisted() for name, column in self.columns.items()}

    def with_most_of(self, other: ValueCounts, count: int, each: Map = map) -> ValueCounts:
        """With others, of which the columns are added up; as Column.with_most_of has it. each: of threads, the same."""
        names = self.columns.keys() & other.columns.keys()
        both = each(lambda name: self.columns[name].with_most_of(other.columns[name], count), names)
        return replace(self, columns=self.columns | other.columns | dict(zip(names, both, strict=True)))

    def together(self, each: Map = map) -> None:
        """Add up what came so far. each: of threads, the same."""
        self.columns = dict(zip(self.columns, each(Column.together, self.columns.values()), strict=True))

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return sum(column.nbytes for column in self.columns.values())

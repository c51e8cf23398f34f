"""Which rows count, and as what: each has the interval in which it starts, and one of two sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SIDES = 2
PATTERN_BYTES_MAX = 16 << 20  # of rows that have a value, as lists: about 1 MB each of a piece of a chunk

Group = npt.NDArray[np.int32]
RowNumbers = npt.NDArray[np.int64]


class Marks(NamedTuple):
    """Of each row its group: interval and side in one number, `groups` where it does not count. low: interval of 0."""

    group: Group
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


class RowsWithValue(NamedTuple):
    """Rows that count and have a value, and the group of each. rows: None where that is all of them."""

    rows: RowNumbers | None
    group: Group

    def of(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Those of all rows that are of these."""
        return numbers if self.rows is None else numbers[self.rows]


class Presence:
    """Rows that count and have a value. Attributes come together: many columns lack a value in the same rows, and
    which those are is found out once for all of them. For several threads at once.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self._counts = marks.group < marks.groups
        self._all = self._listed(None)
        self._known: dict[bytes, RowsWithValue] = {}
        self._bytes = 0

    def of(self, values: pa.Array) -> RowsWithValue:
        """values: one a row, null where there is none."""
        validity = values.buffers()[0]
        if not values.null_count or validity is None:
            return self._all
        if values.offset:
            return self._listed(_bits(validity, values.offset, len(values)))
        bits = bytes(validity.slice(0, -(-len(values) // 8)))
        if (found := self._known.get(bits)) is None:
            found = self._listed(_bits(validity, 0, len(values)))
            size = len(bits) + found.group.nbytes + (0 if found.rows is None else found.rows.nbytes)
            if self._bytes + size <= PATTERN_BYTES_MAX:
                self._known[bits] = found
                self._bytes += size
        return found

    def _listed(self, there: npt.NDArray[np.bool_] | None) -> RowsWithValue:
        counting = self._counts if there is None else self._counts & there
        if counting.all():
            return RowsWithValue(None, self.marks.group)
        rows = np.flatnonzero(counting)
        return RowsWithValue(rows, self.marks.group[rows])


def _bits(validity: pa.Buffer, offset: int, count: int) -> npt.NDArray[np.bool_]:
    bits = np.frombuffer(validity, dtype=np.uint8)
    return np.unpackbits(bits, count=offset + count, bitorder="little")[offset:].view(np.bool_)

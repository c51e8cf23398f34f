"""Rows of a span table in another order, list columns together: those of events and links share their offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


class _Lists(NamedTuple):
    """Where the elements of lists begin, and how many each has; a null has none, whatever it hides."""

    starts: Ints
    sizes: Ints


class Gather:
    """Takes rows of one table again and again. Its columns are of one chunk each, or none."""

    def __init__(self, spans: pa.Table) -> None:
        self._spans = spans
        self._lists: dict[str, _Lists] = {}
        found: list[_Lists] = []
        for name, column in zip(spans.column_names, spans.columns, strict=True):
            if pa.types.is_list(column.type) and column.num_chunks == 1:
                lists = _lists_of(column.chunk(0))
                same = next((one for one in found if _are_equal(one, lists)), None)
                if same is None:
                    found.append(lists)
                self._lists[name] = same or lists

    def rows(self, order: Ints, columns: Sequence[str]) -> pa.Table:
        """These rows, in this order; columns: those of the table that are wanted."""
        others = self._spans.select([name for name in columns if name not in self._lists]).take(pa.array(order))
        taken: dict[int, tuple[pa.Array, pa.Array]] = {}  # of each shape: offsets, and the places of elements
        arrays = []
        for name in columns:
            lists = self._lists.get(name)
            if lists is None:
                arrays.append(others.column(name))
                continue
            if id(lists) not in taken:
                taken[id(lists)] = _taken(lists, order)
            arrays.append(_list_rows(self._spans.column(name).chunk(0), order, *taken[id(lists)]))
        return pa.table(arrays, names=list(columns))


def ranges(starts: Ints, sizes: Ints) -> Ints:
    """starts[0], starts[0] + 1, ... sizes[0] numbers; then those of the next."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(int(ends[-1]) if len(ends) else 0)


def list_sizes(lists: pa.Array) -> Ints:
    """Elements of each list or map; a null has none, whatever it hides."""
    sizes = np.diff(lists.offsets.to_numpy().astype(np.int64))
    return np.where(lists.is_valid().to_numpy(zero_copy_only=False), sizes, 0) if lists.null_count else sizes


def _lists_of(lists: pa.ListArray) -> _Lists:
    return _Lists(lists.offsets.to_numpy()[:-1].astype(np.int64), list_sizes(lists))


def _are_equal(one: _Lists, other: _Lists) -> bool:
    return np.array_equal(one.sizes, other.sizes) and np.array_equal(one.starts, other.starts)


def _taken(lists: _Lists, order: Ints) -> tuple[pa.Array, pa.Array]:
    sizes = lists.sizes[order]
    some = np.flatnonzero(sizes)
    offsets = np.zeros(len(order) + 1, dtype=np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.array(offsets), pa.array(ranges(lists.starts[order[some]], sizes[some]))


def _list_rows(lists: pa.ListArray, order: Ints, offsets: pa.Array, elements: pa.Array) -> pa.ListArray:
    mask = pc.is_null(lists).take(pa.array(order)) if lists.null_count else None
    return pa.ListArray.from_arrays(offsets, lists.values.take(elements), type=lists.type, mask=mask)

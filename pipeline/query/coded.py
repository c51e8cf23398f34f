"""A column as its values and small numbers for its rows: what is counted is numbers, not texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.marks import Group, Presence

CLOSE = 1024  # whole numbers in a row


class Coded(NamedTuple):
    """The rows of a column that count and have a value. values: none null; codes: of each row the place of its value;
    group: its interval and side. once: each value is there once; else it may have several places.
    """

    values: pa.Array
    codes: npt.NDArray[np.int32]
    group: Group
    once: bool = True

    @classmethod
    def of(cls, column: pa.ChunkedArray, presence: Presence, *, once: bool = True) -> Coded:
        """once: for each value one place, though texts come with a dictionary a row group, which takes as
        long as to read them; without it the dictionaries stand side by side.
        """
        if pa.types.is_dictionary(column.type) and not once and column.num_chunks > 1:
            return cls._side_by_side(column.chunks, presence)
        found: Any = column.combine_chunks()
        if not pa.types.is_primitive(found.type):
            texts = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
            present = presence.of(texts.indices)
            return cls(texts.dictionary, present.of(_plain(texts.indices)).astype(np.int32, copy=False), present.group)
        numbers = found.cast(pa.uint8()) if pa.types.is_boolean(found.type) else found
        present = presence.of(numbers)
        there = present.of(_plain(numbers))
        values, codes = (_by_distance(there) if pa.types.is_integer(numbers.type) else None) or _looked_up(there)
        return cls(values.cast(found.type), codes, present.group)

    @classmethod
    def _side_by_side(cls, pieces: Sequence[pa.DictionaryArray], presence: Presence) -> Coded:
        values = pa.concat_arrays([one.dictionary for one in pieces])
        firsts = np.cumsum([0, *(len(one.dictionary) for one in pieces[:-1])], dtype=np.int32)
        indices = pa.concat_arrays([one.indices for one in pieces])
        present = presence.of(indices)
        codes = _plain(indices) + np.repeat(firsts, [len(one) for one in pieces])
        return cls(values, present.of(codes), present.group, once=False)

    def without(self, value: Any) -> Coded:
        """Without the rows that have a value."""
        others = pc.not_equal(self.values, value)
        return self if pc.all(others).as_py() else self.among(self.values.filter(others))

    def among(self, known: pa.Array) -> Coded:
        """The rows that have one of some values."""
        places = pc.fill_null(pc.index_in(self.values, value_set=known), -1).to_numpy()
        codes = places[self.codes]
        kept = np.flatnonzero(codes >= 0)
        return self._replace(values=known, codes=codes[kept], group=self.group[kept])


def _by_distance(numbers: npt.NDArray[Any]) -> tuple[pa.Array, npt.NDArray[np.int32]] | None:
    """Of numbers that lie close together, with all between them: a subtraction where else each is looked up."""
    if not len(numbers):
        return None
    low, high = numbers.min(), numbers.max()
    if int(high) - int(low) >= CLOSE:
        return None
    values = pa.array(range(int(low), int(high) + 1), pa.from_numpy_dtype(numbers.dtype))
    return values, (numbers - low).astype(np.int32)


def _looked_up(numbers: npt.NDArray[Any]) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Without nulls it takes half as long; -0.0 is 0.0."""
    encoded = pa.array(numbers + numbers.dtype.type(0)).dictionary_encode()
    return encoded.dictionary, _plain(encoded.indices)


def _plain(values: pa.Array) -> npt.NDArray[Any]:
    """Numbers, with anything in the place of a null."""
    _, data = values.buffers()
    return np.frombuffer(data, values.type.to_pandas_dtype(), len(values), values.offset * values.type.byte_width)

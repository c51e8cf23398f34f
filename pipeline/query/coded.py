"""A column as its values, each once, and small numbers for its rows: what is counted is numbers, not texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

CLOSE = 1024  # whole numbers in a row


class Coded(NamedTuple):
    """values: each once, none null; codes: of each row the place of its value, len(values) where it has none."""

    values: pa.Array
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Coded:
        """All rows of a column; -0.0 is 0.0."""
        if pa.types.is_floating(column.type):
            column = pc.add(column, 0.0)
        found: Any = column.combine_chunks()
        numbers = found.cast(pa.uint8()) if pa.types.is_boolean(found.type) else found
        if pa.types.is_integer(numbers.type) and (close := cls._by_distance(numbers)) is not None:
            return close._replace(values=close.values.cast(found.type))
        coded = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
        codes = _blanked(_plain(coded.indices), _there(coded.indices), len(coded.dictionary))
        return cls(coded.dictionary, codes)

    @classmethod
    def _by_distance(cls, values: pa.Array) -> Coded | None:
        """Of numbers that lie close together, with all between them: a subtraction where else each is looked up."""
        if values.null_count == len(values):
            return None
        there = _there(values)
        numbers = _plain(values)
        numbers = numbers if there is None else _blanked(numbers, there, numbers[there.argmax()])
        low, high = numbers.min(), numbers.max()
        if (size := int(high) - int(low) + 1) > CLOSE:
            return None
        codes = _blanked((numbers - low).astype(np.int32), there, size)
        return cls(pa.array(range(int(low), int(high) + 1), values.type), codes)

    def without(self, value: Any) -> Coded:
        """With none in the place of a value."""
        others = pc.not_equal(self.values, value)
        return self if pc.all(others).as_py() else self.among(self.values.filter(others))

    def among(self, known: pa.Array) -> Coded:
        """With other values: a row with none of them counts as without one."""
        places = pc.fill_null(pc.index_in(self.values, value_set=known), len(known)).to_numpy()
        return Coded(known, np.append(places, np.int32(len(known)))[self.codes])


def _there(values: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Which are not null; None: all."""
    validity = values.buffers()[0]
    if not values.null_count or validity is None:
        return None
    bits = np.frombuffer(validity, dtype=np.uint8)
    return np.unpackbits(bits, count=values.offset + len(values), bitorder="little")[values.offset :].view(np.bool_)


def _plain(values: pa.Array) -> npt.NDArray[Any]:
    """Numbers, with anything in the place of a null."""
    _, data = values.buffers()
    return np.frombuffer(data, values.type.to_pandas_dtype(), len(values), values.offset * values.type.byte_width)


def _blanked(numbers: npt.NDArray[Any], there: npt.NDArray[np.bool_] | None, blank: int) -> npt.NDArray[Any]:
    """`blank` where nothing is there, by arithmetic modulo the type's size: np.where, and what Arrow has for it, take
    five times as long.
    """
    other = numbers.dtype.type(blank)
    return numbers if there is None else (numbers - other) * there + other

"""The values of columns that have few: a chunk's entry lists them, so that nobody reads the chunk for them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spans import schema

VALUES_MAX = 32  # of a column that has few
BYTES_MAX = 1024  # of all values of an entry, about as JSON
LOOKED_FIRST = 1024  # rows that tell most columns of many values

Value = str | int | bool
Values = dict[str, tuple[Value, ...]]  # column -> all its values, sorted


class FewValues:
    """Collects the values of a chunk's attributes that are texts, whole numbers or bools, one a span, while few."""

    def __init__(self) -> None:
        self._found: dict[str, set[Value]] = {}
        self._many = set[str]()

    def add(self, spans: pa.Table) -> None:
        """Some more of the chunk's rows. Off the GIL for the most part; 0.1 to 0.15 us a span."""
        for name in spans.column_names:
            if name in self._many or schema.parse_column(name) is None:
                continue
            found = _few(spans.column(name))
            if found is not None:
                found |= self._found.get(name, set())
            if found is None or len(found) > VALUES_MAX:
                self._many.add(name)
                self._found.pop(name, None)
            else:
                self._found[name] = found

    def values(self) -> Values:
        """Those of the columns that take least room first, up to BYTES_MAX; a column without a value is left out."""
        listed, left = Values(), BYTES_MAX
        for room, name in sorted((_room(name, found), name) for name, found in self._found.items() if found):
            left -= room
            if left < 0:
                break
            listed[name] = tuple(sorted(self._found[name]))
        return listed


def _room(name: str, values: set[Value]) -> int:
    return sum(len(str(one).encode()) + 3 for one in (name, *values))


def _few(column: pa.ChunkedArray) -> set[Value] | None:
    """A column's values; None for one of many, and of other types."""
    of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(of) or pa.types.is_int64(of) or pa.types.is_boolean(of)):
        return None
    found = set[Value]()
    for piece in column.chunks:
        distinct = pc.unique(piece.slice(0, LOOKED_FIRST))
        if len(distinct) <= VALUES_MAX + 1 and len(piece) > LOOKED_FIRST:  # null is one of them
            distinct = pc.unique(piece)
        if len(distinct) > VALUES_MAX + 1:
            return None
        found.update(one for one in distinct.to_pylist() if one is not None)
    return found

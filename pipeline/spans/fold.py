"""Rare attributes out of their columns into the map column of their scope, so that joined tables stay narrow.

Each decoded batch has columns for its own most frequent keys. Joined as they are, the batches of a sender that puts
IDs into attribute names would make a table of as many columns as there are names: rows times columns, in memory too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from pipeline.spans import schema
from pipeline.spans.gather import list_sizes, ranges
from pipeline.spans.key_values import Ints

COUNTED_BY = {"event": "event_name", "link": "link_trace_id"}  # the list that says how many there are
FIELD_OF = {"string": "string_value", "int": "int_value", "double": "double_value", "bool": "bool_value"}
FIELDS = list(schema.MORE_VALUE)


class _Part(NamedTuple):
    """Entries of a map column: who has each (ascending within a part), its key and its value."""

    owner: Ints
    keys: pa.StringArray
    values: pa.StructArray


def concat(tables: Sequence[pa.Table], *, attribute_columns_max: int) -> pa.Table:
    """schema.concat, with at most `attribute_columns_max` attribute columns a scope: the most frequent of all tables.

    Values of the others move to the map column of their scope. Nothing is done where there are no more. O(bytes).
    """
    rare = rare_columns(tables, attribute_columns_max)
    return schema.concat([without(table, rare) for table in tables] if rare else tables)


def rare_columns(tables: Iterable[pa.Table], attribute_columns_max: int) -> frozenset[str]:
    """The attribute columns that are not among the most frequent `attribute_columns_max` of their scope."""
    tables = list(tables)
    columns: dict[str, set[str]] = {scope: set() for scope in schema.SCOPES}
    for name in {name for table in tables for name in table.column_names}:
        if (parsed := schema.parse_column(name)) is not None:
            columns[parsed.scope].add(name)
    many = {name for names in columns.values() if len(names) > attribute_columns_max for name in names}
    return rarest(_values_in(tables, many), attribute_columns_max) if many else frozenset()


def rarest(counts: Mapping[str, int], attribute_columns_max: int) -> frozenset[str]:
    """The same, of columns and how many values each has."""
    rare: set[str] = set()
    for scope in schema.SCOPES:
        names = [name for name in counts if name.startswith(f"{scope}.")]
        # Services are counted by their column: it stays, however rare it is
        ranked = sorted(names, key=lambda name: (name != schema.SERVICE_COLUMN, -counts[name], name))
        rare.update(ranked[attribute_columns_max:])
    return frozenset(rare)


def _values_in(tables: Sequence[pa.Table], names: set[str]) -> Counter[str]:
    counts: Counter[str] = Counter(dict.fromkeys(names, 0))
    for table in tables:
        for name in names.intersection(table.column_names):
            column = table.column(name)
            counts[name] += len(column) - column.null_count
    return counts


def without(spans: pa.Table, rare: frozenset[str]) -> pa.Table:
    """The table without these attribute columns; their values stand in the map columns, before what stands there.

    Before: of a key that a span has twice, the first copy is the column's.
    """
    mine = [name for name in spans.column_names if name in rare]
    if not mine:
        return spans
    folded = spans.drop_columns(mine)
    for scope in schema.SCOPES:
        names = [name for name in mine if name.startswith(f"{scope}.")]
        if names:
            folded = _with_more(folded, scope, _folded(spans, scope, names))
    return folded


def _with_more(spans: pa.Table, scope: str, column: pa.Array) -> pa.Table:
    name = schema.more_column(scope)
    if name in spans.column_names:
        return spans.set_column(spans.column_names.index(name), name, column)
    return spans.append_column(name, column)


def _folded(spans: pa.Table, scope: str, names: list[str]) -> pa.Array:
    """The map column of a scope with the values of these columns in it."""
    if scope in schema.ROW_SCOPES:
        columns = [(name, _one(spans, name), np.arange(spans.num_rows)) for name in names]
        return _maps(columns, _one(spans, schema.more_column(scope)), np.arange(spans.num_rows), spans.num_rows)
    counted = _one(spans, COUNTED_BY[scope])
    offsets = np.concatenate(([0], np.cumsum(list_sizes(counted))))
    columns = [(name, _flat(_one(spans, name)), _places(_one(spans, name), offsets)) for name in names]
    more = _one(spans, schema.more_column(scope))
    maps = _maps(columns, _flat(more), _places(more, offsets), int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), maps)


def _maps(columns: list[tuple[str, pa.Array, Ints]], more: pa.MapArray, more_place: Ints, owners: int) -> pa.MapArray:
    """One map an owner. columns: name, values, and the owner of each value; more: the maps there are, and theirs."""
    parts = [_part(name, values, place) for name, values, place in columns]
    sizes = list_sizes(more)
    parts.append(_Part(np.repeat(more_place, sizes), *_entries(more)))
    owner = np.concatenate([part.owner for part in parts])
    order = np.argsort(owner, kind="stable")
    keys = pa.concat_arrays([part.keys for part in parts]).take(pa.array(order))
    values = pa.concat_arrays([part.values for part in parts]).take(pa.array(order))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=owners)))).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values)


def _part(name: str, values: pa.Array, place: Ints) -> _Part:
    parsed = schema.parse_column(name)
    assert parsed is not None
    has = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    some = values.take(pa.array(has))
    if pa.types.is_dictionary(some.type):
        some = some.cast(some.type.value_type)
    field = parsed.type
    if field.endswith("[]"):
        field, some = "any", _any_values(some, FIELD_OF[field.removesuffix("[]")])
    children = [some if one.name == field else pa.nulls(len(some), one.type) for one in FIELDS]
    keys = pa.array([parsed.key]).take(pa.array(np.zeros(len(some), dtype=np.int64)))
    return _Part(place[has], keys, pa.StructArray.from_arrays(children, fields=FIELDS))


def _any_values(lists: pa.Array, field: str) -> pa.Array:
    """Arrays as AnyValue bytes: what a map column holds of what is no scalar."""
    found = []
    for elements in lists.to_pylist():
        array = ArrayValue(values=[AnyValue(**{field: element}) for element in elements])
        found.append(AnyValue(array_value=array).SerializeToString())
    return pa.array(found, pa.binary())


def _one(spans: pa.Table, name: str) -> pa.Array:
    """A column as one array, offset 0; nulls where the table does not have it."""
    chunks = schema.column(spans, name).chunks
    return pa.concat_arrays(chunks) if chunks else pa.nulls(0, schema.type_of(name))


def _shown(lists: pa.Array) -> pa.Array:
    """Where the elements of lists that are not null stand among all elements."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return pa.array(ranges(offsets[:-1], list_sizes(lists)))


def _flat(lists: pa.ListArray) -> pa.Array:
    return lists.values.take(_shown(lists))


def _entries(maps: pa.MapArray) -> tuple[pa.StringArray, pa.StructArray]:
    shown = _shown(maps)
    items = maps.items.take(shown)
    return maps.keys.take(shown), pa.StructArray.from_arrays(items.flatten(), fields=FIELDS)


def _places(lists: pa.ListArray, offsets: Ints) -> Ints:
    """The number of the event or link that each element of a parallel list belongs to."""
    return ranges(offsets[:-1], list_sizes(lists))

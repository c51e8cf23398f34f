"""Lists of attributes into one column an attribute: numpy and Arrow, no Python a span.

A scope is what carries attributes: resources, scopes, spans, events or links. All are read together; every function
from `columns_of` on works on one of them, and `owners` is how many carriers it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.spans import key_values, schema
from pipeline.spans.key_values import ARRAY, BOOL, DOUBLE, INT, KVLIST, STRING, Ints, KeyValues

ELEMENTS = {"string_value": "string[]", "bool_value": "bool[]", "int_value": "int[]", "double_value": "double[]"}
# Types of columns by code: a scalar's code is its field's number, lists follow, everything else is 0.
COLUMN_TYPES = ("any", "string", "bool", "int", "double", "string[]", "bool[]", "int[]", "double[]")
CODES = len(COLUMN_TYPES)
ANY = 0
REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 4096, 256  # arrays and maps parsed before: how many, and of what size


class Attributes(NamedTuple):
    """All attributes of one scope, flat, in order of their owners."""

    owner: Ints
    type: npt.NDArray[np.uint8]  # index in COLUMN_TYPES
    list_row: Ints  # row of a list among `lists` of its type
    lists: dict[int, pa.ListArray]  # type -> the distinct lists of this type
    found: KeyValues


class Group(NamedTuple):
    """The attributes of one key and type. at: their places in Attributes; owner: who has them, ascending, each once."""

    key: str
    type: int
    at: Ints
    owner: Ints


def attributes_of(scopes: dict[str, pa.ListArray]) -> dict[str, Attributes]:
    """Scope -> attributes, of a column of KeyValue lists a scope, one list an owner; none of a scope without any.

    All are read at once: a read costs 0.5 ms, whatever there is. Raises MalformedValueError.
    """
    flat = {scope: values for scope, lists in scopes.items() if len(values := lists.flatten())}
    if not flat:
        return {}
    found = key_values.read(pa.concat_arrays(flat.values()))
    types, list_row, lists = _typed(found)
    attributes: dict[str, Attributes] = {}
    start = 0
    for scope, values in flat.items():
        own = slice(start, start := start + len(values))
        owner = np.repeat(np.arange(len(scopes[scope]), dtype=np.int64), np.diff(scopes[scope].offsets.to_numpy()))
        attributes[scope] = Attributes(owner, types[own], list_row[own], lists, found.part(own))
    return attributes


def columns_of(scopes: dict[str, Attributes], scope: str, *, owners: int, columns_max: int) -> dict[str, pa.Array]:
    """Column name -> array of `owners` rows for the `columns_max` most frequent; the rest in the map column.

    Raises MalformedValueError.
    """
    if scope not in scopes:
        return {}
    attributes = scopes[scope]
    groups, rest = _groups(attributes)
    groups.sort(key=lambda group: -len(group.owner))
    texts = _text_columns(attributes, [group for group in groups[:columns_max] if group.type == STRING], owners)
    columns: dict[str, pa.Array] = {}
    for group in groups[:columns_max]:
        name = schema.column_name(scope, group.key, COLUMN_TYPES[group.type])
        columns[name] = next(texts) if group.type == STRING else _column(attributes, group, owners)
    rest += [group.at for group in groups[columns_max:]]
    if rest:
        columns[schema.more_column(scope)] = _more(attributes, np.sort(np.concatenate(rest)), owners)
    return columns


def _typed(found: KeyValues) -> tuple[npt.NDArray[np.uint8], Ints, dict[int, pa.ListArray]]:
    """The type of each attribute, the row of each that is a list, and the lists by type. Lists are parsed by
    protobuf, equal ones once, and maps as well: what is kept as it came must parse when it is read."""
    types = np.where(found.field < ARRAY, found.field, ANY).astype(np.uint8)
    list_row = np.zeros(len(types), dtype=np.int64)
    nested = np.flatnonzero((found.field == ARRAY) | (found.field == KVLIST))
    if not len(nested):
        return types, list_row, {}
    distinct = found.raw.take(pa.array(nested)).dictionary_encode()
    messages: list[bytes] = distinct.dictionary.to_pylist()
    read = [_read(message) if len(message) > REMEMBERED_BYTES_MAX else _remembered(message) for message in messages]
    codes, elements = zip(*read, strict=True)
    rows = distinct.indices.to_numpy()
    types[nested] = np.array(codes, dtype=np.uint8)[rows]
    lists = {
        code: pa.array([one if own == code else None for own, one in zip(codes, elements, strict=True)], list_type)
        for code, list_type in ((code, schema.TYPES[COLUMN_TYPES[code]]) for code in set(codes) - {ANY})
    }
    list_row[nested] = rows
    return types, list_row, lists


def _read(message: bytes) -> tuple[int, list[object]]:
    """The type of a KeyValue that holds an array or a map, and an array's elements where they share a type."""
    values = list(key_values.parsed(message).value.array_value.values)  # a list: each element is wrapped once
    kinds = {value.WhichOneof("value") for value in values}
    kind = ELEMENTS.get(kinds.pop() or "") if len(kinds) == 1 else None
    if kind is None:
        return ANY, []
    return COLUMN_TYPES.index(kind), [getattr(value, kind.replace("[]", "_value")) for value in values]


_remembered = lru_cache(maxsize=REMEMBERED_MAX)(_read)  # 20 us each, and senders repeat them


def _groups(attributes: Attributes) -> tuple[list[Group], list[Ints]]:
    """The groups, and the places of second and further copies of a key and type on one owner, which stand in none."""
    found = attributes.found
    combined = found.key.astype(np.int64) * CODES + attributes.type
    if len(found.keys) * CODES < 1 << 16:
        combined = combined.astype(np.uint16)  # numpy sorts 16 bits by radix
    order = np.argsort(combined, kind="stable")
    ordered, owner = combined[order], attributes.owner[order]
    new = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    first = new | np.concatenate(([True], owner[1:] != owner[:-1]))
    copies = [] if first.all() else [order[~first]]
    if copies:
        order, ordered, owner, new = order[first], ordered[first], owner[first], new[first]
    starts = np.flatnonzero(new).tolist()
    keys = found.keys.to_pylist()
    groups: list[Group] = []
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        key, type_ = divmod(int(ordered[start]), CODES)
        groups.append(Group(keys[key], type_, order[start:end], owner[start:end]))
    return groups, copies


def _text_columns(attributes: Attributes, groups: list[Group], owners: int) -> Iterator[pa.StringArray]:
    """The columns of groups of strings. Their bytes are gathered and checked at once, and then cut: half the time."""
    if not groups:
        return
    at = np.concatenate([group.at for group in groups])
    texts = key_values.texts(attributes.found.contents.take(pa.array(2 * at)))
    _, ends, data = texts.buffers()
    ends, data = np.frombuffer(ends, dtype=np.int32), memoryview(data or b"")
    start = 0
    for group in groups:
        own = ends[start : start + len(group.at) + 1]
        start += len(group.at)
        buffers = [None, pa.py_buffer(own - own[0]), pa.py_buffer(bytes(data[own[0] : own[-1]]))]
        if len(group.at) < owners:
            offsets = np.zeros(owners + 1, dtype=np.int32)
            offsets[1:][group.owner] = np.diff(own)
            present = np.packbits(~_missing(group, owners), bitorder="little")
            buffers[:2] = [pa.py_buffer(present), pa.py_buffer(np.cumsum(offsets, out=offsets))]
        yield pa.Array.from_buffers(pa.string(), owners, buffers, owners - len(group.at))


def _column(attributes: Attributes, group: Group, owners: int) -> pa.Array:
    """The values of a group that holds no strings in `owners` rows: each in its owner's, the others null."""
    found = attributes.found
    if group.type in (BOOL, INT, DOUBLE):
        return _number_column(found.number[group.at], group, owners)
    values, at = found.messages, 2 * group.at
    if group.type != ANY:
        values, at = attributes.lists[group.type], attributes.list_row[group.at]
    if len(at) == owners:
        return values.take(pa.array(at))
    place = np.zeros(owners, dtype=np.int64)
    place[group.owner] = at
    return values.take(pa.array(place, mask=_missing(group, owners)))


def _number_column(numbers: Ints, group: Group, owners: int) -> pa.Array:
    if len(numbers) == owners:
        return pa.array(_typed_numbers(numbers, group.type))
    spread = np.zeros(owners, dtype=np.int64)
    spread[group.owner] = numbers
    return pa.array(_typed_numbers(spread, group.type), mask=_missing(group, owners))


def _missing(group: Group, owners: int) -> npt.NDArray[np.bool_]:
    missing = np.ones(owners, dtype=bool)
    missing[group.owner] = False
    return missing


def _typed_numbers(numbers: Ints, type_: int) -> npt.NDArray[np.generic]:
    if type_ == BOOL:
        return numbers.astype(bool)
    return numbers.view(np.float64) if type_ == DOUBLE else numbers


def _more(attributes: Attributes, at: Ints, owners: int) -> pa.MapArray:
    counts = np.bincount(attributes.owner[at], minlength=owners)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    found, field = attributes.found, attributes.found.field[at]
    numbers = found.number[at]
    is_any = (field == 0) | (field >= ARRAY)
    parts = {
        "string": key_values.texts(found.contents.take(pa.array(2 * at, mask=field != STRING))),
        "any": found.messages.take(pa.array(2 * at, mask=~is_any)),
        "int": pa.array(numbers, mask=field != INT),
        "double": pa.array(numbers.view(np.float64), mask=field != DOUBLE),
        "bool": pa.array(numbers.astype(bool), mask=field != BOOL),
    }
    fields = list(schema.MORE_VALUE)
    items = pa.StructArray.from_arrays([parts[field.name] for field in fields], fields=fields)
    keys = found.keys.take(pa.array(found.key[at]))
    return pa.MapArray.from_arrays(pa.array(offsets), keys, items)


def owned(array: pa.Array) -> pa.Array:
    """A copy with memory of its own: what the decoder gives belongs to its whole batch, and one column keeps it all."""
    if pa.types.is_integer(array.type) and not array.null_count:
        return pa.array(array.to_numpy().copy())  # 3 us, taking all rows 26
    return array.take(pa.array(np.arange(len(array))))

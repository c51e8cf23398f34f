"""Lists of attributes into one column an attribute: numpy and Arrow, no Python a span.

Every function works on one scope: `owners` is what carries the attributes (resources, scopes, spans, events or links).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import ArrayValue

from pipeline.spans import schema

Ints = npt.NDArray[np.int64]
# Fields of AnyValue in the decoder's struct, by their numbers; 0 is a value with no field set.
VALUE_FIELDS = ("string_value", "bool_value", "int_value", "double_value", "array_value", "kvlist_value", "bytes_value")
ARRAY = 5
FIELD_TAGS = {5: b"\x2a", 6: b"\x32", 7: b"\x3a"}
ELEMENTS = {"string_value": "string[]", "bool_value": "bool[]", "int_value": "int[]", "double_value": "double[]"}
# Types of columns by code: a scalar's code is its field's number, lists follow, everything else is 0.
COLUMN_TYPES = ("any", "string", "bool", "int", "double", "string[]", "bool[]", "int[]", "double[]")
CODES = len(COLUMN_TYPES)


class Attributes(NamedTuple):
    """All attributes of one scope, flat, in order of their owners."""

    owner: Ints
    key: pa.StringArray
    field: npt.NDArray[np.uint8]  # number of the field of AnyValue that is set, 0 for none
    type: npt.NDArray[np.uint8]  # index in COLUMN_TYPES
    values: list[pa.Array]  # one array a field, in the order of VALUE_FIELDS


class Group(NamedTuple):
    """The attributes of one key and type. at: their places in Attributes; owner: who has them, ascending, each once."""

    key: str
    type: int
    at: Ints
    owner: Ints


def attributes_of(lists: pa.ListArray) -> Attributes | None:
    """The attributes of a column of KeyValue lists, one list an owner; None where there are none."""
    flat = lists.flatten()
    if not len(flat):
        return None
    owner = np.repeat(np.arange(len(lists), dtype=np.int64), np.diff(lists.offsets.to_numpy()))
    value = flat.field("value")
    # A KeyValue without a value is a null struct, whose children may hold anything: flatten() makes them null.
    children = value.flatten() if value.null_count else [value.field(at) for at in range(value.type.num_fields)]
    by_name = dict(zip([field.name for field in value.type], children, strict=True))
    values = [by_name[name] for name in VALUE_FIELDS]
    field = np.zeros(len(flat), dtype=np.uint8)
    for number, array in enumerate(values, start=1):
        if array.null_count < len(array):
            field[array.is_valid().to_numpy(zero_copy_only=False)] = number
    return Attributes(owner, flat.field("key"), field, _types(field, values[ARRAY - 1]), values)


def columns_of(attributes: Attributes | None, *, scope: str, owners: int, columns_max: int) -> dict[str, pa.Array]:
    """Column name -> array of `owners` rows for the `columns_max` most frequent; the rest in the map column."""
    if attributes is None:
        return {}
    groups, rest = _groups(attributes)
    groups.sort(key=lambda group: -len(group.owner))
    columns: dict[str, pa.Array] = {}
    for group in groups[:columns_max]:
        name = schema.column_name(scope, group.key, COLUMN_TYPES[group.type])
        columns[name] = _column(attributes, group, owners)
    rest += [group.at for group in groups[columns_max:]]
    if rest:
        columns[schema.more_column(scope)] = _more(attributes, np.sort(np.concatenate(rest)), owners)
    return columns


def _types(field: npt.NDArray[np.uint8], arrays: pa.Array) -> npt.NDArray[np.uint8]:
    types = np.where(field < ARRAY, field, 0).astype(np.uint8)
    for at in np.flatnonzero(field == ARRAY).tolist():
        kinds = {element.WhichOneof("value") for element in ArrayValue.FromString(arrays[at].as_py()).values}
        kind = ELEMENTS.get(kinds.pop() or "", "any") if len(kinds) == 1 else "any"
        types[at] = COLUMN_TYPES.index(kind)
    return types


def _groups(attributes: Attributes) -> tuple[list[Group], list[Ints]]:
    """The groups, and the places of second and further copies of a key and type on one owner, which stand in none."""
    encoded = attributes.key.dictionary_encode()
    combined = encoded.indices.to_numpy().astype(np.int64) * CODES + attributes.type
    if len(encoded.dictionary) * CODES < 1 << 16:
        combined = combined.astype(np.uint16)  # numpy sorts 16 bits by radix
    order = np.argsort(combined, kind="stable")
    ordered = combined[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    keys = encoded.dictionary.to_pylist()
    groups: list[Group] = []
    copies: list[Ints] = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
        key, type_ = divmod(int(ordered[start]), CODES)
        at = order[start:end]
        owner = attributes.owner[at]
        first = np.concatenate(([True], owner[1:] != owner[:-1]))
        if not first.all():
            copies.append(at[~first])
            at, owner = at[first], owner[first]
        groups.append(Group(keys[key], type_, at, owner))
    return groups, copies


def _column(attributes: Attributes, group: Group, owners: int) -> pa.Array:
    """The values of a group in `owners` rows: each in its owner's, the others null."""
    name = COLUMN_TYPES[group.type]
    if name == "any":
        values, at = pa.array(_any_bytes(attributes, group.at), pa.binary()), np.arange(len(group.at))
    elif name.endswith("[]"):
        raw = attributes.values[ARRAY - 1].take(pa.array(group.at)).to_pylist()
        values, at = pa.array([_elements(value) for value in raw], schema.TYPES[name]), np.arange(len(group.at))
    else:
        values, at = attributes.values[group.type - 1], group.at
    if len(at) == owners:
        return values.take(pa.array(at))
    place = np.zeros(owners, dtype=np.int64)
    place[group.owner] = at
    missing = np.ones(owners, dtype=bool)
    missing[group.owner] = False
    return values.take(pa.array(place, mask=missing))


def _more(attributes: Attributes, at: Ints, owners: int) -> pa.MapArray:
    counts = np.bincount(attributes.owner[at], minlength=owners)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    places = pa.array(at)
    parts = {
        name: attributes.values[COLUMN_TYPES.index(name) - 1].take(places)
        for name in ("string", "bool", "int", "double")
    }
    field = attributes.field[at]
    odd = np.flatnonzero((field == 0) | (field >= ARRAY))
    raw: list[bytes | None] = [None] * len(at)
    for place, value in zip(odd.tolist(), _any_bytes(attributes, at[odd]), strict=True):
        raw[place] = value
    parts["any"] = pa.array(raw, pa.binary())
    fields = list(schema.MORE_VALUE)
    items = pa.StructArray.from_arrays([parts[field.name] for field in fields], fields=fields)
    return pa.MapArray.from_arrays(pa.array(offsets), attributes.key.take(places), items)


def _any_bytes(attributes: Attributes, at: Ints) -> list[bytes]:
    """The AnyValue messages at these places as they came: a tag, a length and the bytes of their one field."""
    found: list[bytes] = []
    for place, number in zip(at.tolist(), attributes.field[at].tolist(), strict=True):
        if number == 0:
            found.append(b"")
        else:
            content = attributes.values[number - 1][place].as_py()
            found.append(FIELD_TAGS[number] + varint(len(content)) + content)
    return found


def _elements(array: bytes) -> list[object]:
    return [getattr(value, value.WhichOneof("value")) for value in ArrayValue.FromString(array).values]


def owned(array: pa.Array) -> pa.Array:
    """A copy with memory of its own: what the decoder gives belongs to its whole batch, and one column keeps it all."""
    return array.take(pa.array(np.arange(len(array))))


def varint(number: int) -> bytes:
    """Protobuf's variable-length form of a length."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

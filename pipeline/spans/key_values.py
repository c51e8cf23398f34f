"""Attributes as their senders wrote them, KeyValue messages, to keys and values: numpy and Arrow, no Python a message.

Nearly every encoder writes a key, then a value with one field: the *plain* form, which is read where it lies. What
stands there otherwise (no key, two values, unknown fields, lengths with leading zeros) goes through protobuf one by
one and comes back plain.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1 import common_pb2

from pipeline.spans.rewrite import varint

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

# Fields of AnyValue by their numbers; NONE is a value with no field set.
NONE, STRING, BOOL, INT, DOUBLE, ARRAY, KVLIST, BYTES = range(8)
KEY_TAG, VALUE_TAG = 0x0A, 0x12
TAGS = {STRING: 0x0A, BOOL: 0x10, INT: 0x18, DOUBLE: 0x21, ARRAY: 0x2A, KVLIST: 0x32, BYTES: 0x3A}
ODD = 255
FIELD_OF_TAG = np.full(256, ODD, dtype=np.uint8)
for _field, _tag in TAGS.items():
    FIELD_OF_TAG[_tag] = _field
HAS_LENGTH = np.isin(FIELD_OF_TAG, (STRING, ARRAY, KVLIST, BYTES))
VARINT_BYTES_MAX, LENGTH_BYTES_MAX = 10, 5
NOWHERE = 1 << 40  # a length that nothing has


class MalformedValueError(ValueError):
    """A KeyValue that does not parse or holds text that is no UTF-8: the record it stands in is no OTLP."""


class KeyValues(NamedTuple):
    """KeyValue messages taken apart; what has a place for each is as long as `raw`."""

    raw: pa.BinaryArray  # the messages, all plain
    key: npt.NDArray[np.int32]  # row of its key in `keys`
    keys: pa.StringArray
    field: Bytes  # number of the field of AnyValue that is set, NONE for none
    number: Ints  # a bool, an int, the bits of a double; 0 for all else
    contents: pa.BinaryArray  # at 2 * place: what stands behind a string's, array's, map's or bytes' length
    messages: pa.BinaryArray  # at 2 * place: the AnyValue message

    def part(self, places: slice) -> KeyValues:
        """Those at these places alone, in the same memory."""
        count = places.stop - places.start
        return KeyValues(
            self.raw.slice(places.start, count),
            self.key[places],
            self.keys,
            self.field[places],
            self.number[places],
            self.contents.slice(2 * places.start, 2 * count),
            self.messages.slice(2 * places.start, 2 * count),
        )


class _Spots(NamedTuple):
    """Where the parts of messages stand in their buffer, and which messages are plain."""

    key: Ints
    key_end: Ints
    value: Ints
    content: Ints
    end: Ints
    field: Bytes
    number: Ints
    plain: Bools


def read(raw: pa.BinaryArray) -> KeyValues:
    """Take KeyValue messages apart. Raises MalformedValueError; text in values is looked at where it is taken."""
    spots = _spots(raw)
    if not spots.plain.all():
        raw = _rewritten(raw, ~spots.plain)
        spots = _spots(raw)
        assert spots.plain.all()
    encoded = _cut(raw, spots.key, spots.key_end).take(_even(len(raw))).dictionary_encode()
    return KeyValues(
        raw,
        encoded.indices.to_numpy(),
        texts(encoded.dictionary),
        spots.field,
        spots.number,
        _cut(raw, spots.content, spots.end),
        _cut(raw, spots.value, spots.end),
    )


def texts(values: pa.BinaryArray) -> pa.StringArray:
    """Values with a buffer of their own as strings. Raises MalformedValueError where one is no UTF-8."""
    data = values.buffers()[2]
    if data is None or not data.size or np.frombuffer(data, dtype=np.uint8).max() < 0x80:
        return values.view(pa.string())  # eight times as fast as the cast, which looks at each alone
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise MalformedValueError("text is no UTF-8") from error


def parsed(message: bytes) -> Any:
    """A KeyValue message. Fields that only profiles have are unknown to it. Raises MalformedValueError."""
    try:
        return _key_value().FromString(message)
    except DecodeError as error:
        raise MalformedValueError(str(error)) from error


def malformed(raw: pa.BinaryArray) -> dict[int, str]:
    """Place -> what is wrong, for the messages that `read` or `texts` refuse. Protobuf parses each distinct one."""
    encoded = raw.dictionary_encode()
    reasons: dict[int, str] = {}
    for row, message in enumerate(encoded.dictionary.to_pylist()):
        try:
            parsed(message)
        except MalformedValueError as error:
            reasons[row] = str(error)
    rows = encoded.indices.to_numpy()
    return {at: reasons[rows[at]] for at in np.flatnonzero(np.isin(rows, list(reasons))).tolist()}


# ---- messages in another form


@cache
def _key_value() -> Any:
    file = descriptor_pb2.FileDescriptorProto()
    common_pb2.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        known = [field for field in message.field if not field.name.endswith("_strindex")]
        del message.field[:]
        message.field.extend(known)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.KeyValue"))


def _rewritten(raw: pa.BinaryArray, which: Bools) -> pa.BinaryArray:
    """The messages with these in their plain form, without unknown fields. Equal ones are parsed once."""
    odd = raw.filter(pa.array(which)).dictionary_encode()
    plain = pa.array([_plain(message) for message in odd.dictionary.to_pylist()], raw.type)
    return pc.replace_with_mask(raw, pa.array(which), plain.take(odd.indices))


def _plain(message: bytes) -> bytes:
    one = parsed(message)
    one.DiscardUnknownFields()
    parts = (KEY_TAG, one.key.encode()), (VALUE_TAG, one.value.SerializeToString())
    return b"".join(bytes([tag]) + varint(len(part)) + part for tag, part in parts)


# ---- messages in plain form


def _spots(raw: pa.BinaryArray) -> _Spots:
    data, start, end = _bytes_of(raw)
    key_size, key = _lengths(data, start + 1)
    key_end = key + key_size
    size, value = _lengths(data, key_end + 1)
    plain = (_at(data, start) == KEY_TAG) & (_at(data, key_end) == VALUE_TAG) & (value + size == end)
    tag, second = _at(data, value), _at(data, value + 1)
    field = FIELD_OF_TAG.take(tag)
    field[size == 0] = NONE
    content = np.minimum(value + 2, end)
    number = np.zeros(len(raw), dtype=np.int64)
    has_length = HAS_LENGTH.take(tag) & (size > 0)
    others = np.flatnonzero(~(has_length & (second == size - 2) & (second < 0x80)))
    if len(others):
        of = field[others]
        number[others], fits = _numbers(data, value[others], size[others], of)
        plain[others] &= fits | (of == NONE) | has_length[others]
        long = others[has_length[others]]
        length, content[long] = _lengths(data, value[long] + 1)
        begin = content[long]
        no_zeros = length >> 7 * (begin - value[long] - 2) > 0  # in front of the length: messages are kept as they are
        plain[long] &= no_zeros & (begin + length == end[long])
    return _Spots(key, key_end, value, content, end, field, number, plain)


def _numbers(data: Bytes, begin: Ints, size: Ints, field: Bytes) -> tuple[Ints, Bools]:
    """The numbers in the values of these fields, and which values are a bool, an int or a double and nothing else."""
    found, fits = np.zeros(len(begin), dtype=np.int64), np.zeros(len(begin), dtype=bool)
    bools = np.flatnonzero((field == BOOL) & (size == 2))
    found[bools] = _at(data, begin[bools] + 1)
    fits[bools] = found[bools] <= 1
    doubles = np.flatnonzero((field == DOUBLE) & (size == 9))
    found[doubles] = _at(data, begin[doubles, None] + np.arange(1, 9)).view("<i8").ravel()
    fits[doubles] = True
    ints = np.flatnonzero((field == INT) & (size <= 1 + VARINT_BYTES_MAX))
    for width in np.flatnonzero(np.bincount(size[ints])).tolist():
        some = ints[size[ints] == width]
        found[some], fits[some] = _varints(data, begin[some] + 1, width - 1)
    return found, fits


def _varints(data: Bytes, begin: Ints, width: int) -> tuple[Ints, Bools]:
    """Varints of `width` bytes, and which of them are that long and below 2 ** 64."""
    found = np.zeros(len(begin), dtype=np.uint64)
    fits = np.full(len(begin), width > 0)
    for at in range(width):
        byte = _at(data, begin + at)
        fits &= byte >= 0x80 if at < width - 1 else byte < (2 if width == VARINT_BYTES_MAX else 0x80)
        found |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * at)
    return found.view(np.int64), fits


def _lengths(data: Bytes, at: Ints) -> tuple[Ints, Ints]:
    """The lengths that stand at these places, and where what they count begins."""
    first = _at(data, at)
    length, begin = first.astype(np.int64), at + 1
    long = np.flatnonzero(first >= 0x80)
    if len(long):
        length[long], begin[long] = _long_lengths(data, at[long])
    return length, begin


def _long_lengths(data: Bytes, at: Ints) -> tuple[Ints, Ints]:
    length, begin = np.zeros(len(at), dtype=np.int64), at
    open_ = np.ones(len(at), dtype=bool)
    for shift in range(0, 7 * LENGTH_BYTES_MAX, 7):
        byte = _at(data, begin)
        length |= np.where(open_, (byte & 0x7F).astype(np.int64) << shift, 0)
        begin = begin + open_
        open_ &= byte >= 0x80
    return np.where(open_, NOWHERE, length), begin


def _at(data: Bytes, places: Ints) -> Bytes:
    """The bytes at these places; any byte for a place behind the end, which the caller finds out by its sizes."""
    return data.take(places, mode="clip")


def _bytes_of(raw: pa.BinaryArray) -> tuple[Bytes, Ints, Ints]:
    """The buffer of an array, and where each value begins and ends in it."""
    _, offsets, data = raw.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[raw.offset : raw.offset + len(raw) + 1].astype(np.int64)
    if data is None or not data.size:
        return np.zeros(1, dtype=np.uint8), ends[:-1], ends[1:]
    return np.frombuffer(data, dtype=np.uint8), ends[:-1], ends[1:]


def _cut(raw: pa.BinaryArray, begin: Ints, end: Ints) -> pa.BinaryArray:
    """An array whose every second value is one of these pieces, in the same buffer; between them stands the rest."""
    offsets = np.empty((len(begin), 2), dtype=np.int32)
    offsets[:, 0], offsets[:, 1] = begin, end
    return pa.Array.from_buffers(raw.type, 2 * len(begin) - 1, [None, pa.py_buffer(offsets), raw.buffers()[2]])


def _even(count: int) -> pa.Array:
    return pa.array(np.arange(0, 2 * count, 2))

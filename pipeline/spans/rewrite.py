"""Changing single values inside OTLP bytes: cutting long ones, repairing invalid UTF-8, marking the span.

A walk over the wire format with the schema of OTLP, for the few spans that need it (about 1 us a field). Fields that
are not changed are copied as bytes, unknown ones too. Nothing is trusted: a length that leads outside is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1 import trace_pb2

from topics.errors import MalformedRequestError

MARKS_KEY = "spanstream.marks"
MARK_ATTRIBUTE_CUT, MARK_SPAN_CUT, MARK_UTF8 = "attribute_cut", "span_cut", "utf8_repaired"
SPAN_LONG = "span is too large for a record and has no long values to cut"
RESOURCE_LONG = "resource or scope is too large for a record and has no long values to cut"
VALUE_BYTES_MIN = 256  # a value is not cut below this to make its span fit
FIELDS_MAX = 200_000  # a span with more fields is not walked: 0.2 s of CPU
DEPTH_MAX = 100  # protobuf's own limit of nesting
MARKS_BYTES_MAX = 512  # what add_marks may add


class Leaf(Enum):
    """A length-delimited field that holds a value: text or bytes, and whether a long one may be cut."""

    KEY = "text that names something: not cut"
    TEXT = "text"
    BYTES = "bytes"


Schema = dict[int, Any]
"""Field number -> Leaf, or the Schema of the message inside."""

Edit = Callable[[bytes, Leaf], bytes | None]
"""Gives a value's replacement, or None to keep it."""


def _schema(message: Descriptor | None, known: dict[str, Schema]) -> Schema:
    assert message is not None
    if message.full_name in known:
        return known[message.full_name]
    schema: Schema = {}
    known[message.full_name] = schema  # AnyValue holds itself
    for found in message.fields:
        if found.type == FieldDescriptor.TYPE_MESSAGE:
            schema[found.number] = _schema(found.message_type, known)
        elif found.type == FieldDescriptor.TYPE_STRING:
            schema[found.number] = Leaf.KEY if found.name in ("key", "schema_url") else Leaf.TEXT
        elif found.type == FieldDescriptor.TYPE_BYTES and found.name == "bytes_value":
            schema[found.number] = Leaf.BYTES  # IDs are bytes too: never cut
    return schema


_KNOWN: dict[str, Schema] = {}
_RESOURCE_SPANS = _schema(trace_pb2.ResourceSpans.DESCRIPTOR, _KNOWN)
_SCOPE_SPANS: Schema = _RESOURCE_SPANS[2]
_SPAN: Schema = _SCOPE_SPANS[2]
_ENVELOPES = {
    name: {number: inner for number, inner in schema.items() if number != 2}
    for name, schema in (("ResourceSpans", _RESOURCE_SPANS), ("ScopeSpans", _SCOPE_SPANS))
}


class _TooManyFieldsError(Exception):
    """The walk has used up its fields: whoever started it decides what that means."""


def varint(number: int) -> bytes:
    """Protobuf's variable-length form of a number >= 0."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    low = []
    while number >= 0x80:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*low, number))


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, position behind). Raises MalformedRequestError when it does not end before `end` or has over 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedRequestError("no OTLP protobuf: a number does not end")


def value_end(data: bytes, tag: int, at: int, end: int) -> tuple[int, int]:
    """(start, end) of the value behind `tag`, whose first byte, or that of its length, stands at `at`."""
    wire_type = tag & 7
    start = at
    if wire_type == 2:
        size, start = read_varint(data, at, end)
        stop = start + size
    elif wire_type == 0:
        _, stop = read_varint(data, at, end)
    elif wire_type in (1, 5):
        stop = at + (8 if wire_type == 1 else 4)
    elif wire_type == 3:
        stop = _group_end(data, tag >> 3, at, end)
    else:
        raise MalformedRequestError(f"no OTLP protobuf: wire type {wire_type}")
    if stop > end:
        raise MalformedRequestError("no OTLP protobuf: a field is longer than its message")
    return start, stop


def _group_end(data: bytes, number: int, at: int, end: int) -> int:
    """The end of an unknown group. Groups inside are counted, not entered, so depth costs nothing."""
    open_groups = [number]
    while open_groups:
        tag, at = read_varint(data, at, end)
        if tag & 7 == 3:
            open_groups.append(tag >> 3)
        elif tag & 7 == 4:
            if open_groups.pop() != tag >> 3:
                raise MalformedRequestError("no OTLP protobuf: a group ends that did not begin")
        else:
            _, at = value_end(data, tag, at, end)
    return at


class _Rewriter:
    """One walk: `edit` sees every leaf; at most `fields_max` fields are visited."""

    def __init__(self, edit: Edit, fields_max: int = FIELDS_MAX) -> None:
        self._edit = edit
        self._fields_left = fields_max

    def rewrite(self, data: bytes, schema: Schema, depth: int = 0) -> bytes | None:
        """The message with its leaves edited, or None when no edit changed anything."""
        if depth > DEPTH_MAX:
            raise MalformedRequestError(f"no OTLP protobuf: nested deeper than {DEPTH_MAX}")
        parts: list[bytes] = []
        at = copied = 0
        end = len(data)
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _TooManyFieldsError
            tag, behind_tag = read_varint(data, at, end)
            start, stop = value_end(data, tag, behind_tag, end)
            inner = schema.get(tag >> 3) if tag & 7 == 2 else None
            if inner is not None:
                value = data[start:stop]
                changed = self._edit(value, inner) if isinstance(inner, Leaf) else self.rewrite(value, inner, depth + 1)
                if changed is not None:
                    parts += (data[copied:behind_tag], varint(len(changed)), changed)
                    copied = stop
            at = stop
        if not parts:
            return None
        parts.append(data[copied:])
        return b"".join(parts)


def shorten_span(span: bytes, attribute_bytes_max: int, bytes_max: int) -> tuple[bytes, list[str], str | None]:
    """Cut values above `attribute_bytes_max`, and more where the span is still above `bytes_max`.

    span: a Span's bytes without its tag and length; also without its IDs. Returns (bytes, marks, None), or the bytes
    as they came and the reason why they cannot be made to fit.
    """
    if len(span) <= min(attribute_bytes_max, bytes_max):
        return span, [], None
    fits = len(span) <= bytes_max
    try:
        shortened = _shorten(span, _SPAN, attribute_bytes_max, bytes_max)
    except _TooManyFieldsError:
        shortened = (span, []) if fits else None  # one that fits is the worker's, who looks at columns
    return (span, [], SPAN_LONG) if shortened is None else (*shortened, None)


def shorten_envelope(envelope: bytes, message: str, bytes_max: int) -> tuple[bytes, list[str]] | None:
    """Cut the longest values of a resource or scope until it is at most `bytes_max`; None when they do not suffice.

    envelope: the fields of `message` ("ResourceSpans" or "ScopeSpans") without its spans. Returns (bytes, marks).
    """
    if len(envelope) <= bytes_max:
        return envelope, []
    try:
        shortened = _shorten(envelope, _ENVELOPES[message], bytes_max, bytes_max)
    except _TooManyFieldsError:
        return None
    return None if shortened is None else (shortened[0], [MARK_ATTRIBUTE_CUT])


def _shorten(data: bytes, schema: Schema, value_bytes_max: int, bytes_max: int) -> tuple[bytes, list[str]] | None:
    sizes: list[int] = []

    def measure(value: bytes, leaf: Leaf) -> None:
        if leaf is not Leaf.KEY and len(value) > VALUE_BYTES_MIN:
            sizes.append(len(value))

    _Rewriter(measure).rewrite(data, schema)
    level = _level(sizes, len(data) - bytes_max)
    if level is None:
        return None
    marks = [MARK_SPAN_CUT] if level < value_bytes_max and max(sizes, default=0) > level else []
    if max(sizes, default=0) > value_bytes_max:
        marks.append(MARK_ATTRIBUTE_CUT)
    level = min(level, value_bytes_max)

    def cut(value: bytes, leaf: Leaf) -> bytes | None:
        if leaf is Leaf.KEY or len(value) <= level:
            return None
        # A character cut in two at the end is dropped; what is invalid elsewhere was refused or repaired before.
        return value[:level] if leaf is Leaf.BYTES else value[:level].decode("utf-8", "ignore").encode()

    return (_Rewriter(cut).rewrite(data, schema) or data, marks)


def _level(sizes: list[int], excess: int) -> int | None:
    """The largest size to which all longer values are cut so that `excess` bytes go; None when that takes too much."""
    level = max(sizes, default=0)
    if excess <= 0:
        return max(level, VALUE_BYTES_MIN)
    ordered = sorted(sizes, reverse=True)
    total = 0
    for number, size in enumerate(ordered, start=1):
        total += size
        following = ordered[number] if number < len(ordered) else 0
        if total - number * following >= excess:
            level = (total - excess) // number
            return level if level >= VALUE_BYTES_MIN else None
    return None


def add_marks(span: bytes, marks: Iterable[str]) -> bytes:
    """A Span's bytes with the marks added to its attribute `spanstream.marks`, an array of strings."""
    wanted = list(marks)
    if not wanted:
        return span
    attribute = trace_pb2.Span()
    if MARKS_KEY.encode() in span:
        marked = trace_pb2.Span.FromString(span)
        for found in marked.attributes:
            if found.key == MARKS_KEY and found.value.WhichOneof("value") == "array_value":
                there = {value.string_value for value in found.value.array_value.values}
                for mark in wanted:
                    if mark not in there:
                        found.value.array_value.values.add().string_value = mark
                return bytes(marked.SerializeToString())
    added = attribute.attributes.add(key=MARKS_KEY)
    for mark in wanted:
        added.value.array_value.values.add().string_value = mark
    return span + bytes(attribute.SerializeToString())


def repair_utf8(payload: bytes) -> tuple[bytes, int]:
    """Replace what is no UTF-8 by U+FFFD and mark the spans concerned, all of a resource or scope if it stands there.

    payload: TracesData bytes of which nothing is known. Returns (bytes, spans marked); the bytes still may not parse
    for another reason. Raises MalformedRequestError when a length leads nowhere.
    """
    count = 0
    parts: list[bytes] = []
    at, end = 0, len(payload)
    while at < end:
        tag, at = read_varint(payload, at, end)
        start, at = value_end(payload, tag, at, end)
        if tag == 0x0A:
            resource, marked = _repair_spans_of(payload[start:at], _ENVELOPES["ResourceSpans"], force=False, depth=0)
            count += marked
            parts += (b"\x0a", varint(len(resource)), resource)
    return b"".join(parts), count


def _repair_spans_of(data: bytes, envelope: Schema, *, force: bool, depth: int) -> tuple[bytes, int]:
    """A ResourceSpans (depth 0) or ScopeSpans (depth 1), repaired, with the number of its spans that were marked."""
    inner: list[bytes] = []
    around: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        field_start = at
        tag, at = read_varint(data, at, end)
        start, at = value_end(data, tag, at, end)
        if tag == 0x12:
            inner.append(data[start:at])
        else:
            around.append(data[field_start:at])
    kept = b"".join(around)
    repaired = _rewrite_text(kept, envelope)
    force = force or repaired is not None
    count = 0
    parts = [kept if repaired is None else repaired]
    for message in inner:
        if depth == 0:
            changed, marked = _repair_spans_of(message, _ENVELOPES["ScopeSpans"], force=force, depth=1)
        else:
            changed, marked = _repair_span(message, force=force)
        count += marked
        parts += (b"\x12", varint(len(changed)), changed)
    return b"".join(parts), count


def _repair_span(span: bytes, *, force: bool) -> tuple[bytes, int]:
    try:
        trace_pb2.Span.FromString(span)
    except DecodeError:
        repaired = _rewrite_text(span, _SPAN)
        if repaired is not None:
            return add_marks(repaired, [MARK_UTF8]), 1
    return (add_marks(span, [MARK_UTF8]), 1) if force else (span, 0)


def _rewrite_text(data: bytes, schema: Schema) -> bytes | None:
    def repair(value: bytes, leaf: Leaf) -> bytes | None:
        if leaf is Leaf.BYTES:
            return None
        try:
            value.decode()
        except UnicodeDecodeError:
            return value.decode("utf-8", "replace").encode()
        return None

    try:
        return _Rewriter(repair).rewrite(data, schema)
    except _TooManyFieldsError as exc:
        raise MalformedRequestError(f"a span with invalid UTF-8 has more than {FIELDS_MAX} fields") from exc

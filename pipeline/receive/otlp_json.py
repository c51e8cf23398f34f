"""OTLP/JSON to OTLP protobuf: protobuf's JSON mapping with hex IDs.

Names in lowerCamelCase or lower_snake_case, enums by name or number, 64-bit numbers as strings or numbers, bytes in
base64; unknown fields are ignored. The fields are those of the protobuf descriptors, so none is forgotten.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from pipeline.spans.rewrite import MARK_UTF8, add_marks
from topics.errors import MalformedRequestError, RequestTooLargeError

_EXPORT: Any = trace_service_pb2.ExportTraceServiceRequest
_HEX_FIELDS = frozenset({"trace_id", "span_id", "parent_span_id"})
_INT_BITS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), 1 << 31),
    FieldDescriptor.TYPE_UINT32: (0, 1 << 32),
    FieldDescriptor.TYPE_FIXED32: (0, 1 << 32),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), 1 << 63),
    FieldDescriptor.TYPE_UINT64: (0, 1 << 64),
    FieldDescriptor.TYPE_FIXED64: (0, 1 << 64),
    FieldDescriptor.TYPE_SFIXED64: (-(1 << 63), 1 << 63),
}
_DEPTH_MAX = 90  # nested messages; protobuf parsers refuse beyond 100


class _WrongValueError(MalformedRequestError):
    """A value is not what its field takes. reason: the same without its place, of which there are few."""

    def __init__(self, path: str, wrong: str) -> None:
        super().__init__(f"{path[:200]} {wrong}")
        self.reason = f"{path.rpartition('.')[2].partition('[')[0]} {wrong}"


def to_protobuf(body: bytes, values_max: int) -> tuple[bytes, Counter[str], int]:
    """(TracesData bytes, rejected spans by reason, spans whose text was repaired) of an OTLP/JSON request.

    values_max: most values (counted by their commas and brackets) that are read. A wrong value in a span rejects that
    span; any other raises MalformedRequestError naming the field. RequestTooLargeError above `values_max`. About 40 us
    a span.
    """
    values = body.count(b",") + body.count(b"{") + body.count(b"[")
    if values > values_max:
        raise RequestTooLargeError(f"the request holds about {values} JSON values, at most {values_max} are read")
    parsed, repaired = _load(body)
    if not isinstance(parsed, dict):
        raise MalformedRequestError("the body is no JSON object")
    request = _EXPORT()
    reading = _Reading(repaired=repaired)
    reading.fill(request, parsed, request.DESCRIPTOR, "", 0)
    return request.SerializeToString(), reading.rejected, reading.repaired_spans


def _load(body: bytes) -> tuple[Any, bool]:
    """The parsed body, and whether text in it had to be repaired."""
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError as exc:
        text = body.decode("utf-8", "replace")
        try:
            # Python's parser takes lone surrogates too; they are replaced where a string is read.
            return json.loads(text), True
        except (ValueError, RecursionError):
            raise MalformedRequestError(f"the body is no JSON: {exc}") from exc


class _Reading:
    """One request being read: what was rejected, and how many spans hold repaired text."""

    def __init__(self, *, repaired: bool) -> None:
        self.rejected: Counter[str] = Counter()
        self.repaired_spans = 0
        self._repaired = repaired
        self._saw_replaced = False

    def fill(self, message: Any, values: dict[str, Any], descriptor: Descriptor, where: str, depth: int) -> None:
        """Set the fields of `message` from a JSON object. Raises MalformedRequestError naming the field."""
        if depth > _DEPTH_MAX:
            raise _WrongValueError(where, f"is nested deeper than {_DEPTH_MAX}")
        fields = _fields_of(descriptor)
        for name, value in values.items():
            field = fields.get(name)
            if field is None or value is None:
                continue
            path = f"{where}.{name}" if where else name
            if not field.is_repeated:
                self._set(message, field, value, path, depth)
            elif not isinstance(value, list):
                raise _WrongValueError(path, "is no list")
            elif field.message_type is not None and field.message_type.name == "Span":
                self._add_spans(getattr(message, field.name), value, field.message_type, path, depth)
            else:
                self._add(getattr(message, field.name), field, value, path, depth)

    def _add(self, container: Any, field: FieldDescriptor, values: list[Any], path: str, depth: int) -> None:
        for number, value in enumerate(values):
            if field.message_type is None:
                container.append(self._scalar(field, value, path))
            else:
                self.fill(container.add(), _object(value, path), field.message_type, f"{path}[{number}]", depth + 1)

    def _add_spans(self, spans: Any, values: list[Any], descriptor: Descriptor, path: str, depth: int) -> None:
        for number, value in enumerate(values):
            self._saw_replaced = False
            span = spans.add()
            try:
                self.fill(span, _object(value, path), descriptor, f"{path}[{number}]", depth + 1)
            except _WrongValueError as exc:
                self.rejected[exc.reason] += 1
                del spans[-1]
                continue
            if self._saw_replaced:
                self.repaired_spans += 1
                span.ParseFromString(add_marks(span.SerializeToString(), [MARK_UTF8]))

    def _set(self, message: Any, field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
        if field.message_type is None:
            setattr(message, field.name, self._scalar(field, value, path))
            return
        inner = getattr(message, field.name)
        inner.SetInParent()  # an empty object is there, as it is on the wire
        self.fill(inner, _object(value, path), field.message_type, path, depth + 1)

    def _scalar(self, field: FieldDescriptor, value: Any, path: str) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(value, path)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _hex(value, path) if field.name in _HEX_FIELDS else _base64(value, path)
        if field.enum_type is not None:
            return _enum(field.enum_type, value, path)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return _bool(value, path)
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return _double(value, path)
        low, behind = _INT_BITS[field.type]
        number = _integer(value, path)
        if not low <= number < behind:
            raise _WrongValueError(path, "is out of range")
        return number

    def _text(self, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise _WrongValueError(path, "is no string")
        if not self._repaired:
            return value
        repaired = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._saw_replaced = self._saw_replaced or "\ufffd" in repaired
        return repaired


_FIELDS: dict[str, dict[str, FieldDescriptor]] = {}


def _fields_of(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    fields = _FIELDS.get(descriptor.full_name)
    if fields is None:
        named = {field.name: field for field in descriptor.fields}
        fields = named | {field.camelcase_name: field for field in descriptor.fields}
        _FIELDS[descriptor.full_name] = fields
    return fields


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongValueError(path, "is no object")
    return value


def _hex(value: Any, path: str) -> bytes:
    if value == "":
        return b""
    if isinstance(value, str) and value.isalnum():  # fromhex passes over spaces
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise _WrongValueError(path, "is no hex string of whole bytes")


def _base64(value: Any, path: str) -> bytes:
    if isinstance(value, str):
        try:
            standard = value.replace("-", "+").replace("_", "/").rstrip("=")
            return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _WrongValueError(path, "is no base64")


def _enum(descriptor: EnumDescriptor, value: Any, path: str) -> int:
    if isinstance(value, str):
        known = descriptor.values_by_name.get(value)
        if known is not None:
            return int(known.number)
    try:
        number = _integer(value, path)
    except _WrongValueError:
        raise _WrongValueError(path, "is no enum value") from None
    if not -(1 << 31) <= number < 1 << 31:
        raise _WrongValueError(path, "is out of range")
    return number


def _bool(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _WrongValueError(path, "is no true or false")


def _double(value: Any, path: str) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise _WrongValueError(path, "is no number")


def _integer(value: Any, path: str) -> int:
    if isinstance(value, str) and len(value) <= 25:
        try:
            return int(value)
        except ValueError:
            value = _double(value, path)  # 1e3 is a number of three digits, by protobuf's JSON mapping
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    raise _WrongValueError(path, "is no whole number")

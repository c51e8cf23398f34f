"""A request's body: unpacked within bounds, and validated. Protocols differ only in how they answer."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from pipeline.receive.otlp_json import to_protobuf
from pipeline.spans.rewrite import MARK_UTF8, repair_utf8
from pipeline.spans.slices import SLICE_BYTES, Slicer
from topics.errors import MalformedRequestError, RequestTooLargeError

_EXPORT: Any = trace_service_pb2.ExportTraceServiceRequest
ENCODINGS = ("gzip", "zstd", "deflate", "identity")
_ZSTD_WINDOW_MIN = 8 << 20  # what every encoder may use, by RFC 8878
_PORTION_BYTES = 64 << 10


class Form(Enum):
    """How a body is written; the value is its content type."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


def form_of(content_type: str) -> Form | None:
    """The form that a Content-Type header names, its parameters left aside; None for any other."""
    media_type = content_type.partition(";")[0].strip().lower()
    return next((form for form in Form if form.value == media_type), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a body may take in memory while it is read. span_bytes_max: a longer span in a large request is cut."""

    span_bytes_max: int
    attribute_bytes_max: int
    json_values_max: int


@dataclass(slots=True)
class Validated:
    """Payloads of TracesData that parse, of about 512 kB at most each, and what became of spans on the way there."""

    payloads: list[bytes]
    rejected: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)


def unpack(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its Content-Encoding. Memory is bounded by `bytes_max`, whatever the body would unpack to.

    Raises RequestTooLargeError beyond it, MalformedRequestError for an unknown or broken encoding.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        unpacked = body
    elif encoding == "gzip":
        unpacked = _inflate(body, 31, bytes_max)
    elif encoding == "deflate":
        # RFC 9110 means zlib's form by it; some clients send the bare stream.
        zlib_form = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
        unpacked = _inflate(body, 15 if zlib_form else -15, bytes_max)
    elif encoding == "zstd":
        unpacked = _unzstd(body, bytes_max)
    else:
        raise MalformedRequestError(f"content-encoding {encoding[:40]!r} is none of {', '.join(ENCODINGS)}")
    if len(unpacked) > bytes_max:
        raise RequestTooLargeError(f"the request unpacks to more than {bytes_max} bytes")
    return unpacked


def _inflate(body: bytes, window_bits: int, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max + 1
    while body and left > 0:  # gzip allows several members one after the other
        stream = zlib.decompressobj(window_bits)
        try:
            parts.append(stream.decompress(body, left))
        except zlib.error as exc:
            raise MalformedRequestError(f"the body does not decompress: {exc}") from exc
        left -= len(parts[-1])
        if left > 0 and not stream.eof:
            raise MalformedRequestError("the body does not decompress: it ends too early")
        body = stream.unused_data
    return b"".join(parts)


def _unzstd(body: bytes, bytes_max: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=max(_ZSTD_WINDOW_MIN, bytes_max)).stream_reader(
        body, read_across_frames=True
    )
    try:
        stated = zstandard.get_frame_parameters(body).content_size
        parts = []
        left = bytes_max + 1
        while left > 0 and (part := reader.read(min(left, _PORTION_BYTES))):
            parts.append(part)
            left -= len(part)
    except zstandard.ZstdError as exc:
        raise MalformedRequestError(f"the body does not decompress: {exc}") from exc
    unpacked = b"".join(parts)
    if (
        left > 0
        and stated not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
        and len(unpacked) < stated
    ):
        raise MalformedRequestError("the body does not decompress: it ends too early")
    return unpacked


def validate(body: bytes, form: Form, limits: BodyLimits) -> Validated:
    """Parse an unpacked body, to know that it is OTLP, in portions that bound what the parser takes.

    Raises MalformedRequestError when it is no OTLP, RequestTooLargeError when it would take too much memory. Invalid
    UTF-8 is repaired and marked.
    """
    if form is Form.JSON:
        payload, rejected, repaired = to_protobuf(body, limits.json_values_max)
        validated = _validate(payload, limits)
        validated.rejected.update(rejected)
        validated.marked.update({MARK_UTF8: repaired} if repaired else {})
        return validated
    return _validate(body, limits)


def _validate(payload: bytes, limits: BodyLimits) -> Validated:
    if len(payload) <= SLICE_BYTES:
        payload, repaired = _parsing(payload)
        return Validated([payload], marked=Counter({MARK_UTF8: repaired} if repaired else {}))
    slicer = Slicer(payload, span_bytes_max=limits.span_bytes_max, attribute_bytes_max=limits.attribute_bytes_max)
    whole = Validated([], slicer.rejected, slicer.marked)
    for part in slicer:
        payload, repaired = _parsing(part)
        whole.payloads.append(payload)
        if repaired:
            whole.marked[MARK_UTF8] += repaired
    return whole


def _parsing(payload: bytes) -> tuple[bytes, int]:
    """A payload that parses, as it came or with its text repaired, and how many spans that marked."""
    try:
        _EXPORT.FromString(payload)  # only asked whether it parses: 0.5 us a span
    except DecodeError:
        payload, repaired = repair_utf8(payload)
        try:
            _EXPORT.FromString(payload)
        except DecodeError as exc:
            raise MalformedRequestError(f"the body is no OTLP protobuf: {exc}") from exc
        return payload, repaired
    return payload, 0

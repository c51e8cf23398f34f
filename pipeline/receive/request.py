"""A request's body: unpacked within bounds, and parsed. Protocols differ only in how they answer."""

from __future__ import annotations

import zlib
from enum import Enum

import zstandard

from pipeline.receive.otlp_json import to_protobuf
from pipeline.spans.parsed import Parsed, ParseLimits, parse
from pipeline.spans.rewrite import MARK_UTF8
from topics.errors import MalformedRequestError, RequestTooLargeError

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


def parse_body(body: bytes, form: Form, limits: ParseLimits, json_values_max: int) -> Parsed:
    """Payloads that parse, of an unpacked body in either form.

    Raises MalformedRequestError when it is no OTLP, RequestTooLargeError when it would take too much memory. Invalid
    UTF-8 is repaired and marked.
    """
    if form is Form.PROTOBUF:
        return parse(body, limits)
    payload, rejected, repaired = to_protobuf(body, json_values_max)
    parsed = parse(payload, limits)
    parsed.rejected.update(rejected)
    parsed.marked.update({MARK_UTF8: repaired} if repaired else {})
    return parsed

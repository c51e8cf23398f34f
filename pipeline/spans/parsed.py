"""Knowing that bytes are OTLP before anything is made of them: parsed once, in portions that bound its memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from pipeline.spans.rewrite import MARK_UTF8, repair_utf8
from pipeline.spans.slices import SLICE_BYTES, Slicer
from topics.errors import MalformedRequestError

FOREIGN = "no span, and fields that OTLP does not have"

_EXPORT: Any = trace_service_pb2.ExportTraceServiceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseLimits:
    """In a request above 512 kB a span longer than `span_bytes_max` is cut, first values over `attribute_bytes_max`."""

    span_bytes_max: int
    attribute_bytes_max: int


@dataclass(slots=True)
class Parsed:
    """Payloads of TracesData that parse, of about 512 kB at most each, and what became of spans on the way there."""

    payloads: list[bytes]
    rejected: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)


def parse(payload: bytes, limits: ParseLimits) -> Parsed:
    """Parse TracesData or ExportTraceServiceRequest bytes, 0.5 us a span, whatever they are.

    Raises MalformedRequestError when they are no OTLP, RequestTooLargeError above 500,000 spans. Invalid UTF-8 is
    repaired and its spans marked. Memory: below 60 MB beside the payloads, whatever they hold.
    """
    if len(payload) <= SLICE_BYTES:
        payload, repaired = _parsing(payload)
        return Parsed([payload], marked=Counter({MARK_UTF8: repaired} if repaired else {}))
    slicer = Slicer(payload, span_bytes_max=limits.span_bytes_max, attribute_bytes_max=limits.attribute_bytes_max)
    whole = Parsed([], slicer.rejected, slicer.marked)
    for part in slicer:
        some, repaired = _parsing(part)
        whole.payloads.append(some)
        if repaired:
            whole.marked[MARK_UTF8] += repaired
    return whole


def _parsing(payload: bytes) -> tuple[bytes, int]:
    """A payload that parses, as it came or with its text repaired, and how many spans that marked."""
    repaired = 0
    try:
        message = _EXPORT.FromString(payload)  # only asked whether it parses
    except DecodeError:
        payload, repaired = repair_utf8(payload)
        try:
            message = _EXPORT.FromString(payload)
        except DecodeError as exc:
            raise MalformedRequestError(f"no OTLP protobuf: {exc}") from exc
    if _is_foreign(message):
        raise MalformedRequestError(f"no OTLP protobuf: {FOREIGN}")
    return payload, repaired


def is_foreign(payload: bytes) -> bool:
    """True for a message of another kind that a decoder takes for OTLP without spans, as one Jaeger span in 60."""
    try:
        return _is_foreign(_EXPORT.FromString(payload))
    except DecodeError:
        return True


def _is_foreign(message: Any) -> bool:
    """No span, but fields that OTLP does not have."""
    if any(scope.spans for resource in message.resource_spans for scope in resource.scope_spans):
        return False
    return len(UnknownFieldSet(message)) > 0

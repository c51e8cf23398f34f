"""Knowing that bytes are OTLP before anything is made of them: parsed once, in portions that bound its memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from pipeline.spans.rewrite import MARK_UTF8, repair_utf8
from pipeline.spans.slices import SLICE_BYTES, Slicer
from topics.errors import MalformedRequestError

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
    try:
        _EXPORT.FromString(payload)  # only asked whether it parses
    except DecodeError:
        payload, repaired = repair_utf8(payload)
        try:
            _EXPORT.FromString(payload)
        except DecodeError as exc:
            raise MalformedRequestError(f"no OTLP protobuf: {exc}") from exc
        return payload, repaired
    return payload, 0

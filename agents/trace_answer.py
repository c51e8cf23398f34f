"""A trace as the querier answers it: `TraceByIDResponse` of `/api/v2/traces/{id}`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.trace.v1 import trace_pb2

from topics.errors import QuerierUnavailableError

_TRACE, _STATUS, _MESSAGE = 1, 3, 4
_VARINT, _BYTES = 0, 2


@dataclass(frozen=True, slots=True)
class TraceAnswer:
    """traces_data: OTLP TracesData. partial: the answer is not complete, and message says why.

    copies: late copies of its spans that are stored too, and are not in the answer.
    """

    traces_data: Any
    partial: bool
    message: str
    copies: int = 0

    def span_ids(self) -> list[bytes]:
        """Of every span, copies included, in the order of the answer."""
        return [
            span.span_id
            for resource in self.traces_data.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def read_answer(body: bytes, copies: int = 0) -> TraceAnswer:
    """Parse the protobuf; Tempo's Trace and OTLP's TracesData are the same bytes. copies: what its header says.

    Raises QuerierUnavailableError.
    """
    traces, status, message = b"", 0, ""
    try:
        for number, value in _fields(body):
            if number == _TRACE and isinstance(value, bytes):
                traces += value
            elif number == _STATUS and isinstance(value, int):
                status = value
            elif number == _MESSAGE and isinstance(value, bytes):
                message = value.decode(errors="replace")
        proto: Any = trace_pb2
        return TraceAnswer(proto.TracesData.FromString(traces), status == 1, message, copies)
    except (ValueError, IndexError) as exc:
        raise QuerierUnavailableError("the answer is no TraceByIDResponse: is this a querier's URL?") from exc


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        value, at = _varint(body, at)
        if tag & 7 == _BYTES:
            end = at + value
            if end > len(body):
                raise ValueError("cut off")
            yield tag >> 3, body[at:end]
            at = end
        elif tag & 7 == _VARINT:
            yield tag >> 3, value
        else:
            raise ValueError(f"unexpected wire type {tag & 7}")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7

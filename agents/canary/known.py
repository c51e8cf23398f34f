"""Known traces: all of one follows from its seed and when it was written, so that it can be compared at any time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.load.spans import key_value

SERVICES = ("canary-front", "canary-shop", "canary-store")
SPANS_MAX = 12
ID_ATTRIBUTE = "canary.id"
_proto: Any = trace_service_pb2
_trace_proto: Any = trace_pb2


@dataclass(frozen=True, slots=True)
class Known:
    """A trace that the canary wrote. It ends when it is written and is a second long."""

    seed: int
    written_unix_ns: int

    @property
    def trace_id(self) -> bytes:
        """Never all zero."""
        return self._random().randbytes(15) + b"\x01"

    @property
    def name(self) -> str:
        """The value of ID_ATTRIBUTE on every span: this trace's alone."""
        return f"{self.seed:016x}"

    def request(self) -> Any:
        """An OTLP request with the whole trace: several services, all kinds of values, an event, an error."""
        rng = self._random()
        trace_id = rng.randbytes(15) + b"\x01"
        request = _proto.ExportTraceServiceRequest()
        scopes = []
        for service in SERVICES:
            resource_spans = request.resource_spans.add()
            resource_spans.resource.attributes.append(key_value("service.name", service))
            scopes.append(resource_spans.scope_spans.add())
        start, ids = self.written_unix_ns - 10**9, list[bytes]()
        for number in range(rng.randint(3, SPANS_MAX)):
            begin = start + number * 1_000_000
            span = scopes[number % len(scopes)].spans.add(
                trace_id=trace_id,
                span_id=rng.randbytes(7) + b"\x01",
                parent_span_id=rng.choice(ids) if ids else b"",
                name=f"canary {number}",
                kind=1 + number % 5,
                start_time_unix_nano=begin,
                end_time_unix_nano=begin + rng.randrange(10**8),
            )
            ids.append(span.span_id)
            values: list[bool | int | float | str] = [
                self.name,
                number,
                number / 7,
                number % 2 == 0,
                "x" * rng.randrange(200),
            ]
            names = [ID_ATTRIBUTE, "canary.number", "canary.part", "canary.even", "canary.text"]
            span.attributes.extend(key_value(key, value) for key, value in zip(names, values, strict=True))
            if number == 1:
                span.status.code, span.status.message = 2, "an error that is meant"
                span.events.add(name="exception", time_unix_nano=begin)
        return request

    def _random(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311 - known, not secret


def spans_of(traces_data: Any) -> list[tuple[bytes, bytes]]:
    """(span ID, everything that the span says with its service) of each span, comparable whatever their order."""
    return sorted(
        (span.span_id, _said(resource.resource, span))
        for resource in traces_data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def _said(resource: Any, span: Any) -> bytes:
    one = _trace_proto.Span()
    one.CopyFrom(span)
    attributes = sorted([*resource.attributes, *one.attributes], key=lambda pair: pair.key)
    del one.attributes[:]
    one.attributes.extend(attributes)
    if not one.status.ByteSize():  # absent and empty are the same
        one.ClearField("status")
    return bytes(one.SerializeToString(deterministic=True))

"""Load as bytes: templates serialized once, then patched with new trace IDs and times, about 0.1 us a span.

Everything but the times follows from the seed, so what was sent can be computed again and counted back.
"""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from agents.load.spans import BASE_UNIX_NS, TraceDraw, resource_attributes

TRACES_PER_BLOCK = 1000
TEMPLATES = 8
SPANS_PER_REQUEST_MAX = 500
SPANS_PER_TRACE = 20.3  # the mean of the drawn traces
WHOLE_BLOCKS_SPANS = 200_000  # a smaller load has smaller blocks, to come near the number that was asked for
TRACE_ID_TAG, START_TAG, END_TAG, EVENT_TIME_TAG = b"\x0a\x10", b"\x39", b"\x41", b"\x09"  # protobuf field and length
AGE_S = 2.0  # a block's traces start so long before it is made

Bytes2 = npt.NDArray[np.uint8]
_proto: Any = trace_service_pb2


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A serialized request, where its trace IDs and times stand, and which spans it holds.

    trace_index, span_ids, id_at: per span; time_at, time: per place of a time.
    """

    body: Bytes2
    trace_index: npt.NDArray[np.int64]
    span_ids: Bytes2
    id_at: npt.NDArray[np.int64]
    time_at: npt.NDArray[np.int64]
    time: npt.NDArray[np.uint64]

    def patched(self, trace_ids: Bytes2, shift_ns: int) -> bytes:
        """The request with these trace IDs (n, 16) and its times moved."""
        body = self.body.copy()
        body[self.id_at[:, None] + np.arange(16)] = trace_ids[self.trace_index]
        moved = self.time + np.uint64(shift_ns)
        body[self.time_at[:, None] + np.arange(8)] = moved.view(np.uint8).reshape(-1, 8)
        return body.tobytes()


class Template:
    """One block: `traces` traces in requests of one service instance each, as its SDK would batch them."""

    def __init__(self, seed: int, traces: int = TRACES_PER_BLOCK) -> None:
        rng = random.Random(seed)  # noqa: S311 (load, no secret)
        trace_ids = [rng.randbytes(16) for _ in range(traces)]
        by_instance: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        self.span_count = 0
        for index, trace_id in enumerate(trace_ids):
            self.span_count += _draw(rng, index, trace_id, by_instance)
        self.requests: list[RequestTemplate] = []
        for (service, instance), spans in by_instance.items():
            spans.sort(key=lambda one: one[1].end_time_unix_nano)
            for start in range(0, len(spans), SPANS_PER_REQUEST_MAX):
                part = spans[start : start + SPANS_PER_REQUEST_MAX]
                self.requests.append(_request(service, instance, part, trace_ids))


def _draw(rng: random.Random, index: int, trace_id: bytes, into: dict[tuple[str, int], list[tuple[int, Any]]]) -> int:
    drawn = TraceDraw(rng, trace_id)
    for service, instance, span in zip(drawn.services, drawn.instances, drawn.spans, strict=True):
        into.setdefault((service, instance), []).append((index, span))
    return len(drawn.spans)


def _request(service: str, instance: int, part: list[tuple[int, Any]], trace_ids: list[bytes]) -> RequestTemplate:
    request = _proto.ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(resource_attributes(service, instance))
    ordered: list[tuple[int, Any]] = []
    for scope in ("http", "db"):
        chosen = [(index, span) for index, span in part if (span.kind == 3) == (scope == "db")]
        if chosen:
            scope_spans = resource_spans.scope_spans.add()
            scope_spans.scope.name, scope_spans.scope.version = f"io.opentelemetry.{scope}", "2.1"
            scope_spans.spans.extend(span for _, span in chosen)
            ordered += chosen
    body = request.SerializeToString()
    id_at, times = _places(body, ordered, trace_ids)
    return RequestTemplate(
        body=np.frombuffer(body, np.uint8),
        trace_index=np.array([index for index, _ in ordered], np.int64),
        span_ids=np.frombuffer(b"".join(span.span_id for _, span in ordered), np.uint8).reshape(-1, 8),
        id_at=np.array(id_at, np.int64),
        time_at=np.array([at for at, _ in times], np.int64),
        time=np.array([time for _, time in times], np.uint64),
    )


def _places(
    body: bytes, ordered: list[tuple[int, Any]], trace_ids: list[bytes]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Where each span's trace ID stands, and (place, time) of all times. Fields stand in the order of their numbers."""
    id_at: list[int] = []
    times: list[tuple[int, int]] = []
    at = 0
    for index, span in ordered:
        at = body.index(TRACE_ID_TAG + trace_ids[index], at) + len(TRACE_ID_TAG)
        id_at.append(at)
        events = [(EVENT_TIME_TAG, event.time_unix_nano) for event in span.events]
        for tag, time in [(START_TAG, span.start_time_unix_nano), (END_TAG, span.end_time_unix_nano), *events]:
            at = body.index(tag + struct.pack("<Q", time), at) + 1
            times.append((at, time))
    return id_at, times


@dataclass(frozen=True, slots=True)
class Block:
    """What is sent of one block: `bodies[i]` holds the spans of `template.requests[i]` with `trace_ids` (n, 16)."""

    index: int
    template: Template
    trace_ids: Bytes2
    bodies: list[bytes]


class Load:
    """A whole load: `blocks` blocks of about `spans` spans, all of it but the times decided by `seed`.

    age_s: a block's traces start so long before it is made.
    """

    def __init__(self, spans: int, seed: int, age_s: float = AGE_S) -> None:
        self.seed = seed
        self._age_ns = int(age_s * 1e9)
        self.blocks = math.ceil(spans / SPANS_PER_TRACE / TRACES_PER_BLOCK)
        self._traces = max(1, round(spans / SPANS_PER_TRACE / self.blocks))
        if spans >= WHOLE_BLOCKS_SPANS:
            self._traces = TRACES_PER_BLOCK
        self._templates: dict[int, Template] = {}

    @property
    def spans(self) -> int:
        """Spans of the whole load."""
        return sum(self.template(index).span_count for index in range(self.blocks))

    def prepare(self) -> None:
        """Make every template, 2 s each, at most eight: else it is done when the first block needs it."""
        for block in range(min(self.blocks, TEMPLATES)):
            self.template(block)

    @property
    def traces(self) -> int:
        """Traces of the whole load."""
        return self.blocks * self._traces

    def template(self, block: int) -> Template:
        """The template of a block; there are eight of them at most."""
        which = block % TEMPLATES
        if which not in self._templates:
            self._templates[which] = Template(self.seed * 100 + which, self._traces)
        return self._templates[which]

    def trace_ids(self, block: int) -> Bytes2:
        """The trace IDs (traces a block, 16) of a block."""
        ids = np.random.default_rng([self.seed, block]).integers(0, 256, (self._traces, 16), dtype=np.uint8)
        ids[:, 0] |= 0x80  # never all zero, and all 32 digits show
        return ids

    def block(self, index: int, now_unix_ns: int) -> Block:
        """The bytes of a block that is made now."""
        template, trace_ids = self.template(index), self.trace_ids(index)
        shift_ns = now_unix_ns - self._age_ns - BASE_UNIX_NS
        bodies = [request.patched(trace_ids, shift_ns) for request in template.requests]
        return Block(index, template, trace_ids, bodies)

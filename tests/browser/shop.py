"""Twenty minutes of a shop: the new version of payment fails; one order waits for the stock; some names are odd."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status, TracesData

S, MS = 10**9, 10**6
MINUTES, FAILING_MINUTES = 20, 8
TRACES_PER_MINUTE = 15
BROKEN_VERSION, BROKEN_PROVIDER = "2.1.0", "acme-bank"
SERVER, CLIENT = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
HOSTILE_NAMES = (
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "\u202eright to left \u0645\u0631\u062d\u0628\u0627",
    "nul\x00inside",
    "long " + "x" * 10_000,
    "'\"`}{ | select(name) //",
)


@dataclass(slots=True)
class ShopData:
    """What was sent. IDs in hex."""

    started_unix_ns: int
    slow: str = ""
    hostile: str = ""
    failed: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)
    spans: int = 0


@dataclass(slots=True)
class BuiltTrace:
    """One trace as it is built up: spans by their resource."""

    trace_id: bytes
    rng: random.Random
    spans: dict[tuple[tuple[str, str], ...], list[Span]] = field(default_factory=dict)

    def add(
        self, service: str, name: str, start_ns: int, duration_ms: float, parent: bytes = b"", **more: Any
    ) -> bytes:
        """A span; more: kind, version, error, attributes. Gives its ID."""
        resource = (("service.name", service), ("service.version", more.get("version", "1.4.2")))
        span = Span(
            trace_id=self.trace_id,
            span_id=self.rng.randbytes(8),
            parent_span_id=parent,
            name=name,
            kind=more.get("kind", SERVER),
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + int(duration_ms * MS),
            attributes=[pair(key, value) for key, value in more.get("attributes", {}).items()],
        )
        if error := more.get("error", ""):
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, error
            event = span.events.add(name="exception", time_unix_nano=span.end_time_unix_nano)
            event.attributes.extend([pair("exception.type", "TimeoutError"), pair("exception.message", error)])
        self.spans.setdefault(resource, []).append(span)
        return span.span_id


def pair(key: str, value: Any) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    kind = {int: "int_value", float: "double_value"}.get(type(value), "string_value")
    return KeyValue(key=key, value=AnyValue(**{kind: value}))


def send_shop(otlp_url: str, *, odd_names: bool = True, seed: int = 7) -> ShopData:
    """Send it all; returns when all is acknowledged."""
    rng, now_ns = random.Random(seed), time.time_ns()
    data = ShopData(started_unix_ns=now_ns)
    count = MINUTES * TRACES_PER_MINUTE
    starts = [now_ns - int((count - at) / count * MINUTES * 60 * S) for at in range(count)]
    traces = [
        _browse(rng, start) if at % 3 == 0 else order(rng, start, now_ns, data) for at, start in enumerate(starts)
    ]
    traces.append(_slow(rng, now_ns - 3 * 60 * S, data))
    if odd_names:
        traces.append(_hostile(rng, now_ns - 2 * 60 * S, data))
    for first in range(0, len(traces), 50):
        send(otlp_url, traces[first : first + 50])
    data.spans = sum(len(spans) for one in traces for spans in one.spans.values())
    return data


def send(otlp_url: str, traces: list[BuiltTrace]) -> None:
    """One OTLP request of the traces."""
    batches = TracesData(resource_spans=[batch for one in traces for batch in _batches(one)])
    answer = httpx.post(
        f"{otlp_url}/v1/traces",
        content=batches.SerializeToString(),
        headers={"content-type": "application/x-protobuf"},
        timeout=60,
    )
    answer.raise_for_status()


def _batches(trace: BuiltTrace) -> Iterator[ResourceSpans]:
    for resource, spans in trace.spans.items():
        batch = ResourceSpans()
        batch.resource.attributes.extend(pair(key, value) for key, value in resource)
        scope = batch.scope_spans.add()
        scope.scope.name = "shop"
        scope.spans.extend(spans)
        yield batch


def _browse(rng: random.Random, start: int) -> BuiltTrace:
    trace = BuiltTrace(rng.randbytes(16), rng)
    took = rng.lognormvariate(3, 0.5)
    route = {"http.request.method": "GET", "http.route": "/products", "http.response.status_code": 200}
    root = trace.add("frontend", "GET /products", start, took + 8, attributes=route)
    call = trace.add("frontend", "GET catalog", start + 2 * MS, took + 4, root, kind=CLIENT)
    listing = trace.add("catalog", "GET /items", start + 3 * MS, took + 2, call)
    sql = {"db.system.name": "postgresql", "db.query.text": "SELECT * FROM items WHERE shown ORDER BY rank"}
    trace.add("catalog", "SELECT items", start + 4 * MS, took, listing, kind=CLIENT, attributes=sql)
    return trace


def order(rng: random.Random, start: int, now_ns: int, data: ShopData) -> BuiltTrace:
    trace = BuiltTrace(rng.randbytes(16), rng)
    is_new = start > now_ns - FAILING_MINUTES * 60 * S
    version = BROKEN_VERSION if is_new and rng.random() < 0.7 else "2.0.3"
    provider = rng.choice([BROKEN_PROVIDER, "north-bank", "card-house"])
    error = "the bank did not answer in 300 ms" if version == BROKEN_VERSION and provider == BROKEN_PROVIDER else ""
    paying = 300 + rng.random() * 30 if error else rng.lognormvariate(3.2, 0.4)
    status = 502 if error else 201
    route = {"http.request.method": "POST", "http.route": "/orders", "http.response.status_code": status}
    root = trace.add(
        "frontend", "POST /orders", start, paying + 50, attributes=route, error=error and "the order was not placed"
    )
    call = trace.add("frontend", "POST checkout", start + 3 * MS, paying + 44, root, kind=CLIENT)
    checkout = trace.add("checkout", "POST /checkout", start + 4 * MS, paying + 40, call, error=error and "no payment")
    stock = trace.add("checkout", "reserve", start + 6 * MS, 14, checkout, kind=CLIENT)
    trace.add("inventory", "POST /reserve", start + 7 * MS, 11, stock, attributes={"cart.items": rng.randint(1, 6)})
    paid = trace.add("checkout", "POST payment", start + 22 * MS, paying + 10, checkout, kind=CLIENT)
    about = {"payment.provider": provider, "payment.amount": round(rng.uniform(5, 200), 2), "payment.retried": False}
    trace.add("payment", "charge card", start + 24 * MS, paying, paid, version=version, attributes=about, error=error)
    (data.failed if error else data.good).append(trace.trace_id.hex())
    return trace


def _slow(rng: random.Random, start: int, data: ShopData) -> BuiltTrace:
    trace = BuiltTrace(rng.randbytes(16), rng)
    root = trace.add("frontend", "POST /orders", start, 2600, attributes={"http.route": "/orders"})
    checkout = trace.add("checkout", "POST /checkout", start + 5 * MS, 2580, root)
    reserve = trace.add("inventory", "POST /reserve", start + 20 * MS, 2500, checkout)
    sql = {"db.system.name": "postgresql", "db.query.text": "SELECT * FROM stock FOR UPDATE"}
    trace.add("inventory", "SELECT stock", start + 30 * MS, 2450, reserve, kind=CLIENT, attributes=sql)
    data.slow = trace.trace_id.hex()
    return trace


def _hostile(rng: random.Random, start: int, data: ShopData) -> BuiltTrace:
    trace = BuiltTrace(rng.randbytes(16), rng)
    parent = b""
    for at, name in enumerate(HOSTILE_NAMES):
        attributes = {"<b>key</b>": name, "html": "<a href='javascript:window.hacked=1'>x</a>"}
        parent = trace.add(name, name, start + at * MS, 50 - 5 * at, parent, attributes=attributes)
    data.hostile = trace.trace_id.hex()
    return trace

"""Realistic spans: traces of a shop of twenty services, as SDKs batch them.

The order of the draws from `random.Random` is part of the load: figures measured on it stay comparable.
"""

from __future__ import annotations

import random
from typing import Any

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

SERVICES = [
    *("frontend", "cart", "checkout", "payment", "shipping", "email", "currency", "recommendation", "ad", "quote"),
    *("catalog", "inventory", "search", "auth", "user", "fraud", "billing", "notify", "edge", "ledger"),
]
LANGUAGES = ("go", "java", "python", "nodejs", "dotnet", "rust")
BASE_UNIX_NS = 1_700_000_000_000_000_000
SPANS_PER_TRACE_MAX = 200
INSTANCES = 3  # of each service
ENTRY_SERVICES = [*SERVICES[:3], "edge"]

_proto: Any = trace_pb2
_common: Any = common_pb2


def key_value(key: str, value: bool | int | float | str | list[str]) -> Any:
    """A KeyValue of the value's own type."""
    any_value = _common.AnyValue()
    if isinstance(value, bool):
        any_value.bool_value = value
    elif isinstance(value, int):
        any_value.int_value = value
    elif isinstance(value, float):
        any_value.double_value = value
    elif isinstance(value, list):
        for item in value:
            any_value.array_value.values.add().string_value = item
    else:
        any_value.string_value = value
    return _common.KeyValue(key=key, value=any_value)


class TraceDraw:
    """One trace drawn from `rng`: spans in the order they were drawn, and for each its service and instance."""

    def __init__(self, rng: random.Random, trace_id: bytes) -> None:
        self._rng = rng
        self._trace_id = trace_id
        count = max(1, min(SPANS_PER_TRACE_MAX, int(rng.lognormvariate(2.7, 0.8))))
        self._ids = [rng.randbytes(8) for _ in range(count)]
        base = BASE_UNIX_NS + rng.randrange(10**9)
        self._starts = [base]
        self._ends = [base + int(rng.lognormvariate(18.5, 1))]
        self.services = [rng.choice(ENTRY_SERVICES)]
        self.instances: list[int] = []
        self.spans = [self._span(index) for index in range(count)]

    def _span(self, index: int) -> Any:
        parent = self._place_below_a_parent(index) if index else None
        span = _proto.Span(
            trace_id=self._trace_id,
            span_id=self._ids[index],
            parent_span_id=b"" if parent is None else self._ids[parent],
            start_time_unix_nano=self._starts[index],
            end_time_unix_nano=self._ends[index],
        )
        failed = self._rng.random() < 0.03
        self._kind_of_work(span, index, parent, failed=failed)
        if self._rng.random() < 0.02:
            span.attributes.append(key_value("tags", [self._rng.choice("abcdef") for _ in range(3)]))
        if failed:
            self._fail(span, self._ends[index])
        if self._rng.random() < 0.01:
            link = span.links.add()
            link.trace_id, link.span_id = self._rng.randbytes(16), self._rng.randbytes(8)
            link.attributes.append(key_value("opentracing.ref_type", "child_of"))
        self.instances.append(self._rng.randrange(INSTANCES))
        return span

    def _place_below_a_parent(self, index: int) -> int:
        rng = self._rng
        parent = rng.randrange(max(0, index - 8), index)
        duration = max(2000, self._ends[parent] - self._starts[parent])
        start = self._starts[parent] + rng.randrange(max(1, duration // 2))
        end = start + max(1000, rng.randrange(max(2, self._ends[parent] - start)))
        self._starts.append(start)
        self._ends.append(end)
        same = rng.random() < 0.45
        self.services.append(self.services[parent] if same else rng.choice(SERVICES))
        return parent

    def _kind_of_work(self, span: Any, index: int, parent: int | None, *, failed: bool) -> None:
        service, draw = self.services[index], self._rng.random()
        if parent is None or draw < 0.35:
            entered = parent is None or self.services[parent] != service
            self._http(span, service, entered=entered, failed=failed)
        elif draw < 0.6:
            self._database(span)
        elif draw < 0.75:
            self._messaging(span)
        else:
            self._compute(span, service)

    def _http(self, span: Any, service: str, *, entered: bool, failed: bool) -> None:
        rng = self._rng
        method = rng.choice(["GET", "GET", "GET", "POST", "PUT"])
        route = f"/api/{service}/{rng.randrange(12)}"
        span.name, span.kind = f"{method} {route}", 2 if entered else 3
        status = 500 if failed else rng.choice([200] * 18 + [404, 429])
        path = f"{route}/{rng.randrange(10**5)}"
        agent = f"Mozilla/5.0 (X11; Linux) {rng.randrange(40)}"
        address = f"10.{rng.randrange(4)}.{rng.randrange(255)}.{rng.randrange(255)}"
        span.attributes.extend(
            [
                key_value("http.request.method", method),
                key_value("http.response.status_code", status),
                key_value("http.route", route),
                key_value("url.path", path),
                key_value("server.address", f"{service}.prod.svc"),
                key_value("server.port", 8080),
                key_value("user_agent.original", agent),
                key_value("client.address", address),
                key_value("network.protocol.version", "1.1"),
            ]
        )

    def _database(self, span: Any) -> None:
        rng = self._rng
        table = rng.choice(["orders", "users", "items", "events", "stock"])
        span.name, span.kind = f"SELECT {table}", 3
        row, region = rng.randrange(10**6), rng.choice(["eu", "us", "ap"])
        span.attributes.extend(
            [
                key_value("db.system.name", "postgresql"),
                key_value("db.namespace", "shop"),
                key_value("db.query.text", f"SELECT * FROM {table} WHERE id = {row} AND region = '{region}'"),  # noqa: S608
                key_value("db.operation.name", "SELECT"),
                key_value("db.collection.name", table),
                key_value("server.address", f"pg-{rng.randrange(4)}"),
                key_value("db.response.returned_rows", rng.randrange(500)),
            ]
        )

    def _messaging(self, span: Any) -> None:
        rng = self._rng
        span.name = f"orders {rng.choice(['publish', 'process'])}"
        span.kind = rng.choice([4, 5])
        span.attributes.extend(
            [
                key_value("messaging.system", "kafka"),
                key_value("messaging.destination.name", "orders"),
                key_value("messaging.kafka.offset", rng.randrange(10**8)),
                key_value("messaging.destination.partition.id", str(rng.randrange(12))),
            ]
        )

    def _compute(self, span: Any, service: str) -> None:
        rng = self._rng
        span.name = f"{service}.{rng.choice(['compute', 'render', 'validate', 'lookup', 'cache.get'])}"
        span.kind = 1
        span.attributes.extend(
            [
                key_value("thread.id", rng.randrange(64)),
                key_value("code.function.name", f"{service}.handler"),
                key_value("cache.hit", rng.random() < 0.7),
                key_value("score", rng.random()),
            ]
        )

    def _fail(self, span: Any, time_unix_ns: int) -> None:
        rng = self._rng
        span.status.code, span.status.message = 2, "upstream failed"
        event = span.events.add()
        event.name, event.time_unix_nano = "exception", time_unix_ns
        event.attributes.extend(
            [
                key_value("exception.type", rng.choice(["TimeoutError", "ValueError", "IOError"])),
                key_value("exception.message", f"failed after {rng.randrange(5000)} ms"),
                key_value("exception.stacktrace", f"at a.b.c({rng.randrange(999)})\n" * 6),
            ]
        )


def resource_attributes(service: str, instance: int) -> list[Any]:
    """What the SDK of instance 0..2 of a service says about it."""
    place = SERVICES.index(service)
    return [
        key_value("service.name", service),
        key_value("service.version", f"1.{place % 5}.0"),
        key_value("service.instance.id", f"{service}-{instance}"),
        key_value("host.name", f"node-{place % 6}"),
        key_value("k8s.pod.name", f"{service}-7d9f-{instance}"),
        key_value("k8s.namespace.name", "prod"),
        key_value("deployment.environment.name", "production"),
        key_value("telemetry.sdk.language", LANGUAGES[place % 6]),
        key_value("telemetry.sdk.name", "opentelemetry"),
        key_value("telemetry.sdk.version", "1.30.0"),
    ]

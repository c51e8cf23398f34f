"""The load that everything is measured on has the distributions that it is said to have."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import zstandard
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from agents.load.blocks import Template

# Figures of block 100 of the load generator that the limits were set with: (how often the key stands, distinct values)
KEYS = {
    "resource.deployment.environment.name": (72, 1),
    "resource.host.name": (72, 6),
    "resource.k8s.namespace.name": (72, 1),
    "resource.k8s.pod.name": (72, 60),
    "resource.service.instance.id": (72, 60),
    "resource.service.name": (72, 20),
    "resource.service.version": (72, 5),
    "resource.telemetry.sdk.language": (72, 6),
    "resource.telemetry.sdk.name": (72, 1),
    "resource.telemetry.sdk.version": (72, 1),
    "span.cache.hit": (4797, 2),
    "span.client.address": (7857, 7725),
    "span.code.function.name": (4797, 20),
    "span.db.collection.name": (4860, 5),
    "span.db.namespace": (4860, 1),
    "span.db.operation.name": (4860, 1),
    "span.db.query.text": (4860, 4859),
    "span.db.response.returned_rows": (4860, 500),
    "span.db.system.name": (4860, 1),
    "span.http.request.method": (7857, 3),
    "span.http.response.status_code": (7857, 4),
    "span.http.route": (7857, 240),
    "span.messaging.destination.name": (2940, 1),
    "span.messaging.destination.partition.id": (2940, 12),
    "span.messaging.kafka.offset": (2940, 2940),
    "span.messaging.system": (2940, 1),
    "span.network.protocol.version": (7857, 1),
    "span.score": (4797, 4797),
    "span.server.address": (12717, 24),
    "span.server.port": (7857, 1),
    "span.tags": (391, 176),
    "span.thread.id": (4797, 64),
    "span.url.path": (7857, 7856),
    "span.user_agent.original": (7857, 40),
}
SPANS, REQUESTS, NAMES, EVENTS, LINKS = 20_454, 72, 826, 594, 190
OTLP_BYTES_PER_SPAN = 309.48
ZSTD_3_RATIO = 5.790


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    """One block's requests."""
    return [request.body.tobytes() for request in Template(100).requests]


def test_keys_and_their_values_are_as_many_as_in_the_load_that_the_limits_were_set_with(bodies: list[bytes]) -> None:
    counts: Counter[str] = Counter()
    values: dict[str, set[bytes]] = defaultdict(set)
    spans: list[Span] = []
    for resource_spans in TracesData.FromString(b"".join(bodies)).resource_spans:
        spans_inside = [span for scope in resource_spans.scope_spans for span in scope.spans]
        carriers = [("resource", resource_spans.resource.attributes), *(("span", s.attributes) for s in spans_inside)]
        for scope, attributes in carriers:
            for attribute in attributes:
                counts[f"{scope}.{attribute.key}"] += 1
                values[f"{scope}.{attribute.key}"].add(attribute.value.SerializeToString())
        spans += spans_inside

    assert {key: (counts[key], len(values[key])) for key in counts} == KEYS
    assert (len(spans), len(bodies), len({span.name for span in spans})) == (SPANS, REQUESTS, NAMES)
    assert (sum(len(span.events) for span in spans), sum(len(span.links) for span in spans)) == (EVENTS, LINKS)


def test_it_is_as_large_and_as_compressible(bodies: list[bytes]) -> None:
    joined = b"".join(bodies)

    assert len(joined) / SPANS == pytest.approx(OTLP_BYTES_PER_SPAN, abs=0.01)
    assert len(joined) / len(zstandard.ZstdCompressor(level=3).compress(joined)) == pytest.approx(
        ZSTD_3_RATIO, rel=0.005
    )

"""The load: the same bytes for the same seed, real OTLP, about as much as was asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.load.blocks import BASE_UNIX_NS, Load, Template

NOW = BASE_UNIX_NS + 10**18
# Of the first template of seed 1: figures measured on this load stay comparable only while it is the same
TEMPLATE_SHA256 = "2f48ce4b9370c170410950bbab400e3d0c61b77c4b4e0f95d5421a4470535838"
TEMPLATE_SPANS = 20_454


def spans_of(bodies: list[bytes]) -> list[Any]:
    proto: Any = trace_pb2
    parsed = [proto.TracesData.FromString(body) for body in bodies]
    return [
        span
        for data in parsed
        for resource in data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_the_load_is_the_one_that_the_figures_were_measured_on() -> None:
    template = Template(100)

    digest = hashlib.sha256(b"".join(request.body.tobytes() for request in template.requests)).hexdigest()

    assert (template.span_count, digest) == (TEMPLATE_SPANS, TEMPLATE_SHA256)


def test_the_same_seed_sends_the_same_bytes() -> None:
    one, other = Load(500, 3).block(0, NOW), Load(500, 3).block(0, NOW)

    assert one.bodies == other.bodies
    assert Load(500, 4).block(0, NOW).bodies != one.bodies


def test_what_a_block_says_of_its_spans_stands_in_its_bytes() -> None:
    block = Load(300, 5).block(0, NOW)
    told = Counter(
        (block.trace_ids[trace].tobytes(), span_id.tobytes())
        for request in block.template.requests
        for trace, span_id in zip(request.trace_index, request.span_ids, strict=True)
    )

    found = Counter((span.trace_id, span.span_id) for span in spans_of(block.bodies))

    assert found == told
    assert max(found.values()) == 1


def test_times_are_moved_to_the_time_of_sending() -> None:
    spans = spans_of(Load(300, 5).block(0, NOW).bodies)

    assert all(NOW - 2 * 10**9 <= span.start_time_unix_nano < NOW + 60 * 10**9 for span in spans)
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in spans)


def test_older_traces_start_so_much_earlier() -> None:
    starts = [span.start_time_unix_nano for span in spans_of(Load(300, 5, age_s=3600).block(0, NOW).bodies)]

    assert NOW - 3600 * 10**9 <= min(starts) < max(starts) < NOW - 3540 * 10**9


@pytest.mark.parametrize("spans", [1, 100, 3000])
def test_a_load_has_about_as_many_spans_as_were_asked_for(spans: int) -> None:
    load = Load(spans, 1)

    assert load.spans == sum(load.template(index).span_count for index in range(load.blocks))
    assert abs(load.spans - spans) <= max(200, spans // 4)


def test_blocks_of_a_load_share_no_trace() -> None:
    load = Load(1000, 1)

    ids = {trace_id.tobytes() for block in range(3) for trace_id in load.trace_ids(block)}

    assert len(ids) == 3 * len(load.trace_ids(0))

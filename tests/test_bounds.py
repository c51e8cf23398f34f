"""Spans as nobody should send them, in numbers: attribute names, one trace's spans, tenants, a value, times."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.load.spans import key_value
from pipeline.partition.batch import Prepared, SourceRecord, SpanLimits, Wanted, prepare
from pipeline.partition.window import Window
from pipeline.store.commit import by_tenant

NOW = 1_700_000_000_000_000_000
YEAR_NS = 365 * 86_400 * 10**9
LIMITS = SpanLimits(
    partitions=1, attribute_columns_max=300, attribute_bytes_max=65_536, attributes_max=128, future_s_max=3600
)
COLUMNS_BESIDE_MAX = 80
MB = 1 << 20


def taken(records: list[tuple[str, TracesData]]) -> Prepared:
    """What a partition takes of one record each."""
    source = [SourceRecord(at, tenant, data.SerializeToString(), NOW) for at, (tenant, data) in enumerate(records)]
    wanted = Wanted(0, 0, Window(window_s=900, keys_max=1_000_000), source)
    prepared = prepare([wanted], LIMITS, secret=b"s" * 32, now_unix_ns=NOW)[0]
    assert prepared is not None
    assert not prepared.dead
    return prepared


def trace(number: int, spans: int, start_unix_ns: int = NOW, **attributes: str) -> TracesData:
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for at in range(spans):
        span = scope.spans.add(trace_id=number.to_bytes(16, "big"), span_id=(at + 1).to_bytes(8, "big"), name="s")
        span.start_time_unix_nano = span.end_time_unix_nano = start_unix_ns
        span.attributes.extend(key_value(key, value) for key, value in attributes.items())
    return data


@pytest.fixture(autouse=True)
def arrow_bytes_stay_bounded() -> Iterator[None]:
    """What a test leaves behind of Arrow's memory."""
    before = pa.total_allocated_bytes()
    yield
    assert pa.total_allocated_bytes() - before < 64 * MB


def test_fifty_thousand_attribute_names_make_no_more_columns_than_the_setting() -> None:
    records = [("t", trace(at + 1, 1, **{f"id.{at * 50 + n}": "x" for n in range(50)})) for at in range(1000)]

    prepared = taken(records)

    assert prepared.spans.num_rows == 1000
    assert prepared.spans.num_columns <= LIMITS.attribute_columns_max + COLUMNS_BESIDE_MAX
    assert prepared.nbytes < 64 * MB


def test_a_trace_of_a_hundred_thousand_spans_is_taken_whole() -> None:
    whole = trace(1, 100_000)

    prepared = taken([("t", whole)])

    assert prepared.spans.num_rows == 100_000
    assert prepared.nbytes < 64 * MB


def test_a_thousand_tenants_get_a_chunk_each_of_their_own_spans() -> None:
    prepared = taken([(f"tenant-{at:04}", trace(1, 1)) for at in range(1000)])

    parts = dict(by_tenant(prepared.spans))

    assert len(parts) == 1000
    assert {rows.num_rows for rows in parts.values()} == {1}


def test_a_value_of_a_megabyte_is_cut_to_the_setting_and_counted() -> None:
    prepared = taken([("t", trace(1, 1, large="x" * MB, small="y"))])

    assert prepared.nbytes < 4 * LIMITS.attribute_bytes_max
    assert sum(prepared.counts.values()) >= 1


def test_spans_of_next_year_and_of_1970_are_kept_and_marked() -> None:
    prepared = taken([("t", trace(1, 1, NOW + YEAR_NS)), ("t", trace(2, 1, 1)), ("t", trace(3, 1))])

    assert prepared.spans.num_rows == 3
    assert sum(prepared.counts.values()) >= 1

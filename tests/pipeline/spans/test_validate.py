"""What a worker does with odd times and too much: marked, cut, counted, and the rest kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans import schema
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.spans.validate import Checked, check
from tests.pipeline.query.world import OneSpan, otlp

NOW_UNIX_NS = 1_700_000_000_000_000_000
DAY_NS = 86_400 * 10**9


def checked(columns_max: int, *spans: OneSpan, starts: list[int] | None = None, **limits: Any) -> Checked:
    found = decode([Record("t", 0, otlp(list(spans)))], attribute_columns_max=columns_max).spans
    if starts is not None:
        at = found.column_names.index("start_unix_ns")
        found = found.set_column(at, "start_unix_ns", pa.array(starts, pa.uint64()))
    given = {"attribute_bytes_max": 100, "attributes_max": 100, "future_s_max": 86_400.0} | limits
    return check(found, now_unix_ns=NOW_UNIX_NS, **given)


def marks(found: Checked) -> list[list[str]]:
    return [one or [] for one in schema.column(found.spans, schema.MARKS_COLUMN).to_pylist()]


def attributes(found: Checked, scope: str) -> int:
    """Of the first span: its columns that have a value, and its keys in the map column."""
    row = found.spans.slice(0, 1)
    named = [name for name in row.column_names if (p := schema.parse_column(name)) is not None and p.scope == scope]
    rare = schema.column(row, schema.more_column(scope))[0].as_py() or []
    return sum(row.column(name)[0].is_valid for name in named if name != schema.MARKS_COLUMN) + len(rare)


def test_a_span_that_ends_before_it_starts_is_marked_and_kept_as_it_is() -> None:
    found = checked(200, OneSpan(1, 1, duration_ms=-5), OneSpan(1, 2, duration_ms=5))

    assert marks(found) == [["end_before_start"], []]
    assert found.spans.column("duration_ns").to_pylist() == [-5_000_000, 5_000_000]
    assert found.counts == Counter({("t", "end_before_start"): 1})


def test_a_start_before_2000_or_over_a_day_ahead_is_marked_and_kept() -> None:
    starts = [0, NOW_UNIX_NS, NOW_UNIX_NS + DAY_NS, NOW_UNIX_NS + DAY_NS + 1]

    found = checked(200, *(OneSpan(1, number) for number in range(1, 5)), starts=starts)

    assert marks(found) == [["time_outlier"], [], [], ["time_outlier"]]
    assert found.spans.column("start_unix_ns").to_pylist() == starts


@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
def test_attributes_beyond_the_limit_are_dropped_and_counted_and_the_rest_kept(columns_max: int) -> None:
    many = tuple((f"k{number}", number) for number in range(7))

    found = checked(columns_max, OneSpan(1, 1, attributes=many), OneSpan(1, 2), attributes_max=4)

    assert marks(found) == [["attributes_dropped"], []]
    assert attributes(found, "span") == 4
    assert schema.column(found.spans, "dropped_attributes_count").to_pylist()[0] == 3


@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
def test_a_resource_keeps_its_service_to_the_last(columns_max: int) -> None:
    more = tuple((f"a{number}", "v") for number in range(5))

    found = checked(columns_max, OneSpan(1, 1, service="shop", resource=more), attributes_max=2)

    assert marks(found) == [["attributes_dropped"]]
    assert attributes(found, "resource") == 2
    assert found.spans.column(schema.SERVICE_COLUMN).to_pylist() == ["shop"]
    assert schema.column(found.spans, "resource_dropped_attributes_count").to_pylist() == [4]


@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
def test_a_longer_value_is_cut_between_letters_and_marked(columns_max: int) -> None:
    found = checked(columns_max, OneSpan(1, 1, attributes=(("long", "\u00e4" * 80), ("short", "\u00e4"))))

    assert marks(found) == [["attribute_cut"]]
    assert "\u00e4" * 51 not in str(found.spans.to_pylist())
    assert "\u00e4" * 50 in str(found.spans.to_pylist())


@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
def test_attributes_of_events_beyond_the_limit_are_dropped_and_counted_and_those_of_others_kept(
    columns_max: int,
) -> None:
    many = tuple((f"k{number}", number) for number in range(7))
    three = (("small", many[:2]), ("large", many), ("none", ()))
    spans = [OneSpan(1, 1, events=(("fits", many[:4]),)), OneSpan(1, 2, events=three), OneSpan(1, 3)]

    found = checked(columns_max, *spans, attributes_max=4)

    assert marks(found) == [[], ["attributes_dropped"], []]
    assert found.counts == Counter({("t", "attributes_dropped"): 1})
    assert [event_attributes(found, row) for row in range(3)] == [[4], [2, 4, 0], []]
    counts = schema.column(found.spans, "event_dropped_attributes_count").to_pylist()
    assert counts == [[0], [0, 3, 0], []]
    assert found.spans.column("event_name").to_pylist() == [["fits"], ["small", "large", "none"], []]


def test_attributes_of_links_beyond_the_limit_are_dropped_and_counted() -> None:
    data = TracesData.FromString(otlp([OneSpan(1, 1), OneSpan(1, 2)]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, dropped_attributes_count=5)
    for number in range(6):
        span.links[0].attributes.add(key=f"k{number}").value.string_value = "v"
    decoded = decode([Record("t", 0, data.SerializeToString())], attribute_columns_max=200).spans

    found = check(decoded, now_unix_ns=NOW_UNIX_NS, attribute_bytes_max=100, attributes_max=2, future_s_max=86_400.0)

    assert marks(found) == [["attributes_dropped"], []]
    assert schema.column(found.spans, "link_dropped_attributes_count").to_pylist() == [[9], []]
    kept = [name for name in found.spans.column_names if name.startswith("link.")]
    assert sum(found.spans.column(name).to_pylist()[0] == ["v"] for name in kept) == 2


def event_attributes(found: Checked, row: int) -> list[int]:
    """Of each event of a span: its columns that have a value, and its keys in the map column."""
    one = found.spans.slice(row, 1)
    events = len(one.column("event_name")[0].as_py())
    lists = [one.column(name)[0].as_py() for name in one.column_names if name.startswith("event.")]
    rare = schema.column(one, schema.more_column("event"))[0].as_py() or [None] * events
    return [sum(values[at] is not None for values in lists) + len(rare[at] or []) for at in range(events)]

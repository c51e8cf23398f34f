"""A trace as a waterfall: every span once, parents above children, whatever the parents say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2
from rich.console import Console

from agents.commands.waterfall import bar, duration, rows_of, waterfall

proto: Any = trace_pb2


def trace_of(spans: list[tuple[int, int, int]]) -> Any:
    """(span, parent, start) each; parent 0: none."""
    data = proto.TracesData()
    added = data.resource_spans.add().scope_spans.add().spans
    for span_id, parent, start in spans:
        added.add(
            span_id=bytes([span_id]) * 8,
            parent_span_id=bytes([parent]) * 8 if parent else b"",
            start_time_unix_nano=start,
            end_time_unix_nano=start + 10,
            name=str(span_id),
        )
    return data


def shown(spans: list[tuple[int, int, int]]) -> list[tuple[str, int]]:
    return [(row.span.name, row.depth) for row in rows_of(trace_of(spans))]


def test_children_stand_below_their_parent_in_the_order_of_their_starts() -> None:
    assert shown([(4, 2, 30), (2, 1, 20), (3, 1, 10), (1, 0, 0)]) == [("1", 0), ("3", 1), ("2", 1), ("4", 2)]


def test_a_span_whose_parent_is_not_there_is_a_root_and_marked() -> None:
    rows = rows_of(trace_of([(1, 9, 0), (2, 1, 5)]))

    assert [(row.depth, row.orphan) for row in rows] == [(0, True), (1, False)]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 20)), max_size=12))
def test_every_span_is_shown_once_even_in_cycles_and_with_copies(spans: list[tuple[int, int, int]]) -> None:
    assert sorted(name for name, _ in shown(spans)) == sorted(str(span_id) for span_id, _, _ in spans)


def test_a_deep_trace_is_no_deep_recursion() -> None:
    data = proto.TracesData()
    added = data.resource_spans.add().scope_spans.add().spans
    for index in range(5000):
        parent = index.to_bytes(8, "big") if index else b""
        added.add(span_id=(index + 1).to_bytes(8, "big"), parent_span_id=parent, start_time_unix_nano=index)

    rows = rows_of(data)

    assert rows[-1].depth == 4999
    assert waterfall(rows, 10).row_count == 10


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_bar_stays_within_its_column_and_shows(start: int, end: int, first: int, length: int) -> None:
    span = proto.Span(start_time_unix_nano=start, end_time_unix_nano=end)

    text = bar(span, first, first + length)

    assert 1 <= len(text) <= 40
    assert text.strip()


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1500, "1.5 µs"), (12_345_678, "12.3 ms"), (2 * 10**9, "2 s"), (-1500, "-1.5 µs")],
)
def test_durations_are_for_people(ns: int, text: str) -> None:
    assert duration(ns) == text


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits_a_terminal_and_shows_every_duration(columns: int) -> None:
    long = [(1, 0, 0), (2, 1, 5)]
    trace = trace_of(long)
    trace.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = "recommendation" * 3
    for span in trace.resource_spans[0].scope_spans[0].spans:
        span.name = "GET /a/very/long/route/of/a/service" * 3
    shown = Console(file=io.StringIO(), width=1000)

    shown.print(waterfall(rows_of(trace), 10, columns))

    lines = [line.rstrip() for line in shown.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= columns
    assert [line.endswith("10 ns") for line in lines[1:]] == [True, True]

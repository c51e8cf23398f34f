"""A tree as text, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.traceql.durations import duration_text, nanoseconds
from pipeline.traceql.parser import parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tree import Attribute, Binary, Filter, MetricsPipeline, Pipeline, Query, Static
from tests.pipeline.traceql.trees import ATTRIBUTES, EXPRESSIONS, QUERIES, condition_of

EXAMPLES = 150  # of whole queries; they are large
FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(QUERIES)
def test_any_query_written_as_text_parses_back_to_itself(query: Query) -> None:
    assert parse(text_of(query)) == query


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(EXPRESSIONS)
def test_any_expression_written_as_text_parses_back_to_itself(expression: Any) -> None:
    assert condition_of(f"{{ {text_of(expression)} }}") == expression


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(ATTRIBUTES)
def test_any_attribute_name_can_be_written_and_is_quoted_when_it_must(attribute: Attribute) -> None:
    assert parse(f"{{{text_of(attribute)}}}") == Query(Pipeline((Filter(attribute),)))


@given(st.integers(1, 2**63 - 1))
def test_any_duration_written_as_text_is_the_same_to_the_nanosecond(ns: int) -> None:
    assert nanoseconds(duration_text(ns)) == ns
    assert duration_text(-ns) == f"-{duration_text(ns)}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Static("duration", 1_500_000_000), "1.5s"),
        (Static("duration", 250 * 10**6), "250ms"),
        (Static("duration", 1500), "1.5us"),
        (Static("duration", 7), "7ns"),
        (Static("duration", 0), "0s"),
        (Static("duration", 7260 * 10**9), "2h1m"),
        (Static("duration", 3601 * 10**9 + 5), "1h1.000000005s"),
        (Static("duration", -(10**9)), "-1s"),
        (Static("int", -(2**63)), "minInt"),
        (Static("float", 2.0), "2.0"),
        (Static("float", 1e16), "1e+16"),
        (Static("string", 'a"b\\\n\x00é'), r'"a\"b\\\n\x00é"'),
        (Static("bool", True), "true"),
        (Static("nil", None), "nil"),
    ],
)
def test_constants_are_written_to_be_read(value: Static, text: str) -> None:
    assert text_of(value) == text
    assert condition_of(f"{{ .a = {text} }}") == Binary("=", Attribute("", "a"), value)


def test_every_part_of_a_query_can_be_written_alone() -> None:
    body = parse("{ .a } | avg_over_time(duration) by (name) > 0.5 | topk(3)").body
    assert isinstance(body, MetricsPipeline)

    assert text_of(body.pipeline) == "{ .a }"
    assert text_of(body.measure) == "avg_over_time(duration) by (name)"
    assert [text_of(stage) for stage in body.second] == ["> 0.5", "| topk(3)"]
    with pytest.raises(TypeError, match="int is no node of a query"):
        text_of(3)

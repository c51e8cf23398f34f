"""A tree as text, and back."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.traceql.durations import duration_text, nanoseconds
from pipeline.traceql.parser import parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tree import Attribute, Filter, GroupBy, Pipeline, Query
from tests.pipeline.traceql.trees import ATTRIBUTES, EXPRESSIONS, QUERIES

EXAMPLES = 150  # of whole queries; they are large
FEW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(QUERIES)
def test_any_query_written_as_text_parses_back_to_itself(query: Query) -> None:
    assert parse(text_of(query)) == query


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(EXPRESSIONS)
def test_any_expression_written_as_text_parses_back_to_itself(expression: Any) -> None:
    assert parse(f"{{}} | {text_of(GroupBy(expression))}").body.stages[1].expression == expression  # type: ignore[union-attr]


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(ATTRIBUTES)
def test_any_attribute_name_can_be_written_and_is_quoted_when_it_must(attribute: Attribute) -> None:
    assert parse(f"{{{text_of(attribute)}}}") == Query(Pipeline((Filter(attribute),)))


@given(st.integers(1, 2**63 - 1))
def test_any_duration_written_as_text_is_the_same_to_the_nanosecond(ns: int) -> None:
    assert nanoseconds(duration_text(ns)) == ns
    assert duration_text(-ns) == f"-{duration_text(ns)}"

"""Filters while they are typed: what is whole counts, what is not is left out."""

from __future__ import annotations

import pytest

from pipeline.traceql import tree
from pipeline.traceql.check import compiled
from pipeline.traceql.matchers import matchers_of
from topics.errors import BadQuestionError


def condition(text: str) -> tree.Field:
    body = compiled(text, lambda _: None).body
    assert isinstance(body, tree.Pipeline)
    (stage,) = body.stages
    assert isinstance(stage, tree.Filter)
    return stage.condition


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ('{ .a = "x" }', '{ .a = "x" }'),
        ('{ .a = && span.b = "x" }', '{ span.b = "x" }'),
        ('{ span.b = "x" && }', '{ span.b = "x" }'),
        ('{ span.b = "x" && .c', '{ span.b = "x" }'),
        ('{ .a = "x && y" && name = "a || b" }', '{ .a = "x && y" && name = "a || b" }'),
        (
            '{ .a = "x" || .b = || status = error && kind = client }',
            '{ .a = "x" || (status = error && kind = client) }',
        ),
        ("{ .a = `}` }", "{ .a = `}` }"),
        ("{ 200 = .code && duration > 10ms }", "{ 200 = .code && duration > 10ms }"),
        ('{ .a =~ "[" && .b != 1 }', "{ .b != 1 }"),
    ],
)
def test_what_is_whole_counts(typed: str, meant: str) -> None:
    def regex_error(pattern: str) -> str | None:
        return "missing ]" if pattern == "[" else None

    assert matchers_of(typed, regex_error) == condition(meant)


def test_more_conditions_than_a_query_may_have_are_refused() -> None:
    typed = "{ " + " && ".join(f".a{number} = 1" for number in range(300)) + " }"

    with pytest.raises(BadQuestionError, match="300 conditions"):
        matchers_of(typed, lambda _: None)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "{}",
        "{ }",
        "{ .a",
        "{ .a = ",
        '{ .a = "x" } && { .b = "y" }',
        '{ .a = "x" } | count() > 1',
        '{ (.a = "x") }',
        "{ .a = .b }",
        "{ .a }",
        "{ .a + 1 = 2 }",
        "rate()",
        '{ .a = "x',
    ],
)
def test_where_there_is_nothing_to_go_by_nothing_is_filtered(typed: str) -> None:
    assert matchers_of(typed, lambda _: None) is None


def test_a_choice_of_values_has_a_bounded_number_of_alternatives() -> None:
    many = " || ".join(f".a = {number}" for number in range(101))

    with pytest.raises(BadQuestionError, match=r"maximum condition groups reached \(limit: 100\)"):
        matchers_of(f"{{ {many} }}", lambda _: None)

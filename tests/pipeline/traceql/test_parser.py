"""What binds how, and what the stages and metrics of a query are."""

from __future__ import annotations

import pytest

from pipeline.traceql.check import check
from pipeline.traceql.parser import SPANSET_OPERATORS, parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tree import (
    Aggregate,
    Attribute,
    Binary,
    Coalesce,
    Compare,
    Filter,
    GroupBy,
    Intrinsic,
    Metric,
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
    Rank,
    ScalarFilter,
    ScalarOperation,
    ScalarPipeline,
    Select,
    SpansetOperation,
    Stage,
    Static,
    Threshold,
    Unary,
    Wrapped,
)
from tests.pipeline.traceql.corpus import VALID, regex_error
from tests.pipeline.traceql.trees import condition_of
from topics.errors import BadQuestionError

A, B, C = (Filter(Attribute("", name)) for name in "abc")
ALL = Filter(Static("bool", True))
COUNT = Aggregate("count", None)
DURATION = Intrinsic("span:duration")


def stages(text: str) -> tuple[Stage, ...]:
    body = parse(text).body
    assert isinstance(body, Pipeline)
    return body.stages


def refused(text: str) -> str:
    with pytest.raises(BadQuestionError) as error:
        parse(text)
    return str(error.value)


@pytest.mark.parametrize(("text", "written"), VALID.items())
def test_valid_queries_are_understood(text: str, written: str) -> None:
    assert text_of(check(parse(text), regex_error)) == written


# ---- precedence


@pytest.mark.parametrize(
    ("text", "bracketed"),
    [
        ("{ .a || .b && .c }", "{ (.a || .b) && .c }"),  # one level, from left to right
        ("{ .a && .b || .c }", "{ (.a && .b) || .c }"),
        ("{ .a = .b && .c = .d }", "{ (.a = .b) && (.c = .d) }"),
        ("{ .a = .b != .c }", "{ (.a = .b) != .c }"),
        ("{ .a + .b = .c - .d }", "{ (.a + .b) = (.c - .d) }"),
        ("{ .a - .b - .c = 1 }", "{ ((.a - .b) - .c) = 1 }"),
        ("{ .a - .b + .c = 1 }", "{ ((.a - .b) + .c) = 1 }"),
        ("{ .a + .b * .c = 1 }", "{ (.a + (.b * .c)) = 1 }"),
        ("{ .a * .b / .c % .d = 1 }", "{ (((.a * .b) / .c) % .d) = 1 }"),
        ("{ .a * .b ^ .c = 1 }", "{ (.a * (.b ^ .c)) = 1 }"),
        ("{ .a ^ .b ^ .c = 1 }", "{ (.a ^ (.b ^ .c)) = 1 }"),
        ("{ -.a * .b = 1 }", "{ (-(.a * .b)) = 1 }"),
        ("{ -.a + .b = 1 }", "{ ((-.a) + .b) = 1 }"),
        ("{ -.a = .b }", "{ (-.a) = .b }"),
        ("{ .a - -.b - .c = 1 }", "{ ((.a - (-.b)) - .c) = 1 }"),
        ("{ -2 ^ .a = 1 }", "{ (-(2 ^ .a)) = 1 }"),
        ("{ !.a = .b }", "{ (!.a) = .b }"),
        ("{ !.a && .b }", "{ (!.a) && .b }"),
        ("{ !.a + .b = 1 }", "{ ((!.a) + .b) = 1 }"),
        ("{ !.a * .b = 1 }", "{ (!(.a * .b)) = 1 }"),
        ("{ !!.a }", "{ !(!.a) }"),
        ("{ .a =~ `x` && .b !~ `y` }", "{ (.a =~ `x`) && (.b !~ `y`) }"),
        ("{.a} && {.b} >> {.c}", "{.a} && ({.b} >> {.c})"),
        ("{.a} >> {.b} >> {.c}", "({.a} >> {.b}) >> {.c}"),
        ("{.a} || {.b} && {.c}", "({.a} || {.b}) && {.c}"),
        ("{.a} > {.b} || {.c} ~ {.d}", "({.a} > {.b}) || ({.c} ~ {.d})"),
        ("{.a} !>> {.b} &<< {.c}", "({.a} !>> {.b}) &<< {.c}"),
        ("count() + 1 * 2 ^ 3 > 4", "(count() + (1 * (2 ^ 3))) > 4"),
        ("count() - 1 - 2 > 4", "((count() - 1) - 2) > 4"),
        ("{} | rate()", "({}) | rate()"),
        ("({}|rate()) + ({}|rate()) * 2 > 3", "(({}|rate()) + (({}|rate()) * 2)) > 3"),
        ("({}|rate()) - ({}|rate()) - 2", "(({}|rate()) - ({}|rate())) - 2"),
    ],
)
def test_operators_bind_as_if_these_brackets_stood(text: str, bracketed: str) -> None:
    assert parse(text) == parse(bracketed)
    assert parse(text_of(parse(text))) == parse(bracketed)


@pytest.mark.parametrize(
    "text",
    ["{ .a && (.b || .c) }", "{ (-.a) * .b = 1 }", "{ (.a ^ .b) ^ .c = 1 }", "{ .a } >> ({ .b } >> { .c })"],
)
def test_brackets_that_say_something_are_kept(text: str) -> None:
    assert text_of(parse(text)) == text


def test_brackets_that_say_nothing_leave_no_trace() -> None:
    assert parse("(({ ((.a)) }))") == parse("{ .a }")
    assert parse("(({ .a } | count() > 1) | { .b })") == parse("{ .a } | count() > 1 | { .b }")


# ---- filters and spansets


def test_empty_braces_are_all_spans() -> None:
    assert stages("{}") == (ALL,) == stages("{ true }")


def test_a_filter_is_a_tree_of_its_condition() -> None:
    code = Attribute("span", "code")

    assert condition_of("{ span.code >= 500 && !.up }") == Binary(
        "&&", Binary(">=", code, Static("int", 500)), Unary("!", Attribute("", "up"))
    )


@pytest.mark.parametrize("op", SPANSET_OPERATORS)
def test_every_operator_between_spansets_is_understood(op: str) -> None:
    assert stages(f"{{ .a }} {op} {{ .b }}") == (SpansetOperation(op, A, B),)
    assert stages(f"{{.a}}{op}{{.b}}") == (SpansetOperation(op, A, B),)


def test_a_pipeline_in_brackets_is_an_operand_among_spansets() -> None:
    many = Wrapped(Pipeline((A, ScalarFilter(">", COUNT, Static("int", 1)))))

    assert stages("({ .a } | count() > 1) && ({ .b })") == (SpansetOperation("&&", many, B),)
    assert stages("{ .b } >> ({ .a } | count() > 1)") == (SpansetOperation(">>", B, many),)
    assert stages("(count() > 1) && { .b }") == (
        SpansetOperation("&&", Wrapped(Pipeline((ScalarFilter(">", COUNT, Static("int", 1)),))), B),
    )


# ---- stages


def test_a_pipeline_is_its_stages_in_order() -> None:
    assert stages("{ .a } | by(.n * 2) | coalesce() | select(.a, name) | { .b } && { .c }") == (
        A,
        GroupBy(Binary("*", Attribute("", "n"), Static("int", 2))),
        Coalesce(),
        Select((Attribute("", "a"), Intrinsic("span:name"))),
        SpansetOperation("&&", B, C),
    )


@pytest.mark.parametrize("text", ["by(name)", "select(.a)", "count() > 3", "avg(.n) > 1 | { .a }"])
def test_a_pipeline_may_begin_with_any_stage_but_coalesce(text: str) -> None:
    assert text_of(parse(text)) == text
    assert "unexpected coalesce" in refused("coalesce() | {}")
    assert "unexpected coalesce" in refused("(coalesce() | {}) && {}")


@pytest.mark.parametrize("op", ["=", "!=", "<", "<=", ">", ">="])
def test_a_scalar_filter_compares_an_aggregate_with_a_number(op: str) -> None:
    assert stages(f"max(duration) {op} 1s") == (
        ScalarFilter(op, Aggregate("max", DURATION), Static("duration", 10**9)),
    )


def test_a_scalar_may_be_negative() -> None:
    assert stages("sum(.n) < -3") == (ScalarFilter("<", Aggregate("sum", Attribute("", "n")), Static("int", -3)),)
    assert parse("-2 * count() < 3") == parse("(-2) * count() < 3")
    assert parse("-count() < 3") == parse("-1 * count() < 3")


@pytest.mark.parametrize(
    "text", ["count() =~ 3", "{} | count() | {}", "{} | (count() + 1)", "count() > {}", "{} > 3", "count() > 3 > 2"]
)
def test_scalars_and_spansets_do_not_mix(text: str) -> None:
    assert "syntax error: unexpected" in refused(text)


# ---- metrics


def measured(text: str) -> MetricsPipeline:
    body = parse(text).body
    assert isinstance(body, MetricsPipeline)
    return body


@pytest.mark.parametrize("function", ["rate", "count_over_time"])
def test_spans_are_counted_without_an_argument(function: str) -> None:
    assert measured(f"{{}} | {function}()").measure == Metric(function)
    assert "unexpected .a, expecting )" in refused(f"{{}} | {function}(.a)")


@pytest.mark.parametrize("function", [f"{name}_over_time" for name in ("min", "max", "avg", "sum", "histogram")])
def test_a_field_is_measured_by_its_name(function: str) -> None:
    assert measured(f"{{}} | {function}(duration)").measure == Metric(function, DURATION)
    assert "unexpected ), expecting attribute or intrinsic" in refused(f"{{}} | {function}()")


def test_quantiles_are_listed_behind_the_field() -> None:
    assert measured("{} | quantile_over_time(duration, 0, .5, 1)").measure == Metric(
        "quantile_over_time", DURATION, (0.0, 0.5, 1.0)
    )
    assert "expecting ," in refused("{} | quantile_over_time(duration)")
    assert "unexpected 1s, expecting number" in refused("{} | quantile_over_time(duration, 1s)")


def test_metrics_are_grouped_by_fields() -> None:
    by = (Attribute("resource", "service.name"), Intrinsic("span:name"))

    assert measured("{} | rate() by (resource.service.name, name)").measure == Metric("rate", by=by)
    assert measured("{} | by(.a) | rate()by(.b)").pipeline.stages == (ALL, GroupBy(Attribute("", "a")))


def test_compare_has_a_selection_a_number_of_values_and_a_window() -> None:
    assert measured("{} | compare({ .a })").measure == Compare(A, 10, None)
    assert measured("{} | compare({ .a }, 5)").measure == Compare(A, 5, None)
    assert measured("{} | compare({}, 5, 1, 2)").measure == Compare(ALL, 5, (1, 2))
    assert "expecting ," in refused("{} | compare({}, 5, 1)")
    assert "expecting {" in refused("{} | compare(.a)")


def test_second_stages_follow_in_any_order() -> None:
    found = measured("{} | rate() | topk(3) > 0.5 <= -1 | bottomk(2) != 2s = 1")

    assert found.second == (
        Rank("topk", 3),
        Threshold(">", 0.5),
        Threshold("<=", -1.0),
        Rank("bottomk", 2),
        Threshold("!=", 2.0),  # durations in seconds
        Threshold("=", 1.0),
    )


@pytest.mark.parametrize("text", ["topk(-1)", "topk(1.5)", "topk()", "rate()", "{}", "count() > 2"])
def test_only_topk_and_bottomk_of_an_integer_follow_metrics(text: str) -> None:
    assert "syntax error: unexpected" in refused(f"{{}} | rate() | {text}")


def test_metrics_in_brackets_can_be_calculated_with() -> None:
    one = MetricsPipeline(Pipeline((ALL,)), Metric("rate"))
    other = MetricsPipeline(Pipeline((A,)), Metric("rate"), (Rank("topk", 2),))

    assert parse("({} | rate()) / ({ .a } | rate() | topk(2))").body == MetricsMath("/", one, other)
    assert parse("2 * ({} | rate())").body == MetricsMath("*", 2.0, one)
    assert parse("({} | rate()) - -1.5").body == MetricsMath("-", one, -1.5)
    assert parse("({} | rate()) + 1 > 2 | topk(1)").body == MetricsMath(
        "+", one, 1.0, (Threshold(">", 2.0), Rank("topk", 1))
    )
    assert parse("(({} | rate()) + 1 > 2) * 3").body == MetricsMath(
        "*", MetricsMath("+", one, 1.0, (Threshold(">", 2.0),)), 3.0
    )


@pytest.mark.parametrize(
    "text",
    [
        "({} | rate()) ^ 2",
        "({} | rate()) % 2",
        "({} | rate()) && ({} | rate())",
        "({} | rate()) * 2s",
        "({} | rate()) * {}",
        "({} | rate()) * count()",
        "{} | ({} | rate())",
        "{} | rate() * 2",
        "rate()",
    ],
)
def test_metrics_are_calculated_with_by_four_operators_and_plain_numbers_alone(text: str) -> None:
    assert "syntax error: " in refused(text)


# ---- hints


def test_hints_are_kept_as_given_known_or_not() -> None:
    found = parse('{} | rate() with(sample=0.1, x="y") with (most_recent=true, n=-1, by=ok)')

    assert found.hints == (
        ("sample", Static("float", 0.1)),
        ("x", Static("string", "y")),
        ("most_recent", Static("bool", True)),
        ("n", Static("int", -1)),
        ("by", Static("status", "ok")),
    )
    assert parse("{} with(a=1)") == Query(Pipeline((ALL,)), (("a", Static("int", 1)),))


@pytest.mark.parametrize("text", ["{} with()", "{} with(a)", "{} with(a=.b)", "{} with(a=1,)", "({} with(a=1)) && {}"])
def test_hints_stand_at_the_end_and_have_values(text: str) -> None:
    assert "syntax error: unexpected" in refused(text)


# ---- decided deviations


def test_deviation_1_not_stands_over_the_whole_expression_in_brackets() -> None:
    assert condition_of("{ !(span.a = 1) }") == Unary("!", Binary("=", Attribute("span", "a"), Static("int", 1)))


def test_deviation_2_any_number_can_be_compared_with_any_other() -> None:
    for text in ("{ span:childCount > 1.5 }", "{ duration > 1500 }", "{ .n = 2.0 }", "{ .n > 1s }"):
        assert check(parse(text), regex_error) == parse(text)


def test_deviation_5_the_parents_attributes_can_be_asked_for() -> None:
    assert condition_of('{ parent.resource.service.name = "a" }') == Binary(
        "=", Attribute("resource", "service.name", parent=True), Static("string", "a")
    )
    assert condition_of("{ parent = nil }") == Binary("=", Intrinsic("parent"), Static("nil", None))


def test_deviation_5_aggregates_are_compared_and_calculated_with() -> None:
    twice = ScalarOperation("*", Static("int", 2), Aggregate("avg", DURATION))

    assert stages("{} | max(duration) > 2 * avg(duration)") == (
        ALL,
        ScalarFilter(">", Aggregate("max", DURATION), twice),
    )
    assert stages("2 < count()") == (ScalarFilter("<", Static("int", 2), COUNT),)
    assert stages("({} | count()) > ({ .a } | count())") == (
        ScalarFilter(">", ScalarPipeline(Pipeline((ALL,)), COUNT), ScalarPipeline(Pipeline((A,)), COUNT)),
    )


def test_deviation_6_most_recent_is_accepted() -> None:
    assert parse("{} with(most_recent=true)").hints == (("most_recent", Static("bool", True)),)


def test_deviation_9_division_by_zero_is_no_error_of_the_query() -> None:
    assert check(parse("{ .a = 1 / 0 }"), regex_error) == parse("{ .a = 1 / 0 }")


def test_deviation_11_defects_are_not_copied() -> None:
    assert check(parse("{ .a = 2 ^ 3 }"), regex_error) == parse("{ .a = 8 }")
    assert condition_of("{ 2 < .a }") == Binary("<", Static("int", 2), Attribute("", "a"))
    assert condition_of("{ span.a || span.b }") == Binary("||", Attribute("span", "a"), Attribute("span", "b"))

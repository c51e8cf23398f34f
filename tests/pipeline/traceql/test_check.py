"""What types and limits allow, and what constants come to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.traceql.check import check, compiled
from pipeline.traceql.folding import folded
from pipeline.traceql.parser import parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tree import Static
from tests.pipeline.traceql.corpus import regex_error
from tests.pipeline.traceql.trees import INT64
from topics.errors import BadQuestionError


def written(text: str) -> str:
    return text_of(compiled(text, regex_error))


def refused(text: str) -> str:
    with pytest.raises(BadQuestionError) as error:
        compiled(text, regex_error)
    return str(error.value).removeprefix("invalid TraceQL query: ")


SAME = "binary operations must operate on the same type: "
ILLEGAL = "illegal operation for the given types: "
BOOLEAN = "span filter field expressions must resolve to a boolean: "


# ---- field expressions


@pytest.mark.parametrize(
    "condition",
    [
        "duration > 5",
        "duration > 1.5",
        "traceDuration > duration",
        "span:childCount < 2.5",
        ".a > 1 && .b",
        ".a = .b",
        ".a =~ `x.*`",
        'name < "m"',
        "name = .a",
        "status != ok",
        "kind = .a",
        "(.a = 1) = (.b = 2)",
        "(.a = 1) = true",
        "!(.a = 1) || !.b",
        "-.a > -duration",
        "-(.a + .b) ^ 2 > 1s",
        "nestedSetParent < 0",
        "span:parentID = span:id",
    ],
)
def test_operands_of_one_type_numbers_and_attributes_go_together(condition: str) -> None:
    assert written(f"{{ {condition} }}")


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("name = 1", SAME),
        ("name != true", SAME),
        ("status = `ok`", SAME),
        ("status = server", SAME),
        ("kind = ok", SAME),
        ("duration = `1s`", SAME),
        ("(.a = 1) = 1", SAME),
        ("(.a + 1) = `x`", SAME),
        ("(.a + 1) = nil", SAME),
        ("1 != nil", SAME),
        ("`x` = nil", SAME),
        ("status > ok", ILLEGAL),
        ("kind <= server", ILLEGAL),
        ("status =~ ok", ILLEGAL),
        ("name && .a", ILLEGAL),
        (".a || 1", ILLEGAL),
        (".a + `x` = 1", ILLEGAL),
        ("true > false", ILLEGAL),
        (".a > nil", ILLEGAL),
        (".a > true", ILLEGAL),
        ("-name = 1", ILLEGAL),
        ("!name", ILLEGAL),
        ("!duration", ILLEGAL),
        ("-(.a = 1)", ILLEGAL),
        ("!nil", ILLEGAL),
        (".a =~ duration", ILLEGAL),
        ("1 =~ `x`", SAME),
        ("duration + 1", BOOLEAN),
        (".a + .b", BOOLEAN),
        ("-.a", BOOLEAN),
        ("nil", BOOLEAN),
        ("status", BOOLEAN),
        ("ok", BOOLEAN),
        ("1 + 1", BOOLEAN),
        ("name =~ name", "invalid regex: "),
        ("name =~ `(`", "invalid regex: "),
        (".a !~ `*`", "invalid regex: "),
        ("parent", "parent alone is only supported in "),
        ("parent = .a", "parent alone is only supported in "),
        ("!parent", "parent alone is only supported in "),
    ],
)
def test_what_does_not_go_together_is_refused(condition: str, said: str) -> None:
    assert refused(f"{{ {condition} }}").startswith(said)


@pytest.mark.parametrize("attribute", [".a", "span.a", "parent.a", "resource.service.name", 'event."b c"'])
def test_an_attribute_alone_is_a_condition(attribute: str) -> None:
    assert written(f"{{ {attribute} }}") == f"{{ {attribute} }}"
    assert written(f"{{ !{attribute} }}") == f"{{ !{attribute} }}"


def test_an_inner_expression_is_named_where_it_is_wrong() -> None:
    assert refused("{ .a = 1 && (name + 1) = 2 }") == SAME + "name + 1 (at line 1, col 14)"


def test_a_regex_is_judged_by_the_engine_that_will_run_it() -> None:
    asked: list[str] = []

    def refuse_all(regex: str) -> str | None:
        asked.append(regex)
        return "not today"

    with pytest.raises(BadQuestionError, match=r'invalid regex: .a =~ "a\(": not today'):
        compiled("{ .a =~ `a(` }", refuse_all)
    assert asked == ["a("]


# ---- nil


@pytest.mark.parametrize(
    "field", ["name", "duration", "status", "event:name", "nestedSetLeft", "resource.service.name"]
)
def test_what_always_has_a_value_cannot_be_nil_but_may_be_not_nil(field: str) -> None:
    assert "intrinsics cannot be nil" in refused(f"{{ {field} = nil }}")
    assert "intrinsics cannot be nil" in refused(f"{{ nil = {field} }}")
    assert written(f"{{ {field} != nil }}") == f"{{ {field} != nil }}"


@pytest.mark.parametrize(
    "field", [".a", "span.a", "event.a", "parent", "parent.resource.service.name", ".service.name"]
)
def test_what_may_be_missing_can_be_nil_and_nil_is_written_to_the_right(field: str) -> None:
    assert written(f"{{ {field} = nil }}") == f"{{ {field} = nil }}" == written(f"{{ nil = {field} }}")
    assert written(f"{{ nil != {field} }}") == f"{{ {field} != nil }}"


def test_nil_is_neither_equal_nor_unequal_to_nil() -> None:
    assert written("{ nil = nil }") == written("{ nil != nil }") == "{ false }"


# ---- stages


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sum(3) = 2", "aggregate field expressions must reference the span: sum(3)"),
        ("avg(1 + 2 * 3) = 2", "aggregate field expressions must reference the span: "),
        ("min(name) = 2", "aggregate field expressions must resolve to a number type: min(name)"),
        ("max(.a = 1) = 2", "aggregate field expressions must resolve to a number type: max(.a = 1)"),
        ("{} | by(1)", "grouping field expressions must reference the span: by(1)"),
        ("{} | by(parent)", "parent alone is only supported in "),
        ("{} | select(parent)", "parent alone is only supported in "),
        ("count() = `x`", f'{SAME}count() = "x"'),
        ("count() + true > 1", f"{SAME}count() + true"),
        ("3 = 2", "scalar filters without an aggregate are not yet supported: 3 = 2"),
        ("1 + 1 < 3", "scalar filters without an aggregate are not yet supported: 1 + 1 < 3"),
        ("({ 1 } | count()) > 2", BOOLEAN),
        ("({ .a } | by(1)) && {}", "grouping field expressions "),
        ("{} >> ({ 1 } | { .a })", BOOLEAN),
    ],
)
def test_stages_are_checked_too(text: str, said: str) -> None:
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        "sum(.n * 2) = 2",
        "max(duration) > 1000",
        "count() > 1.5",
        "avg(-.n) < 1",
        "{} | by(.a = 1)",
        "{} | by(name)",
        "{} | by(parent.a)",
        "{} | select(parent.a, resource.service.name)",
    ],
)
def test_stages_that_depend_on_spans_and_numbers_pass(text: str) -> None:
    assert written(text) == text


# ---- metrics


def by(count: int) -> str:
    return f"by ({', '.join(f'.a{n}' for n in range(count))})"


@pytest.mark.parametrize(
    ("measure", "most"),
    [
        ("rate()", 5),
        ("max_over_time(.n)", 5),
        ("avg_over_time(.n)", 4),
        ("histogram_over_time(.n)", 4),
        ("quantile_over_time(.n, 0.5)", 4),
    ],
)
def test_metrics_group_by_a_few_attributes(measure: str, most: int) -> None:
    assert written(f"{{}} | {measure} {by(most)}")
    assert f"can group by at most {most} attributes, not {most + 1}" in refused(f"{{}} | {measure} {by(most + 1)}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{} | rate() | topk(0)", "limit must be greater than 0"),
        ("{} | rate() > 1 | bottomk(0)", "limit must be greater than 0"),
        ("(({} | rate() | topk(0)) + 1) * 2", "limit must be greater than 0"),
        ("({} | rate()) + 1 | topk(0)", "limit must be greater than 0"),
        ("{} | quantile_over_time(.n, 1.5)", "quantiles must be between 0 and 1"),
        ("{} | quantile_over_time(.n, .5, -1)", "quantiles must be between 0 and 1"),
        ("{} | compare({}) | topk(1)", "nothing can follow compare()"),
        ("{} | compare({}) > 1", "nothing can follow compare()"),
        ("({} | compare({})) / 2", "compare() cannot be calculated with"),
        ("{} | compare({ 1 })", BOOLEAN),
        ("{} | compare({}, 0)", "compare() needs a number of values greater than 0"),
        ("{} | compare({}, 1, 0, 5)", "compare() needs a start greater than 0 and an end after it"),
        ("{} | compare({}, 1, 5, 5)", "compare() needs a start greater than 0 and an end after it"),
        ("{ 1 } | rate()", BOOLEAN),
        ("2 * ({ 1 } | rate())", BOOLEAN),
        ("{} | rate() by (parent)", "parent alone is only supported in "),
        ("{} | sum_over_time(parent)", "parent alone is only supported in "),
    ],
)
def test_metrics_are_checked_too(text: str, said: str) -> None:
    assert refused(text).startswith(said)


# ---- constants


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("-3", "-3"),
        ("--3", "3"),
        ("1 + 2 * 3", "7"),
        ("2 ^ 3 ^ 2", "512"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),  # cut, not rounded down
        ("(-7) % 4", "-3"),
        ("7.0 / 2", "3.5"),
        ("5.5 % 2", "1.5"),
        ("2h + 1m", "2h1m"),
        ("1s - 1500ms", "-500ms"),
        ("2 * 1.5s", "3s"),
        ("1s * 1.5", "1.5s"),
        ("3s / 2", "1.5s"),
        ("3s / 2s", "1.5"),
        ("maxInt - 1", "9223372036854775806"),
        ("1 / 0", "1 / 0"),  # no value: nothing to fold
        ("1 % 0", "1 % 0"),
        ("1.5 / 0", "1.5 / 0"),
        ("maxInt + 1", "9223372036854775807 + 1"),
        ("2 ^ 64", "2 ^ 64"),
        ("2 ^ maxInt", "2 ^ 9223372036854775807"),
        ("(-1) ^ maxInt", "-1"),
        ("2 ^ -1", "2 ^ (-1)"),
        ("1e300 * 1e300", "1e+300 * 1e+300"),
        ("(-8) ^ .5", "(-8) ^ 0.5"),
    ],
)
def test_arithmetic_of_constants_is_done_once(text: str, constant: str) -> None:
    assert written(f"{{ .a = {text} }}") == f"{{ .a = {constant} }}"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("1 = 1.0", "{}"),
        ("1 = 2", "{ false }"),
        ("1s = 1000000000", "{}"),
        ('"a" < "b"', "{}"),
        ("ok != error", "{}"),
        ("true && false", "{ false }"),
        ("!(1 = 2) || false", "{}"),
        ("1 = 1 && .a", "{ true && .a }"),
        ('"a" =~ "a"', '{ "a" =~ "a" }'),  # the engine's business
        ("1 + 1 = 2", "{}"),
        (".a = (1 = 1)", "{ .a = true }"),
    ],
)
def test_comparisons_of_constants_are_done_once(text: str, outcome: str) -> None:
    assert written(f"{{ {text} }}") == outcome


def test_constants_are_folded_in_every_stage() -> None:
    assert written("{} | by(.a + (1 + 1)) | max(.b * (2 * 3)) > 1 + 1") == "{} | by(.a + 2) | max(.b * 6) > 2"
    assert written("{} | compare({ .a = 1 + 1 })") == "{} | compare({ .a = 2 })"
    assert written("({ .a = 1 + 1 } | count()) + (1 + 1) > 3") == "({ .a = 2 } | count()) + 2 > 3"


@given(INT64, INT64, st.sampled_from("+-*/%"))
def test_whole_numbers_are_calculated_as_64_bits_do_or_left(a: int, b: int, op: str) -> None:
    found = folded(op, Static("int", a), Static("int", b))

    exact = {"+": a + b, "-": a - b, "*": a * b}
    if op in exact:
        assert (found.value if found else None) == (exact[op] if -(2**63) <= exact[op] < 2**63 else None)
    elif b and found and op == "/":
        assert found.value == (a // b if (a < 0) == (b < 0) else -(abs(a) // abs(b)))
    elif b and found:
        assert isinstance(found.value, int)
        assert (a - found.value) % b == 0
        assert found.value == 0 or math.copysign(1, found.value) == math.copysign(1, a)
    else:
        assert b == 0 or (a, b) == (-(2**63), -1)


def test_a_checked_query_stays_as_it_is() -> None:
    query = compiled("{ .a = 2h + 1m && nil = .b } | count() > -(2 + 3)", regex_error)

    assert check(query, regex_error) == query
    assert check(parse(text_of(query)), regex_error) == query

"""What single words, names, numbers and strings of TraceQL mean."""

from __future__ import annotations

import pytest

from pipeline.traceql.parser import parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tree import Attribute, Binary, Field, Filter, Intrinsic, Pipeline, Static
from tests.pipeline.traceql.trees import condition_of
from topics.errors import BadQuestionError


def literal(text: str) -> Static:
    found = condition_of(f"{{ .a = {text} }}")
    assert isinstance(found, Binary)
    assert isinstance(found.right, Static)
    return found.right


def refusal(text: str) -> str:
    with pytest.raises(BadQuestionError) as refused:
        parse(text)
    return str(refused.value).removeprefix("invalid TraceQL query: parse error at ")


# ---- whitespace and comments


@pytest.mark.parametrize(
    "text",
    [
        "{.a=1}",
        " {\t.a\n=\r\n1 } ",
        "{ .a = 1 } // to the end of the line",
        "{ // here too { }\n .a = 1 }",
        "/* before */ { .a /* a\n b */ = /**/ 1 }",
    ],
)
def test_whitespace_and_comments_separate_and_say_nothing(text: str) -> None:
    assert parse(text) == parse("{ .a = 1 }")


def test_a_comment_that_touches_a_name_is_part_of_the_name() -> None:
    assert condition_of("{ .a/*b*/ }") == Attribute("", "a/*b*/")
    assert condition_of("{ .a//b\n}") == Attribute("", "a//b")


def test_a_comment_without_end_is_refused() -> None:
    assert refusal("{ /* }") == "line 1, col 3: syntax error: a comment does not end"


# ---- strings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"x"', "x"),
        ('""', ""),
        (r'"a\n\t\r\\\"b"', 'a\n\t\r\\"b'),
        (r'"\a\b\f\v"', "\a\b\f\v"),
        (r'"\x41\101\u00e9\U0001F600"', "AAé😀"),
        (r'"\xc3\xa9"', "é"),  # bytes, which together are UTF-8
        (r"`\n.*`", r"\n.*"),
        ("`two\nlines`", "two\nlines"),
        ('`"`', '"'),
        ('"`"', "`"),
        ('"grüße"', "grüße"),
        ('"// no comment"', "// no comment"),
    ],
)
def test_strings_stand_in_double_quotes_with_escapes_or_in_backticks_without(text: str, value: str) -> None:
    assert literal(text) == Static("string", value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("'x'", "unexpected ', strings stand in double quotes or backticks (did you mean \"?)"),
        ('"x', "a string does not end"),
        ("`x", "a string does not end"),
        ('"x\ny"', "a string does not end"),
        (r'"\d"', r"\d is no escape of a string (did you mean \\?)"),
        (r'"\xff"', "a string's escapes are no UTF-8"),
        (r'"\ud800"', r"\ud800 is no escape of a string (did you mean \\?)"),
        (r'"\U00110000"', r"\U00110000 is no escape of a string (did you mean \\?)"),
        (r'"\777"', r"\777 is no escape of a string (did you mean \\?)"),
    ],
)
def test_what_is_no_string_is_refused(text: str, error: str) -> None:
    assert refusal(f"{{ .a = {text} }}").endswith(f"syntax error: {error}")


# ---- numbers


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("1", "int", 1),
        ("007", "int", 7),
        ("9223372036854775807", "int", 2**63 - 1),
        ("minInt", "int", -(2**63)),
        ("maxInt", "int", 2**63 - 1),
        ("-3", "int", -3),
        ("1.5", "float", 1.5),
        (".5", "float", 0.5),
        ("1.", "float", 1.0),
        ("1e3", "float", 1000.0),
        ("2.5E-3", "float", 0.0025),
        ("-1.5", "float", -1.5),
        ("1s", "duration", 10**9),
        ("0s", "duration", 0),
        ("1.5s", "duration", 1_500_000_000),
        (".5ms", "duration", 500_000),
        ("2h45m", "duration", 9900 * 10**9),
        ("1h30m", "duration", 5400 * 10**9),
        ("1d", "duration", 86_400 * 10**9),
        ("1w2d", "duration", 9 * 86_400 * 10**9),
        ("1y", "duration", 365 * 86_400 * 10**9),
        ("3ns", "duration", 3),
        ("3us", "duration", 3000),
        ("3µs", "duration", 3000),
        ("3μs", "duration", 3000),
        ("5m1.5s", "duration", 301_500_000_000),
        ("1.0000000019s", "duration", 1_000_000_001),  # cut, not rounded
        ("-2h", "duration", -7200 * 10**9),
    ],
)
def test_numbers_are_integers_floats_or_durations(text: str, type_: str, value: float) -> None:
    assert literal(text) == Static(type_, value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("9223372036854775808", "9223372036854775808 is too large for an integer of 64 bits"),
        ("9" * 5000, f"{'9' * 40}... is too large for an integer of 64 bits"),
        ("1e999", "1e999 is too large for a float"),
        ("5mm", "5mm is no duration, or is longer than 292 years"),
        ("1.5d", "1.5d is no duration, or is longer than 292 years"),
        ("300y", "300y is no duration, or is longer than 292 years"),
        ("5x", "unexpected x, expecting operator or }"),
        ("0x10", "unexpected x10, expecting operator or }"),
    ],
)
def test_what_is_no_number_is_refused(text: str, error: str) -> None:
    assert refusal(f"{{ .a = {text} }}").endswith(f"syntax error: {error}")


@pytest.mark.parametrize("word", ["true", "false", "nil", "ok", "error", "unset", "server", "client", "unspecified"])
def test_words_of_values_are_case_sensitive(word: str) -> None:
    assert text_of(literal(word)) == word
    assert f"unknown identifier: {word.upper()} (did you mean {word}?)" in refusal(f"{{ .a = {word.upper()} }}")


# ---- operators


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("{.a}>>{.b}", "{ .a } >> { .b }"),
        ("{.a}!>>{.b}", "{ .a } !>> { .b }"),
        ("{.a}&>>{.b}", "{ .a } &>> { .b }"),
        ("{.a}!~{.b}", "{ .a } !~ { .b }"),
        ("{.a}~{.b}", "{ .a } ~ { .b }"),
        ("{.a!~`x`}", '{ .a !~ "x" }'),
        ("{.a=~`x`}", '{ .a =~ "x" }'),
        ("{.a>=1&&!.b||.c!=2}", "{ .a >= 1 && !.b || .c != 2 }"),
        ("{.a=-1}", "{ .a = -1 }"),
        ("{1<.a}", "{ 1 < .a }"),
    ],
)
def test_the_longest_operator_is_read(text: str, spaced: str) -> None:
    assert text_of(parse(text)) == spaced


@pytest.mark.parametrize("character", ["@", "#", "$", "?", ";", "[", "\\", "\x00", "é"])
def test_characters_that_are_nothing_are_refused(character: str) -> None:
    assert refusal(f"{{ {character}").startswith(f"line 1, col 3: syntax error: unexpected character {character!r}")


# ---- attributes


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        (".a", Attribute("", "a")),
        ("span.a", Attribute("span", "a")),
        ("resource.service.name", Attribute("resource", "service.name")),
        ("event.a", Attribute("event", "a")),
        ("link.a", Attribute("link", "a")),
        ("instrumentation.a", Attribute("instrumentation", "a")),
        ("parent.a", Attribute("", "a", parent=True)),
        ("parent.span.a", Attribute("span", "a", parent=True)),
        ("parent.resource.a", Attribute("resource", "a", parent=True)),
        ("parent.event.a", Attribute("", "event.a", parent=True)),
        ("span.resource.a", Attribute("span", "resource.a")),
        (".span.a", Attribute("", "span.a")),
        ("..a", Attribute("", ".a")),
        ("span.5", Attribute("span", "5")),
        ('."5"', Attribute("", "5")),
        ('span."my key"', Attribute("span", "my key")),
        ('span."http request".method', Attribute("span", "http request.method")),
        ('span.attr."a b"', Attribute("span", "attr.a b")),
        (r'."say \"hi\" \\ \n"', Attribute("", r'say "hi" \ \n')),
        ('."{}()=~!<>&|^,"', Attribute("", "{}()=~!<>&|^,")),
        ('parent."span.a"', Attribute("", "span.a", parent=True)),
        (".größe", Attribute("", "größe")),
    ],
)
def test_an_attribute_is_a_scope_and_a_name(text: str, attribute: Attribute) -> None:
    assert condition_of(f"{{ {text} }}") == attribute
    assert condition_of(f"{{ {text_of(attribute)} }}") == attribute


@pytest.mark.parametrize("character", "+-*/%.:[];@#$'?`\\")
def test_these_characters_are_part_of_a_name(character: str) -> None:
    assert condition_of(f"{{ .a{character}1 = 2 }}") == Binary("=", Attribute("", f"a{character}1"), Static("int", 2))


@pytest.mark.parametrize("end", ["=", "!=", "<", ">", "=~", "!~", "&&", "||", "^"])
def test_these_operators_end_a_name(end: str) -> None:
    assert condition_of(f"{{ .a{end}.b }}") == Binary(end, Attribute("", "a"), Attribute("", "b"))


def test_brackets_braces_and_commas_end_a_name() -> None:
    assert condition_of("{(.a)}") == Attribute("", "a")
    assert text_of(parse("{.a}|select(.a,.b)|by(.c)")) == "{ .a } | select(.a, .b) | by(.c)"


def test_arithmetic_with_a_name_needs_spaces() -> None:
    total: Field = Binary("+", Attribute("", "a"), Static("int", 1))

    assert condition_of("{ .a + 1 = 2 }") == Binary("=", total, Static("int", 2))
    assert condition_of("{ .a+1 = 2 }") == Binary("=", Attribute("", "a+1"), Static("int", 2))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{ . }", "an attribute's name is missing behind ."),
        ("{ span. }", "an attribute's name is missing behind span."),
        ('{ ."" }', "an attribute's name is missing behind ."),
        ('{ span."a }', "a quoted attribute name does not end"),
        ("{ spam.a }", "unknown scope: spam. (did you mean span.?)"),
        ("{ http.method }", "unknown scope: http. (did you mean .http.?)"),
        ("{ parent.parent.a }", "parent.parent is not supported: only a span and its own parent can be compared"),
    ],
)
def test_what_is_no_attribute_is_refused(text: str, error: str) -> None:
    assert refusal(text) == f"line 1, col 3: syntax error: {error}"


# ---- intrinsics


@pytest.mark.parametrize(
    ("text", "name", "shortest"),
    [
        ("duration", "span:duration", "duration"),
        ("span:duration", "span:duration", "duration"),
        ("name", "span:name", "name"),
        ("status", "span:status", "status"),
        ("statusMessage", "span:statusMessage", "statusMessage"),
        ("kind", "span:kind", "kind"),
        ("traceDuration", "trace:duration", "traceDuration"),
        ("trace:rootName", "trace:rootName", "rootName"),
        ("rootServiceName", "trace:rootService", "rootServiceName"),
        ("span:id", "span:id", "span:id"),
        ("trace:id", "trace:id", "trace:id"),
        ("nestedSetParent", "nestedSetParent", "nestedSetParent"),
        ("event:timeSinceStart", "event:timeSinceStart", "event:timeSinceStart"),
        ("link:traceID", "link:traceID", "link:traceID"),
        ("instrumentation:version", "instrumentation:version", "instrumentation:version"),
    ],
)
def test_an_intrinsic_of_two_names_is_one_and_is_written_short(text: str, name: str, shortest: str) -> None:
    assert condition_of(f"{{ {text} }}") == Intrinsic(name)
    assert text_of(Intrinsic(name)) == shortest


@pytest.mark.parametrize("name", ["trace:status", "trace:rootServiceName", "span:rootName", "span:", "event:id"])
def test_other_pairs_of_scope_and_intrinsic_are_refused(name: str) -> None:
    assert refusal(f"{{ {name} }}").startswith(f"line 1, col 3: syntax error: unknown intrinsic: {name}")


def test_words_are_keywords_only_where_they_can_be() -> None:
    filtered = parse("{ .count = 1 && span.by = 2 }").body

    assert isinstance(filtered, Pipeline)
    assert isinstance(filtered.stages[0], Filter)
    assert "unknown identifier: count" in refusal("{ count = 1 }")

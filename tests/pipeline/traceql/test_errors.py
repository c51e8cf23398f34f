"""What is said about a wrong query: where it is wrong, what could stand there, what was probably meant."""

from __future__ import annotations

import pytest

from pipeline.traceql.check import compiled
from tests.pipeline.traceql.corpus import SYNTAX_ERRORS, TYPE_ERRORS, regex_error
from topics.errors import BadQuestionError


def sentence(text: str) -> str:
    with pytest.raises(BadQuestionError) as error:
        compiled(text, regex_error)
    return str(error.value)


@pytest.mark.parametrize(("text", "said"), SYNTAX_ERRORS.items())
def test_a_syntax_error_names_place_token_and_what_could_stand_there(text: str, said: str) -> None:
    assert sentence(text) == f"invalid TraceQL query: parse error at {said}"


@pytest.mark.parametrize(("text", "said"), TYPE_ERRORS.items())
def test_an_error_of_types_names_expression_and_place(text: str, said: str) -> None:
    assert sentence(text) == f"invalid TraceQL query: {said}"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{ .a = 1 or .b }", "||"),
        ("{ not .a }", "!"),
        ("{ .a = null }", "nil"),
        ("{ .a = True }", "true"),
        ("{ Name = `x` }", "name"),
        ("{ status = eror }", "error"),
        ("{ kind = servr }", "server"),
        ("{ span:durtion > 1s }", "span:duration"),
        ("{} | COUNT() > 2", "count"),
        ("{} | rat()", "rate"),
        ("{} | quantile(duration, .5)", "quantile_over_time"),
        ("{} | coalesc()", "coalesce"),
        ("rate()", "{} | rate()"),
        (".a = 1", "{ .a ... }"),
    ],
)
def test_the_nearest_right_word_is_offered(text: str, meant: str) -> None:
    assert sentence(text).endswith(f" (did you mean {meant}?)")


def test_the_first_error_is_told_when_there_are_more() -> None:
    assert "col 3" in sentence("{ foo = 'x' } } }")


def test_lines_are_counted_from_one_and_columns_in_characters() -> None:
    assert "at line 3, col 10:" in sentence('{ .a = "ä"\n\n  && `ü` ?')
    assert "(at line 2, col 4)" in sentence("{ .a &&\n   name = 1 }")


def test_what_stands_twice_is_told_where_it_is_wrong() -> None:
    assert sentence("{ .a = 1 } || { 1 } || { .b = 1 }").endswith("{ 1 } (at line 1, col 15)")


def test_a_long_piece_of_a_query_is_cut_in_its_error() -> None:
    assert len(sentence("{ " + "x" * 10_000 + " }")) < 250

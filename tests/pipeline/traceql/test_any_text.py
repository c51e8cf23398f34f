"""Whatever is asked, the answer is a tree or one sentence, soon."""

from __future__ import annotations

import random

import pytest

from pipeline.traceql.check import compiled
from pipeline.traceql.cursor import BRACKETS_MAX, HEIGHT_MAX
from pipeline.traceql.parser import parse
from pipeline.traceql.text import text_of
from pipeline.traceql.tokens import OPERATORS, TEXT_BYTES_MAX
from tests.pipeline.traceql.corpus import SYNTAX_ERRORS, TYPE_ERRORS, VALID, regex_error
from topics.errors import BadQuestionError

TEXTS = 2_000  # of each kind
PIECES = (*OPERATORS, *(piece for query in VALID for piece in query.split(" ")), '"', "`", "\\", "/*", "//", "\n")


def outcome(text: str) -> str:
    try:
        query = compiled(text, regex_error)
    except BadQuestionError as exc:
        return str(exc).partition(": ")[0]
    assert compiled(text_of(query), regex_error) == query
    return "understood"


def test_random_bytes_are_refused_in_a_sentence() -> None:
    rng = random.Random(1)
    for _ in range(TEXTS):
        assert outcome(rng.randbytes(rng.randrange(60)).decode("utf-8", "surrogateescape")) == "invalid TraceQL query"
        assert outcome(rng.randbytes(rng.randrange(60)).decode("latin-1")) == "invalid TraceQL query"


def test_mutated_queries_are_refused_or_understood() -> None:
    rng = random.Random(2)
    queries = [*VALID, *SYNTAX_ERRORS, *TYPE_ERRORS]

    outcomes = {outcome(mutated(rng.choice(queries), rng)) for _ in range(TEXTS)}

    assert outcomes == {"invalid TraceQL query", "understood"}


def mutated(query: str, rng: random.Random) -> str:
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(query) + 1)
        end = min(len(query), start + rng.choice([0, 0, 1, 2, 5]))
        query = query[:start] + rng.choice(["", chr(rng.randrange(32, 127)), rng.choice(PIECES)]) + query[end:]
    return query


@pytest.mark.parametrize(
    "text",
    [
        "{" + "(" * 100_000,
        "{" + "!" * 100_000 + ".a }",
        "{ .a = " + "-" * 100_000 + ".b }",
        "(" * 100_000,
        "-" * 100_000 + "count() > 2",
        "{" + "1^" * 60_000 + "1 = 1 }",
        "{ .a" + " || .a" * 10_000 + "}",
        "{}" + " && {}" * 10_000,
        "count()" + " + 1" * 10_000 + " > 2",
        "({}|rate())" + " + 1" * 10_000,
        "(" * 80 + "{ " + "!" * 80 + ".a }",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_nested_too_deep_is_refused_and_says_so(text: str) -> None:
    with pytest.raises(BadQuestionError, match=r"nested more than [12]00 deep"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "{" + "(" * (BRACKETS_MAX - 9) + ".a" + ")" * (BRACKETS_MAX - 9) + "}",
        "{ .a" + " || .a" * (HEIGHT_MAX - 9) + " }",
        "{" + "!" * (BRACKETS_MAX - 9) + ".a }",
        "{}" + " && {}" * (HEIGHT_MAX - 9),
        "(" * (BRACKETS_MAX - 9) + "{}" + " | by(.a))" * (BRACKETS_MAX - 9),
        "(" * (BRACKETS_MAX - 9) + "{} | rate()" + ")" * (BRACKETS_MAX - 9),
        "(" * 60 + "{}" + " && {} | by(.a))" * 60 + " && {}",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_nested_nearly_too_deep_can_be_walked_compared_and_written(text: str) -> None:
    query = compiled(text, regex_error)

    assert compiled(text_of(query), regex_error) == query
    assert hash(query) == hash(compiled(text, regex_error))
    assert repr(query)


def test_a_query_may_have_128_kib_and_no_more() -> None:
    padded = "{}".ljust(TEXT_BYTES_MAX)

    assert parse(padded) == parse("{}")
    with pytest.raises(BadQuestionError, match="it has 131073 bytes, more than 131072"):
        parse(padded + " ")
    with pytest.raises(BadQuestionError, match="it has"):
        parse("{ .a = '" + "é" * (TEXT_BYTES_MAX // 2))


def test_a_query_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(BadQuestionError, match="invalid TraceQL query: it is no UTF-8"):
        parse("{ .a = '\udcff' }")


@pytest.mark.parametrize(
    "piece", ["{", "(", "!", '"', "`", "/*", "//", "a", "1", ".", "=", "1.", "|", "{}|", "\\", " "]
)
def test_long_nonsense_is_answered_soon(piece: str) -> None:
    with pytest.raises(BadQuestionError):
        parse(piece * (TEXT_BYTES_MAX // len(piece)))

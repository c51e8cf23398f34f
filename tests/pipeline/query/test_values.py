"""Values in SQL: powers of whole numbers, and texts that do not grow with every term."""

from __future__ import annotations

import pytest

from pipeline.query.chunks import Present
from pipeline.query.fields import FieldSql
from pipeline.traceql import tree
from pipeline.traceql.check import compiled
from pipeline.traceql.folding import int_power

PRESENT = Present(frozenset({"span.n:int", "span.n:double", "resource.n:int"}), frozenset({"span.n"}), False)


def sql_of(terms: int) -> str:
    body = compiled("{ " + " + ".join([".n"] * terms) + " > 1 }", lambda _: None).body
    assert isinstance(body, tree.Pipeline)
    (stage,) = body.stages
    assert isinstance(stage, tree.Filter)
    return FieldSql(PRESENT).truth(stage.condition).text


def test_the_text_of_a_sum_grows_with_the_square_of_its_terms_at_most() -> None:
    assert len(sql_of(40)) < 5 * len(sql_of(20))


@pytest.mark.parametrize(
    ("base", "exponent", "power"),
    [
        (2, 10, 1024),
        (-2, 3, -8),
        (2, 62, 2**62),
        (2, 63, None),
        (-2, 63, -(2**63)),
        (3, 64, None),
        (0, 0, 1),
        (0, 5, 0),
        (0, -1, None),
        (1, -5, 1),
        (-1, 10**9 + 1, -1),
        (-1, -2, 1),
        (7, -1, 0),
        (None, 1, None),
        (1, None, None),
    ],
)
def test_a_power_of_whole_numbers_is_whole_or_none(base: int | None, exponent: int | None, power: int | None) -> None:
    assert int_power(base, exponent) == power

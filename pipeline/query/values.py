"""TraceQL's values in SQL: a field has a type in each row, so it is one nullable expression for each type it may have.

A comparison is the OR over pairs of types that can be compared; what is missing or of another type matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from pipeline.query.sql import FALSE, TRUE, Sql, all_of, any_of, bound, sql
from pipeline.traceql.fields import NUMERIC
from topics.errors import BadQuestionError

CLASS_OF = {
    "int": "number",
    "duration": "number",
    "float": "number",
    "string": "string",
    "bool": "bool",
    "status": "status",
    "kind": "kind",
}
ORDERED = ("number", "string")
TYPE_NAMES = {"string": "string", "int": "int", "double": "float", "bool": "bool"}  # of columns -> of values
NEGATED = {"!=": "=", "!~": "=~"}
# Whole numbers stay whole, computed in HUGEINT. What cannot be computed, or has no room in 64 bits, is null: no match
INT_ARITHMETIC = {
    "+": "({} + {})",
    "-": "({} - {})",
    "*": "TRY({} * {})",
    "/": "({} // {})",
    "%": "({} % {})",
    "^": "int_power({}::BIGINT, {}::BIGINT)",
}
FLOAT_ARITHMETIC = {
    "+": "({} + {})",
    "-": "({} - {})",
    "*": "({} * {})",
    "/": "({} / nullif({}, 0))",
    "%": "({} % nullif({}, 0))",
    "^": "TRY(pow({}, {}))",
}
_SIMPLE_REGEX, _DOTS = re.compile(r"(?:[\w/ :,=@#&%<>~;'\"-]|\.[*+]?)+"), re.compile(r"\.[*+]?")
TEXT_MAX = 200_000  # of what is calculated: the engine takes a second to understand it
Typed = tuple[str, Sql]  # a type and the expression of that type


class Number(NamedTuple):
    """Whatever number a field is as a float; and whether it is an int, never null."""

    real: Sql
    is_int: Sql


@dataclass(frozen=True, slots=True)
class Value:
    """A field. of: type -> SQL, null where the row has no value of this type; `string[]` and so on are arrays.

    there: whether it has a value of whatever type, opaque ones included, which match nothing; never null. number: of
    what was calculated.
    """

    of: Mapping[str, Sql] = field(default_factory=dict)
    there: Sql = FALSE
    number: Number | None = None

    def has_type(self) -> Sql:
        """Whether it has a value that is not opaque; never null."""
        return any_of(sql("{} IS NOT NULL", each) for each in self.of.values())


def alternative(first: Value, second: Value) -> Value:
    """The first where it is there, else the second."""
    types = dict.fromkeys((*first.of, *second.of))
    of = {
        type_: sql(
            "CASE WHEN {} THEN {} ELSE {} END", first.there, *(_or_null(each, type_) for each in (first, second))
        )
        for type_ in types
    }
    return Value(of, any_of([first.there, second.there]))


def _or_null(value: Value, type_: str) -> Sql:
    return value.of.get(type_, Sql("NULL"))


def compared(op: str, left: Value, right: Value) -> Sql:
    """A comparison; never null. Of arrays any element may match; `!=` and `!~` want none that is equal or matches."""
    how = _differs if op in NEGATED else _matches
    return any_of(how(op, x, y) for x, y in _pairs(op, left, right))


def _pairs(op: str, left: Value, right: Value) -> list[tuple[Typed, Typed]]:
    found = []
    for x, y in product(left.of.items(), right.of.items()):
        class_ = CLASS_OF[x[0].removesuffix("[]")]
        allowed = class_ == "string" if "~" in op else op in ("=", "!=") or class_ in ORDERED
        if allowed and class_ == CLASS_OF[y[0].removesuffix("[]")]:
            found.append((x, y))
    return found


def _differs(op: str, left: Typed, right: Typed) -> Sql:
    equal = _matches(NEGATED[op], left, right)
    return sql("({} IS NOT NULL AND {} IS NOT NULL AND NOT {})", left[1], right[1], equal)


def _matches(op: str, left: Typed, right: Typed) -> Sql:
    """Whether the values, or any elements of them, compare so; never null."""
    (x_type, x), (y_type, y) = left, right
    if x_type.endswith("[]"):
        inner = _matches(op, (x_type.removesuffix("[]"), Sql("x")), right)
        return sql("coalesce(len(list_filter({}, lambda x: {})) > 0, false)", x, inner)
    if y_type.endswith("[]"):
        inner = _matches(op, left, (y_type.removesuffix("[]"), Sql("y")))
        return sql("coalesce(len(list_filter({}, lambda y: {})) > 0, false)", y, inner)
    if op == "=~":
        return sql("coalesce({}, false)", _fully_matched(x, y))
    return sql(f"coalesce({{}} {op} {{}}, false)", x, y)


def _fully_matched(text: Sql, pattern: Sql) -> Sql:
    """A regular expression of letters and dots: where its longest run of letters is not, nothing matches."""
    matched = sql("regexp_full_match({}, {}, 's')", text, pattern)
    given = pattern.values[0] if pattern.text == "?::VARCHAR" else None
    if not isinstance(given, str) or not _SIMPLE_REGEX.fullmatch(given):
        return matched
    letters = max(_DOTS.split(given), key=len)
    if not letters:
        return matched
    contains = sql("contains({}, {})", text, bound(letters))
    return contains if given == f".*{letters}.*" else sql("({} AND {})", contains, matched)


def computed(op: str, left: Value, right: Value) -> Value:
    """Arithmetic: int with int is an int, all else a float; durations count in nanoseconds.

    The parts of a sum or product have each part of an operand once, so a long one stays a short text. Raises
    BadQuestionError for what does not.
    """
    if not all(set(NUMERIC) & side.of.keys() for side in (left, right)):
        return Value()
    of: dict[str, Sql] = {}
    (x, x_is_int), (y, y_is_int) = _number(left), _number(right)
    real, is_int = sql(FLOAT_ARITHMETIC[op], x, y), FALSE
    if "int" in left.of and "int" in right.of:
        whole = sql(INT_ARITHMETIC[op], _whole(left.of["int"]), _whole(right.of["int"]))
        of["int"] = sql("TRY_CAST({} AS BIGINT)", whole)
        is_int = all_of((x_is_int, y_is_int))
        if op not in ("+", "-", "*"):  # of those ints and floats come to the same
            real = sql("CASE WHEN {} THEN {}::DOUBLE ELSE {} END", is_int, of["int"], real)
    real = sql("list_filter([{}], lambda number: isfinite(number))[1]", real)
    if len(real.text) > TEXT_MAX:
        raise BadQuestionError("the query calculates too much in one expression: ask with a shorter one")
    of["float"] = real if is_int == FALSE else sql("CASE WHEN NOT {} THEN {} END", is_int, real)
    return Value(of, Value(of).has_type(), Number(real, is_int))


def negative(value: Value) -> Value:
    """Unary minus: nothing where there is no number."""
    of = {
        type_: sql("-({})" if type_ == "float" else "-({}::HUGEINT)", each)
        for type_, each in value.of.items()
        if type_ in NUMERIC
    }
    number = value.number and Number(sql("-({})", value.number.real), value.number.is_int)
    return Value(of, Value(of).has_type(), number)


def scalars(value: Value) -> dict[str, Sql]:
    """What rows are grouped by: an expression a type. An array of one element is that, a longer one is nothing."""
    of: dict[str, Sql] = {}
    for type_, each in value.of.items():
        name = type_.removesuffix("[]")
        one = sql("CASE WHEN len({}) = 1 THEN {}[1] END", each, each) if type_ != name else each
        one = for_arrow(name, one)
        of[name] = sql("coalesce({}, {})", of[name], one) if name in of else one
    return of


def for_arrow(type_: str, value: Sql) -> Sql:
    """HUGEINT has no Arrow type of its own."""
    return sql("TRY_CAST({} AS BIGINT)", value) if type_ in ("int", "duration") else value


def literal(type_: str, value: object) -> Value:
    """A value of the query's text."""
    if value is None:
        return Value()
    if isinstance(value, int) and type_ in ("int", "duration"):
        # As a column is, where it has room there: comparing needs no cast of each row
        return Value({type_: sql(f"{{}}::{'BIGINT' if abs(value) < 2**63 else 'HUGEINT'}", bound(value))}, TRUE)
    sql_types = {"float": "DOUBLE", "string": "VARCHAR", "bool": "BOOLEAN"}
    sql_type = sql_types.get(type_, "INTEGER")
    return Value({type_: sql(f"{{}}::{sql_type}", bound(value))}, TRUE)


def _whole(value: Sql) -> Sql:
    return sql("{}::HUGEINT", value)


def _number(value: Value) -> Number:
    if value.number is not None:
        return value.number
    parts = [sql("{}::DOUBLE", value.of[type_]) for type_ in NUMERIC if type_ in value.of]
    is_int = sql("({} IS NOT NULL)", value.of["int"]) if "int" in value.of else FALSE
    return Number(sql(f"coalesce({', '.join(['{}'] * len(parts))}, NULL)", *parts), is_int)

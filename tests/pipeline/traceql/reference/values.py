"""What two values of a span say to each other: comparing and calculating at run time (section 5).

A value is a tree.Static with its type, a Many (an array), an Opaque, or None where there is none.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.traceql.tree import Static
from tests.pipeline.traceql.reference.met import met
from tests.pipeline.traceql.reference.model import Held

TYPES = {bool: "bool", int: "int", float: "float", str: "string"}
NUMBERS = ("int", "float", "duration")
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TRUE, FALSE, NIL = Static("bool", True), Static("bool", False), Static("nil", None)
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Many:
    """An array: at least one element, all of one type."""

    items: tuple[Static, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes, a map, an empty or mixed array: there, but not to be compared with anything (5.11)."""


Value = Static | Many | Opaque | None


def typed(held: Held | None) -> Value:
    """An attribute's value."""
    if held is None:
        return None
    if isinstance(held, bool | int | float | str):
        return Static(TYPES[type(held)], held)
    if isinstance(held, list):
        items = [typed(one) for one in held]
        scalars = tuple(one for one in items if isinstance(one, Static))
        if len(scalars) == len(items) and len({one.type for one in scalars}) == 1:
            return Many(scalars)
    return Opaque()


def kind_of(value: Value) -> str:
    match value:
        case None:
            return "nothing"
        case Many(items):
            return f"{items[0].type}[]"
        case Static(type_, _):
            return type_
    return "opaque"


def is_number(value: Value) -> bool:
    return isinstance(value, Static) and value.type in NUMBERS


def is_true(value: Value) -> bool:
    """`{ .flag }`: an array of bools is true if one is (5.11)."""
    if isinstance(value, Many):
        return TRUE in value.items
    return value == TRUE


# ---- comparing


def compare(op: str, left: Value, right: Value) -> bool:
    """`left op right`. False where a side is missing or the types differ, also for != and !~ (5.1, 5.2).

    An array matches if any element does; under != and !~ if no element is equal or matches (15.8). An array of another
    type than the other side is a difference of types, so it does not match under != either.
    """
    if NIL in (left, right):
        return compare_nil(op, right if left == NIL else left)
    met(op, kind_of(left), kind_of(right))
    lefts, rights = elements(left), elements(right)
    pairs = [(one, other) for one in lefts for other in rights]
    if not pairs or not all(comparable(op, one, other) for one, other in pairs):
        return False
    if op == "!=":
        return not any(holds("=", one, other) for one, other in pairs)
    if op == "!~":
        return not any(holds("=~", one, other) for one, other in pairs)
    return any(holds(op, one, other) for one, other in pairs)


def compare_nil(op: str, value: Value) -> bool:
    """`value = nil`, `value != nil`. `nil = nil` and `nil != nil` are both false (4.7), as is all of the opaque."""
    met(op, kind_of(value), "nil")
    if value == NIL or isinstance(value, Opaque):
        return False
    return (value is None) == (op == "=")


def elements(value: Value) -> tuple[Static, ...]:
    if isinstance(value, Many):
        return value.items
    return (value,) if isinstance(value, Static) else ()


def comparable(op: str, left: Static, right: Static) -> bool:
    """Numbers with numbers, also durations in ns (15.2); else two of one type that has the operator (4.2)."""
    if left.type in NUMBERS and right.type in NUMBERS:
        return op not in ("=~", "!~")
    if left.type != right.type:
        return False
    return left.type == "string" or op in ("=", "!=")


def holds(op: str, left: Static, right: Static) -> bool:
    if op == "=~":
        return matches(str(right.value), str(left.value))
    return ORDERED[op](sort_key(left), sort_key(right))


def sort_key(value: Static) -> Any:
    """Strings compare by their bytes (5.4)."""
    return value.value.encode() if isinstance(value.value, str) else value.value


def matches(pattern: str, text: str) -> bool:
    """The whole text matches; dot matches newline (5.5).

    Python's `re` stands in for RE2, so patterns must mean the same in both: literals, classes, groups, alternatives,
    repetition, `(?i)` at the start with ASCII letters, and \\d \\s \\w \\b, which are ASCII in RE2. Not POSIX classes,
    \\p, \\C, \\Q, `(?U)` (RE2 only), nor look-around, back references, possessive repetition (Python only).
    """
    return compiled(pattern).fullmatch(text) is not None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL | re.ASCII)


# ---- calculating


def negate(value: Value) -> Value:
    """`-value`: nothing where there is no number (15.11)."""
    met("-", kind_of(value))
    if isinstance(value, Static) and value.type in NUMBERS:
        return Static(value.type, -value.value)  # type: ignore[operator]
    return None


def calculate(op: str, left: Value, right: Value) -> Value:
    """`left op right`; None, which matches nothing, where a side is no number or there is no answer (15.9).

    int op int is an int (5.6); everything else is a float, durations counting in nanoseconds. No answer: division by
    zero, and what does not fit 64 bits or is not finite or not real.
    """
    met(op, kind_of(left), kind_of(right))
    if not isinstance(left, Static) or not isinstance(right, Static) or not (is_number(left) and is_number(right)):
        return None
    a: Any = left.value
    b: Any = right.value
    try:
        if left.type == right.type == "int":
            whole = on_ints(op, a, b)
            return Static("int", whole) if INT_MIN <= whole <= INT_MAX else None
        real = on_floats(op, float(a), float(b))
        return Static("float", real) if isinstance(real, float) and math.isfinite(real) else None
    except (ZeroDivisionError, OverflowError):
        return None


def on_ints(op: str, a: int, b: int) -> int:
    """Division truncates towards zero, and the rest has the sign of the divided; so a negative power is 0, 1 or -1."""
    if op == "/":
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    if op == "%":
        rest = abs(a) % abs(b)
        return -rest if a < 0 else rest
    if op == "^":
        if abs(a) > 1 and b > 64:
            raise OverflowError
        return a**b if b >= 0 else on_ints("/", 1, a ** min(-b, 64))
    return {"+": a + b, "-": a - b, "*": a * b}[op]


def on_floats(op: str, a: float, b: float) -> Any:
    if op == "/":
        return a / b
    if op == "%":
        if b == 0:
            raise ZeroDivisionError
        return math.fmod(a, b)
    if op == "^":
        return a**b
    return {"+": a + b, "-": a - b, "*": a * b}[op]

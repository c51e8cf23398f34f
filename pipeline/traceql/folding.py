"""What operators make of constants. Where an engine might see it otherwise, nothing is folded."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from pipeline.traceql.durations import INT64_MAX
from pipeline.traceql.fields import is_number
from pipeline.traceql.tree import Static

_INT64_MIN = -INT64_MAX - 1
COMPARE: dict[str, Callable[..., Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# A duration and what it is calculated with -> a duration
_WITH_DURATION = {
    **dict.fromkeys([("duration", sign, other) for sign in "+-" for other in ("duration", "int")], True),
    **dict.fromkeys([("int", sign, "duration") for sign in "+-"], True),
    **dict.fromkeys([("duration", sign, other) for sign in "*/" for other in ("int", "float")], True),
    **dict.fromkeys([(other, "*", "duration") for other in ("int", "float")], True),
}


def folded(op: str, left: Static, right: Static) -> Static | None:
    """The constant that the operation comes to; None where it has to be left as it is.

    Left are division by zero, numbers beyond 64 bits, powers that are no whole numbers, and regexes.
    """
    if is_number(left) and is_number(right) and op in "+-*/%^":
        return _calculated(op, left, right)
    if op in ("&&", "||"):
        both = (left.value is True, right.value is True)
        return Static("bool", all(both) if op == "&&" else any(both))
    if "nil" in (left.type, right.type):
        return Static("bool", False)  # nil = nil and nil != nil alike
    compare = COMPARE.get(op)
    return Static("bool", compare(left.value, right.value)) if compare else None


def int_power(base: int | None, exponent: int | None) -> int | None:
    """A power of whole numbers, cut to a whole number where the exponent is negative; None without room in 64 bits."""
    if base is None or exponent is None:
        return None
    if base == 0 or exponent < 0:
        signs = {0: None if exponent < 0 else int(exponent == 0), 1: 1, -1: 1 - 2 * (exponent % 2)}
        return signs.get(base, 0)
    if abs(base) > 1 and exponent > 63:
        return None
    found: int = base ** (exponent if abs(base) > 1 else exponent % 2)
    return found if _INT64_MIN <= found <= INT64_MAX else None


def _calculated(op: str, left: Static, right: Static) -> Static | None:
    a, b = left.value, right.value
    assert isinstance(a, int | float)
    assert isinstance(b, int | float)
    if op in "/%" and b == 0:
        return None
    if left.type == right.type == "int":
        return _whole("int", _calculated_whole(op, int(a), int(b)))
    if "duration" in (left.type, right.type):
        return _calculated_ns(op, left, right)
    try:
        value = _FLOAT[op](float(a), float(b))
    except (OverflowError, ValueError, ZeroDivisionError):
        return None
    return Static("float", value) if isinstance(value, float) and math.isfinite(value) else None


_FLOAT: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
    "^": math.pow,
}


def _calculated_whole(op: str, a: int, b: int) -> int | None:
    """As 64-bit processors do: division cuts off what is behind the point, the rest has the sign of `a`."""
    if op == "^":
        return int_power(a, b) if b >= 0 else None
    if op == "/":
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if op == "%":
        return abs(a) % abs(b) * (-1 if a < 0 else 1)
    return a + b if op == "+" else a - b if op == "-" else a * b


def _calculated_ns(op: str, left: Static, right: Static) -> Static | None:
    """Whole nanoseconds where the outcome is a duration, a float for the quotient of two."""
    a, b = left.value, right.value
    assert isinstance(a, int | float)
    assert isinstance(b, int | float)
    if (left.type, op, right.type) == ("duration", "/", "duration"):
        return Static("float", a / b)
    if (left.type, op, right.type) not in _WITH_DURATION:
        return None
    exact = _FLOAT[op](a, b)
    return _whole("duration", round(exact)) if math.isfinite(exact) else None


def _whole(type_: str, value: int | None) -> Static | None:
    """None beyond 64 bits; and for the one duration whose amount without the sign is beyond them."""
    least = _INT64_MIN if type_ == "int" else -INT64_MAX
    return Static(type_, value) if value is not None and least <= value <= INT64_MAX else None

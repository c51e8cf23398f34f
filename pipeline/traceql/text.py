"""A tree as TraceQL text, with as few brackets as its precedences need: parsed, it is the same tree."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from pipeline.traceql.durations import duration_text
from pipeline.traceql.fields import LEVELS, PREFIX_LEVELS, above_for_right, is_number
from pipeline.traceql.names import name_text
from pipeline.traceql.parser import SPANSET_LEVELS
from pipeline.traceql.tree import (
    Aggregate,
    Attribute,
    Binary,
    Coalesce,
    Compare,
    Field,
    Filter,
    GroupBy,
    Intrinsic,
    Metric,
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
    Rank,
    Scalar,
    ScalarFilter,
    ScalarOperation,
    ScalarPipeline,
    Select,
    Spanset,
    SpansetOperation,
    Static,
    Threshold,
    Unary,
    Wrapped,
)

_TIGHTEST = 9
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
TRUE = Static("bool", True)


@singledispatch
def text_of(node: Any) -> str:
    """Any node of a tree, as a query writes it."""
    raise TypeError(f"{type(node).__name__} is no node of a query")


@text_of.register
def _(node: Static) -> str:
    match node.type:
        case "nil":
            return "nil"
        case "string":
            return f'"{"".join(map(_escaped, str(node.value)))}"'
        case "bool":
            return "true" if node.value else "false"
        case "duration":
            return duration_text(int(node.value or 0))
        case "int" if node.value == -(2**63):
            return "minInt"  # its digits alone, without the sign, are too large
    return str(node.value)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() or ord(character) > 0x7F else f"\\x{ord(character):02x}"


@text_of.register
def _(node: Attribute | Intrinsic) -> str:
    return name_text(node)


# ---- field expressions


@text_of.register
def _(node: Unary) -> str:
    level = _level(node.operand)
    return node.op + _bracketed(node.operand, level <= PREFIX_LEVELS[node.op] and not _prefixed(node.operand))


@text_of.register
def _(node: Binary) -> str:
    return f"{_bracketed(node.left, _left_needs(node))} {_right(node)}"


def _left_needs(node: Binary | ScalarOperation) -> bool:
    """Whether the left operand needs brackets: it binds looser, or as tight where the right one comes first."""
    level, of_left = LEVELS[node.op], _level(node.left)
    return of_left < level or (of_left == level and above_for_right(node.op, level) < level)


def _right(node: Binary | ScalarOperation) -> str:
    """Operator and right operand. A prefix operator stands well behind a binary one of its own level."""
    above, of_right = above_for_right(node.op, LEVELS[node.op]), _level(node.right)
    needs = of_right < above or (of_right == above and not _prefixed(node.right))
    return f"{node.op} {_bracketed(node.right, needs)}"


def _level(node: Field | Scalar) -> int:
    if isinstance(node, Binary | ScalarOperation):
        return LEVELS[node.op]
    if isinstance(node, Unary):
        return PREFIX_LEVELS[node.op]
    return PREFIX_LEVELS["-"] if _prefixed(node) else _TIGHTEST


def _prefixed(node: Field | Scalar) -> bool:
    """Whether its text begins with a prefix operator; a negative number's does."""
    return isinstance(node, Unary) or (is_number(node) and text_of(node).startswith("-"))


def _bracketed(node: Any, needed: bool) -> str:
    return f"({text_of(node)})" if needed else text_of(node)


# ---- spansets and scalars


@text_of.register
def _(node: Filter) -> str:
    return "{}" if node.condition == TRUE else f"{{ {text_of(node.condition)} }}"


@text_of.register
def _(node: Wrapped) -> str:
    return f"({text_of(node.pipeline)})"


@text_of.register
def _(node: SpansetOperation) -> str:
    level = SPANSET_LEVELS[node.op]
    left = _bracketed(node.left, _spanset_level(node.left) < level)
    return f"{left} {node.op} {_bracketed(node.right, _spanset_level(node.right) <= level)}"


def _spanset_level(node: Spanset) -> int:
    return SPANSET_LEVELS[node.op] if isinstance(node, SpansetOperation) else _TIGHTEST


@text_of.register
def _(node: Aggregate) -> str:
    return f"{node.function}({'' if node.argument is None else text_of(node.argument)})"


@text_of.register
def _(node: ScalarPipeline) -> str:
    return f"({text_of(node.pipeline)} | {text_of(node.aggregate)})"


@text_of.register
def _(node: ScalarOperation) -> str:
    signed = _prefixed(node.left) and node.op != "^"  # -2 * count(): the sign is the first factor's
    return f"{_bracketed(node.left, _left_needs(node) and not signed)} {_right(node)}"


# ---- stages


@text_of.register
def _(node: ScalarFilter) -> str:
    return f"{text_of(node.left)} {node.op} {text_of(node.right)}"


@text_of.register
def _(node: GroupBy) -> str:
    return f"by({text_of(node.expression)})"


@text_of.register
def _(_node: Coalesce) -> str:
    return "coalesce()"


@text_of.register
def _(node: Select) -> str:
    return f"select({_listed(node.fields)})"


@text_of.register
def _(node: Pipeline) -> str:
    return " | ".join(map(text_of, node.stages))


# ---- metrics


@text_of.register
def _(node: Metric) -> str:
    arguments = [] if node.of is None else [text_of(node.of)]
    by = f" by ({_listed(node.by)})" if node.by else ""
    return f"{node.function}({', '.join([*arguments, *map(_plain, node.quantiles)])}){by}"


@text_of.register
def _(node: Compare) -> str:
    numbers = () if node == Compare(node.selection) else (node.top, *(node.window or ()))
    return f"compare({', '.join([text_of(node.selection), *map(str, numbers)])})"


@text_of.register
def _(node: Rank) -> str:
    return f"| {node.function}({node.count})"


@text_of.register
def _(node: Threshold) -> str:
    return f"{node.op} {_plain(node.value)}"


@text_of.register
def _(node: MetricsPipeline) -> str:
    return " ".join([text_of(node.pipeline), "|", text_of(node.measure), *map(text_of, node.second)])


@text_of.register
def _(node: MetricsMath) -> str:
    sides = (_side(node.left, node.op, right=False), node.op, _side(node.right, node.op, right=True))
    return " ".join([*sides, *map(text_of, node.second)])


def _side(side: MetricsPipeline | MetricsMath | float, op: str, *, right: bool) -> str:
    if isinstance(side, MetricsPipeline):
        return f"({text_of(side)})"
    if isinstance(side, MetricsMath):
        looser = LEVELS[side.op] < LEVELS[op] or (right and LEVELS[side.op] == LEVELS[op])
        return _bracketed(side, looser or bool(side.second))
    return f"({_plain(side)})" if side < 0 else _plain(side)


@text_of.register
def _(node: Query) -> str:
    hints = ", ".join(f"{name}={text_of(value)}" for name, value in node.hints)
    return text_of(node.body) + (f" with({hints})" if hints else "")


def _listed(fields: tuple[Attribute | Intrinsic, ...]) -> str:
    return ", ".join(map(text_of, fields))


def _plain(number: float) -> str:
    """Without a point where none is needed: 3, 0.5."""
    return str(int(number)) if number.is_integer() and abs(number) < 10**15 else repr(number)

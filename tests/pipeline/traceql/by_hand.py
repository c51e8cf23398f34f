"""Trees and traces as a test writes them by hand: short words for both, and who was found."""

from __future__ import annotations

from typing import Any

from pipeline.traceql.tree import (
    BARE_INTRINSICS,
    Aggregate,
    Attribute,
    Binary,
    Field,
    Filter,
    Intrinsic,
    Pipeline,
    Query,
    Spanset,
    SpansetOperation,
    Stage,
    Static,
    Unary,
    Wrapped,
)
from tests.pipeline.traceql.reference.model import Span, Trace
from tests.pipeline.traceql.reference.search import search

TYPES = {bool: "bool", int: "int", float: "float", str: "string", type(None): "nil"}
ALWAYS = (0, 2**63)

# ---- traces


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def one(name: str, id_: int = 1, parent: int = 0, **more: Any) -> Span:
    """A span of trace 1, found under its name."""
    given: dict[str, Any] = {"trace_id": b"\1" * 16, "start_ns": 1000, "end_ns": 2000} | more
    return Span(span_id=span_id(id_), parent_id=span_id(parent) if parent else b"", name=name, **given)


def having(**spans: dict[str, Any]) -> Trace:
    """A root for each name, with these span attributes."""
    return [one(name, number, attributes=held) for number, (name, held) in enumerate(spans.items(), 1)]


# ---- trees


def static(value: Any) -> Field:
    """A tree as it is; a plain value as a literal."""
    return Static(TYPES[type(value)], value) if type(value) in TYPES else value


def unscoped(name: str) -> Attribute:
    return Attribute("", name)


def span(name: str) -> Attribute:
    return Attribute("span", name)


def resource(name: str) -> Attribute:
    return Attribute("resource", name)


def event(name: str) -> Attribute:
    return Attribute("event", name)


def link(name: str) -> Attribute:
    return Attribute("link", name)


def intrinsic(name: str) -> Intrinsic:
    return Intrinsic(BARE_INTRINSICS.get(name, name))


def ns(number: int) -> Static:
    return Static("duration", number)


def status(word: str) -> Static:
    return Static("status", word)


def kind(word: str) -> Static:
    return Static("kind", word)


def says(left: Any, op: str, right: Any) -> Binary:
    return Binary(op, static(left), static(right))


def no(condition: Field) -> Unary:
    return Unary("!", condition)


def where(condition: Any = True) -> Filter:
    return Filter(static(condition))


def named(*names: str) -> Filter:
    """The spans of these names."""
    condition: Field = says(intrinsic("name"), "=", names[0])
    for name in names[1:]:
        condition = says(condition, "||", says(intrinsic("name"), "=", name))
    return Filter(condition)


NONE = where(False)


def both(left: Spanset, op: str, right: Spanset) -> SpansetOperation:
    return SpansetOperation(op, left, right)


def wrapped(*stages: Stage) -> Wrapped:
    return Wrapped(Pipeline(stages))


def query(*stages: Stage) -> Query:
    return Query(Pipeline(stages))


def count() -> Aggregate:
    return Aggregate("count", None)


# ---- answers


def found(trace: Trace, *stages: Stage) -> str:
    """Names of the spans found in a trace, in the order of the trace, one blank between them."""
    return " ".join(match.name for trace_ in search(query(*stages), [trace], *ALWAYS) for match in trace_.spans)


def groups(trace: Trace, *stages: Stage) -> list[tuple[str, dict[str, Any]]]:
    """Of each spanset found: its spans' names, and its attributes as plain values."""
    return [
        (
            " ".join(match.name for match in spanset.spans),
            {name: held.value for name, held in spanset.attributes.items()},
        )
        for trace_ in search(query(*stages), [trace], *ALWAYS)
        for spanset in trace_.spansets
    ]

"""Spansets through the stages of a pipeline (sections 6 to 8), for one whole trace (15.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.traceql.tree import (
    Aggregate,
    Attribute,
    Coalesce,
    Filter,
    GroupBy,
    Intrinsic,
    Pipeline,
    Scalar,
    ScalarFilter,
    ScalarOperation,
    ScalarPipeline,
    Select,
    SpansetOperation,
    Stage,
    Static,
    Wrapped,
)
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.fields import condition_holds, value_of
from tests.pipeline.traceql.reference.met import met
from tests.pipeline.traceql.reference.model import Span
from tests.pipeline.traceql.reference.texts import aggregate_text, field_text
from tests.pipeline.traceql.reference.values import (
    INT_MAX,
    INT_MIN,
    NIL,
    Many,
    Value,
    calculate,
    compare,
    is_number,
)

Spans = tuple[Span, ...]
Relation = Callable[[Family, Span, Span], bool]
# Whether l and r of `l op r` are related (7)
RELATIONS: dict[str, Relation] = {
    ">": lambda family, left, right: family.parent(right) is left,
    "<": lambda family, left, right: family.parent(left) is right,
    ">>": lambda family, left, right: left in family.ancestors(right),
    "<<": lambda family, left, right: right in family.ancestors(left),
    "~": lambda family, left, right: family.are_siblings(left, right),
}


class SeveralSpansetsError(Exception):
    """A spanset operator met more than one spanset; the query needs a coalesce() before it (7)."""


@dataclass(frozen=True, slots=True)
class Spanset:
    """Spans of one trace, in the trace's order.

    attributes: what by() and the aggregates have said of it, in the order said. selected: what select() asked for.
    """

    spans: Spans
    attributes: tuple[tuple[str, Static], ...] = ()
    selected: tuple[Attribute | Intrinsic, ...] = ()

    def told(self, name: str, value: Static) -> Spanset:
        """With one more attribute; saying the same twice tells nothing new."""
        kept = tuple(one for one in self.attributes if one[0] != name)
        return replace(self, attributes=(*kept, (name, value)))


def run(pipeline: Pipeline, family: Family) -> list[Spanset]:
    """The spansets that survive, starting with all spans as one. None survives: the trace is no result."""
    return run_on([Spanset(tuple(family.spans))], pipeline, family)


def run_on(spansets: list[Spanset], pipeline: Pipeline, family: Family) -> list[Spanset]:
    for stage in pipeline.stages:
        spansets = [one for one in after(stage, spansets, family) if one.spans]
    return spansets


def after(stage: Stage, spansets: list[Spanset], family: Family) -> list[Spanset]:
    """The spansets behind a stage; those without spans are dropped by the caller."""
    match stage:
        case Filter() | Wrapped():
            return [replace(one, spans=matched(stage, one.spans, family)) for one in spansets]
        case SpansetOperation():
            if len(spansets) > 1:
                raise SeveralSpansetsError(stage.op)
            return [replace(one, spans=matched(stage, one.spans, family)) for one in spansets]
        case ScalarFilter():
            return [kept for one in spansets if (kept := scalar_filtered(stage, one, family))]
        case GroupBy():
            return [group for one in spansets for group in grouped(stage, one, family)]
        case Coalesce():
            return [
                Spanset(in_order((span for one in spansets for span in one.spans), family), selected=asked(spansets))
            ]
        case Select():
            return [replace(one, selected=tuple(dict.fromkeys([*one.selected, *stage.fields]))) for one in spansets]


def in_order(spans: Iterable[Span], family: Family) -> Spans:
    """Each span once, in the trace's order."""
    wanted = set(spans)
    return tuple(span for span in family.spans if span in wanted)


def asked(spansets: list[Spanset]) -> tuple[Attribute | Intrinsic, ...]:
    return tuple(dict.fromkeys(field for one in spansets for field in one.selected))


# ---- filters and operators


def matched(stage: Filter | Wrapped | SpansetOperation, spans: Spans, family: Family) -> Spans:
    """The spans that a spanset expression finds among some.

    Only spans: what a wrapped pipeline groups or counts is forgotten behind it, several spansets of it are taken
    together, and the spanset that went in keeps its attributes.
    """
    match stage:
        case Filter(condition):
            return tuple(span for span in spans if condition_holds(condition, span, family))
        case Wrapped(pipeline):
            survived = run_on([Spanset(spans)], pipeline, family) if spans else []
            return in_order((span for one in survived for span in one.spans), family)
        case SpansetOperation(op, left, right):
            return operated(op, matched(left, spans, family), matched(right, spans, family), family)


def operated(op: str, left: Spans, right: Spans, family: Family) -> Spans:
    """`left op right` (7)."""
    found = related_spans(op, left, right, family)
    met(op, "some" if found else "none")
    return found


def related_spans(op: str, left: Spans, right: Spans, family: Family) -> Spans:
    if op == "&&":
        return in_order([*left, *right], family) if left and right else ()
    if op == "||":
        return in_order([*left, *right], family)
    related = RELATIONS[op.lstrip("!&")]
    below = [span for span in right if any(related(family, other, span) for other in left)]
    if op.startswith("!"):
        return tuple(span for span in right if span not in below)
    if op.startswith("&"):
        return in_order([*below, *(span for span in left if any(related(family, span, r) for r in right))], family)
    return tuple(below)


# ---- groups


def grouped(stage: GroupBy, spanset: Spanset, family: Family) -> list[Spanset]:
    """One spanset a value, in the order in which the values come up. Spans without a value are a group too."""
    groups: dict[Static, list[Span]] = {}
    for span in spanset.spans:
        groups.setdefault(group_value(value_of(stage.expression, span, family)), []).append(span)
    name = f"by({field_text(stage.expression)})"
    return [replace(spanset, spans=tuple(spans)).told(name, value) for value, spans in groups.items()]


def group_value(value: Value) -> Static:
    """What a span is grouped under: its value with its type, so 1 and 1.0 are two groups.

    An array of one counts as its element; longer ones and opaque values as nil. The text says so of metrics (9.3).
    """
    if isinstance(value, Many) and len(value.items) == 1:
        return value.items[0]
    return value if isinstance(value, Static) else NIL


# ---- aggregates and scalar filters


def scalar_filtered(stage: ScalarFilter, spanset: Spanset, family: Family) -> Spanset | None:
    """The spanset, with its aggregates told, if the comparison holds; durations compare as nanoseconds."""
    left, right = scalar(stage.left, spanset.spans, family), scalar(stage.right, spanset.spans, family)
    if not compare(stage.op, left, right):
        return None
    for aggregate in [*aggregates_in(stage.left), *aggregates_in(stage.right)]:
        value = aggregated(aggregate, spanset.spans, family)
        if value is not None:
            spanset = spanset.told(aggregate_text(aggregate), value)
    return spanset


def aggregates_in(of: Scalar) -> list[Aggregate]:
    """Those about the spanset itself: what a wrapped pipeline counts is not told."""
    if isinstance(of, ScalarOperation):
        return [*aggregates_in(of.left), *aggregates_in(of.right)]
    return [of] if isinstance(of, Aggregate) else []


def scalar(of: Scalar, spans: Spans, family: Family) -> Value:
    """One number for the spans; None where there is none, and then the spanset is dropped."""
    match of:
        case Static():
            return of
        case Aggregate():
            return aggregated(of, spans, family)
        case ScalarPipeline(pipeline, aggregate):
            return aggregated(aggregate, matched(Wrapped(pipeline), spans, family), family)
        case ScalarOperation(op, left, right):
            return calculate(op, scalar(left, spans, family), scalar(right, spans, family))


def aggregated(aggregate: Aggregate, spans: Spans, family: Family) -> Static | None:
    """Over the spans that have a number (8): none, no value. count() counts spans, so of no spans it is 0."""
    if aggregate.argument is None:
        return Static("int", len(spans))
    values = [value_of(aggregate.argument, span, family) for span in spans]
    numbers = [value for value in values if isinstance(value, Static) and is_number(value)]
    return fold(aggregate.function, numbers) if numbers else None


def fold(function: str, numbers: list[Static]) -> Static:
    """min, max and sum keep the numbers' type, and so does avg of durations, to the nanosecond; avg else is a float.

    Of 2 and 2.0 the least and the most is the whole number. Of numbers of differing types the sum is a float, and so is
    one that 64 bits do not hold.
    """
    held: list[Any] = [one.value for one in numbers]
    types = {one.type for one in numbers}
    met("fold", function, next(iter(types)) if len(types) == 1 else "mixed")
    if function in ("min", "max"):
        wanted = min(held) if function == "min" else max(held)
        return min((one for one in numbers if one.value == wanted), key=lambda one: one.type == "float")
    same = numbers[0].type if len(types) == 1 and INT_MIN <= sum(held) <= INT_MAX else "float"
    if function == "sum":
        return Static(same, float(sum(held)) if same == "float" else sum(held))
    mean = sum(held) / len(held)
    return Static("duration", round(mean)) if types == {"duration"} else Static("float", mean)

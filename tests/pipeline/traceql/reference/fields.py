"""What a field expression says of one span: its value, and whether a filter's condition holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.traceql.tree import COMPARISONS, SET_OPERATORS, Attribute, Binary, Field, Intrinsic, Static, Unary
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.model import Attributes, Event, Link, Span
from tests.pipeline.traceql.reference.values import (
    FALSE,
    NIL,
    TRUE,
    Value,
    calculate,
    compare,
    compare_nil,
    is_true,
    negate,
    typed,
)

SERVICE_NAME = "service.name"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """A span in its trace, and the one event and link that are looked at; None where the span has none."""

    span: Span
    family: Family
    event: Event | None = None
    link: Link | None = None


# ---- conditions


def condition_holds(condition: Field, span: Span, family: Family) -> bool:
    """Whether `{ condition }` keeps the span.

    - `||` and `!` look at each side for itself. `!` is a true NOT (15.1): `{ !x }` keeps what `{ x }` does not, also
      where x is a lone attribute, missing or no bool.
    - What is joined by && holds of one and the same event, and of one and the same link (5.12, 15.10); an operand of
      && that is itself an `||` or a `!` looks at events for itself.
    - Everything else holds if it does so for some event and link.
    """
    if isinstance(condition, Binary) and condition.op == "||":
        return condition_holds(condition.left, span, family) or condition_holds(condition.right, span, family)
    if isinstance(condition, Unary) and condition.op == "!":
        return not condition_holds(condition.operand, span, family)
    conjuncts = list(joined(condition))
    return any(all(is_true(value_in(one, view)) for one in conjuncts) for view in views(span, family))


def joined(condition: Field) -> Iterator[Field]:
    if isinstance(condition, Binary) and condition.op == "&&":
        yield from joined(condition.left)
        yield from joined(condition.right)
    else:
        yield condition


def views(span: Span, family: Family) -> Iterator[View]:
    """The span with each of its events and links."""
    for event in one_by_one(span.events):
        for link in one_by_one(span.links):
            yield View(span, family, event, link)


def one_by_one(things: Sequence[T]) -> Sequence[T | None]:
    return things or (None,)


# ---- values


def value_of(field: Field, span: Span, family: Family) -> Value:
    """The value for by(), aggregates and metrics. A condition's is a bool; else the first event or link that has it."""
    if is_condition(field):
        return TRUE if condition_holds(field, span, family) else FALSE
    found = (value_in(field, view) for view in views(span, family))
    return next((value for value in found if value is not None), None)


def is_condition(field: Field) -> bool:
    if isinstance(field, Unary):
        return field.op == "!"
    return isinstance(field, Binary) and field.op in (*COMPARISONS, *SET_OPERATORS)


def value_in(field: Field, view: View) -> Value:
    """The value with the view's event and link."""
    match field:
        case Static():
            return field
        case Attribute():
            return attribute_value(field, view)
        case Intrinsic():
            return intrinsic_value(field.name, view)
        case Unary("-", operand):
            return negate(value_in(operand, view))
        case Binary(op, left, right) if op not in (*COMPARISONS, *SET_OPERATORS):
            return calculate(op, value_in(left, view), value_in(right, view))
        case _:
            return TRUE if answer_in(field, view) else FALSE


def answer_in(condition: Unary | Binary, view: View) -> bool:
    """Of a comparison with the view's event and link; a logical operation looks at events for itself."""
    if isinstance(condition, Binary) and condition.op in COMPARISONS:
        return comparison_holds(condition.op, condition.left, condition.right, view)
    return condition_holds(condition, view.span, view.family)


def comparison_holds(op: str, left: Field, right: Field, view: View) -> bool:
    if NIL in (left, right):
        return nil_holds(op, right if left == NIL else left, view)
    values = value_in(left, view), value_in(right, view)
    if op in ("=", "!=") and Intrinsic("trace:id") in (left, right):
        values = without_zeros(values[0]), without_zeros(values[1])
    return compare(op, *values)


def without_zeros(value: Value) -> Value:
    """`trace:id = "1a2b"` (3.2): neither the literal's nor the ID's leading zeros count."""
    if isinstance(value, Static) and isinstance(value.value, str):
        return Static(value.type, value.value.lstrip("0"))
    return value


def nil_holds(op: str, field: Field, view: View) -> bool:
    """`field = nil` and `field != nil` (3.1)."""
    if op == "=" and isinstance(field, Attribute):
        if field.scope == "":
            # "holds when span or resource lacks it"; so `.x = nil` and `.x != nil` may both hold
            scopes = (Attribute(scope, field.name, field.parent) for scope in ("span", "resource"))
            return any(compare_nil("=", attribute_value(one, view)) for one in scopes)
        if field.scope in ("event", "link", "instrumentation") and not surroundings(field.scope, view):
            return False  # an event, link or scope without any attribute is not looked at
    return compare_nil(op, value_in(field, view))


# ---- attributes


def attribute_value(attribute: Attribute, view: View) -> Value:
    """Unscoped: the span's, else its resource's. With `parent`: of the parent span, nothing where there is none."""
    if attribute.parent:
        above = view.family.parent(view.span)
        if above is None:
            return None
        return attribute_value(Attribute(attribute.scope, attribute.name), View(above, view.family))
    if attribute.scope == "":
        at_span = typed(view.span.attributes.get(attribute.name))
        return typed(view.span.resource.get(attribute.name)) if at_span is None else at_span
    value = typed(surroundings(attribute.scope, view).get(attribute.name))
    if (attribute.scope, attribute.name) == ("resource", SERVICE_NAME):
        return value if isinstance(value, Static) and value.type == "string" else Static("string", "")
    return value


def surroundings(scope: str, view: View) -> Attributes:
    match scope:
        case "span":
            return view.span.attributes
        case "resource":
            return view.span.resource
        case "instrumentation":
            return view.span.scope_attributes
        case "event":
            return view.event.attributes if view.event else {}
        case _:
            return view.link.attributes if view.link else {}


# ---- intrinsics


def intrinsic_value(name: str, view: View) -> Value:
    """The intrinsic by its canonical name."""
    room, _, _ = name.partition(":")
    match room:
        case "trace":
            return of_trace(name, view)
        case "event" | "link":
            return of_event_or_link(name, view)
        case "parent":
            return None if view.family.parent(view.span) is None else TRUE  # only compared with nil
        case _ if name.startswith("nestedSet"):
            left, right, parent = view.family.nested_set(view.span)
            return Static("int", {"nestedSetLeft": left, "nestedSetRight": right, "nestedSetParent": parent}[name])
        case _:
            return of_span(name, view)


def of_span(name: str, view: View) -> Static:
    span = view.span
    return {
        "span:duration": Static("duration", span.duration_ns),
        "span:name": Static("string", span.name),
        "span:status": Static("status", span.status),
        "span:statusMessage": Static("string", span.status_message),
        "span:kind": Static("kind", span.kind),
        "span:id": Static("string", span.span_id.hex()),
        "span:parentID": Static("string", span.parent_id.hex() or "0" * 16),
        "span:childCount": Static("int", len(view.family.children(span))),
        "instrumentation:name": Static("string", span.scope_name),
        "instrumentation:version": Static("string", span.scope_version),
    }[name]


def of_trace(name: str, view: View) -> Value:
    """Of the whole trace (15.3). Without a root there is no name of it."""
    root = view.family.named_root()
    match name:
        case "trace:id":
            return Static("string", view.span.trace_id.hex())
        case "trace:duration":
            return Static("duration", view.family.end_ns - view.family.start_ns)
        case "trace:rootName":
            return Static("string", root.name) if root else None
        case "trace:rootService":
            return attribute_value(Attribute("resource", SERVICE_NAME), View(root, view.family)) if root else None
    raise KeyError(name)


def of_event_or_link(name: str, view: View) -> Value:
    event, link = view.event, view.link
    match name:
        case "event:name":
            return Static("string", event.name) if event else None
        case "event:timeSinceStart":
            return Static("duration", event.time_ns - view.span.start_ns) if event else None
        case "link:traceID":
            return Static("string", link.trace_id.hex()) if link else None
        case "link:spanID":
            return Static("string", link.span_id.hex()) if link else None
    raise KeyError(name)

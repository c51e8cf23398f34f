"""compare(): how the values of a selection differ from those of the other spans (9.4)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from pipeline.traceql.tree import Compare, Intrinsic, Static
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.fields import condition_holds, value_of
from tests.pipeline.traceql.reference.model import Span
from tests.pipeline.traceql.reference.series import Series
from tests.pipeline.traceql.reference.spansets import group_value
from tests.pipeline.traceql.reference.texts import field_text, name_text
from tests.pipeline.traceql.reference.values import NIL, Value, sort_key, typed

COMPARED = tuple(Intrinsic(name) for name in ("span:name", "span:status", "span:kind", "span:statusMessage"))
SHOWN_NIL = Static("string", "nil")
Counts = Counter[int]  # point -> spans


def compared(compare: Compare, placed: list[tuple[int, Span, Family]], times: list[int]) -> list[Series]:
    """The most frequent values of each attribute on both sides, and how many spans have the attribute at all.

    placed: spans with the time of their point. Of equally frequent values the smaller goes first. That an attribute has
    more values than are shown is not told: the text's series of that has no points.
    """
    values: dict[tuple[str, str], dict[Static, Counts]] = defaultdict(lambda: defaultdict(Counter))
    totals: dict[tuple[str, str], Counts] = defaultdict(Counter)
    for at, span, family in placed:
        side = "selection" if is_selected(compare, span, family) else "baseline"
        for key, value in described(span, family):
            values[side, key][value][at] += 1
            totals[side, key][at] += 1
    series = [
        counted(side, key, value, counts, times)
        for (side, key), found in values.items()
        for value, counts in most_frequent(found, compare.top)
    ]
    series += [counted(f"{side}_total", key, SHOWN_NIL, counts, times) for (side, key), counts in totals.items()]
    return series


def is_selected(compare: Compare, span: Span, family: Family) -> bool:
    inside = compare.window is None or compare.window[0] < span.start_ns <= compare.window[1]
    return inside and condition_holds(compare.selection.condition, span, family)


def most_frequent(found: dict[Static, Counts], top: int) -> list[tuple[Static, Counts]]:
    return sorted(found.items(), key=lambda one: (-one[1].total(), one[0].type, sort_key(one[0])))[:top]


def counted(side: str, key: str, value: Static, counts: Counts, times: list[int]) -> Series:
    labels = (("__meta_type", Static("string", side)), (key, value))
    return Series(labels, {at: float(counts[at]) for at in times})


def described(span: Span, family: Family) -> Iterator[tuple[str, Static]]:
    """Every attribute of the span under its scoped name: its own, its resource's, its scope's, and COMPARED.

    Empty intrinsics, and values that group as nil (arrays of several, opaque ones), are left out; so are events and
    links, of which a span has many, and what is said of the trace.
    """
    given: list[tuple[str, Value]] = [(field_text(one), value_of(one, span, family)) for one in COMPARED]
    for scope, attributes in (
        ("span", span.attributes),
        ("resource", span.resource),
        ("instrumentation", span.scope_attributes),
    ):
        given += [(f"{scope}.{name_text(name)}", typed(held)) for name, held in attributes.items()]
    for key, value in given:
        shown = group_value(value)
        if shown != NIL and not (shown.value == "" and "." not in key):
            yield key, shown

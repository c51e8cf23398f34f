"""Spansets of found traces in Tempo's JSON."""

from __future__ import annotations

import math
from typing import Any

from pipeline.query.plan import FoundSpan, SpanSet
from pipeline.traceql import tree
from pipeline.traceql.durations import duration_text
from pipeline.traceql.names import name_text
from pipeline.traceql.text import text_of

Json = dict[str, Any]
WORDS = {"status": tree.STATUSES, "kind": tree.KINDS}


def span_sets(found: list[SpanSet]) -> Json:
    """`spanSets`, and `spanSet`, the first of them again for old clients."""
    sets = [_span_set(one) for one in found]
    return {"spanSet": sets[0], "spanSets": sets} if sets else {}


def _span_set(one: SpanSet) -> Json:
    found: Json = {"spans": [_span(each) for each in one.spans], "matched": one.matched}
    if one.attributes:
        found["attributes"] = [{"key": text_of(of), "value": _stage_value(of, value)} for of, value in one.attributes]
    return found


def _span(span: FoundSpan) -> Json:
    found: Json = {"spanID": span.span_id.hex()}
    if span.name is not None:
        found["name"] = span.name
    found |= {"startTimeUnixNano": str(span.start_unix_ns), "durationNanos": str(max(0, span.duration_ns))}
    if span.attributes:
        found["attributes"] = [
            {"key": key_of(of), "value": any_value(type_, value)} for of, type_, value in span.attributes
        ]
    return found


def key_of(of: tree.Attribute | tree.Intrinsic) -> str:
    """An attribute's name without its scope; an intrinsic's shorter name."""
    return of.name if isinstance(of, tree.Attribute) else name_text(of)


def any_value(type_: str, value: Any) -> Json:
    """A value of pipeline.query.values as an AnyValue."""
    if type_.endswith("[]"):
        return {"arrayValue": {"values": [any_value(type_.removesuffix("[]"), each) for each in value]}}
    if type_ in WORDS:
        words = WORDS[type_]
        return {"stringValue": words[value] if 0 <= value < len(words) else str(value)}
    if type_ == "int":
        return {"intValue": str(value)}
    if type_ == "float":
        return {"doubleValue": double(value)}
    if type_ == "duration":
        return {"stringValue": duration_text(value)}
    return {{"string": "stringValue", "bool": "boolValue"}[type_]: value}


def double(value: float) -> float | str:
    """A number as JSON has it: what it has none for is a text."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _stage_value(of: tree.GroupBy | tree.Aggregate, value: Any) -> Json:
    if isinstance(of, tree.GroupBy):
        return any_value(*value) if value is not None else {"stringValue": "nil"}
    if of.argument is not None and _is_duration(of.argument):
        return {"stringValue": duration_text(round(value))}
    return any_value("int" if isinstance(value, int) else "float", value)


def _is_duration(node: tree.Field) -> bool:
    return isinstance(node, tree.Intrinsic) and tree.INTRINSIC_TYPES[node.name] == "duration"

"""What an assistant may ask: tools over the API's routes. Answers are bounded, and say what was left out."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.serve import mcp_docs
from pipeline.serve.plain_json import Json, attributes_of, hex_of, plain
from pipeline.traceql import tree
from pipeline.traceql.check import compiled
from topics.errors import BadQuestionError

Ask = Callable[[str, Mapping[str, str]], Awaitable[Json]]
LAST_S = 3600
LIMIT, LIMIT_MAX = 20, 200
COMPARED = 20
TIMES = {
    "start": "Start of the time range, RFC 3339 (2026-01-31T12:00:00Z). Default: an hour before the end",
    "end": "End of the time range, RFC 3339. Default: now",
}
SINGLE = "__meta_type"


@dataclass(frozen=True, slots=True)
class Tool:
    """many: the list of its answer that is cut where it is too long. required: of the parameters."""

    description: str
    many: str
    run: Callable[[Ask, Mapping[str, str]], Awaitable[Json]]
    parameters: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()


async def _search(ask: Ask, given: Mapping[str, str]) -> Json:
    if not isinstance(_compiled(given["query"]), tree.Pipeline):
        raise BadQuestionError(
            "this is a metrics query: ask traceql-metrics-range for values over time, traceql-metrics-instant for one"
        )
    limit = _number(given, "limit", LIMIT, LIMIT_MAX)
    found = await ask("/api/search", _times(given) | {"q": given["query"], "limit": str(limit)})
    return _told(found, traces=found["traces"], more_follow="nextCursor" in found)


async def _metrics_range(ask: Ask, given: Mapping[str, str]) -> Json:
    return await _metrics(ask, "/api/metrics/query_range", given)


async def _metrics_instant(ask: Ask, given: Mapping[str, str]) -> Json:
    return await _metrics(ask, "/api/metrics/query", given)


async def _metrics(ask: Ask, path: str, given: Mapping[str, str]) -> Json:
    if isinstance(_compiled(given["query"]), tree.Pipeline):
        raise BadQuestionError(
            "this is no metrics query: it has to end in a metrics function, as in { ... } | rate(). Ask traceql-search"
            " for traces"
        )
    step = {"step": given["step"]} if given.get("step") else {}
    asked = _times(given) | {"q": given["query"], "exemplars": "5"} | step
    found = await ask(path, asked)
    series = [{**one, "labels": labels_of(one)} for one in found.get("series", [])]
    return _told(found, series=series)


async def _trace(ask: Ask, given: Mapping[str, str]) -> Json:
    found = await ask(f"/api/v2/traces/{_trace_id(given['trace_id'])}", {})
    return _told(found, spans=spans_of(found["trace"]))


async def _names(ask: Ask, given: Mapping[str, str]) -> Json:
    asked = _times(given) | ({"scope": given["scope"]} if given.get("scope") else {})
    found = await ask("/api/v2/search/tags", asked)
    names = [
        name if scope["name"] == "intrinsic" else f"{scope['name']}.{name}"
        for scope in found["scopes"]
        for name in scope["tags"]
    ]
    return _told(found, names=names)


async def _values(ask: Ask, given: Mapping[str, str]) -> Json:
    asked = _times(given) | ({"q": given["filter-query"]} if given.get("filter-query") else {})
    found = await ask(f"/api/v2/search/tag/{_in_path(given['name'])}/values", asked)
    return _told(found, values=found["tagValues"])


async def _services(ask: Ask, given: Mapping[str, str]) -> Json:
    found = await ask("/api/services", _times(given))
    told = [{"service": name, "operations": operations} for name, operations in found["services"].items()]
    return _told(found, services=told)


async def _sql(ask: Ask, given: Mapping[str, str]) -> Json:
    found = await ask("/api/sql", _times(given) | {"q": given["query"], "format": "json"})
    rows = {"columns": found["columns"], "rows": found["rows"], "more_follow": found["truncated"]}
    return rows | ({} if found["complete"] else {"incomplete": "; ".join(found["reasons"])})


async def _compare(ask: Ask, given: Mapping[str, str]) -> Json:
    among = given.get("query") or "{}"
    text = f"{among} | compare({given['selection']}, {_number(given, 'top', COMPARED, 100)})"
    found = await ask("/api/metrics/query", _times(given) | {"q": text})
    return _told(found, attributes=compared(found.get("series", [])))


async def _diff(ask: Ask, given: Mapping[str, str]) -> Json:
    sides = []
    for name in ("base", "compare"):
        found = await ask(f"/api/v2/traces/{_trace_id(given[name])}", {})
        spans = spans_of(found["trace"])
        if not spans:
            raise BadQuestionError(f"no span of trace {given[name][:40]!r} ({name}) is known")
        sides.append((found, spans))
    (one, before), (two, after) = sides
    told = {"base_spans": len(before), "compare_spans": len(after), "operations": differing(before, after)}
    return _told(one | two, **told)


async def _docs_traceql(_ask: Ask, given: Mapping[str, str]) -> Json:
    return {"text": mcp_docs.traceql(given["name"])}


async def _docs_config(_ask: Ask, given: Mapping[str, str]) -> Json:
    return {"text": mcp_docs.config(given["name"])}


QUERY = 'TraceQL, such as { resource.service.name = "shop" && status = error }'
METRICS_QUERY = "TraceQL ending in a metrics function, such as { status = error } | rate() by (resource.service.name)"
TOOLS: dict[str, Tool] = {
    "traceql-search": Tool(
        "Find traces by TraceQL, newest first. Read docs-traceql first where you do not know the language.",
        "traces",
        _search,
        {"query": QUERY, **TIMES, "limit": f"Most traces, {LIMIT} where absent, at most {LIMIT_MAX}"},
        ("query",),
    ),
    "traceql-metrics-instant": Tool(
        "One value for each series of a TraceQL metrics query over the whole range: totals, rates, quantiles.",
        "series",
        _metrics_instant,
        {"query": METRICS_QUERY, **TIMES},
        ("query",),
    ),
    "traceql-metrics-range": Tool(
        "Series of values over time of a TraceQL metrics query.",
        "series",
        _metrics_range,
        {
            "query": METRICS_QUERY,
            **TIMES,
            "step": "Time between two points, such as 60s; chosen by the range if absent",
        },
        ("query",),
    ),
    "get-trace": Tool(
        "All spans of a trace by its ID, parents before children where times say so.",
        "spans",
        _trace,
        {"trace_id": "1 to 32 hexadecimal digits"},
        ("trace_id",),
    ),
    "get-attribute-names": Tool(
        "Names of attributes that spans have, as TraceQL writes them.",
        "names",
        _names,
        {"scope": "resource, span, event, link, instrumentation or intrinsic; all where absent", **TIMES},
    ),
    "get-attribute-values": Tool(
        "Values of an attribute, with their types.",
        "values",
        _values,
        {
            "name": "Its name with its scope, such as resource.service.name, or an intrinsic, such as status",
            "filter-query": 'Only of spans of which this holds, such as { resource.service.name = "shop" }',
            **TIMES,
        },
        ("name",),
    ),
    "services": Tool("Services, their operations, and how many spans each has.", "services", _services, TIMES),
    "sql": Tool(
        "One SELECT of DuckDB's SQL over the views spans and traces. DESCRIBE spans tells the columns.",
        "rows",
        _sql,
        {"query": "SELECT service, count(*) FROM spans GROUP BY ALL ORDER BY 2 DESC", **TIMES},
        ("query",),
    ),
    "compare": Tool(
        "What spans of a selection have in common that others have not: attributes' values, by how much their shares"
        " differ. The quickest way to why requests fail or are slow.",
        "attributes",
        _compare,
        {
            "selection": "A spanset filter, such as { status = error } or { duration > 1s }",
            "query": "Among which spans, {} where absent",
            "top": f"Most values of an attribute, {COMPARED} where absent",
            **TIMES,
        },
        ("selection",),
    ),
    "trace-diff": Tool(
        "What differs between two traces, by service and operation, the greatest change of time first.",
        "operations",
        _diff,
        {"base": "ID of the first trace", "compare": "ID of the second"},
        ("base", "compare"),
    ),
    "docs-traceql": Tool(
        "How TraceQL is written.",
        "text",
        _docs_traceql,
        {"name": f"One of {', '.join(mcp_docs.TRACEQL)}"},
        ("name",),
    ),
    "docs-config": Tool(
        "How spanstream is operated, and its settings.",
        "text",
        _docs_config,
        {"name": f"One of {', '.join(mcp_docs.CONFIG)}"},
        ("name",),
    ),
}


# ---- answers


def _told(found: Json, **parts: Any) -> Json:
    """The parts, and why they may not be all."""
    return parts | ({"incomplete": found["message"]} if found.get("message") else {})


def spans_of(trace: Json) -> list[Json]:
    """The spans of a v2 answer, by start: hexadecimal IDs, attributes as plain values."""
    spans = []
    for resource in trace.get("resourceSpans", []):
        attributes = attributes_of(resource.get("resource", {}))
        for scope in resource.get("scopeSpans", []):
            spans += [_span(span, attributes) for span in scope.get("spans", [])]
    return sorted(spans, key=lambda span: (int(span["startTimeUnixNano"]), span["spanId"]))


def _span(span: Json, resource: Json) -> Json:
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    told: Json = {
        "service": resource.get("service.name", ""),
        "name": span.get("name", ""),
        "spanId": hex_of(span.get("spanId", "")),
        "parentSpanId": hex_of(span.get("parentSpanId", "")),
        "kind": span.get("kind", ""),
        "startTimeUnixNano": str(start),
        "durationMs": max(0, end - start) / 1e6,
        "status": span.get("status", {}),
        "attributes": attributes_of(span),
        "resource": {name: value for name, value in resource.items() if name != "service.name"},
        "events": [{"name": one.get("name", ""), "attributes": attributes_of(one)} for one in span.get("events", [])],
    }
    return {name: value for name, value in told.items() if value not in ("", {}, [])}


def labels_of(series: Json) -> Json:
    """A series' labels by name."""
    return {one["key"]: plain(one["value"]) for one in series["labels"]}


def compared(series: list[Json]) -> list[Json]:
    """Attributes' values by how much their shares of selection and of the rest differ, the greatest first."""
    counts: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    totals: dict[tuple[str, str], float] = {}
    for one in series:
        labels = labels_of(one)
        side = str(labels.pop(SINGLE, ""))
        for name, value in labels.items():
            if side.endswith("_total"):
                totals[name, side.removesuffix("_total")] = one.get("value", 0.0)
            else:
                counts[name, str(value)][side] += one.get("value", 0.0)
    found = []
    for (name, value), sides in counts.items():
        shares = [sides[side] / max(totals.get((name, side), 0.0), 1.0) for side in ("selection", "baseline")]
        told = {"selection_spans": sides["selection"], "baseline_spans": sides["baseline"]}
        shown = {"selection_share": round(shares[0], 4), "baseline_share": round(shares[1], 4)}
        found.append({"attribute": name, "value": value, **told, **shown})
    return sorted(found, key=lambda one: -abs(one["selection_share"] - one["baseline_share"]))


def differing(before: list[Json], after: list[Json]) -> list[Json]:
    """Operations of either trace, with spans, errors and time in both, the greatest change of time first."""
    found: dict[tuple[str, str], Json] = {}
    for side, spans in (("base", before), ("compare", after)):
        for span in spans:
            key = span.get("service", ""), span.get("name", "")
            empty = {"spans": 0, "errors": 0, "durationMs": 0.0}
            one = found.setdefault(key, {"service": key[0], "operation": key[1], "base": dict(empty), "compare": empty})
            one[side]["spans"] += 1
            one[side]["errors"] += span.get("status", {}).get("code") == "STATUS_CODE_ERROR"
            one[side]["durationMs"] += span["durationMs"]
    return sorted(found.values(), key=lambda one: -abs(one["compare"]["durationMs"] - one["base"]["durationMs"]))


# ---- parameters


def _compiled(query: str) -> tree.Pipeline | tree.MetricsPipeline | tree.MetricsMath:
    return compiled(query, lambda _pattern: None).body  # the querier looks at regular expressions


def _number(given: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = str(given.get(name, "") or default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= maximum):
        raise BadQuestionError(f"invalid {name}: {text[:40]!r} is no whole number from 1 to {maximum}")
    return int(text)


def _times(given: Mapping[str, str]) -> dict[str, str]:
    end_s = _time(given, "end", time.time())
    start_s = _time(given, "start", end_s - LAST_S)
    if start_s >= end_s:
        raise BadQuestionError("start must be before end")
    return {"start": str(math.floor(start_s)), "end": str(math.ceil(end_s))}


def _time(given: Mapping[str, str], name: str, default_s: float) -> float:
    text = given.get(name, "")
    if not text:
        return default_s
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.timestamp() < 0:
        raise BadQuestionError(f"invalid {name}: {text[:60]!r} is no time as in 2026-01-31T12:00:00Z")
    return at.timestamp()


def _trace_id(text: str) -> str:
    if not text or len(text) > 32 or set(text.lower()) - set("0123456789abcdef"):
        raise BadQuestionError(f"{text[:60]!r} is no trace ID: 1 to 32 hexadecimal digits")
    return text


def _in_path(name: str) -> str:
    """A tag's name where a path has it: what would end the path, or lead elsewhere, is escaped."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-:") else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))

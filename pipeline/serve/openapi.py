"""The OpenAPI document of the querier's routes, as a table: what a route is asked, in which forms it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import orjson

from pipeline.query.order import ORDERS
from pipeline.serve.formats import FORMATS, JSON, LLM, MEDIA_TYPES, PROTOBUF
from pipeline.serve.search_rows import SEARCH_FORMATS
from pipeline.serve.sql import SQL_FORMATS

PATH, DIFF_PATH = "/api/openapi.json", "/api/v2/traces/diff"
Json = dict[str, Any]
HTML, TEXT, LLM_JSON = "text/html", "text/plain", MEDIA_TYPES[LLM]
EVENTS, ANY = "text/event-stream", "*/*"
TIMES = ("start", "end", "since")
INTEGER, STRING, BOOLEAN = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
PARAMETERS: dict[str, tuple[Json, str]] = {
    "q": (STRING, "A query"),
    "tags": (STRING, "key=value key2='a b': all must match; in the place of q"),
    "start": (INTEGER, "Unix seconds; with end"),
    "end": (INTEGER, "Unix seconds, the whole second is meant"),
    "since": (STRING, "Up to now, in the place of start and end: 15m, 2h, 7d"),
    "limit": (INTEGER, "At most so many are answered"),
    "spss": (INTEGER, "Spans that are shown of each spanset, 1 to 100"),
    "minDuration": (STRING, "Of the whole trace: 100ms, 1.5s"),
    "maxDuration": (STRING, "Likewise"),
    "order": (STRING | {"enum": list(ORDERS)}, "What comes first"),
    "cursor": (STRING, "nextCursor of the answer before"),
    "step": (STRING, "Distance of points: seconds or a duration"),
    "exemplars": (INTEGER, "Most exemplars"),
    "maxSeries": (INTEGER, "Most series"),
    "scope": (STRING, "Of which scope: resource, span, event, link, instrumentation, intrinsic"),
    "mode": (STRING, "Accepted as Tempo has it: all, blocks, ingesters, external"),
    "keep_hierarchy": (BOOLEAN, "With q: the spans above the matching ones too"),
    "ancestor_depth": (INTEGER, "How many levels of those; -1: all"),
    "match_depth": (INTEGER, "How many levels below the matching ones"),
    "kind": (INTEGER, "OTLP's number of the span's kind, where two spans share an ID"),
    "prefix": (STRING, "Keys that begin so"),
}
OF_TRACE: dict[str, tuple[Json, str]] = {
    "start": (INTEGER, "Unix seconds: chunks that end before are not read"),
    "end": (INTEGER, "Unix seconds: chunks that begin later are not read"),
}
OF_METRICS: dict[str, tuple[Json, str]] = {
    "query": (STRING, "The same as q"),
    "start": (STRING, "Unix seconds, with or without a fraction, Unix nanoseconds, or RFC 3339; an hour before end"),
    "end": (STRING, "Likewise; now where it is absent"),
    "since": (STRING, "How long before end the range begins, in the place of start: 15m, 2h"),
    "exemplars": (INTEGER, "Most exemplars, at most 100; 0: as if absent. with(exemplars=false) in the query: none"),
}
MODE: dict[str, tuple[Json, str]] = {
    "mode": (STRING | {"enum": ["diff", "defaults"]}, "What is not the default, or what is where nothing is set"),
}
IN_PATH = {
    "trace_id": "1 to 32 hex digits; shorter ones are padded on the left",
    "other_id": "Likewise",
    "span_id": "16 hex digits",
    "tag": "An attribute as TraceQL writes it, or a name without scope",
    "id": "Of a query that is listed",
    "tenant": "A tenant's name",
    "rest": "A table, and perhaps a key",
}
REFUSALS = {
    "400": "What is wrong with the question, and how to mend it",
    "401": "The token or the tenant is missing or unknown",
    "403": "The token is not for this",
    "404": "There is no such thing",
    "405": "Another method is meant",
    "413": "More memory or bytes than a limit allows; the sentence names the setting",
    "422": "The trace is too large for version 1",
    "429": "Too many queries of this tenant wait",
    "499": "The query was cancelled",
    "503": "Kafka, the store or the querier cannot answer now; retry-after says when to ask again",
    "504": "The time was over",
}


class Route(NamedTuple):
    """What one route is for, its parameters, the forms of its answer, its methods."""

    summary: str
    parameters: tuple[str, ...] = ()
    forms: tuple[str, ...] = (JSON,)
    methods: tuple[str, ...] = ("get",)
    own: Mapping[str, tuple[Json, str]] = {}
    """Parameters that mean here something else than in PARAMETERS."""


_OF_TRACE = ("start", "end")
_FILTER = ("q", "keep_hierarchy", "ancestor_depth", "match_depth")
_SEARCH = ("q", "tags", "minDuration", "maxDuration", "limit", "spss", *TIMES, "cursor", "order")
_METRICS = ("q", "query", *TIMES)
ROUTES = {
    "/api/traces/{trace_id}": Route(
        "A whole trace, as Tempo's version 1", ("start", "end", "mode"), (JSON, PROTOBUF, LLM_JSON), own=OF_TRACE
    ),
    DIFF_PATH: Route("What differs from one trace to another, span by span", methods=("post",)),
    "/api/v2/traces/{trace_id}": Route(
        "A whole trace, or the spans of it that q= holds of",
        ("start", "end", "mode", *_FILTER),
        (JSON, PROTOBUF, LLM_JSON),
        own=OF_TRACE,
    ),
    "/api/search": Route(
        "Traces by TraceQL or tags",
        (*_SEARCH, "format"),
        (*(FORMATS[form].partition(";")[0] for form in SEARCH_FORMATS), PROTOBUF),
    ),
    "/api/metrics/query_range": Route(
        "Series of a TraceQL metrics query", (*_METRICS, "step", "exemplars", "maxSeries"), own=OF_METRICS
    ),
    "/api/metrics/query": Route("One value a series of it", (*_METRICS, "maxSeries"), own=OF_METRICS),
    "/api/search/tags": Route("Names of attributes", ("scope", "q", "limit", *TIMES), (JSON, PROTOBUF)),
    "/api/v2/search/tags": Route("The same, by scope", ("scope", "q", "limit", *TIMES), (JSON, PROTOBUF, LLM_JSON)),
    "/api/search/tag/{tag}/values": Route("Values of an attribute, texts", ("q", "limit", *TIMES), (JSON, PROTOBUF)),
    "/api/v2/search/tag/{tag}/values": Route(
        "Values of an attribute with types", ("q", "limit", *TIMES), (JSON, PROTOBUF, LLM_JSON)
    ),
    "/api/services": Route("Services, their operations, and how many spans each has", TIMES),
    "/api/explain": Route(
        "How a search or a metrics query is answered: plan, chunks and why, bytes, time of each step",
        (*_SEARCH, "step", "exemplars"),
    ),
    "/api/sql": Route(
        "Rows of one SELECT in DuckDB's SQL over spans and traces; q or the body",
        ("q", *TIMES, "format"),
        tuple(FORMATS[form].partition(";")[0] for form in SQL_FORMATS),
        ("get", "post"),
    ),
    "/api/tail": Route("Spans that q= holds of, as they arrive", ("q",), (EVENTS,)),
    "/api/where/{trace_id}": Route("Where each part of a trace stands", _OF_TRACE, own=OF_TRACE),
    "/api/trace-view/{trace_id}": Route(
        "What the page draws of a trace, in columns", ("start", "end", *_FILTER), own=OF_TRACE
    ),
    "/api/trace-view/{trace_id}/matches": Route(
        "Which of its spans q= holds of", ("start", "end", *_FILTER), own=OF_TRACE
    ),
    "/api/trace-view/{trace_id}/events": Route("Its events by time", _OF_TRACE, own=OF_TRACE),
    "/api/trace-view/{trace_id}/spans/{span_id}": Route(
        "One of its spans in full", ("start", "end", "kind"), own=OF_TRACE
    ),
    "/api/status/drops": Route("What was not kept as it was sent, by reason"),
    "/api/status/system": Route("What is stored by day; workers and partitions, for who may see all tenants"),
    "/api/status/canary": Route("What canaries found"),
    "/api/status/queries": Route("Queries under way"),
    "/api/status/queries/{id}": Route("End one of them", methods=("delete",)),
    "/status": Route("All of what follows, but the overrides", (), (TEXT,)),
    "/status/version": Route("The version", (), (TEXT,)),
    "/status/services": Route("Whether this querier answers in full, and if not, why", (), (TEXT,)),
    "/status/endpoints": Route("Every route", (), (TEXT,)),
    "/status/config": Route("The settings in YAML, secrets hidden", ("mode",), (TEXT,), own=MODE),
    "/status/runtime_config": Route("Limits of single tenants in YAML", (), (TEXT,)),
    "/status/overrides": Route("The tenants that have limits of their own"),
    "/status/overrides/{tenant}": Route("The limits that a tenant has of its own"),
    "/api/mcp": Route("Tools for assistants: MCP over streamable HTTP", (), (JSON, EVENTS), ("post",)),
    PATH: Route("This document"),
    "/tables": Route("The workers' tables"),
    "/tables/{rest}": Route("A page of one of them", ("limit", "prefix"), (ANY,)),
    "/trace/{trace_id}": Route("A trace on the page", (), (HTML,)),
    "/trace/{trace_id}/against/{other_id}": Route("Two traces on the page", (), (HTML,)),
    "/": Route("The page", (), (HTML,)),
    "/services": Route("The page's services", (), (HTML,)),
    "/compare": Route("The page's comparison", (), (HTML,)),
    "/live": Route("The page's live view", (), (HTML,)),
    "/system": Route("The page's view of the system", (), (HTML,)),
    "/plain": Route("The newest traces, without script", _SEARCH, (HTML,)),
    "/plain/trace/{trace_id}": Route("A trace as a waterfall, without script", ("start", "end"), (HTML,), own=OF_TRACE),
    "/assets": Route("The page's program", (), (ANY,)),
    "/api/echo": Route("What Grafana asks whether there is a data source", (), (TEXT,)),
    "/api/status/buildinfo": Route("The version that Grafana reads"),
    "/ready": Route("Whether questions are answered in full, and if not, why", (), (TEXT,)),
    "/metrics": Route("Metrics for Prometheus", (), (TEXT,)),
}


@cache
def document() -> bytes:
    """The document in JSON. Times in paths of searches are Unix seconds, errors are a sentence in plain text."""
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "spanstream's querier",
                "version": "1",
                "description": "Tempo's routes and some of ours. An error is one sentence of plain text.",
            },
            "security": [{}, {"token": []}],
            "paths": {path: {method: _operation(path, route) for method in route.methods} for path, route in _paths()},
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "parameters": {"tenant": _tenant()},
                "responses": {
                    status: {"description": said, "content": {TEXT: {"schema": STRING}}}
                    for status, said in REFUSALS.items()
                },
            },
        }
    )


def _paths() -> list[tuple[str, Route]]:
    return sorted(ROUTES.items())


def _operation(path: str, route: Route) -> Json:
    in_path: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": STRING, "description": IN_PATH[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    in_query = [_parameter(name, route) for name in route.parameters]
    found = {"description": "The answer", "content": {form: {} for form in route.forms}}
    return {
        "summary": route.summary,
        "parameters": [*in_path, *in_query, {"$ref": "#/components/parameters/tenant"}],
        "responses": {"200": found} | {status: {"$ref": f"#/components/responses/{status}"} for status in REFUSALS},
    }


def _parameter(name: str, route: Route) -> Json:
    if name == "format":
        words = [form for form, media_type in FORMATS.items() if media_type.partition(";")[0] in route.forms]
        schema, said = STRING | {"enum": words}, "The form of the answer; Accept says it too"
    else:
        schema, said = route.own.get(name) or PARAMETERS[name]
    return {"name": name, "in": "query", "schema": schema, "description": said}


def _tenant() -> Json:
    said = "Whose spans, where there are tenants; a|b asks for both"
    return {"name": "X-Scope-OrgID", "in": "header", "schema": STRING, "description": said}

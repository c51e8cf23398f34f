"""Answers for language models: the same as Tempo's JSON, in fewer words.

Attributes are one object, IDs hexadecimal, durations in ms; what is not set is left out.
"""

from __future__ import annotations

from collections import defaultdict

from pipeline.serve.plain_json import Json, attributes_of, filled, hex_of

SERVICE = "service.name"


def trace(answer: Json) -> Json:
    """A v2 answer to a trace by ID; of an unknown trace only what says that it may not be complete."""
    batches = answer["trace"].get("resourceSpans", [])
    told = {name: value for name, value in answer.items() if name not in ("trace", "metrics")}
    if not batches:
        return told
    first = batches[0]["scopeSpans"][0]["spans"][0]
    services = {"traceId": hex_of(first["traceId"]), "services": [_service(batch) for batch in batches]}
    return {"trace": services, "metrics": answer["metrics"]} | told


def tag_names(answer: Json) -> Json:
    """SearchTagsV2Response, names by scope."""
    return answer | {"scopes": {scope["name"]: scope["tags"] for scope in answer["scopes"]}}


def tag_values(answer: Json) -> Json:
    """SearchTagValuesV2Response, values by type."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in answer["tagValues"]:
        found[one["type"]].append(one["value"])
    return answer | {"tagValues": found}


def _service(batch: Json) -> Json:
    resource = attributes_of(batch.get("resource", {}))
    name = resource.pop(SERVICE, "")
    scopes = [_scope(one.get("scope", {}), one.get("spans", [])) for one in batch["scopeSpans"]]
    return filled(serviceName=name, resource=resource, scopes=scopes)


def _scope(scope: Json, spans: list[Json]) -> Json:
    named = filled(name=scope.get("name"), version=scope.get("version"), attributes=attributes_of(scope))
    return named | {"spans": [_span(one) for one in spans]}


def _span(span: Json) -> Json:
    start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
    return filled(
        spanId=hex_of(span.get("spanId", "")),
        name=span.get("name"),
        parentSpanId=hex_of(span.get("parentSpanId", "")),
        kind=span.get("kind"),
        startTimeUnixNano=str(start),
        endTimeUnixNano=str(end),
        durationMs=max(0, end - start) / 1e6,
        attributes=attributes_of(span),
        events=[_event(one) for one in span.get("events", [])],
        links=[_link(one) for one in span.get("links", [])],
        status=span["status"],
    )


def _event(event: Json) -> Json:
    at = event.get("timeUnixNano")
    return filled(name=event.get("name"), timeUnixNano=at, attributes=attributes_of(event))


def _link(link: Json) -> Json:
    ids = {name: hex_of(link.get(name, "")) for name in ("traceId", "spanId")}
    return filled(**ids, attributes=attributes_of(link))

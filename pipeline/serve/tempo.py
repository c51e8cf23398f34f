"""Answers in Tempo's JSON: zero values left out, 64-bit numbers as text, bytes in base64 in traces, hex in searches."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.query.identifiers import API_SCOPE_OF, INTRINSICS
from pipeline.query.search import SearchAnswer
from pipeline.query.summary import TraceSummary
from pipeline.query.tags import TagAnswer
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve.span_sets import double, span_sets

NO_ROOT = "<root span not yet received>"
UINT32_MAX = 2**32 - 1
KINDS = {
    number: f"SPAN_KIND_{name}"
    for number, name in enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"))
}
CODES = {1: "STATUS_CODE_OK", 2: "STATUS_CODE_ERROR"}
Json = dict[str, Any]


def complete(reasons: list[str]) -> Json:
    """The fields that say whether an answer is complete: none when it is."""
    return {"status": "PARTIAL", "message": "; ".join(dict.fromkeys(reasons))} if reasons else {}


# ---- traces


def trace(data: Any) -> list[Json]:
    """resourceSpans of a TracesData message."""
    return [
        _some(
            resource=_resource(batch.resource),
            scopeSpans=[
                _some(scope=_scope(part.scope), spans=[span(each) for each in part.spans], schemaUrl=part.schema_url)
                for part in batch.scope_spans
            ],
            schemaUrl=batch.schema_url,
        )
        for batch in data.resource_spans
    ]


def trace_metrics(found: FoundTrace) -> Json:
    """metrics of a trace by ID."""
    return _some(inspectedBytes=_int64(found.read_bytes))


def span(of: Any) -> Json:
    """One span."""
    return _some(
        traceId=_bytes(of.trace_id),
        spanId=_bytes(of.span_id),
        traceState=of.trace_state,
        parentSpanId=_bytes(of.parent_span_id),
        flags=of.flags,
        name=of.name,
        kind=KINDS.get(of.kind, of.kind) if of.kind else None,
        startTimeUnixNano=_int64(of.start_time_unix_nano),
        endTimeUnixNano=_int64(of.end_time_unix_nano),
        attributes=_attributes(of.attributes),
        droppedAttributesCount=of.dropped_attributes_count,
        events=[_event(each) for each in of.events],
        droppedEventsCount=of.dropped_events_count,
        links=[_link(each) for each in of.links],
        droppedLinksCount=of.dropped_links_count,
    ) | {"status": _some(message=of.status.message, code=CODES.get(of.status.code, of.status.code))}


def _event(of: Any) -> Json:
    return _some(
        timeUnixNano=_int64(of.time_unix_nano),
        name=of.name,
        attributes=_attributes(of.attributes),
        droppedAttributesCount=of.dropped_attributes_count,
    )


def _link(of: Any) -> Json:
    return _some(
        traceId=_bytes(of.trace_id),
        spanId=_bytes(of.span_id),
        traceState=of.trace_state,
        attributes=_attributes(of.attributes),
        droppedAttributesCount=of.dropped_attributes_count,
        flags=of.flags,
    )


def _resource(of: Any) -> Json:
    refs = [
        _some(
            schemaUrl=ref.schema_url,
            type=ref.type,
            idKeys=list(ref.id_keys),
            descriptionKeys=list(ref.description_keys),
        )
        for ref in of.entity_refs
    ]
    return _some(
        attributes=_attributes(of.attributes), droppedAttributesCount=of.dropped_attributes_count, entityRefs=refs
    )


def _scope(of: Any) -> Json:
    return _some(
        name=of.name,
        version=of.version,
        attributes=_attributes(of.attributes),
        droppedAttributesCount=of.dropped_attributes_count,
    )


def _attributes(pairs: Iterable[Any]) -> list[Json]:
    return [{"key": pair.key, "value": any_value(pair.value)} for pair in pairs]


def any_value(of: Any) -> Json:
    """An AnyValue: the field that is set, zero or not; `{}` where none is."""
    which = of.WhichOneof("value")
    return VALUES[which](of) if which is not None else {}


VALUES: dict[str, Callable[[Any], Json]] = {
    "string_value": lambda of: {"stringValue": of.string_value},
    "int_value": lambda of: {"intValue": str(of.int_value)},
    "bool_value": lambda of: {"boolValue": of.bool_value},
    "double_value": lambda of: {"doubleValue": double(of.double_value)},
    "bytes_value": lambda of: {"bytesValue": _bytes(of.bytes_value)},
    "array_value": lambda of: {"arrayValue": _some(values=[any_value(each) for each in of.array_value.values])},
    "kvlist_value": lambda of: {"kvlistValue": _some(values=_attributes(of.kvlist_value.values))},
    "string_value_strindex": lambda of: {"intValue": str(of.string_value_strindex)},
}


# ---- search and tags


def search(answer: SearchAnswer) -> Json:
    """SearchResponse, with nextCursor, complete, status and message of ours."""
    metrics = _some(
        inspectedTraces=answer.candidates,
        inspectedBytes=_int64(answer.chunk_bytes),
        totalBlocks=answer.chunks,
        completedJobs=1,
        totalJobs=1,
        totalBlockBytes=_int64(answer.chunk_bytes),
    )
    found: Json = {"traces": [search_hit(hit) for hit in answer.traces], "metrics": metrics}
    if answer.next_cursor:
        found["nextCursor"] = answer.next_cursor
    return found | {"complete": not answer.reasons} | complete(answer.reasons)


def search_hit(hit: TraceSummary) -> Json:
    """TraceSearchMetadata."""
    return _some(
        traceID=hit.trace_id.hex(),
        rootServiceName=hit.root_service if hit.has_root else NO_ROOT,
        rootTraceName=hit.root_name,
        startTimeUnixNano=_int64(hit.start_unix_ns),
        durationMs=min(hit.duration_ns // 10**6, UINT32_MAX),
    ) | {
        "serviceStats": {
            service: _some(spanCount=spans, errorCount=errors)
            for service, (spans, errors) in sorted(hit.services.items())
        },
        **span_sets(hit.span_sets),
    }


def tag_names(answer: TagAnswer, *, intrinsic: bool) -> Json:
    """SearchTagsResponse: names of all scopes together."""
    names = {key for keys in answer.names.values() for key in keys} | set(INTRINSICS if intrinsic else ())
    return {"tagNames": sorted(names), "metrics": tag_metrics(answer)} | complete(answer.reasons)


def tag_names_by_scope(answer: TagAnswer, *, intrinsic: bool) -> Json:
    """SearchTagsV2Response."""
    scopes = [{"name": API_SCOPE_OF[scope], "tags": keys} for scope, keys in answer.names.items() if keys]
    if intrinsic:
        scopes.append({"name": "intrinsic", "tags": list(INTRINSICS)})
    return {"scopes": scopes, "metrics": tag_metrics(answer)} | complete(answer.reasons)


def tag_values(answer: TagAnswer) -> Json:
    """SearchTagValuesResponse: texts only."""
    texts = sorted({value.value for value in answer.values})
    return {"tagValues": texts, "metrics": tag_metrics(answer)} | complete(answer.reasons)


def typed_tag_values(answer: TagAnswer) -> Json:
    """SearchTagValuesV2Response."""
    values = [
        {"type": "keyword" if value.type in ("status", "kind") else value.type, "value": value.value}
        for value in answer.values
    ]
    return {"tagValues": values, "metrics": tag_metrics(answer)} | complete(answer.reasons)


def tag_metrics(answer: TagAnswer) -> Json:
    """MetadataMetrics."""
    return _some(
        inspectedBytes=_int64(answer.chunk_bytes),
        totalJobs=1,
        completedJobs=1,
        totalBlocks=answer.chunks,
        totalBlockBytes=_int64(answer.chunk_bytes),
    )


def _some(**fields: Any) -> Json:
    """The fields that are not zero. An empty message stays: it is set."""
    return {name: value for name, value in fields.items() if value or isinstance(value, Mapping)}


def _int64(value: int) -> str:
    return str(value) if value else ""


def _bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()

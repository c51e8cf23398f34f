"""Tempo's protobuf messages, by field number: those of tempo.proto. An answer is made as JSON first and read into its
message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from pipeline.spans.rewrite import varint

PACKAGE = "spanstream.tempopb"
TYPES = {
    "string": Field.TYPE_STRING,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
    "int64": Field.TYPE_INT64,
    "double": Field.TYPE_DOUBLE,
    "bool": Field.TYPE_BOOL,
}
# 64-bit numbers are texts in JSON, and so are NaN and infinities
FROM_JSON: dict[str, Callable[[Any], Any]] = {"uint64": int, "int64": int, "double": float}
ONE_OF = "AnyValue"  # of its fields one is set, zero or not
MEASURED = [("metrics", 2, "SearchMetrics", False), ("status", 3, "uint32", False), ("message", 4, "string", False)]
# message -> fields: name, number, type (a message's name otherwise), repeated
MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "ServiceStats": [("spanCount", 1, "uint32", False), ("errorCount", 2, "uint32", False)],
    "ServiceStatsEntry": [("key", 1, "string", False), ("value", 2, "ServiceStats", False)],
    "KeyValue": [("key", 1, "string", False), ("value", 2, "AnyValue", False)],
    "AnyValue": [
        ("stringValue", 1, "string", False),
        ("boolValue", 2, "bool", False),
        ("intValue", 3, "int64", False),
        ("doubleValue", 4, "double", False),
        ("arrayValue", 5, "ArrayValue", False),
    ],
    "ArrayValue": [("values", 1, "AnyValue", True)],
    "Span": [
        ("spanID", 1, "string", False),
        ("name", 2, "string", False),
        ("startTimeUnixNano", 3, "uint64", False),
        ("durationNanos", 4, "uint64", False),
        ("attributes", 5, "KeyValue", True),
    ],
    "SpanSet": [("spans", 1, "Span", True), ("matched", 2, "uint32", False), ("attributes", 3, "KeyValue", True)],
    "TraceSearchMetadata": [
        ("traceID", 1, "string", False),
        ("rootServiceName", 2, "string", False),
        ("rootTraceName", 3, "string", False),
        ("startTimeUnixNano", 4, "uint64", False),
        ("durationMs", 5, "uint32", False),
        ("spanSet", 6, "SpanSet", False),
        ("spanSets", 7, "SpanSet", True),
        ("serviceStats", 8, "ServiceStatsEntry", True),
    ],
    "SearchMetrics": [
        ("inspectedTraces", 1, "uint32", False),
        ("inspectedBytes", 2, "uint64", False),
        ("totalBlocks", 3, "uint32", False),
        ("completedJobs", 4, "uint32", False),
        ("totalJobs", 5, "uint32", False),
        ("totalBlockBytes", 6, "uint64", False),
        ("inspectedSpans", 7, "uint64", False),
    ],
    "SearchResponse": [("traces", 1, "TraceSearchMetadata", True), ("metrics", 2, "SearchMetrics", False)],
    "MetadataMetrics": [
        ("inspectedBytes", 1, "uint64", False),
        ("totalJobs", 2, "uint32", False),
        ("completedJobs", 3, "uint32", False),
        ("totalBlocks", 4, "uint32", False),
        ("totalBlockBytes", 5, "uint64", False),
    ],
    "SearchTagsResponse": [("tagNames", 1, "string", True), ("metrics", 2, "MetadataMetrics", False)],
    "SearchTagsV2Scope": [("name", 1, "string", False), ("tags", 2, "string", True)],
    "SearchTagsV2Response": [("scopes", 1, "SearchTagsV2Scope", True), ("metrics", 2, "MetadataMetrics", False)],
    "SearchTagValuesResponse": [("tagValues", 1, "string", True), ("metrics", 2, "MetadataMetrics", False)],
    "TagValue": [("type", 1, "string", False), ("value", 2, "string", False)],
    "SearchTagValuesV2Response": [("tagValues", 1, "TagValue", True), ("metrics", 2, "MetadataMetrics", False)],
    "InstantSeries": [("labels", 1, "KeyValue", True), ("value", 2, "double", False)],
    "QueryInstantResponse": [("series", 1, "InstantSeries", True), *MEASURED],
    "Sample": [("value", 1, "double", False), ("timestampMs", 2, "int64", False)],
    "Exemplar": [("labels", 1, "KeyValue", True), ("value", 2, "double", False), ("timestampMs", 3, "int64", False)],
    "TimeSeries": [("labels", 1, "KeyValue", True), ("samples", 2, "Sample", True), ("exemplars", 4, "Exemplar", True)],
    "QueryRangeResponse": [("series", 1, "TimeSeries", True), *MEASURED],
    "TagsEntry": [("key", 1, "string", False), ("value", 2, "string", False)],
    "SearchRequest": [
        ("Tags", 1, "TagsEntry", True),
        ("MinDurationMs", 2, "uint32", False),
        ("MaxDurationMs", 3, "uint32", False),
        ("Limit", 4, "uint32", False),
        ("start", 5, "uint32", False),
        ("end", 6, "uint32", False),
        ("Query", 8, "string", False),
        ("SpansPerSpanSet", 9, "uint32", False),
    ],
    "SearchTagsRequest": [
        ("scope", 1, "string", False),
        ("query", 2, "string", False),
        ("start", 3, "uint32", False),
        ("end", 4, "uint32", False),
        ("maxTagsPerScope", 5, "uint32", False),
    ],
    "SearchTagValuesRequest": [
        ("tagName", 1, "string", False),
        ("query", 2, "string", False),
        ("start", 4, "uint32", False),
        ("end", 5, "uint32", False),
        ("maxTagValues", 6, "uint32", False),
    ],
    "QueryInstantRequest": [("query", 1, "string", False), ("start", 2, "uint64", False), ("end", 3, "uint64", False)],
    "QueryRangeRequest": [
        ("query", 1, "string", False),
        ("start", 2, "uint64", False),
        ("end", 3, "uint64", False),
        ("step", 4, "uint64", False),
        ("exemplars", 16, "uint32", False),
        ("maxSeries", 17, "uint32", False),
    ],
}
PARTIAL = 1


@cache
def message(name: str) -> Any:
    """The class of a message."""
    file = descriptor_pb2.FileDescriptorProto(name="spanstream/tempo.proto", package=PACKAGE, syntax="proto3")
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        if message_name == ONE_OF:
            described.oneof_decl.add(name="value")
        for field_name, number, type_, repeated in fields:
            field = described.field.add(
                name=field_name,
                json_name=field_name,
                number=number,
                label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL,
                type=TYPES.get(type_, Field.TYPE_MESSAGE),
            )
            if message_name == ONE_OF:
                field.oneof_index = 0
            if type_ not in TYPES:
                field.type_name = f".{PACKAGE}.{type_}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def encoded(name: str, answer: dict[str, Any]) -> bytes:
    """An answer's JSON as the message `name`. Fields of ours, which Tempo's message does not have, are left out. Takes
    some 30 us a trace: call it off the event loop where there may be many.
    """
    body = dict(answer)
    if "status" in body:  # an enum, which is a number on the wire
        body["status"] = PARTIAL
    points = _without_points(body) if name == "QueryRangeResponse" else []
    filled = message(name)(**_fields(name, body))
    for series, samples in zip(filled.series if points else (), points, strict=True):
        for sample in samples:
            series.samples.add(value=float(sample.get("value", 0.0)), timestampMs=int(sample["timestampMs"]))
    data: bytes = filled.SerializeToString()
    return data


def _fields(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a message is made of, from its JSON: json_format does the same, and takes ten times as long."""
    found = {}
    for field, _, type_, repeated in MESSAGES[name]:
        if field in body:
            value = body[field]
            if repeated and isinstance(value, dict):  # a map is a list of entries on the wire
                value = [{"key": key, "value": each} for key, each in value.items()]
            found[field] = [_value(type_, each) for each in value] if repeated else _value(type_, value)
    return found


def _value(type_: str, value: Any) -> Any:
    if type_ in FROM_JSON:
        return FROM_JSON[type_](value)
    return value if type_ in TYPES else _fields(type_, value)


def _without_points(body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Take the many out, which are quicker written by themselves."""
    series = body.get("series", [])
    points = [one["samples"] for one in series]
    body["series"] = [{key: value for key, value in one.items() if key != "samples"} for one in series]
    return points


def trace_response(trace: bytes, inspected_bytes: int, reasons: str) -> bytes:
    """TraceByIDResponse: trace = 1, metrics = 2 { inspectedBytes = 1 }, status = 3, message = 4."""
    metrics = b"\x08" + varint(inspected_bytes) if inspected_bytes else b""
    body = _length_delimited(1, trace) + _length_delimited(2, metrics)
    if reasons:
        body += b"\x18" + varint(PARTIAL) + _length_delimited(4, reasons.encode())
    return body


def _length_delimited(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value

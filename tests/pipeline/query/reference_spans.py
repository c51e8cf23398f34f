"""The reference's spans as OTLP, and as rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from pipeline.spans import from_otlp
from pipeline.spans.record import Record
from pipeline.traceql import tree
from tests.pipeline.query.world import any_value
from tests.pipeline.traceql.reference.model import Attributes, Span, Trace


def value_of(held: Any) -> AnyValue:
    if isinstance(held, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(held)))
    return any_value(held)


def pairs(attributes: Attributes) -> list[Any]:
    found = Resource()
    for key, held in attributes.items():
        found.attributes.add(key=key, value=value_of(held))
    return list(found.attributes)


def otlp(span: Span) -> bytes:
    data = trace_pb2.TracesData()
    resource = data.resource_spans.add(resource=Resource(attributes=pairs(span.resource)))
    scope = InstrumentationScope(
        name=span.scope_name, version=span.scope_version, attributes=pairs(span.scope_attributes)
    )
    resource.scope_spans.add(scope=scope).spans.add(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id,
        trace_state=span.trace_state,
        name=span.name,
        kind=tree.KINDS.index(span.kind),  # type: ignore[arg-type]
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=pairs(span.attributes),
        status={"code": tree.STATUSES.index(span.status), "message": span.status_message},  # type: ignore[arg-type]
        events=[
            trace_pb2.Span.Event(time_unix_nano=one.time_ns, name=one.name, attributes=pairs(one.attributes))
            for one in span.events
        ],
        links=[
            trace_pb2.Span.Link(trace_id=one.trace_id, span_id=one.span_id, attributes=pairs(one.attributes))
            for one in span.links
        ],
    )
    body: bytes = data.SerializeToString()
    return body


def rows_of(world: list[Trace], columns_max: int) -> pa.Table:
    records = [Record("t", offset, otlp(span)) for offset, span in enumerate(span for trace in world for span in trace)]
    return from_otlp.decode(records, attribute_columns_max=columns_max).spans

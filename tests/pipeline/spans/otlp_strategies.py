"""Generated OTLP with every field that there is, and a form in which two OTLP messages can be compared."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

UINT32 = st.sampled_from([0, 0, 0, 1, 7, 2**32 - 1])
TIMES = st.sampled_from([0, 1, 10**18, 1_700_000_000_000_000_000, 2**63, 2**64 - 1])
TEXTS = st.sampled_from(["", "", "a", "GET /", "ünï", "a\x00b", "x" * 300])
KEYS = st.sampled_from(["", "k", "K", "k:int", "http.route", "user.Id", "ä", "Ä", "%41", "a b", 'q"', "k:string[]"])
TRACE_IDS = st.sampled_from([bytes([n]) * 16 for n in (1, 2)])
SPAN_IDS = st.sampled_from([bytes([n]) * 8 for n in range(1, 7)])
PARENT_IDS = st.one_of(SPAN_IDS, st.sampled_from([b"", b"", b"\0" * 8, b"odd", b"z" * 8]))

SCALARS = st.one_of(
    st.builds(AnyValue, string_value=TEXTS),
    st.builds(AnyValue, int_value=st.sampled_from([0, -1, 2**63 - 1, -(2**63)])),
    st.builds(AnyValue, double_value=st.sampled_from([0.0, -0.0, 1.5, float("inf"), 5e-324])),
    st.builds(AnyValue, bool_value=st.booleans()),
)
LEAVES = st.one_of(SCALARS, st.builds(AnyValue), st.builds(AnyValue, bytes_value=st.sampled_from([b"", b"\xff\x00"])))
VALUES: st.SearchStrategy[AnyValue] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(inner, max_size=3))),
        st.builds(
            AnyValue,
            kvlist_value=st.builds(
                KeyValueList, values=st.lists(st.builds(KeyValue, key=KEYS, value=inner), max_size=2)
            ),
        ),
    ),
    max_leaves=4,
)
LISTS = st.builds(
    AnyValue,
    array_value=st.one_of(
        *(
            st.builds(ArrayValue, values=st.lists(kind, min_size=1, max_size=3))
            for kind in (
                st.builds(AnyValue, string_value=TEXTS),
                st.builds(AnyValue, int_value=st.integers(-3, 3)),
                st.builds(AnyValue, double_value=st.sampled_from([0.5, 2.0])),
                st.builds(AnyValue, bool_value=st.booleans()),
            )
        )
    ),
)
ATTRIBUTES = st.lists(st.builds(KeyValue, key=KEYS, value=st.one_of(SCALARS, LISTS, VALUES)), max_size=5)
EVENTS = st.builds(Span.Event, time_unix_nano=TIMES, name=TEXTS, attributes=ATTRIBUTES, dropped_attributes_count=UINT32)
LINKS = st.builds(
    Span.Link,
    trace_id=st.one_of(TRACE_IDS, st.sampled_from([b"", b"short"])),
    span_id=PARENT_IDS,
    trace_state=TEXTS,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    flags=UINT32,
)
SPANS = st.builds(
    Span,
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    trace_state=TEXTS,
    parent_span_id=PARENT_IDS,
    flags=UINT32,
    name=TEXTS,
    kind=st.sampled_from([0, 1, 2, 3, 4, 5, 9]),
    start_time_unix_nano=TIMES,
    end_time_unix_nano=TIMES,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    events=st.lists(EVENTS, max_size=2),
    dropped_events_count=UINT32,
    links=st.lists(LINKS, max_size=2),
    dropped_links_count=UINT32,
    status=st.builds(Status, message=TEXTS, code=st.sampled_from([0, 1, 2, 7])),
)
RESOURCES = st.builds(
    Resource,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    entity_refs=st.lists(st.builds(EntityRef, type=TEXTS, id_keys=st.lists(KEYS, max_size=2)), max_size=1),
)
SCOPES = st.builds(
    InstrumentationScope, name=TEXTS, version=TEXTS, attributes=ATTRIBUTES, dropped_attributes_count=UINT32
)
TRACES_DATA = st.builds(
    TracesData,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.one_of(st.none(), RESOURCES),
            schema_url=TEXTS,
            scope_spans=st.lists(
                st.builds(
                    ScopeSpans,
                    scope=st.one_of(st.none(), SCOPES),
                    schema_url=TEXTS,
                    spans=st.lists(SPANS, max_size=4),
                ),
                max_size=2,
            ),
        ),
        max_size=2,
    ),
)


def spans_of(data: TracesData) -> list[bytes]:
    """Every span with its resource and scope as bytes, sorted; the order of attributes does not count."""
    found = []
    for resource_spans in data.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                alone = TracesData()
                envelope = alone.resource_spans.add(schema_url=resource_spans.schema_url)
                envelope.resource.CopyFrom(resource_spans.resource)
                inner = envelope.scope_spans.add(schema_url=scope_spans.schema_url)
                inner.scope.CopyFrom(scope_spans.scope)
                copy = inner.spans.add()
                copy.CopyFrom(span)
                copy.status.SetInParent()
                for carrier in (envelope.resource, inner.scope, copy, *copy.events, *copy.links):
                    _sort(carrier)
                found.append(alone.SerializeToString(deterministic=True))
    return sorted(found)


def _sort(carrier: Any) -> None:
    for attribute in carrier.attributes:
        attribute.value.SetInParent()  # a missing value and one with no field set are the same
    carrier.attributes.sort(key=lambda one: one.SerializeToString(deterministic=True))

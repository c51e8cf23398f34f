"""Spans of a small shop, always the same: what the tests of chunks and their golden files are made of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.store.chunk import EncodedChunk, encode_chunk

T0 = 1_700_000_000_000_000_000


def spans_table(*messages: TracesData, columns_max: int = 200, tenant: str = "t") -> pa.Table:
    records = [Record(tenant, offset, message.SerializeToString()) for offset, message in enumerate(messages)]
    return decode(records, attribute_columns_max=columns_max).spans


def encoded(spans: pa.Table, outlier: np.ndarray | None = None) -> EncodedChunk:
    odd = np.zeros(spans.num_rows, dtype=bool) if outlier is None else outlier
    return encode_chunk(spans, row_group_spans=1000, zstd_level=3, outlier=odd)


def shop() -> TracesData:
    """Two traces of two services, a parent that is not here, typed attributes, an event, an error."""
    data = TracesData()
    for service in ("cart", "web"):
        envelope = data.resource_spans.add()
        envelope.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
        scope = envelope.scope_spans.add()
        for trace in (1, 2):
            own, parent = (b"w" * 8, b"" if trace == 1 else b"x" * 8) if service == "web" else (b"c" * 8, b"w" * 8)
            span = scope.spans.add(trace_id=bytes([trace]) * 16, span_id=own, parent_span_id=parent, kind=2)
            span.name = f"{service} op"
            span.start_time_unix_nano = T0 + trace * 1000 + (service == "cart")
            span.end_time_unix_nano = span.start_time_unix_nano + 500
            span.attributes.append(KeyValue(key="http.status", value=AnyValue(int_value=200 + trace)))
            span.attributes.append(KeyValue(key="userId", value=AnyValue(string_value=f"u{trace}")))
            span.events.append(Span.Event(name="retry", time_unix_nano=T0))
            span.status.code = 2 if service == "cart" else 0
    return data


def full_shop() -> TracesData:
    """The shop with something in every field that OTLP has and every kind of column a chunk has."""
    data = shop()
    for place, envelope in enumerate(data.resource_spans):
        envelope.schema_url = "https://schemas/1"
        envelope.resource.dropped_attributes_count = 1
        scope = envelope.scope_spans[0]
        scope.schema_url = "https://schemas/2"
        scope.scope.name, scope.scope.version, scope.scope.dropped_attributes_count = "io.shop", "2.1", 3
        scope.scope.attributes.append(KeyValue(key="lib", value=AnyValue(string_value="x")))
        span = scope.spans[0]
        span.trace_state, span.flags, span.status.message = "a=b", 0x101, "failed"
        span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count = 4, 5, 6
        texts = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a"), AnyValue(string_value="b")]))
        span.attributes.append(KeyValue(key="tags", value=texts))
        span.attributes.append(KeyValue(key="score", value=AnyValue(double_value=0.5)))
        span.attributes.append(KeyValue(key="hit", value=AnyValue(bool_value=True)))
        span.attributes.append(KeyValue(key="raw", value=AnyValue(bytes_value=b"\x00\xff")))
        span.attributes.append(KeyValue(key="userId", value=AnyValue(string_value="second copy")))
        event = span.events.add(name="exception", time_unix_nano=T0 + 7, dropped_attributes_count=1)
        event.attributes.append(KeyValue(key="exception.type", value=AnyValue(string_value="IOError")))
        link = span.links.add(trace_id=b"l" * 16, span_id=b"k" * 8, trace_state="c=d", flags=1)
        link.attributes.append(KeyValue(key="place", value=AnyValue(int_value=place)))
    return data

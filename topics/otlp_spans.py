"""`otlp_spans`: the inlet for collectors and any other producer, whatever its key; the rekey agent empties it."""

from __future__ import annotations

from topics.topic import Topic, record_bytes_max, retention_of_spans_ms

TOPIC = Topic(
    name="otlp_spans",
    key="any or none; a record may hold many traces",
    format="OTLP ExportTraceServiceRequest or TracesData (protobuf); header X-Scope-OrgID names the tenant",
    cleanup_policy="delete",
    partitions=lambda kafka: kafka.partitions,
    retention_ms=retention_of_spans_ms,
    message_bytes_max=record_bytes_max,
    holds_acknowledged_spans=True,
)

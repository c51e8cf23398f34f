"""A span table back to OTLP: the rows of one trace, so Python objects are fine here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from pipeline.spans import schema

TWO_TO_64 = 1 << 64
FIELD_OF = {"string": "string_value", "int": "int_value", "double": "double_value", "bool": "bool_value"}
Row = dict[str, Any]


def to_traces_data(spans: pa.Table) -> bytes:
    """The rows as TracesData bytes. See to_proto."""
    data: bytes = to_proto(spans).SerializeToString()
    return data


def to_proto(spans: pa.Table) -> TracesData:
    """The rows as TracesData: spans of an equal resource and scope stand together, in the order of their rows.

    Wants `parent_span_id` (pipeline.spans.tree gives it back for a chunk's rows). Attributes come in the order of the
    columns, those of the map column last.
    """
    data = TracesData()
    resources: dict[bytes, ResourceSpans] = {}
    scopes: dict[tuple[bytes, bytes], ScopeSpans] = {}
    columns = _Columns(schema.plain(spans))
    for row in columns.rows():
        resource, resource_url = columns.resource(row), row.get("resource_schema_url") or ""
        resource_key = resource.SerializeToString(deterministic=True) + b"\0" + resource_url.encode()
        if resource_key not in resources:
            resources[resource_key] = data.resource_spans.add(resource=resource, schema_url=resource_url)
        scope, scope_url = columns.scope(row), row.get("scope_schema_url") or ""
        scope_key = resource_key, scope.SerializeToString(deterministic=True) + b"\0" + scope_url.encode()
        if scope_key not in scopes:
            scopes[scope_key] = resources[resource_key].scope_spans.add(scope=scope, schema_url=scope_url)
        scopes[scope_key].spans.append(columns.span(row))
    return data


class _Columns:
    """The table's columns by what they describe, so that a row is read without looking at names again."""

    def __init__(self, spans: pa.Table) -> None:
        self._spans = spans
        self._attributes: dict[str, list[tuple[str, str, str]]] = {scope: [] for scope in schema.SCOPES}
        for name in spans.column_names:
            if (parsed := schema.parse_column(name)) is not None:
                self._attributes[parsed.scope].append((name, parsed.key, parsed.type))

    def rows(self) -> Iterator[Row]:
        yield from self._spans.to_pylist(maps_as_pydicts=None)

    def resource(self, row: Row) -> Resource:
        resource = Resource(
            attributes=self._key_values("resource", row),
            dropped_attributes_count=row.get("resource_dropped_attributes_count") or 0,
        )
        if refs := row.get("resource_entity_refs"):
            resource.MergeFromString(refs)
        return resource

    def scope(self, row: Row) -> InstrumentationScope:
        return InstrumentationScope(
            name=row.get("scope_name") or "",
            version=row.get("scope_version") or "",
            attributes=self._key_values("scope", row),
            dropped_attributes_count=row.get("scope_dropped_attributes_count") or 0,
        )

    def span(self, row: Row) -> Span:
        start = row["start_unix_ns"]
        return Span(
            trace_id=row["trace_id"],
            span_id=row["span_id"],
            trace_state=row.get("trace_state") or "",
            parent_span_id=row.get("parent_span_id") or b"",
            flags=row.get("flags") or 0,
            name=row.get("name") or "",
            kind=row.get("kind") or 0,
            start_time_unix_nano=start,
            end_time_unix_nano=(start + row["duration_ns"]) % TWO_TO_64,
            attributes=self._key_values("span", row),
            dropped_attributes_count=row.get("dropped_attributes_count") or 0,
            events=self._events(row),
            dropped_events_count=row.get("dropped_events_count") or 0,
            links=self._links(row),
            dropped_links_count=row.get("dropped_links_count") or 0,
            status=_status(row),
        )

    def _events(self, row: Row) -> Iterator[Span.Event]:
        for at, time in enumerate(row.get("event_time_unix_ns") or ()):
            yield Span.Event(
                time_unix_nano=time,
                name=_item(row, "event_name", at) or "",
                attributes=self._key_values("event", row, at),
                dropped_attributes_count=_item(row, "event_dropped_attributes_count", at) or 0,
            )

    def _links(self, row: Row) -> Iterator[Span.Link]:
        for at, trace_id in enumerate(row.get("link_trace_id") or ()):
            yield Span.Link(
                trace_id=trace_id,
                span_id=_item(row, "link_span_id", at) or b"",
                trace_state=_item(row, "link_trace_state", at) or "",
                attributes=self._key_values("link", row, at),
                dropped_attributes_count=_item(row, "link_dropped_attributes_count", at) or 0,
                flags=_item(row, "link_flags", at) or 0,
            )

    def _key_values(self, scope: str, row: Row, at: int | None = None) -> Iterator[KeyValue]:
        """The attributes of a row's scope, or of its event or link number `at`."""
        for name, key, type_ in self._attributes[scope]:
            value = row[name] if at is None else _item(row, name, at)
            if value is not None:
                yield KeyValue(key=key, value=_any_value(type_, value))
        more = schema.more_column(scope)
        entries = row.get(more) if at is None else _item(row, more, at)
        for key, value in entries or ():
            type_, inner = next((name, inner) for name, inner in value.items() if inner is not None)
            yield KeyValue(key=key, value=_any_value(type_, inner))


def _item(row: Row, name: str, at: int) -> Any:
    values = row.get(name)
    return values[at] if values is not None and at < len(values) else None


def _status(row: Row) -> Status:
    return Status(message=row.get("status_message") or "", code=row.get("status_code") or 0)


def _any_value(type_: str, value: Any) -> AnyValue:
    if type_ == "any":
        return AnyValue.FromString(value)
    if type_.endswith("[]"):
        found = AnyValue()
        found.array_value.values.extend(_scalars(FIELD_OF[type_[:-2]], value))
        return found
    return AnyValue(**{FIELD_OF[type_]: value})


def _scalars(field: str, values: Iterable[Any]) -> Iterator[AnyValue]:
    for value in values:
        yield AnyValue(**{field: value})

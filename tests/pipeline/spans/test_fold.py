"""Rare attributes move into map columns: the same OTLP comes out, and joined tables stay narrow."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans import fold, schema
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.spans.to_otlp import to_proto
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of


def table_of(data: TracesData, columns_max: int = 200) -> pa.Table:
    return decode([Record("t", 0, data.SerializeToString())], attribute_columns_max=columns_max).spans


def attribute_columns(spans: pa.Table) -> dict[str, int]:
    parsed = [one for name in spans.column_names if (one := schema.parse_column(name)) is not None]
    return {scope: sum(one.scope == scope for one in parsed) for scope in schema.SCOPES}


def with_attributes(number: int, *keys: str) -> TracesData:
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    span = envelope.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"))
    span.attributes.extend(KeyValue(key=key, value=AnyValue(string_value=f"{key} of {number}")) for key in keys)
    return data


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TRACES_DATA, min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 4))
def test_the_same_otlp_comes_out_whatever_is_folded(messages: list[TracesData], before: int, after: int) -> None:
    tables = [table for data in messages if (table := table_of(data, before)).num_rows]
    if tables:
        joined = fold.concat(tables, attribute_columns_max=after)

        assert spans_of(to_proto(joined)) == sorted(one for table in tables for one in spans_of(to_proto(table)))
        assert max(attribute_columns(joined).values()) <= after


def test_joined_tables_have_no_more_columns_than_one_may_have() -> None:
    tables = [table_of(with_attributes(number, "common", f"id.{number}")) for number in range(1, 300)]

    joined = fold.concat(tables, attribute_columns_max=5)

    assert attribute_columns(joined) == {"resource": 1, "scope": 0, "span": 5, "event": 0, "link": 0}
    assert joined.column("span.common").null_count == 0
    assert dict(joined.column("span_more")[200].as_py())["id.201"]["string"] == "id.201 of 201"
    assert joined.schema.field("span_more").type == schema.MORE


def test_a_service_keeps_its_column_however_rare_it_is() -> None:
    other = with_attributes(2)
    del other.resource_spans[0].resource.attributes[:]
    for key in ("a", "b"):
        other.resource_spans[0].resource.attributes.append(KeyValue(key=key, value=AnyValue(string_value="x")))
    tables = [table_of(with_attributes(1)), table_of(other), table_of(other)]

    joined = fold.concat(tables, attribute_columns_max=1)

    assert joined.column(schema.SERVICE_COLUMN).to_pylist() == ["shop", None, None]
    assert attribute_columns(joined)["resource"] == 1


def test_tables_that_are_narrow_already_are_joined_as_they_are() -> None:
    tables = [table_of(with_attributes(number, "a", "b")) for number in (1, 2)]

    assert fold.concat(tables, attribute_columns_max=2).equals(schema.concat(tables))
    assert fold.concat([], attribute_columns_max=2).num_rows == 0

"""OTLP in, the same OTLP out: every field of every span survives the columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.spans import schema, tree
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.spans.to_otlp import to_proto
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of

COLUMNS_MAX = 200


def table_of(*messages: TracesData, columns_max: int = COLUMNS_MAX) -> pa.Table:
    records = [Record("t", offset, message.SerializeToString()) for offset, message in enumerate(messages)]
    return decode(records, attribute_columns_max=columns_max).spans


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES_DATA, st.sampled_from([0, 1, 3, COLUMNS_MAX]))
def test_a_span_table_gives_back_the_otlp_it_was_made_of(data: TracesData, columns_max: int) -> None:
    back = to_proto(table_of(data, columns_max=columns_max))

    assert spans_of(back) == spans_of(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES_DATA, TRACES_DATA)
def test_tables_of_different_columns_join_without_loss(one: TracesData, other: TracesData) -> None:
    joined = schema.concat([table_of(one), table_of(other, columns_max=1)])

    assert spans_of(to_proto(joined)) == sorted(spans_of(one) + spans_of(other))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES_DATA)
def test_parents_come_back_from_distances(data: TracesData) -> None:
    spans = table_of(data)
    arranged = tree.arrange(spans)
    rows = spans.take(arranged.order).append_column("parent_row", arranged.parent_row)
    rows = rows.append_column("outside_parent_span_id", arranged.outside_parent_span_id)

    parents = tree.parent_span_ids(rows)

    assert parents.to_pylist() == rows.column("parent_span_id").to_pylist() if spans.num_rows else True
    distances = [distance for distance in arranged.parent_row.to_pylist() if distance is not None]
    assert all(distance > 0 for distance in distances)
    trace_ids = rows.column("trace_id").to_pylist()
    assert trace_ids == sorted(trace_ids)


def test_a_cycle_of_parents_is_arranged_without_loss() -> None:
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for own, parent in ((1, 2), (2, 3), (3, 1), (4, 1), (5, 4), (6, 6)):
        scope.spans.append(Span(trace_id=b"t" * 16, span_id=bytes([own]) * 8, parent_span_id=bytes([parent]) * 8))

    arranged = tree.arrange(table_of(data))

    assert arranged.parent_row.null_count == 6
    assert arranged.outside_parent_span_id.null_count == 0


@pytest.mark.parametrize(
    ("key", "type_", "name"),
    [
        ("http.route", "string", "span.http.route"),
        ("http.response.status_code", "int", "span.http.response.status_code:int"),
        ("userId", "string", "span.user%49d"),
        ("a:int", "string", "span.a%3Aint"),
        ("tags", "string[]", "span.tags:string[]"),
        ("Ä", "bool", "span.%C3%84:bool"),
        ("", "double", "span.:double"),
    ],
)
def test_the_name_of_a_column_depends_on_scope_key_and_type_alone(key: str, type_: str, name: str) -> None:
    assert schema.column_name("span", key, type_) == name
    assert schema.parse_column(name) == ("span", key, type_)


@given(st.text(max_size=8), st.text(max_size=8), st.sampled_from(sorted(schema.TYPES)), st.sampled_from(["int", "any"]))
def test_no_two_attributes_share_a_column_in_any_case(key: str, other: str, type_: str, other_type: str) -> None:
    one, two = schema.column_name("span", key, type_), schema.column_name("span", other, other_type)

    assert schema.parse_column(one) == ("span", key, type_)
    assert (one.lower() == two.lower()) == ((key, type_) == (other, other_type))

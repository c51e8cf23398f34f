"""A chunk holds nothing of another tenant, though tenants share batches, columns and dictionaries before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.spans import schema
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.store.commit import by_tenant
from pipeline.store.own_rows import only_own
from tests.pipeline.store.shop import T0, encoded

CODED = ["name", "scope_name", "trace_state", "resource.service.name"]


def record(tenant: str) -> Record:
    """Two spans in which every name and value says whose it is."""
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.append(attribute("service.name", tenant))
    envelope.resource.attributes.append(attribute(f"resource.of.{tenant}", tenant))
    scope = envelope.scope_spans.add()
    scope.scope.name = f"library of {tenant}"
    for number in (1, 2):
        span = scope.spans.add(trace_id=bytes([number]) * 16, span_id=bytes([number]) * 8, name=f"GET /{tenant}")
        span.start_time_unix_nano, span.trace_state = T0, f"by={tenant}"
        span.attributes.append(attribute(f"key.of.{tenant}", tenant))
        event = Span.Event(name=f"event of {tenant}", time_unix_nano=T0)
        event.attributes.append(attribute(f"event.of.{tenant}", tenant))
        span.events.append(event)
    return Record(tenant, 0, data.SerializeToString())


def attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def in_one_batch() -> pa.Table:
    return decode([record("alice"), record("bob")], attribute_columns_max=10).spans


def in_batches_of_their_own() -> pa.Table:
    return schema.concat([decode([record(one)], attribute_columns_max=10).spans for one in ("alice", "bob")])


def without_the_rows_of_bob() -> pa.Table:
    """As if all that bob sent had been there before."""
    spans = in_one_batch()
    return spans.filter(pc.equal(spans.column("tenant").cast(pa.string()), "alice"))


@pytest.mark.parametrize("shared", [in_one_batch, in_batches_of_their_own, without_the_rows_of_bob])
def test_a_chunk_and_its_entry_hold_no_name_and_no_value_of_another_tenant(
    shared: Callable[[], pa.Table],
) -> None:
    for tenant, spans in by_tenant(shared()):
        other = {"alice": "bob", "bob": "alice"}[tenant]
        chunk = encoded(spans)
        file = pq.ParquetFile(pa.BufferReader(chunk.parquet), read_dictionary=CODED)
        rows = file.read()
        pages = [rows.column(name).chunk(0).dictionary.to_pylist() for name in CODED]

        assert not any(other in name for name in file.schema_arrow.names)
        assert pages == [[f"GET /{tenant}"], [f"library of {tenant}"], [f"by={tenant}"], [tenant]]
        assert other not in str(rows.to_pylist())
        assert other not in f"{chunk.attributes} {chunk.services} {chunk.more_keys}"
        assert chunk.attributes == {
            "resource.service.name": 2,
            f"resource.resource.of.{tenant}": 2,
            f"span.key.of.{tenant}": 2,
            f"event.event.of.{tenant}": 2,
        }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "", None])), st.data())
def test_what_is_left_are_the_same_values(values: list[str | None], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    coded = pa.array(values, pa.string()).dictionary_encode()
    lists = pa.array([None if one is None else [one] * 2 for one in values], pa.list_(pa.string()))
    table = pa.table({"name": coded, "resource.x": coded, "span.y:string[]": lists, "event.z": lists}).slice(cut)

    own = only_own(table)

    for name in table.column_names:
        expected = table.column(name).to_pylist()
        if name in own.column_names:
            assert own.column(name).to_pylist() == expected
        else:
            assert set(expected) <= {None}
    for chunk in own.column("name").chunks:
        assert sorted(chunk.dictionary.to_pylist()) == sorted({one for one in values[cut:] if one is not None})


def test_a_span_attribute_that_is_an_empty_list_stays_and_an_event_column_of_nulls_goes() -> None:
    empty = pa.array([[], None], pa.list_(pa.string()))
    nulls = pa.array([[None, None], []], pa.list_(pa.string()))

    own = only_own(pa.table({"span.y:string[]": empty, "event.z": nulls, "kind": np.array([1, 2])}))

    assert own.column_names == ["span.y:string[]", "kind"]

"""Chunks merged: what went in comes out, each span once, in the layout of any chunk, with bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans import dedup, schema
from pipeline.spans.to_otlp import to_proto
from pipeline.store import merge, trace_filter
from pipeline.store.chunk import EncodedChunk, decode_rows, read_chunk
from pipeline.store.merge import Layout, Merged, Part, TooLargeError
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of
from tests.pipeline.store.shop import T0, encoded, full_shop, shop, spans_table
from topics.errors import DamagedChunkError

LAYOUT = Layout(row_group_spans=1000, zstd_level=1, attribute_columns_max=200, future_s_max=86_400, bytes_max=1 << 20)


def merged(folder: Path, chunks: Sequence[EncodedChunk], layout: Layout = LAYOUT) -> Merged:
    parts = []
    for number, one in enumerate(chunks):
        path = folder / f"{number}.parquet"
        path.write_bytes(one.parquet)
        parts.append(Part(path))
    attributes: dict[str, int] = {}
    for one in chunks:
        for name, count in one.attributes.items():
            attributes[name] = attributes.get(name, 0) + count
    return merge.merge(parts, attributes, layout, tenant="t", now_unix_ns=2 * T0, folder=folder, pause=lambda: None)


def rows_of(folder: Path) -> pa.Table:
    return read_chunk((folder / merge.PARQUET).read_bytes())


def each_once(tables: Sequence[pa.Table]) -> pa.Table:
    spans = schema.concat(tables)
    return spans.filter(pa.array(dedup.first_copies(dedup.span_keys(spans, b"secret"))))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TRACES_DATA, min_size=2, max_size=4), st.integers(1, 5))
def test_otlp_comes_back_from_a_merged_chunk_as_it_went_in_without_copies(
    sent: list[TracesData], columns_max: int
) -> None:
    tables = [each_once([table]) for one in sent if (table := spans_table(one, columns_max=columns_max)).num_rows]
    if tables:
        with tempfile.TemporaryDirectory() as name:
            done = merged(Path(name), [encoded(table) for table in tables])
            back = to_proto(decode_rows(rows_of(Path(name))))

        assert spans_of(back) == spans_of(to_proto(each_once(tables)))
        assert done.copies == sum(table.num_rows for table in tables) - done.spans


def many(traces: range, spans: int = 3, at: int = 0) -> TracesData:
    """Traces of a chain of spans each: `at` numbers the first span of each."""
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for trace in traces:
        for number in range(at, at + spans):
            span = scope.spans.add(trace_id=((trace + 1) * 7919).to_bytes(8, "big") * 2, name=f"op {number}", kind=2)
            span.span_id = (number + 1).to_bytes(8, "big")
            span.parent_span_id = number.to_bytes(8, "big") if number else b""
            span.start_time_unix_nano = T0 + number
            span.end_time_unix_nano = T0 + number + 5
    return data


def test_a_merged_chunk_is_laid_out_like_one_that_was_written_at_once(tmp_path: Path) -> None:
    sent = [many(range(3000)), many(range(1500, 4500), at=3), many(range(0, 4500, 2), at=6), full_shop()]

    done = merged(tmp_path, [encoded(spans_table(one)) for one in sent])
    whole = encoded(schema.concat([spans_table(one) for one in sent]))

    rows, wanted = rows_of(tmp_path), read_chunk(whole.parquet)
    assert rows.select(sorted(rows.column_names)).equals(wanted.select(sorted(rows.column_names)))
    assert set(rows.column_names) == set(wanted.column_names)
    traces = pq.read_table(tmp_path / merge.TRACES)
    assert traces.drop("services").equals(pq.read_table(pa.BufferReader(whole.traces)).drop("services"))
    assert (done.spans, done.traces_count, done.copies) == (whole.spans, whole.traces_count, 0)
    assert (done.services, done.attributes, done.more_keys) == (whole.services, whole.attributes, whole.more_keys)
    assert done.values == whole.values
    assert done.times.of_entry() == {
        name: getattr(whole, name) for name in ("start_min_unix_ns", "start_max_unix_ns", "end_max_unix_ns", "outliers")
    }
    assert done.trace_filter == whole.trace_filter


def test_a_parent_in_an_earlier_chunk_is_a_distance_in_the_merged_one(tmp_path: Path) -> None:
    merged(tmp_path, [encoded(spans_table(many(range(5)))), encoded(spans_table(many(range(5), at=3)))])

    rows = rows_of(tmp_path)
    assert rows.column("parent_row").null_count == 5
    assert rows.column("outside_parent_span_id").null_count == rows.num_rows


def test_of_copies_the_earliest_chunks_stays(tmp_path: Path) -> None:
    late = shop()
    for envelope in late.resource_spans:
        for span in envelope.scope_spans[0].spans:
            span.name = "late"

    done = merged(tmp_path, [encoded(spans_table(shop())), encoded(spans_table(late))])

    assert (done.spans, done.copies) == (4, 4)
    assert "late" not in rows_of(tmp_path).column("name").to_pylist()


def test_rare_attributes_go_to_the_map_column(tmp_path: Path) -> None:
    def with_keys(keys: range) -> TracesData:
        data = many(range(len(keys)), spans=1, at=keys[0])
        for span, key in zip(data.resource_spans[0].scope_spans[0].spans, keys, strict=True):
            span.attributes.add(key=f"key{key}").value.string_value = "v"
            span.attributes.add(key="usual").value.string_value = "v"
        return data

    layout = Layout(row_group_spans=1000, zstd_level=1, attribute_columns_max=3, future_s_max=1, bytes_max=1 << 20)
    sent = [with_keys(range(at, at + 3)) for at in (0, 3, 6)]
    done = merged(tmp_path, [encoded(spans_table(one)) for one in sent], layout)

    assert sum(name.startswith("span.") for name in rows_of(tmp_path).column_names) == 3
    assert len(done.more_keys) == 7
    assert spans_of(to_proto(decode_rows(rows_of(tmp_path)))) == spans_of(to_proto(spans_table(*sent)))


def test_a_trace_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    endless = [encoded(spans_table(many(range(1), spans=3000, at=at))) for at in (0, 3000)]
    layout = Layout(row_group_spans=1000, zstd_level=1, attribute_columns_max=9, future_s_max=1, bytes_max=100_000)

    with pytest.raises(TooLargeError):
        merged(tmp_path, endless, layout)


def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    whole = encoded(spans_table(many(range(2000))))
    damaged = np.frombuffer(whole.parquet, dtype=np.uint8).copy()
    damaged[len(damaged) // 3] ^= 0xFF

    with pytest.raises(DamagedChunkError):
        merged(tmp_path, [encoded(spans_table(many(range(5)))), _with(whole, damaged.tobytes())])


def _with(chunk: EncodedChunk, parquet: bytes) -> EncodedChunk:
    values = {name: getattr(chunk, name) for name in chunk.__slots__}
    return EncodedChunk(**values | {"parquet": parquet})


def test_every_trace_is_in_the_filter(tmp_path: Path) -> None:
    done = merged(tmp_path, [encoded(spans_table(many(range(70)))), encoded(spans_table(many(range(50, 90))))])

    ids = set(rows_of(tmp_path).column("trace_id").to_pylist())
    assert len(ids) == 90
    assert all(trace_filter.might_hold(done.trace_filter, one) for one in ids)

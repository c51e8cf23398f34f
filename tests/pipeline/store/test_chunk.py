"""Chunks: OTLP comes back from them as it went in, and any Parquet engine reads them as they are."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans import schema
from pipeline.spans.to_otlp import to_proto
from pipeline.store import trace_filter
from pipeline.store.chunk import decode_rows, read_chunk
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of
from tests.pipeline.store.shop import T0, encoded, shop, spans_table
from topics.errors import DamagedChunkError

ROOT = Path(__file__).parents[3]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES_DATA)
def test_otlp_comes_back_from_a_chunk_as_it_went_in(data: TracesData) -> None:
    spans = spans_table(data, columns_max=4)
    if spans.num_rows:
        back = to_proto(decode_rows(read_chunk(encoded(spans).parquet)))

        assert spans_of(back) == spans_of(data)


def test_rows_stand_by_trace_and_parents_before_children() -> None:
    rows = read_chunk(encoded(spans_table(shop())).parquet)

    assert [row.hex()[:2] for row in rows.column("trace_id").to_pylist()] == ["01", "01", "02", "02"]
    assert rows.column("name").to_pylist() == ["web op", "cart op"] * 2
    assert rows.column("parent_row").to_pylist() == [None, 1, None, 1]
    assert rows.column("outside_parent_span_id").to_pylist() == [None, None, b"x" * 8, None]


def test_pandas_polars_and_duckdb_read_typed_columns_by_their_documented_names(tmp_path: Path) -> None:
    path = tmp_path / "chunk.parquet"
    path.write_bytes(encoded(spans_table(shop())).parquet)
    names = ["resource.service.name", "span.http.status:int", "span.user%49d"]
    expected = [("web", 201, "u1"), ("cart", 201, "u1"), ("web", 202, "u2"), ("cart", 202, "u2")]

    by_pandas = list(pd.read_parquet(path)[names].itertuples(index=False, name=None))
    by_polars = pl.read_parquet(path).select(names).rows()
    quoted = ", ".join(f'"{name}"' for name in names)
    by_duckdb = duckdb.sql(f"SELECT {quoted} FROM '{path}'").fetchall()

    assert by_pandas == by_polars == by_duckdb == expected
    assert pl.read_parquet(path).schema["span.http.status:int"] == pl.Int64
    assert pl.read_parquet(path).schema["event_name"] == pl.List(pl.String)


def test_the_documented_query_gives_parent_span_ids_back(tmp_path: Path) -> None:
    path = tmp_path / "chunk.parquet"
    path.write_bytes(encoded(spans_table(shop())).parquet)
    page = (ROOT / "docs" / "chunk-format.md").read_text()
    query = page.split("```sql")[1].split("```")[0].replace("chunk.parquet", str(path))

    rows = duckdb.sql(query).fetchall()

    assert [row[-1] for row in rows] == [None, b"w" * 8, b"x" * 8, b"w" * 8]


def test_the_traces_beside_a_chunk_say_root_span_and_error_counts_and_services() -> None:
    traces = pq.read_table(pa.BufferReader(encoded(spans_table(shop())).traces)).to_pylist()

    assert [(one["root_name"], one["root_service"]) for one in traces] == [("web op", "web"), (None, None)]
    assert [(one["span_count"], one["error_count"], sorted(one["services"])) for one in traces] == [
        (2, 1, ["cart", "web"])
    ] * 2
    assert traces[0]["start_min_unix_ns"] == T0 + 1000
    assert traces[0]["end_max_unix_ns"] == T0 + 1501


def test_times_that_cannot_be_do_not_widen_the_range_and_are_listed() -> None:
    spans = spans_table(shop())
    start = spans.column("start_unix_ns").to_numpy().copy()
    start[0] = 5
    odd = spans.set_column(spans.column_names.index("start_unix_ns"), "start_unix_ns", pa.array(start))

    chunk = encoded(odd, outlier=start < T0)

    assert chunk.start_min_unix_ns > T0
    assert [start for _, start in chunk.outliers] == [5]


def test_a_damaged_page_is_found() -> None:
    parquet = bytearray(encoded(spans_table(shop())).parquet)
    column = pq.ParquetFile(io.BytesIO(bytes(parquet))).metadata.row_group(0).column(0)
    parquet[column.data_page_offset + column.total_compressed_size - 10] ^= 0xFF  # behind the page's header

    with pytest.raises(DamagedChunkError, match=r"(?i)crc|checksum|corrupt|deserialize|thrift"):
        read_chunk(bytes(parquet))


def test_the_filter_beside_a_chunk_holds_its_traces() -> None:
    held = encoded(spans_table(shop())).trace_filter

    assert trace_filter.might_hold(held, b"\1" * 16)
    assert not all(trace_filter.might_hold(held, bytes([other]) * 16) for other in range(3, 60))


def test_marks_stay_with_their_span() -> None:
    data = shop()
    data.resource_spans[0].scope_spans[0].spans[0].attributes.append(
        KeyValue(key=schema.MARKS_KEY, value=AnyValue(array_value={"values": [AnyValue(string_value="utf8_repaired")]}))
    )

    rows = read_chunk(encoded(spans_table(data)).parquet)

    assert rows.column(schema.MARKS_COLUMN).to_pylist().count(["utf8_repaired"]) == 1

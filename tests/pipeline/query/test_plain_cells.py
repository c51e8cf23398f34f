"""Cells made of a chunk's columns: the engine's statement makes the same of the same rows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.query.chunk_columns import opened, pieces
from pipeline.query.chunks import Present
from pipeline.query.engine import Engine, Session
from pipeline.query.fields import FieldSql
from pipeline.query.intervals import Intervals
from pipeline.query.measure import Measure
from pipeline.query.plain_cells import PlainCells
from pipeline.query.sql import TRUE, Sql
from pipeline.traceql import tree
from pipeline.traceql.check import check
from pipeline.traceql.parser import parse
from topics.settings import QuerierSettings, StoreSettings

SERVICE, METHOD, CODE = "resource.service.name", "span.method", "span.code:int"
PRESENT = Present(frozenset({SERVICE, METHOD, CODE}), frozenset({"span.rare"}), more_unknown=False)
INTERVALS = (Intervals(-70, 100, 1), Intervals(899, 1 << 40, 1), Intervals(-1, 1 << 63, 1))
PLAIN = (
    "{} | rate()",
    "{} | count_over_time() by (resource.service.name)",
    "{} | rate() by (span.method, kind)",
    "{} | rate() by (name)",
    "{} | rate() by (status, status)",
    "{} | quantile_over_time(duration, .5)",
    "{} | quantile_over_time(duration, .5) by (span.method, resource.service.name)",
)
NOT_PLAIN = (
    "{} | rate() by (span.code)",  # a number
    "{} | rate() by (.method)",  # of the span or of the resource
    "{} | rate() by (span.rare)",  # in a map
    "{} | rate() by (span.none)",
    "{} | rate() by (parent.span.method)",
    "{} | rate() by (kind, name, span.method)",
    "{} | rate() by (duration)",
    "{} | sum_over_time(duration)",
    "{} | quantile_over_time(span.code, .5)",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    found = Engine(QuerierSettings(data_dir=Path(tmp_path_factory.mktemp("engine")), threads=1), StoreSettings())
    yield found
    found.close()


def measure_of(text: str, intervals: Intervals = INTERVALS[0], *, extrapolate: bool = False) -> Measure:
    query = check(parse(text), lambda _: None).body
    assert isinstance(query, tree.MetricsPipeline)
    assert isinstance(query.measure, tree.Metric)
    return Measure.of(query.measure, FieldSql(PRESENT), intervals, extrapolate=extrapolate)


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_what_the_columns_alone_do_not_tell_is_left_to_the_engine(text: str) -> None:
    assert PlainCells.of(measure_of(text)) is None


def test_spans_that_stand_for_others_are_left_to_the_engine() -> None:
    assert PlainCells.of(measure_of("{} | rate()", extrapolate=True)) is None


texts = st.none() | st.sampled_from(["", "a", "b", "GET /\N{SNOWMAN}"])
span = st.fixed_dictionaries(
    {
        "start_unix_ns": st.integers(900, 1200) | st.sampled_from([1_000_000, 2**62]),
        "duration_ns": st.integers(-5, 10) | st.sampled_from([0, 10**9, 2**62]),
        "name": texts,
        "kind": st.none() | st.integers(0, 5),
        "status_code": st.none() | st.integers(0, 2),
        SERVICE: texts,
        METHOD: texts,
    }
)
TYPES = {"start_unix_ns": pa.uint64(), "duration_ns": pa.int64(), "kind": pa.int8(), "status_code": pa.int8()}


def written(path: Path, spans: list[dict[str, Any]], lacking: str) -> str:
    """A file in the way of chunks: texts with a dictionary a row group, of which there are some."""
    names = [name for name in spans[0] if name != lacking]
    columns = {name: pa.array([one[name] for one in spans], TYPES.get(name, pa.string())) for name in names}
    pq.write_table(pa.table(columns), path, row_group_size=3, use_dictionary=[SERVICE, METHOD, "name"])
    return str(path)


def cells_of(table: pa.Table) -> list[str]:
    """In no order, and with a group's cells added up: several may be of the same place."""
    found = dict[str, tuple[int, list[float]]]()
    for row in table.to_pylist():
        spans, numbers = row.pop("spans"), row.pop("numbers", [])
        known = found.get(str(sorted(row.items())), (0, []))
        found[str(sorted(row.items()))] = known[0] + spans, sorted([*known[1], *numbers])
    return sorted(map(str, found.items()))


@pytest.mark.parametrize("text", PLAIN)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans=st.lists(span, min_size=1, max_size=12),
    intervals=st.sampled_from(INTERVALS),
    lacking=st.sampled_from(["", SERVICE, METHOD]),
)
def test_cells_are_those_of_the_engine(
    engine: Engine, tmp_path: Path, text: str, spans: list[dict[str, Any]], intervals: Intervals, lacking: str
) -> None:
    measure = measure_of(text, intervals)
    plain = PlainCells.of(measure)
    assert plain is not None
    path = written(tmp_path / f"{uuid.uuid4()}.parquet", spans, lacking)  # the engine keeps what it knows of a file
    none = pa.table({name: pa.array([], pa.string()) for name in (SERVICE, METHOD)})
    source = Sql("SELECT * FROM read_parquet(?) UNION ALL BY NAME SELECT * FROM {none}", (path,))

    def work(session: Session) -> pa.Table:
        (statement,) = measure.statements(source, TRUE)
        return session.sql(statement.text, statement.values, none=none)

    assert cells_of(plain.of_chunk(path, lambda: None)) == cells_of(asyncio.run(engine.run(work)))


def test_many_values_of_two_groups_are_counted_without_a_place_for_each_pair(tmp_path: Path) -> None:
    numbers = np.arange(3000)
    table = {
        "start_unix_ns": pa.array(numbers + 1000, pa.uint64()),
        "duration_ns": pa.array(numbers),
        SERVICE: pa.array([f"service {number}" for number in numbers]),
        METHOD: pa.array([f"method {number % 1500}" for number in numbers]),
    }
    pq.write_table(pa.table(table), tmp_path / "chunk.parquet")
    measure = measure_of(PLAIN[-1], Intervals(999, 1500, 1))
    plain = PlainCells.of(measure)
    assert plain is not None

    found = plain.of_chunk(str(tmp_path / "chunk.parquet"), lambda: None).to_pylist()

    expected = {
        (n // 1500, f"method {n % 1500}", f"service {n}", (float(np.float32(n / 1e9)),), 1) for n in numbers.tolist()
    }
    assert {
        (one["point"], one["l0_string"], one["l1_string"], tuple(one["numbers"]), one["spans"]) for one in found
    } == expected


def test_pieces_have_all_rows_in_order_and_only_columns_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.query.chunk_columns.PIECE_SPANS", 4)
    table = pa.table({"a": pa.array(range(20)), "b": ["x", "y"] * 10})
    pq.write_table(table, tmp_path / "file.parquet", row_group_size=3)

    found = list(pieces(opened(str(tmp_path / "file.parquet"), ["b", "none"]), ["b", "a", "none"]))

    assert [first for first, _ in found] == np.cumsum([0, *(rows.num_rows for _, rows in found[:-1])]).tolist()
    assert len(found) == 5
    assert pa.types.is_dictionary(found[0][1].schema.field("b").type)
    assert [row for _, rows in found for row in rows.select(["a", "b"]).to_pylist()] == table.to_pylist()

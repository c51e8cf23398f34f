"""Metrics queries against the reference interpreter: generated worlds and queries, the same series.

The spans are measured as rows where rows decide, and else as whole traces: both paths are those of real questions.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.query.blocks import LiveSegment
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunks import ChunkReader
from pipeline.query.counting import CountsCache
from pipeline.query.engine import Engine, Session
from pipeline.query.intervals import Intervals
from pipeline.query.metrics import Limits, side_of
from pipeline.query.series import SeriesTable
from pipeline.query.snapshot import PartitionView, Snapshot
from pipeline.query.tenant_spans import TenantSpans
from pipeline.store.manifest import ChunkEntry
from pipeline.traceql import tree
from pipeline.traceql.text import text_of
from tests.pipeline.query.reference_spans import rows_of
from tests.pipeline.traceql.reference.metrics import instant, metrics
from tests.pipeline.traceql.reference.model import Trace
from tests.pipeline.traceql.reference.series import Series
from tests.pipeline.traceql.strategies import metrics_queries
from tests.pipeline.traceql.worlds import T0_NS, S, worlds
from topics.settings import QuerierSettings, StoreSettings

QUANTILE_ERROR = 0.0101
EXAMPLES, QUERIES = 15, 8  # worlds of each form, and queries of each world
Body = tree.MetricsPipeline | tree.MetricsMath | float
Answer = dict[tuple[tuple[str, str, object], ...], dict[int, float]]


class NoChunks:
    """A catalog in which nothing is stored."""

    def chunks_for(self, *_: object) -> list[ChunkEntry]:
        return []

    def chunks_for_trace(self, *_: object) -> list[ChunkEntry]:
        return []


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    found = Engine(QuerierSettings(data_dir=Path(tmp_path_factory.mktemp("engine")), threads=1), StoreSettings())
    yield found
    found.close()


def live(table: pa.Table) -> Snapshot:
    segment = LiveSegment(0, table.num_rows, table.num_rows, table=table)
    return Snapshot(partitions={0: PartitionView(partition=0, horizon=0, live=(segment,))})


def answered(session: Session, query: tree.Query, table: pa.Table, intervals: Intervals) -> SeriesTable:
    assert not isinstance(query.body, tree.Pipeline)
    spans = TenantSpans(NoChunks(), live(table), ChunkReader(session, []), "t")
    extrapolate = ("extrapolate", tree.Static("bool", True)) in query.hints
    limits = Limits(intervals, 0, 100_000, ChunkCache(0), CountsCache(0), extrapolate=extrapolate)
    found = side_of([spans], query.body, limits)
    assert isinstance(found, SeriesTable)
    return found


def plain(series: SeriesTable) -> Answer:
    return {
        tuple((label.key, label.type, label.value) for label in labels): {
            int(at): float(value) for at, value in zip(series.times_ns, values, strict=True) if not math.isnan(value)
        }
        for labels, values in zip(series.labels, series.values, strict=True)
    }


def expected(series: list[Series]) -> Answer:
    return {tuple((key, value.type, value.value) for key, value in one.labels): dict(one.points) for one in series}


def close(found: Answer, wanted: Answer, relative: float) -> bool:
    return list(found) == list(wanted) and all(
        found[labels].keys() == points.keys()
        and all(math.isclose(found[labels][at], value, rel_tol=relative, abs_tol=1e-9) for at, value in points.items())
        for labels, points in wanted.items()
    )


def without_choice(body: Body) -> Body:
    """The query without the stages that choose among quantiles: they may tell 2 and 2.01 apart. Nor is anything taken
    away from one: 2.01 - 2 is not near 0.
    """
    if isinstance(body, tree.MetricsMath):
        body = replace(body, left=without_choice(body.left), right=without_choice(body.right))
        if tolerance(body) >= QUANTILE_ERROR and body.op in "+-":
            body = replace(body, op="*")
    return body if isinstance(body, float) or tolerance(body) < QUANTILE_ERROR else replace(body, second=())


def tolerance(body: Body) -> float:
    """1 % for quantiles; what is calculated of several may differ by more."""
    if isinstance(body, tree.MetricsMath):
        return 3 * max(tolerance(body.left), tolerance(body.right))
    quantiles = isinstance(body, tree.MetricsPipeline) and isinstance(body.measure, tree.Metric)
    return QUANTILE_ERROR if quantiles and body.measure.function == "quantile_over_time" else 1e-9


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
@given(
    world=worlds(),
    queries=st.lists(metrics_queries(), min_size=QUERIES, max_size=QUERIES),
    step_s=st.sampled_from((3, 10, 60)),
)
def test_the_engine_measures_as_the_reference_does(
    engine: Engine, columns_max: int, world: list[Trace], queries: list[tree.Query], step_s: int
) -> None:
    table = rows_of(world, columns_max)
    start_ns, end_ns = T0_NS + S // 2, T0_NS + 61 * S

    def work(session: Session) -> None:
        for query in [replace(query, body=without_choice(query.body)) for query in queries]:
            in_range = answered(session, query, table, Intervals.of_range(start_ns, end_ns, step_s * S))
            wanted = expected(metrics(query, world, start_ns, end_ns, step_s * S))
            assert close(plain(in_range), wanted, tolerance(query.body)), (text_of(query), plain(in_range), wanted)
            at_once = answered(session, query, table, Intervals(start_ns, end_ns - start_ns, 1))
            wanted = expected(instant(query, world, start_ns, end_ns))
            assert close(plain(at_once), wanted, tolerance(query.body)), (text_of(query), plain(at_once), wanted)

    asyncio.run(engine.run(work))

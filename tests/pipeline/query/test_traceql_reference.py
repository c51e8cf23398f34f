"""The engine against the reference interpreter: generated worlds and queries, the same spansets, whatever they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.query import trace_rows
from pipeline.query.chunks import ChunkReader, Present
from pipeline.query.conditions import Condition
from pipeline.query.engine import Engine, Session
from pipeline.query.plan import Plan, SpanSet, condition_of, keys_of, trace_condition_of
from pipeline.spans import schema
from pipeline.traceql import tree
from tests.pipeline.query.reference_spans import rows_of
from tests.pipeline.traceql.reference.model import Trace
from tests.pipeline.traceql.reference.search import search
from tests.pipeline.traceql.strategies import searches
from tests.pipeline.traceql.worlds import worlds
from topics.settings import QuerierSettings, StoreSettings

EXAMPLES, QUERIES = 84, 12  # worlds of each form, and queries of each world: 2,000 pairs and a few
ALWAYS = (0, 2**63)
Found = dict[bytes, list[tuple[list[tuple[bytes, int]], list[Any]]]]  # trace -> spansets: (ID, start), values


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    found = Engine(QuerierSettings(data_dir=Path(tmp_path_factory.mktemp("engine")), threads=1), StoreSettings())
    yield found
    found.close()


# ---- both answers in one form


def expected(query: tree.Query, world: list[Trace], range_ns: tuple[int, int] = ALWAYS) -> Found:
    found: Found = {}
    for one in search(query, world, *range_ns):
        sets = []
        for each in one.spansets:
            spans = sorted((span.span_id, span.start_ns) for span in each.spans)
            sets.append((spans, [value.value for value in each.attributes.values()]))
        found[one.trace_id] = sorted(sets, key=repr)
    return found


def plain(of: tree.GroupBy | tree.Aggregate, value: Any) -> Any:
    if isinstance(of, tree.Aggregate) or value is None:
        return value
    type_, found = value
    return {"status": tree.STATUSES, "kind": tree.KINDS}[type_][found] if type_ in ("status", "kind") else found


def answered(found: dict[bytes, list[SpanSet]]) -> Found:
    answer: Found = {}
    for trace_id, sets in found.items():
        named = []
        for each in sets:
            spans = sorted((one.span_id, one.start_unix_ns) for one in each.spans)
            named.append((spans, [plain(*attribute) for attribute in each.attributes]))
        answer[trace_id] = sorted(named, key=repr)
    return answer


def rounded(found: Found) -> Found:
    """With the type beside each value: 2 is not 2.0."""
    return {
        trace_id: [
            (spans, [(type(value), round(value, 6) if isinstance(value, float) else value) for value in values])
            for spans, values in sets
        ]
        for trace_id, sets in found.items()
    }


# ---- the engine


def evaluate(session: Session, pipeline: tree.Pipeline, table: pa.Table) -> dict[bytes, list[SpanSet]]:
    present = Present.of([], table.column_names)
    plan = Plan(pipeline, present)
    columns = trace_rows.columns_read(plan.columns)
    live = pa.table({name: schema.column(table, name) for name in columns})
    ids = table.column("trace_id").unique()
    rows = trace_rows.read(ChunkReader(session, []), [], live, ids, plan.columns)
    found = plan.evaluate(session, rows, ALWAYS, 100)
    for condition, grouped in ((condition_of(pipeline, present), False), (trace_condition_of(pipeline, present), True)):
        assert found.keys() <= fulfilling(session, table, condition, grouped=grouped), condition.sql
    return found


def fulfilling(session: Session, table: pa.Table, condition: Condition, *, grouped: bool) -> set[bytes]:
    """The traces that are left by what only narrows: none of the answer may be lost by it."""
    columns = {"trace_id", *condition.columns}
    rows = pa.table({name: schema.column(table, name) for name in sorted(columns)})
    clause = "GROUP BY trace_id HAVING" if grouped else "WHERE"
    kept = session.sql(f"SELECT trace_id FROM {{rows}} {clause} {condition.sql}", condition.values, rows=rows)
    return set(kept.column("trace_id").to_pylist())


def compare(engine: Engine, columns_max: int, world: list[Trace], queries: list[tree.Query]) -> None:
    """Both answer each query alike."""
    table = rows_of(world, columns_max)

    def work(session: Session) -> None:
        for query in queries:
            assert isinstance(query.body, tree.Pipeline)
            wanted = expected(query, world)
            found = answered(evaluate(session, query.body, table))
            assert rounded(found) == rounded(wanted), query

    asyncio.run(engine.run(work))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,  # the same pairs each time: make test-long draws ten times as many anew
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(world=worlds(), queries=st.lists(searches(), min_size=QUERIES, max_size=QUERIES))
def test_the_engine_answers_as_the_reference_does(
    engine: Engine, columns_max: int, world: list[Trace], queries: list[tree.Query]
) -> None:
    compare(engine, columns_max, world, queries)


def test_zero_and_minus_zero_are_one_group() -> None:
    keys = keys_of(pa.table({"by_float": [0.0, -0.0, None, 1.5]}), "by_")

    assert [keys.values[code] for code in keys.codes] == [("float", 0.0), ("float", 0.0), None, ("float", 1.5)]
    assert keys.codes[0] == keys.codes[1]

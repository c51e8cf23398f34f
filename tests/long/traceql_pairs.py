"""20,000 generated pairs of spans and query: the engine answers as the reference interpreter does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.query.engine import Engine
from pipeline.traceql import tree
from tests.long.figures import Figure
from tests.pipeline.query.test_traceql_reference import QUERIES, compare
from tests.pipeline.traceql.reference.model import Trace
from tests.pipeline.traceql.strategies import searches
from tests.pipeline.traceql.worlds import AS_DRAWN, worlds
from topics.settings import QuerierSettings, Settings, StoreSettings

PAIRS = int(os.environ.get("TRACEQL_PAIRS", "20000"))
COLUMNS_MAX = (200, 1)  # attributes as columns, and in maps
WORLDS = -(-PAIRS // QUERIES // len(COLUMNS_MAX))


def compared(engine: Engine, columns_max: int) -> int:
    """How many pairs both answered alike; raises at the first that differs, as drawn: to shrink it takes minutes."""
    pairs = 0

    @settings(AS_DRAWN, max_examples=WORLDS)
    @given(world=worlds(), queries=st.lists(searches(), min_size=QUERIES, max_size=QUERIES))
    def alike(world: list[Trace], queries: list[tree.Query]) -> None:
        nonlocal pairs
        compare(engine, columns_max, world, queries)
        pairs += len(queries)

    alike()
    return pairs


def figures(_settings: Settings, folder: Path) -> Iterator[Figure]:
    """Forms that differ, and pairs that are missing."""
    engine = Engine(QuerierSettings(data_dir=folder, threads=1), StoreSettings())
    pairs, differing = 0, 0
    try:
        for columns_max in COLUMNS_MAX:
            try:
                pairs += compared(engine, columns_max)
            except Exception as error:  # an engine that breaks answers unlike the reference as well
                print(repr(error), *getattr(error, "__notes__", ()), sep="\n", flush=True)  # noqa: T201
                differing += 1
    finally:
        engine.close()
    yield Figure("TraceQL: forms answered unlike the reference", differing, "forms", 0)
    yield Figure("TraceQL: pairs that are missing to those wanted", max(0, PAIRS - pairs), "pairs", 0)

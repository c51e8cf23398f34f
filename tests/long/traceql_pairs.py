"""20,000 generated pairs of spans and query: the engine answers as the reference interpreter does."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
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


def compared(columns_max: int, folder: Path) -> tuple[int, str]:
    """How many pairs both answered alike, and the first that differs, as drawn: to shrink it takes minutes."""
    pairs = 0
    engine = Engine(QuerierSettings(data_dir=folder, threads=1), StoreSettings())

    @settings(AS_DRAWN, max_examples=WORLDS)
    @given(world=worlds(), queries=st.lists(searches(), min_size=QUERIES, max_size=QUERIES))
    def alike(world: list[Trace], queries: list[tree.Query]) -> None:
        nonlocal pairs
        compare(engine, columns_max, world, queries)
        pairs += len(queries)

    try:
        alike()
    except Exception as error:  # an engine that breaks answers unlike the reference as well
        return pairs, "\n".join([repr(error), *getattr(error, "__notes__", ())])
    finally:
        engine.close()
    return pairs, ""


def figures(_settings: Settings, folder: Path) -> Iterator[Figure]:
    """Forms that differ, and pairs that are missing; a process each."""
    folders = [folder / str(columns_max) for columns_max in COLUMNS_MAX]
    for each in folders:
        each.mkdir()
    with ProcessPoolExecutor(len(COLUMNS_MAX), multiprocessing.get_context("spawn")) as processes:
        found = list(processes.map(compared, COLUMNS_MAX, folders))
    differing = [what for _, what in found if what]
    print(*differing, sep="\n", flush=True)  # noqa: T201
    yield Figure("TraceQL: forms answered unlike the reference", len(differing), "forms", 0)
    missing = max(0, PAIRS - sum(pairs for pairs, _ in found))
    yield Figure("TraceQL: pairs that are missing to those wanted", missing, "pairs", 0)

"""Tag names and values under a condition, and parts of traces, against what the spans themselves have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.engine import Engine, Session
from pipeline.query.fields import needs_trace
from pipeline.query.identifiers import SCOPE_OF, identifier
from pipeline.query.snapshot import Snapshot
from pipeline.query.tags import Among, Tags, TagValue
from pipeline.query.trace_by_id import canonical, each_once
from pipeline.query.trace_filter import TraceFilter, wanted
from pipeline.traceql import tree
from tests.pipeline.query.reference_spans import rows_of
from tests.pipeline.query.test_metrics_reference import NoChunks, live
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.fields import condition_holds
from tests.pipeline.traceql.reference.model import Attributes, Span, Trace
from tests.pipeline.traceql.strategies import CONDITIONS
from tests.pipeline.traceql.worlds import worlds
from topics.settings import QuerierSettings, StoreSettings

EXAMPLES, QUESTIONS = 20, 8
OPAQUE = (bytes, dict)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
TYPES = {"string": str, "int": int, "float": float, "bool": bool}


class Empty(NoChunks):
    """A catalog in which nothing is stored."""

    def attributes(self, _tenant: str) -> dict[str, int]:
        return {}

    def more_keys(self, _tenant: str) -> list[str]:
        return []

    def services(self, _tenant: str) -> dict[str, dict[str, int]]:
        return {}


class Still:
    """Snapshots of what does not change."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def take(self) -> Snapshot:
        return self._snapshot


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    found = Engine(QuerierSettings(data_dir=Path(tmp_path_factory.mktemp("engine")), threads=1), StoreSettings())
    yield found
    found.close()


def surroundings(span: Span) -> dict[str, list[Attributes]]:
    return {
        "span": [span.attributes],
        "resource": [span.resource],
        "event": [event.attributes for event in span.events],
        "link": [link.attributes for link in span.links],
        "instrumentation": [span.scope_attributes],
    }


def names_of(spans: list[Span]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {scope: set() for scope in SCOPE_OF}
    for span in spans:
        for scope, each in surroundings(span).items():
            found[scope].update(key for attributes in each for key in attributes)
    return found


def values_of(spans: list[Span], scope: str, key: str) -> set[TagValue]:
    """Of arrays each element; of what is opaque, nothing."""
    held = [a[key] for span in spans for a in surroundings(span)[scope] if key in a]
    flat = [one for value in held for one in (elements(value) if isinstance(value, list) else [value])]
    found = {(next(n for n, t in TYPES.items() if type(v) is t), v) for v in flat if not isinstance(v, OPAQUE)}
    return {TagValue(type_, str(value).lower() if type_ == "bool" else str(value)) for type_, value in found}


def elements(array: list[object]) -> list[object]:
    return array if len({type(one) for one in array}) == 1 else []


def row_conditions() -> st.SearchStrategy[tree.Field]:
    return CONDITIONS.filter(lambda condition: not needs_trace(condition))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
@pytest.mark.parametrize("columns_max", [200, 1], ids=["columns", "maps"])
@given(
    world=worlds(),
    conditions=st.lists(row_conditions(), min_size=QUESTIONS, max_size=QUESTIONS),
    tag=st.tuples(st.sampled_from(sorted(SCOPE_OF)), st.sampled_from(("any", "n", "s"))),
)
def test_names_and_values_are_those_of_the_spans_that_a_condition_holds_of(
    engine: Engine, columns_max: int, world: list[Trace], conditions: list[tree.Field], tag: tuple[str, str]
) -> None:
    tags = Tags(Empty(), Still(live(rows_of(world, columns_max))), engine, ChunkCache(0))  # type: ignore[arg-type]
    families = [(span, family) for family in map(Family, world) for span in family.spans]

    async def questions() -> None:
        for condition in conditions:
            spans = [span for span, family in families if condition_holds(condition, span, family)]
            among = Among(matching=condition)
            names = (await tags.names(["t"], list(SCOPE_OF.values()), among, 1000)).names
            told = {scope: set(names.get(ours, ())) for scope, ours in SCOPE_OF.items()}
            assert told == names_of(spans), condition
            values = (await tags.values(["t"], identifier(".".join(tag)), among, 1000)).values
            assert set(values) == values_of(spans, *tag), condition

    asyncio.run(questions())


def relatives(found: set[Span], family: Family, above: int | None, below: int) -> set[Span]:
    upwards = {parent for span in found for parent in islice(family.ancestors(span), above)}
    return found | upwards | {span for span in family.spans if found & set(islice(family.ancestors(span), below))}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
@given(
    world=worlds(),
    conditions=st.lists(CONDITIONS, min_size=QUESTIONS, max_size=QUESTIONS),
    above=st.sampled_from((None, 0, 1, 2)),
    below=st.integers(0, 2),
)
def test_of_a_trace_are_kept_the_matching_spans_and_as_many_levels_around_them_as_asked(
    engine: Engine, world: list[Trace], conditions: list[tree.Field], above: int | None, below: int
) -> None:
    def work(session: Session) -> None:
        for trace in world:
            family = Family(trace)
            spans = each_once([canonical(rows_of([trace], 200))])
            for condition in conditions:
                asked = TraceFilter(condition=condition, levels_above=above, levels_below=below)
                kept = wanted(session, spans, family.spans[0].trace_id, asked)
                ids = spans.filter(kept).column("span_id").to_pylist()
                found = {span for span in family.spans if condition_holds(condition, span, family)}
                expected = [span.span_id for span in relatives(found, family, above, below)]
                assert sorted(ids) == sorted(expected), condition

    asyncio.run(engine.run(work))

"""Metrics over spans wherever they stand: each span is counted once, in the interval of its start."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.query import comparison, executor
from pipeline.query.chunks import ChunkReader, ChunkRef
from pipeline.query.intervals import Intervals
from pipeline.query.metrics import MetricsQuestion, SoFar
from pipeline.query.series import SeriesTable
from pipeline.query.tenant_spans import TenantSpans
from pipeline.spans import schema
from pipeline.traceql import tree
from pipeline.traceql.check import check
from pipeline.traceql.parser import parse
from tests.pipeline.query.cuts import CELLS_MAX, HOW, PARTITIONS, TENANTS, Asked, Cut, ask, deduplicated, everywhere
from tests.pipeline.query.test_traceql import SHOP
from tests.pipeline.query.world import T0, OneSpan, stored, trace_id
from topics.errors import QueryTooLargeError
from topics.settings import Settings

pytestmark = pytest.mark.integration
S = 10**9
ALL = Intervals(T0 - S, 2 * S, 1)

CASES: list[tuple[str, dict[tuple[Any, ...], float]]] = [
    ("{} | count_over_time()", {("count_over_time",): 7}),
    ("{} | rate()", {("rate",): 3.5}),
    ("{ .code = 200 } | count_over_time()", {("count_over_time",): 2}),
    ("{} | count_over_time() by (resource.service.name)", {("batch",): 2, ("db",): 2, ("shop",): 3}),
    ("{ .n != nil } | sum_over_time(.n)", {("sum_over_time",): 10.5}),
    ("{ .n != nil } | max_over_time(.n) by (name)", {("GET /cart",): 4, ("SELECT",): 2, ("job",): 1.5, ("row",): 3}),
    ("{} | min_over_time(duration)", {("min_over_time",): 0.001}),
    ("{} >> {} | count_over_time()", {("count_over_time",): 3}),
    ("{} | count_over_time() by (trace:rootName)", {("GET /cart",): 5, ("job",): 2}),
    ("{} | rate() by (span.code) | topk(1)", {("nil",): 2.0}),
    (
        "({ status = error } | count_over_time()) / ({} | count_over_time())",
        {("(count_over_time / count_over_time)",): 1 / 7},
    ),
]


@pytest.mark.parametrize("how", HOW)
def test_a_metric_is_the_same_wherever_spans_stand(world: Settings, how: str) -> None:
    async def question(on: Asked) -> None:
        for text, expected in CASES:
            query = check(parse(text), lambda _: None).body
            assert not isinstance(query, tree.Pipeline)
            answer = await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=ALL, exemplars=10))
            found = {
                tuple(label.value for label in labels): float(values[0])
                for labels, values in zip(answer.series.labels, answer.series.values, strict=True)
            }
            assert answer.reasons == []
            assert found.keys() == expected.keys(), text
            assert all(math.isclose(found[labels], value) for labels, value in expected.items()), (text, found)
            assert answer.series.exemplars or isinstance(query, tree.MetricsMath) or query.second, text

    ask(world, SHOP, everywhere(3, how), question)


@pytest.mark.parametrize("how", HOW)
def test_quantiles_of_spans_that_end_before_they_start_are_below_zero(world: Settings, how: str) -> None:
    async def question(on: Asked) -> list[float]:
        query = check(parse("{} | quantile_over_time(duration, 0, 0.5, 1)"), lambda _: None).body
        assert not isinstance(query, tree.Pipeline)
        answer = await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=ALL))
        assert answer.reasons == []
        return sorted(float(values[0]) for values in answer.series.values)

    records = [[OneSpan(number, 1, duration_ms=ms)] for number, ms in enumerate((-40, 0, 20))]
    found = ask(world, records, everywhere(3, how), question)

    assert np.allclose(found, [-0.04, 0.0, 0.02], rtol=0.01, atol=0)


@pytest.mark.parametrize("low", [True, False])
def test_of_many_matches_some_are_shown_however_their_trace_ids_begin(
    world: Settings, monkeypatch: pytest.MonkeyPatch, low: bool
) -> None:
    monkeypatch.setattr("pipeline.query.metrics.EXAMPLES_OF", 2)
    alike = [number for number in range(200) if (trace_id(number)[0] < 128) == low][:8]

    async def question(on: Asked) -> None:
        query = check(parse("{} | rate()"), lambda _: None).body
        assert not isinstance(query, tree.Pipeline)
        answer = await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=ALL, exemplars=10))
        assert answer.series.exemplars

    ask(world, [[OneSpan(number, 1)] for number in alike], everywhere(8, "stored"), question)


@pytest.mark.parametrize("text", ["{} | rate() by (name)", "{} | histogram_over_time(duration)"])
def test_too_many_groups_and_intervals_are_refused_with_a_way_out(world: Settings, text: str) -> None:
    async def question(on: Asked) -> None:
        query = check(parse(text), lambda _: None).body
        assert not isinstance(query, tree.Pipeline)
        many = Intervals(T0 - S, S, CELLS_MAX)
        with pytest.raises(QueryTooLargeError, match="group by something with fewer values"):
            await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=many))

    ask(world, SHOP, everywhere(3, "stored"), question)


AGAIN = [
    "{} | rate() by (resource.service.name)",
    "{ .code = 200 } | count_over_time() by (.n)",
    "{} | avg_over_time(duration)",
    "{} | min_over_time(.n) by (name)",
    "{} | max_over_time(.n)",
    "{} | quantile_over_time(duration, .5, 1) by (status)",
    "{} | histogram_over_time(duration)",
]
MS = 10**6
MOVING = [Intervals(T0 - S + moved * MS, step * MS, 20) for step in (70, 100) for moved in (0, 100, 940, 1003)]


def test_stored_chunks_that_are_asked_again_in_another_range_give_what_live_spans_give(world: Settings) -> None:
    async def question(on: Asked) -> list[dict[Any, list[float]]]:
        found = []
        for text in AGAIN:
            query = check(parse(text), lambda _: None).body
            assert not isinstance(query, tree.Pipeline)
            for intervals in [*MOVING, ALL, *MOVING]:
                series = (await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=intervals))).series
                found.append(dict(zip(map(tuple, series.labels), series.values.round(9).tolist(), strict=True)))
        return found

    live = ask(world, SHOP, everywhere(3, "live"), question)
    stored = ask(world, SHOP, everywhere(3, "stored"), question)
    apart = ask(world, SHOP, dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1, 2])), question)

    assert str(stored) == str(live)  # as text: what is missing equals itself
    assert str(apart) == str(live)


def test_what_comes_and_moves_into_a_segment_and_into_a_chunk_counts_once_at_each_step(world: Settings) -> None:
    """What was said of a segment is kept, until some of its rows are stored, or lie in another one."""

    async def question(on: Asked) -> None:
        segments = {partition: held.segments for partition, held in on.server.held.items()}
        logs = dict(on.tail.log)

        async def counted() -> dict[Any, float]:
            query = check(parse("{} | count_over_time() by (name)"), lambda _: None).body
            assert not isinstance(query, tree.Pipeline)
            question = MetricsQuestion(query=query, intervals=ALL, exemplars=10)
            series = (await on.metrics.measure(TENANTS, question)).series
            assert series.exemplars
            return {labels[0].value: value for labels, (value,) in zip(series.labels, series.values, strict=True)}

        def expected(records: int) -> dict[Any, float]:
            return Counter(one.name for kept in deduplicated(dict(enumerate(SHOP[:records]))).values() for one in kept)

        for sent, taken in ((1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (3, 3)):
            for partition, held in on.server.held.items():
                on.tail.log[partition] = {offset: body for offset, body in logs[partition].items() if offset < sent}
                held.segments, held.next = segments[partition][:taken], taken
            assert await counted() == expected(sent)
        for partition, held in on.server.held.items():  # one segment: the ends of the chunks lie within it
            held.segments, held.assigned = [(0, 2, schema.concat([rows for *_, rows in segments[partition]]))], 2
        assert await counted() == expected(3)
        for last in (0, 1):
            for partition in segments:
                rows = schema.concat([rows for _, end, rows in segments[partition] if end <= last])
                on.stored.manifests = [one for one in on.stored.manifests if one.partition != partition]
                on.stored.manifests.append(stored(world, partition, 0, last, rows, topic=f"t{uuid.uuid4().hex}"))
            assert await counted() == expected(3)

    ask(world, SHOP, dict.fromkeys(range(PARTITIONS), Cut(segments=[0, 1, 2])), question)


def test_points_that_are_told_on_the_way_are_those_of_the_answer(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "BATCH_SPANS", 1)  # a chunk at a time
    chunks = dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1], segments=[2]))
    told = Counter[str]()

    async def question(on: Asked) -> None:
        for text in [*AGAIN, "{} | rate() by (name) > 5", "{} | rate() by (name) | topk(1)"]:
            query = check(parse(text), lambda _: None).body
            assert not isinstance(query, tree.Pipeline)
            heard = list[SoFar]()
            question = MetricsQuestion(query=query, intervals=Intervals(T0 - 20 * MS, 20 * MS, 14))
            answer = plain((await on.metrics.measure(TENANTS, question, heard.append)).series)
            for so_far in heard:
                points = plain(so_far.series)
                for labels, values in points.items():
                    newest = {at: value for at, value in values.items() if at > so_far.first}
                    assert newest.items() <= answer.get(labels, {}).items(), text
                told[text] += sum(at > so_far.first for values in points.values() for at in values)

    def plain(series: SeriesTable) -> dict[Any, dict[int, float]]:
        return {
            labels: {number: value for number, value in enumerate(values, 1) if not math.isnan(value)}
            for labels, values in zip(series.labels, series.values.round(9).tolist(), strict=True)
        }

    ask(world, SHOP, chunks, question)

    assert [text for text in AGAIN if not told[text]] == []
    assert not told["{} | rate() by (name) | topk(1)"]


async def compared(on: Asked) -> SeriesTable:
    """What errors have in common, over all spans."""
    query = check(parse("{} | compare({ status = error })"), lambda _: None).body
    assert not isinstance(query, tree.Pipeline)
    return (await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=ALL))).series


def test_compare_counts_fewer_attributes_at_once_where_memory_does_not_do(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = TenantSpans.read, list[str]()

    def read(spans: TenantSpans, refs: Any, statement: Any, *rest: Any, **more: Any) -> Any:
        if " AS v3," in statement([])[0]:
            refused.append("too many attributes")
            raise QueryTooLargeError(refused[-1])
        return real(spans, refs, statement, *rest, **more)

    async def question(on: Asked) -> list[Any]:
        series = await compared(on)
        return [series.labels, series.values.tolist()]

    expected = ask(world, SHOP, everywhere(3, "mixed"), question)
    monkeypatch.setattr(TenantSpans, "read", read)
    monkeypatch.setattr(comparison, "_column_of", lambda *_: "")  # all by the engine, whatever columns there are

    assert ask(world, SHOP, everywhere(3, "mixed"), question) == expected
    assert refused


@pytest.mark.parametrize("listed_bytes_max", [0, 1 << 20])
def test_compare_counts_columns_of_many_values_like_those_of_few(
    world: Settings, monkeypatch: pytest.MonkeyPatch, listed_bytes_max: int
) -> None:
    async def question(on: Asked) -> list[Any]:
        first, again = [await compared(on) for _ in range(2)]
        assert first.labels == again.labels
        assert np.array_equal(first.values, again.values)
        return [first.labels, first.values.tolist()]

    for how in HOW:
        expected = ask(world, SHOP, everywhere(3, how), question)
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.query.value_counts.FEW", 1)
            patch.setattr("pipeline.query.counting.LISTED_BYTES_MAX", listed_bytes_max)

            assert ask(world, SHOP, everywhere(3, how), question) == expected


def test_compare_tells_no_intervals_of_values_whose_chunks_became_unreadable_before_they_were_read_again(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.query.value_counts.FEW", 1)
    monkeypatch.setattr("pipeline.query.counting.LISTED_BYTES_MAX", 0)
    monkeypatch.setattr("pipeline.query.counting.Counting._second", lambda _self, few, _sources, _done: few)

    found = ask(world, SHOP, everywhere(3, "stored"), compared)

    assert found.labels
    assert np.nansum(found.values) > 0  # how many have a value at all is known


def test_a_chunk_whose_columns_names_are_damaged_is_left_out_by_compare_and_asked_of_the_engine_by_others(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def question(on: Asked) -> list[tuple[dict[Any, float], list[str]]]:
        found = []
        for text in ("{} | compare({ status = error })", "{} | count_over_time() by (name)"):
            query = check(parse(text), lambda _: None).body
            assert not isinstance(query, tree.Pipeline)
            answer = await on.metrics.measure(TENANTS, MetricsQuestion(query=query, intervals=ALL))
            labels = [tuple(label.value for label in one) for one in answer.series.labels]
            found.append((dict(zip(labels, answer.series.values[:, 0].tolist(), strict=True)), answer.reasons))
        return found

    real = ChunkReader.source

    def damaged(reader: ChunkReader, ref: ChunkRef) -> pa.Buffer:
        source = real(reader, ref)
        content = Path(source).read_bytes() if isinstance(source, str) else bytes(source)
        return pa.py_buffer(content.replace(b"service.name", b"\xffervice.name"))

    (_, nothing), expected = ask(world, SHOP, everywhere(3, "stored"), question)
    monkeypatch.setattr(ChunkReader, "source", damaged)
    (compared_, reasons), counted = ask(world, SHOP, everywhere(3, "stored"), question)

    assert nothing == []
    assert compared_ == {}
    assert reasons
    assert all("cannot be read" in one for one in reasons)
    assert counted == expected

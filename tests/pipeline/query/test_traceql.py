"""TraceQL over whole traces, wherever their spans stand: a query and the spans that it finds."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from pipeline.query import search
from pipeline.query.search import SearchQuestion
from pipeline.traceql import tree
from pipeline.traceql.check import check
from pipeline.traceql.parser import parse
from tests.pipeline.query.cuts import HOUR_NS, HOW, PARTITIONS, TENANTS, Asked, Cut, ask, everywhere
from tests.pipeline.query.world import T0, OneSpan, trace_id
from topics.errors import BadQuestionError
from topics.settings import Settings

pytestmark = pytest.mark.integration
# Trace 1: 1 (shop) -> 2 (db, failed) -> 4 (db); 1 -> 5. Trace 2: 3 alone. Trace 3: 6 and its orphan child 8 of 7
SHOP = [
    [
        OneSpan(
            1,
            1,
            name="GET /cart",
            attributes=(("code", 200), ("ok", True), ("n", 4)),
            duration_ms=50,
            kind=2,
            events=(("retry", (("attempt", 1), ("ok", False))), ("retry", (("attempt", 2), ("ok", True)))),
        ),
        OneSpan(3, 6, name="job", service="batch", attributes=(("n", 1.5),), start_ms=200),
    ],
    [
        OneSpan(1, 2, 1, 5, 20, "SELECT", "db", status=2, attributes=(("rows", 7), ("Tags", ["a", "b"]), ("n", 2))),
        OneSpan(2, 3, name="GET /cart", start_ms=100, attributes=(("code", 500), ("n", "2")), kind=2),
    ],
    [
        OneSpan(1, 1, name="late copy", kind=2),
        OneSpan(1, 4, 2, 6, 1, "row", "db", attributes=(("r", 0.5),), resource=(("n", 3),)),
        OneSpan(1, 5, 1, 30, 5, "render", attributes=(("code", 200), ("a b", "x"))),
        OneSpan(3, 8, 7, 210, 5, "orphan", "batch"),
    ],
]
ALL = {2: [3], 3: [6, 8], 1: [1, 2, 4, 5]}


CASES: list[tuple[str, dict[int, list[int]]]] = [
    ("{}", ALL),
    ("{ false }", {}),
    ("{ span.code = 200 }", {1: [1, 5]}),
    ("{ .code >= 200 && .code < 500 }", {1: [1, 5]}),
    ("{ span.code != 200 }", {2: [3]}),
    ("{ !(span.code = 200) }", {3: [6, 8], 2: [3], 1: [2, 4]}),
    ("{ span.code = nil }", {3: [6, 8], 1: [2, 4]}),
    ("{ .ok }", {1: [1]}),
    ("{ .n = 2 }", {1: [2]}),
    ("{ .n > 1 }", {3: [6], 1: [1, 2, 4]}),
    ("{ .n + 1 = 3 }", {1: [2]}),
    ("{ .n / 0 = 3 }", {}),
    ('{ .n = "2" }', {2: [3]}),
    ('{ span.Tags = "b" }', {1: [2]}),
    ('{ span.Tags != "b" }', {}),
    ('{ span.Tags != "c" }', {1: [2]}),
    ('{ span."a b" = "x" }', {1: [5]}),
    ("{ name =~ `GET .*` }", {2: [3], 1: [1]}),
    ("{ name !~ `GET .*` }", {3: [6, 8], 1: [2, 4, 5]}),
    ("{ duration > 15ms }", {1: [1, 2]}),
    ("{ status = error && kind != server }", {1: [2]}),
    ('{ resource.service.name = "db" }', {1: [2, 4]}),
    ('{ rootServiceName = "shop" && resource.service.name = "db" }', {1: [2, 4]}),
    ("{ traceDuration > 49ms }", {1: [1, 2, 4, 5]}),
    ("{ span:childCount = 2 }", {1: [1]}),
    ("{ nestedSetParent < 0 }", {3: [6, 8], 2: [3], 1: [1]}),
    ("{ parent = nil }", {3: [6, 8], 2: [3], 1: [1]}),
    ("{ parent.resource.service.name != resource.service.name }", {1: [2]}),
    ("{ parent.n = 4 }", {1: [2, 5]}),
    ('{ event:name = "retry" }', {1: [1]}),
    ("{ event.attempt = 1 && event.ok = true }", {}),
    ("{ event.attempt = 2 && event.ok = true && span.code = 200 }", {1: [1]}),
    ("{ event.attempt = 1 || event.attempt = 9 }", {1: [1]}),
    ('{ span:id = "0000000000000003" }', {2: [3]}),
    ("{ span.code = 200 } && { status = error }", {1: [1, 2, 5]}),
    ("{ span.code = 500 } || { status = error }", {2: [3], 1: [2]}),
    ("{ span.ok } > { }", {1: [2, 5]}),
    ("{ span.ok } >> { }", {1: [2, 4, 5]}),
    ("{ .r = 0.5 } << { }", {1: [1, 2]}),
    ("{ .r = 0.5 } < { }", {1: [2]}),
    ("{ status = error } ~ { }", {1: [5]}),
    ("{ span.ok } !> { }", {3: [6, 8], 2: [3], 1: [1, 4]}),
    ("{ span.ok } &>> { .r = 0.5 }", {1: [1, 4]}),
    ("{} | count() > 2", {1: [1, 2, 4, 5]}),
    ("{} | avg(duration) > 15ms", {1: [1, 2, 4, 5]}),
    ("{} | max(duration) > 2 * avg(duration)", {1: [1, 2, 4, 5]}),
    (
        "{} | min(.n) < 2",
        {
            3: [6, 8],
        },
    ),
    ("{ .code = 200 } | by(resource.service.name) | count() > 1", {1: [1, 5]}),
    ("{} | by(resource.service.name) | count() > 1 | coalesce() | { status = error }", {1: [2]}),
    ("({ .code = 200 } | count() > 1) >> ({ status = error })", {1: [2]}),
    ("({} | count()) > ({ .n > 1 } | count())", ALL),
    # Durations count as floats, whole numbers stay whole: in trace 1 the longest takes 50 ms, the shortest 1 ms
    ("{} | (max(duration) - min(duration)) / (avg(duration) - min(duration)) > 2.7", {1: [1, 2, 4, 5]}),
    ("{} | sum(.rows) / 2 = 3", {1: [1, 2, 4, 5]}),
    ("{} | sum(.n) / 2 = 4.5", {}),  # 9, and 9 / 2 is 4
    ("{} | sum(.n) / 2 = 4", {1: [1, 2, 4, 5]}),
    ("{} | count() * 9000000000000000000 > 0", {2: [3]}),  # what does not fit is no number
    ("{} | count() / (count() - count()) > 0", {}),
    ("{ .code = 200 } | select(name)", {1: [1, 5]}),
]


LONG = [
    "{ .a" + " + .b" * 90 + " > 1 }",
    "{ .a" + " / .b" * 90 + " > 1 }",
    "{ .a" + " + .b" * 190 + " > 1 }",
    "{ event.a" + " * event.b" * 190 + " > 1 }",
    "{} | max(.a" + " - .b" * 190 + ") > 1",
]


@pytest.mark.parametrize("query", LONG)
def test_a_long_expression_is_answered_or_refused_in_little_time(world: Settings, query: str) -> None:
    """Not longer than the engine's time for a query, which it does not look at while it makes a plan."""

    async def question(on: Asked) -> None:
        pipeline = check(parse(query), lambda _: None).body
        assert isinstance(pipeline, tree.Pipeline)
        with suppress(BadQuestionError):
            answer = await on.search.find(TENANTS, SearchQuestion(query=pipeline, start_ns=T0, end_ns=T0 + HOUR_NS))
            assert answer.traces == []

    spans = [[OneSpan(1, 1, attributes=(("a", 1), ("b", 0)), resource=(("a", 0.5), ("b", 0.0)))], SHOP[0], SHOP[1]]
    began_s = time.process_time()
    ask(world, spans, everywhere(3, "mixed"), question)
    assert time.process_time() - began_s < 20


async def answered_right(on: Asked) -> None:
    for query, expected in CASES:
        pipeline = check(parse(query), lambda _: None).body
        assert isinstance(pipeline, tree.Pipeline)
        asked = SearchQuestion(query=pipeline, start_ns=T0, end_ns=T0 + HOUR_NS, span_set_spans=100)
        answer = await on.search.find(TENANTS, asked)
        assert answer.reasons == []
        found = {
            hit.trace_id: sorted(int.from_bytes(one.span_id) for each in hit.span_sets for one in each.spans)
            for hit in answer.traces
        }
        assert found == {trace_id(number): spans for number, spans in expected.items()}, query
        assert list(found) == [trace_id(number) for number in (3, 2, 1) if number in expected], query


@pytest.mark.parametrize("how", HOW)
def test_a_query_finds_the_same_spans_wherever_they_stand(world: Settings, how: str) -> None:
    ask(world, SHOP, everywhere(3, how), answered_right)


@pytest.mark.parametrize("traces_max", [1, 3])
def test_a_query_finds_the_same_spans_however_few_traces_are_looked_at_together(
    world: Settings, monkeypatch: pytest.MonkeyPatch, traces_max: int
) -> None:
    monkeypatch.setattr(search, "TRACES_MAX", traces_max)

    ask(world, SHOP, dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1, 2])), answered_right)

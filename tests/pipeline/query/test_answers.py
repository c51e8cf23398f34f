"""Answers are exact: they do not depend on how spans were cut into records, segments, chunks and tail."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from pipeline.query.identifiers import identifier, legacy_tag
from pipeline.query.order import ORDERS
from pipeline.query.search import SearchQuestion
from pipeline.query.tags import Among, TagAnswer, TagValue
from pipeline.spans import to_otlp
from pipeline.traceql import tree
from tests.pipeline.query.cuts import (
    HOUR_NS,
    HOW,
    PARTITIONS,
    TENANTS,
    Asked,
    Cut,
    ask,
    deduplicated,
    everywhere,
    partitioned,
)
from tests.pipeline.query.world import T0, OneSpan, span_id, trace_id
from topics.settings import Settings

pytestmark = pytest.mark.integration
MS = 10**6
SHOP = [
    [OneSpan(1, 1, name="GET /cart", attributes=(("http.status_code", 200), ("ok", True)), duration_ms=50, kind=2)],
    [
        OneSpan(1, 2, 1, 5, 20, "SELECT", "db", status=2, attributes=(("db.rows", 7), ("Tags", ["a", "b"]))),
        OneSpan(2, 3, name="GET /cart", start_ms=100, attributes=(("http.status_code", 500),), kind=2),
    ],
    [OneSpan(1, 1, name="late copy", kind=2), OneSpan(1, 4, 2, 6, 1, "row", "db", attributes=(("r", 0.5),))],
]


@pytest.mark.parametrize("how", HOW)
def test_a_trace_is_the_same_wherever_it_stands(world: Settings, how: str) -> None:
    async def question(asked: Asked) -> bytes:
        found = await asked.traces.find(TENANTS, trace_id(1))
        assert found.reasons == []
        assert found.spans.column("span_id").to_pylist() == [span_id(1), span_id(2), span_id(4)]
        assert found.copies == 0
        return to_otlp.to_traces_data(found.spans)

    answer = ask(world, SHOP, everywhere(3, how), question)

    assert answer == ask(world, SHOP, everywhere(3, "live"), question)
    assert b"GET /cart" in answer
    assert b"late copy" not in answer


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, [2, 1]),
        ({"service.name": "SHO"}, [2, 1]),
        ({"name": "cart"}, [2, 1]),
        ({"http.status_code": "500"}, [2]),
        ({"http.status_code": "200", "ok": "true"}, [1]),
        ({"http.status_code": "200", "db.rows": "7"}, []),  # on two different spans
        ({"db.rows": "7", "service.name": "db", "status.code": "error"}, [1]),
        ({"Tags": "b"}, [1]),
        ({"r": "0.5"}, [1]),
        ({"error": "true"}, [1]),
        ({"root.name": "get /CART", "root.service.name": "shop", "r": "0.5"}, [1]),
        ({"root.service.name": "db"}, []),
        ({"nowhere": "x"}, []),
        ({"tags": "b"}, []),
    ],
)
def test_tags_find_the_same_traces_wherever_they_stand(
    world: Settings, how: str, tags: dict[str, str], expected: list[int]
) -> None:
    async def question(asked: Asked) -> list[bytes]:
        answer = await asked.search.find(TENANTS, SearchQuestion(tags=tags, start_ns=T0, end_ns=T0 + HOUR_NS))
        assert answer.reasons == []
        return [hit.trace_id for hit in answer.traces]

    assert ask(world, SHOP, everywhere(3, how), question) == [trace_id(number) for number in expected]


@pytest.mark.parametrize("how", HOW)
def test_a_hit_tells_of_the_whole_trace(world: Settings, how: str) -> None:
    async def question(asked: Asked) -> None:
        (hit,) = (await asked.search.find(TENANTS, SearchQuestion(tags={"r": "0.5"}))).traces
        assert (hit.root_name, hit.root_service) == ("GET /cart", "shop")
        assert (hit.start_unix_ns, hit.duration_ns) == (T0, 50 * MS)
        assert hit.services == {"shop": [1, 0], "db": [2, 1]}

    ask(world, SHOP, everywhere(3, how), question)


@pytest.mark.parametrize("how", HOW)
def test_names_values_and_services_are_the_same_wherever_they_stand(world: Settings, how: str) -> None:
    shop = [*SHOP[:2], SHOP[2][1:]]  # a copy counts until the worker has reached and dropped it

    async def question(asked: Asked) -> None:
        names = (await asked.tags.names(TENANTS, ["resource", "span"], Among(), 100)).names
        assert names == {"resource": ["service.name"], "span": ["Tags", "db.rows", "http.status_code", "ok", "r"]}
        codes = (await asked.tags.values(TENANTS, identifier("span.http.status_code"), Among(), 100)).values
        assert codes == [TagValue("int", "200"), TagValue("int", "500")]
        tags = (await asked.tags.values(TENANTS, identifier(".Tags"), Among((T0, T0 + HOUR_NS)), 100)).values
        assert tags == [TagValue("string", "a"), TagValue("string", "b")]
        roots = (await asked.tags.values(TENANTS, legacy_tag("root.name"), Among(), 100)).values
        assert roots == [TagValue("string", "GET /cart")]
        services, reasons = await asked.tags.services(TENANTS, None)
        assert services == {"shop": {"GET /cart": 2}, "db": {"SELECT": 1, "row": 1}}
        assert reasons == []
        some, _ = await asked.tags.services(TENANTS, (T0 + 90 * MS, T0 + HOUR_NS))
        assert some == {"shop": {"GET /cart": 1}}

    ask(world, shop, everywhere(3, how), question)


# ---- any cut


FEW = st.integers(1, 3)
SPANS = st.builds(
    OneSpan,
    trace=st.integers(1, 4),
    id=st.integers(1, 6),
    parent=st.integers(0, 6),
    start_ms=st.integers(0, 40).map(lambda n: n * 50),
    duration_ms=st.integers(0, 8).map(lambda n: n * 25),
    name=st.sampled_from(["GET /a", "GET /b"]),
    service=st.sampled_from(["shop", "cart"]),
    kind=st.sampled_from([2, 3]),
    status=st.sampled_from([0, 2]),
    attributes=st.sampled_from([(), (("k", "v"),), (("k", 1),), (("k", ["v", "w"]),), (("K", "v"), ("b", True))]),
)
RECORDS = st.lists(st.lists(SPANS, max_size=5), min_size=1, max_size=6)
CUTS = st.builds(
    Cut,
    chunks=st.lists(st.integers(0, 5), max_size=3),
    segments=st.lists(st.integers(0, 5), max_size=3),
    owner=st.booleans(),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=RECORDS,
    cuts=st.fixed_dictionaries(dict.fromkeys(range(PARTITIONS), CUTS)),
    tags=st.sampled_from([{}, {"k": "v"}, {"k": "1"}, {"name": "/a", "service.name": "sh"}, {"b": "true", "K": "v"}]),
    start_ms=st.integers(-1, 12),
    limit=FEW,
    least_ms=st.sampled_from([None, 0, 100]),
    order=st.sampled_from(["newest", *ORDERS]),
)
def test_answers_do_not_depend_on_the_cut(  # noqa: PLR0917 - what hypothesis draws
    world: Settings,
    records: list[list[OneSpan]],
    cuts: dict[int, Cut],
    tags: dict[str, str],
    start_ms: int,
    limit: int,
    least_ms: int | None,
    order: str,
) -> None:
    records = with_true_copies(records)
    last = len(records) - 1
    cuts = {
        p: Cut([min(c, last) for c in cut.chunks], [min(s, last) for s in cut.segments], cut.owner)
        for p, cut in cuts.items()
    }
    kept = [one for offsets in partitioned(records).values() for mine in deduplicated(offsets).values() for one in mine]
    question = SearchQuestion(
        tags=tags,
        start_ns=T0 + start_ms * 100 * MS,
        end_ns=T0 + start_ms * 100 * MS + 500 * MS,
        limit=limit,
        duration_min_ns=None if least_ms is None else least_ms * MS,
        order=ORDERS[order],
    )

    async def ask_all(asked: Asked) -> None:
        for number in range(1, 5):
            found = await asked.traces.find(TENANTS, trace_id(number))
            mine = sorted(
                (one for one in kept if one.trace == number), key=lambda one: (one.start_ms, one.id, one.kind)
            )
            assert found.spans.column("span_id").to_pylist() == [span_id(one.id) for one in mine]
            assert found.reasons == []
        answer = await asked.search.find(TENANTS, question)
        found_ids = [hit.trace_id for hit in answer.traces]
        expected = searched(kept, question)
        assert found_ids == expected[:limit]
        while answer.next_cursor:
            answer = await asked.search.find(TENANTS, replace(question, cursor=answer.next_cursor))
            found_ids += [hit.trace_id for hit in answer.traces]
        assert found_ids == expected

    ask(world, records, cuts, ask_all)


def with_true_copies(records: list[list[OneSpan]]) -> list[list[OneSpan]]:
    """What is sent again is what was sent first."""
    first: dict[tuple[int, int, int], OneSpan] = {}
    return [[first.setdefault((one.trace, one.id, one.kind), one) for one in spans] for spans in records]


def searched(spans: list[OneSpan], question: SearchQuestion) -> list[bytes]:
    """A search in plain Python."""
    found = []
    for number in {one.trace for one in spans}:
        mine = [one for one in spans if one.trace == number]
        start = min(one.start_ms for one in mine)
        duration = max(one.start_ms + one.duration_ms for one in mine) - start
        if any(matches(one, question) for one in mine) and duration * MS >= (question.duration_min_ns or 0):
            once = {(one.id, one.kind): one for one in mine}.values()  # copies are the same
            place = {"newest": -start, "oldest": start, "longest": -duration, "shortest": duration}
            place |= {"most_spans": -len(once), "most_errors": -sum(one.status == 2 for one in once)}
            found.append((place[question.order.name], trace_id(number)))
    return [each for _, each in sorted(found)]


def matches(one: OneSpan, question: SearchQuestion) -> bool:
    start = T0 + one.start_ms * MS
    if start > question.end_ns or start + one.duration_ms * MS < question.start_ns:
        return False
    attributes = dict(one.attributes)
    for key, value in question.tags.items():
        if key == "name":
            if value not in one.name:
                return False
        elif key == "service.name":
            if value not in one.service:
                return False
        else:
            has = attributes.get(key)
            texts = [
                str(each).lower() if isinstance(each, bool) else str(each)
                for each in (has if isinstance(has, list) else [has])
            ]
            if has is None or value not in texts:
                return False
    return True


VALUES = ("span.http.status_code", "resource.service.name", ".Tags", "name", "rootName", "status", "span.ok", "span.r")


def test_tag_values_of_chunks_that_are_asked_again_are_those_of_live_spans(world: Settings) -> None:
    ranges = (None, (T0, T0 + HOUR_NS), (T0 + 50 * MS, T0 + HOUR_NS), (T0, T0 + 5 * MS))

    async def question(asked: Asked) -> list[tuple[list[TagValue], bool]]:
        found = []
        for limit in (1, 100):
            for tag in VALUES * 2:
                answers = [await asked.tags.values(TENANTS, identifier(tag), Among(one), limit) for one in ranges]
                found += [(answer.values, answer.cut) for answer in answers]
        return found

    live = ask(world, SHOP, everywhere(3, "live"), question)

    assert ask(world, SHOP, everywhere(3, "stored"), question) == live
    assert ask(world, SHOP, dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1, 2])), question) == live


def test_few_values_of_chunks_within_the_range_are_told_without_opening_them(world: Settings) -> None:
    services = [TagValue("string", "db"), TagValue("string", "shop")]
    codes = [TagValue("int", "200"), TagValue("int", "500")]
    some = Among(matching=tree.Static("bool", True))
    part = Among((T0 + MS, T0 + HOUR_NS))  # a chunk lies in it with a part of its spans

    async def question(asked: Asked) -> list[bool]:
        opened = list[bool]()
        for tag, among, values in (
            ("resource.service.name", Among(), services),
            (".service.name", Among((T0, T0 + HOUR_NS)), services),
            ("span.http.status_code", Among(), codes),
            ("span.http.status_code", part, codes),
            ("span.http.status_code", some, codes),
            ("resource.service.name", part, services),
            ("name", Among(), None),
        ):
            before = chunks_opened()
            found = await asked.tags.values(TENANTS, identifier(tag), among, 100)
            assert values is None or found.values == values
            opened.append(chunks_opened() > before)
        return opened

    assert ask(world, SHOP, everywhere(3, "stored"), question) == [False] * 3 + [True] * 4


def chunks_opened() -> float:
    return REGISTRY.get_sample_value("spanstream_querier_chunks_total") or 0.0


def test_names_and_values_are_told_on_the_way_chunk_by_chunk(world: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.query.executor.BATCH_SPANS", 1)
    monkeypatch.setattr("pipeline.query.tags.BATCH_SPANS", 1)
    among = Among(matching=tree.Static("bool", True))

    async def question(asked: Asked) -> tuple[TagAnswer, TagAnswer]:
        names, values = list[dict[str, list[str]]](), list[list[TagValue]]()
        all_names = await asked.tags.names(TENANTS, ["span"], among, 100, lambda found: names.append(found.names))
        tag = identifier("name")
        all_values = await asked.tags.values(TENANTS, tag, Among(), 100, lambda found: values.append(found.values))
        for before, after in pairwise([*(one["span"] for one in names), all_names.names["span"]]):
            assert set(before) <= set(after)
        for before, after in pairwise([*values, all_values.values]):
            assert set(before) <= set(after)
        assert len(names[0]["span"]) < len(all_names.names["span"])
        assert len(values[0]) < len(all_values.values)
        return all_names, all_values

    stored = dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1], segments=[2]))
    names, values = ask(world, SHOP, stored, question)

    assert (names.names, values.values) == ask(
        world, SHOP, everywhere(3, "live"), lambda asked: _all_at_once(asked, among)
    )


async def _all_at_once(asked: Asked, among: Among) -> tuple[dict[str, list[str]], list[TagValue]]:
    names = await asked.tags.names(TENANTS, ["span"], among, 100)
    return names.names, (await asked.tags.values(TENANTS, identifier("name"), Among(), 100)).values

"""A search that tells what it has found so far."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from pipeline.query.order import ORDERS
from pipeline.query.questions import Questions
from pipeline.query.search import Heard, SearchAnswer, SearchQuestion
from pipeline.query.summary import TraceSummary
from pipeline.serve import search_events
from tests.pipeline.query.world import T0, OneSpan
from tests.pipeline.serve.api import World, settings_of, with_api, with_questions
from topics.errors import BadQuestionError, StoreUnavailableError
from topics.spans_by_trace import DEFAULT_TENANT

SPANS = [OneSpan(number, 1, start_ms=number, duration_ms=number % 7) for number in range(200)]
EVERY_S = 0.01


def events_of(body: bytes) -> list[tuple[str, Any]]:
    parts = [part.split(b"\ndata: ", 1) for part in body.strip().split(b"\n\n")]
    return [(name.removeprefix(b"event: ").decode(), orjson.loads(data)) for name, data in parts]


def hit(number: int) -> TraceSummary:
    return TraceSummary(trace_id=bytes([number]) * 16, start_unix_ns=T0 + number, end_unix_ns=T0 + number + 1)


def told(find: Any) -> list[tuple[str, Any]]:
    async def in_thread(work: Any) -> Any:
        return work()

    async def story() -> bytes:
        answer = await search_events.stream(find, EVERY_S, in_thread)
        return b"".join([bytes(part) async for part in answer.body_iterator])  # type: ignore[arg-type]

    return events_of(asyncio.run(story()))


def test_the_answer_as_an_event_is_the_answer(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> tuple[httpx.Response, ...]:
        url = f"/api/search?q={{}}&limit=7&start={T0 // 10**9 - 5}&end={T0 // 10**9 + 60}"
        plain = await client.get(url)
        named = await client.get(f"{url}&format=events")
        return plain, named, await client.get(url, headers={"accept": "text/event-stream"})

    plain, *streams = with_api(settings_of(tmp_path), lambda world: world.send(SPANS), test)

    assert len(plain.json()["traces"]) == 7
    for answer in streams:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name, body = events_of(answer.content)[-1]
        assert (name, body["traces"], body["nextCursor"]) == (
            "answer",
            plain.json()["traces"],
            plain.json()["nextCursor"],
        )


def test_what_cannot_be_asked_is_refused_before_the_stream_begins(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> list[httpx.Response]:
        return [await client.get(f"/api/search?format={form}&q={{ nonsense") for form in ("events", "json")]

    events, plain = with_api(settings_of(tmp_path), lambda world: None, test)

    assert (events.status_code, events.text) == (400, plain.text)


@pytest.mark.parametrize("order", ["newest", "longest"])
def test_what_is_told_on_the_way_is_in_order_and_ends_in_the_answer(tmp_path: Path, order: str) -> None:
    heard: list[list[TraceSummary]] = []

    async def test(questions: Questions, _world: World) -> SearchAnswer:
        return await questions.search([DEFAULT_TENANT], question, heard.append)

    question = SearchQuestion(limit=5, order=ORDERS[order])
    answer = with_questions(settings_of(tmp_path), lambda world: world.send(SPANS), test)

    assert heard[-1] == answer.traces
    assert len(answer.traces) == 5
    for some in heard:
        assert some == sorted(some, key=question.order.key)


def test_what_is_found_comes_while_the_search_goes_on() -> None:
    async def find(heard: Heard) -> SearchAnswer:
        for number in (3, 2):
            heard([hit(number)])
            await asyncio.sleep(10 * EVERY_S)
        return SearchAnswer(traces=[hit(1)])

    names, bodies = zip(*told(find), strict=True)

    assert names == ("found", "found", "answer")
    assert [body["traces"][0]["traceID"][:2] for body in bodies] == ["03", "02", "01"]


def test_a_search_that_fails_says_so_with_its_status_or_where_it_has_begun_as_an_event() -> None:
    async def at_once(_heard: Heard) -> SearchAnswer:
        raise BadQuestionError("no such cursor")

    async def later(heard: Heard) -> SearchAnswer:
        heard([hit(1)])
        await asyncio.sleep(10 * EVERY_S)
        raise StoreUnavailableError("the store is gone")

    with pytest.raises(BadQuestionError, match="no such cursor"):
        told(at_once)
    assert told(later)[-1] == ("failed", {"message": "the store is gone"})


def test_who_goes_away_ends_the_search() -> None:
    ended = asyncio.Event()

    async def find(heard: Heard) -> SearchAnswer:
        heard([hit(1)])
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def story() -> None:
        answer = await search_events.stream(find, EVERY_S, asyncio.to_thread)
        body: Any = answer.body_iterator
        assert b"found" in await anext(body)
        reading = asyncio.ensure_future(anext(body))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(story())

"""A live tail tells each span once, when it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from pipeline.query.live_tail import GAP, Arrived
from pipeline.query.questions import Questions
from pipeline.serve import tail_events
from pipeline.serve.params import pipeline_of
from pipeline.traceql.check import compiled
from tests.pipeline.query.world import Held, OneSpan, a_manifest, rows, span_id
from tests.pipeline.serve.api import PARTITIONS, World, settings_of, with_api, with_questions
from topics.errors import KafkaUnavailableError, OverloadedError
from topics.partitioner import partition_of

OLD, GOOD = OneSpan(1, 1), OneSpan(2, 2, name="good", duration_ms=30)
BAD = OneSpan(3, 3, name="x" * 1000, status=2, start_ms=5, kind=3)


def tail_of(questions: Questions, query: str = "{}") -> AsyncIterator[Arrived]:
    return questions.live_tail(["single-tenant"], pipeline_of(compiled(query, questions.regex_error).body))


def test_only_what_comes_after_the_beginning_is_told_and_once(tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> list[Arrived]:
        tail = tail_of(questions)
        turns = [await anext(tail)]
        world.send([GOOD, BAD])
        turns += [await anext(tail), await anext(tail)]
        world.send([replace(GOOD, id=9)])
        return [*turns, await anext(tail)]

    first, both, silent, one = with_questions(
        settings_of(tmp_path, live_tail_every_s=0.01), lambda world: world.send([OLD]), test
    )

    assert (first.spans, first.arrived, silent.spans, silent.arrived) == ([], 0, [], 0)
    assert [span.span_id for span in both.spans] == [span_id(3), span_id(2)]
    assert (both.spans[0].status, both.spans[0].kind, both.spans[0].service) == ("error", "client", "shop")
    assert (both.spans[1].duration_ns, len(both.spans[0].name)) == (30_000_000, 300)
    assert [span.span_id for span in one.spans] == [span_id(9)]
    assert not both.reasons


def test_a_filter_decides_and_what_is_too_much_is_counted(tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> Arrived:
        tail = tail_of(questions, '{ status = error && resource.service.name = "shop" }')
        await anext(tail)
        world.send([GOOD, *(replace(BAD, id=number, start_ms=number) for number in range(10, 17))])
        return await anext(tail)

    turn = with_questions(
        settings_of(tmp_path, live_tail_every_s=0.01, live_tail_spans_max=3), lambda world: None, test
    )

    assert [span.span_id for span in turn.spans] == [span_id(16), span_id(15), span_id(14)]
    assert (turn.arrived, turn.matched) == (8, 7)


def test_what_is_stored_between_two_turns_is_told_once_as_long_as_its_owner_holds_it(tmp_path: Path) -> None:
    partition = partition_of(GOOD.trace_id, PARTITIONS)

    def store(world: World, number: int, low: int) -> None:
        """A span comes and is stored at once; the owner lets go what lies below `low`."""
        came = {offset: [replace(GOOD, id=offset + 2)] for offset in range(low, number + 1)}
        world.send([replace(GOOD, id=number + 2)])
        world.stored.manifests.append(a_manifest(partition, number, number))
        segments = [(offset, offset, rows({offset: spans})) for offset, spans in came.items()]
        world.server.held[partition] = Held(low=low, next=number + 1, segments=segments)

    async def test(questions: Questions, world: World) -> list[Arrived]:
        tail = tail_of(questions)
        turns = [await anext(tail)]
        store(world, 0, low=0)
        turns += [await anext(tail), await anext(tail)]
        store(world, 1, low=0)
        turns += [await anext(tail)]
        store(world, 2, low=3)
        return [*turns, await anext(tail), await anext(tail)]

    def owned(world: World) -> None:
        world.owners[partition], world.server.held[partition] = world.server.url, Held()

    first, one, silent, two, gone, after = with_questions(settings_of(tmp_path, live_tail_every_s=0.01), owned, test)

    assert [span.span_id for turn in (first, one, silent, two) for span in turn.spans] == [span_id(2), span_id(3)]
    assert not any(turn.reasons for turn in (first, one, silent, two, after))
    assert (gone.spans, gone.reasons) == ([], [GAP])


def test_tails_end_when_told_to_and_no_more_are_open_than_may(tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> int:
        open_tail = tail_of(questions)
        await anext(open_tail)
        with pytest.raises(OverloadedError, match=r"querier\.live_tails_max"):
            tail_of(questions)
        questions.end_tails()
        async with asyncio.timeout(10):
            rest = [turn async for turn in open_tail]
        await anext(tail_of(questions), None)
        return len(rest)

    settings = settings_of(tmp_path, live_tail_every_s=30, live_tails_max=1)

    assert with_questions(settings, lambda world: None, test) == 0


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("{} | count() > 3", "spans are followed by one spanset about spans alone"),
        ("{ status = error } >> {}", "spans are followed by one spanset about spans alone"),
        ("{ traceDuration > 1s }", "spans are followed by one spanset about spans alone"),
        ("{ status = eror }", "did you mean error?"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_it_begins(tmp_path: Path, query: str, sentence: str) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get("/api/tail", params={"q": query})

    answer = with_api(settings_of(tmp_path), lambda world: None, test)

    assert answer.status_code == 400
    assert sentence in answer.text


def test_turns_are_events_and_an_error_on_the_way_is_told_as_one() -> None:
    async def turns() -> AsyncIterator[Arrived]:
        yield Arrived(matched=5, arrived=9, reasons=["a gap"])
        raise KafkaUnavailableError("Kafka is away")

    async def read() -> bytes:
        return b"".join([part async for part in tail_events.of(turns())])

    told, failed, _ = asyncio.run(read()).split(b"\n\n")

    assert told.startswith(b"event: spans\ndata: ")
    data = orjson.loads(told.partition(b"data: ")[2])
    assert (data["arrived"], data["matched"], data["skipped"]) == (9, 5, 5)
    assert (data["status"], data["message"]) == ("PARTIAL", "a gap")
    assert failed == b'event: failed\ndata: {"message":"Kafka is away"}'

"""Traces that are looked at are kept for a moment, up to so many bytes."""

from __future__ import annotations

from pathlib import Path

import httpx
import pyarrow as pa

from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve.seen_traces import SeenTraces, key_of
from pipeline.spans import schema
from tests.pipeline.query.world import OneSpan
from tests.pipeline.serve.api import World, settings_of, with_api

SPANS = pa.table({name: pa.array([None], type_) for name, type_ in schema.FIXED.items()})
A, B, C = (key_of(["t"], letter * 16, None, None) for letter in (b"a", b"b", b"c"))


def found(key: tuple[object, ...], *, reasons: tuple[str, ...] = (), spans: pa.Table = SPANS) -> FoundTrace:
    return FoundTrace(trace_id=key[1], partition=0, spans=spans, reasons=list(reasons))  # type: ignore[arg-type]


def test_the_least_recently_used_trace_goes_where_all_take_too_much() -> None:
    seen = SeenTraces(2 * SPANS.nbytes, 60)
    for key in (A, B):
        seen.put(key, found(key))
    seen.get(A)

    seen.put(C, found(C))

    assert [seen.get(key) is not None for key in (A, B, C)] == [True, False, True]
    assert seen.nbytes == 2 * SPANS.nbytes


def test_a_trace_is_forgotten_so_long_after_it_was_found_however_often_it_is_asked_for() -> None:
    now_s = 100.0
    seen = SeenTraces(10**6, 30, lambda: now_s)
    seen.put(A, found(A))
    now_s = 129.0
    assert seen.get(A) is not None

    now_s = 130.0

    assert seen.get(A) is None
    assert seen.nbytes == 0


def test_what_may_not_be_complete_or_is_not_there_or_too_large_is_read_again() -> None:
    seen = SeenTraces(2 * SPANS.nbytes, 60)
    large = pa.concat_tables([SPANS] * 3).combine_chunks()

    for odd in (found(A, reasons=("why",)), found(A, spans=SPANS.slice(0, 0)), found(A, spans=large)):
        seen.put(A, found(A))
        seen.put(A, odd)
        assert (seen.get(A), seen.nbytes) == (None, 0)


def test_a_span_comes_from_the_trace_that_was_shown_and_one_that_came_since_is_found_too(tmp_path: Path) -> None:
    first, later = OneSpan(7, 1, name="op 1"), OneSpan(7, 2, start_ms=5, name="op 2")
    view = f"/api/trace-view/{first.trace_id.hex()}"

    async def test(client: httpx.AsyncClient, world: World) -> list[dict[str, object]]:
        shown = (await client.get(view)).json()
        world.send([later])
        kept = (await client.get(f"{view}/events")).json()
        span = (await client.get(f"{view}/spans/{later.id.to_bytes(8, 'big').hex()}")).json()
        anew = (await client.get(f"{view}/matches", params={"q": '{ name = "op 2" }'})).json()
        return [shown, kept, span, anew]

    shown, kept, span, anew = with_api(settings_of(tmp_path), lambda world: world.send([first]), test)

    assert kept["version"] == shown["version"]
    assert "op 2" in str(span)
    assert (anew["rows"], anew["version"] == shown["version"]) == ([1], False)


def test_a_question_for_matches_without_a_condition_says_what_is_missing(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> httpx.Response:
        return await client.get(f"/api/trace-view/{'ab' * 16}/matches")

    answer = with_api(settings_of(tmp_path), lambda world: None, test)

    assert (answer.status_code, answer.text) == (
        400,
        "no q: which spans? One spanset tells it, like { status = error }\n",
    )

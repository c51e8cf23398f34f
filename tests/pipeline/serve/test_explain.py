"""Explained answers: which chunks are read, which are not and why, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pipeline.query.world import T0, OneSpan, rows, stored
from tests.pipeline.serve.api import World, settings_of, with_api
from topics.partitioner import partition_of
from topics.settings import StoreSettings

AROUND = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}
WEB = [OneSpan(at, at, start_ms=at, service="web", status=2, attributes=(("shop", "a"),)) for at in range(1, 20)]
BANK = [OneSpan(at, at, start_ms=60_000 + at, service="bank") for at in range(20, 40)]
LATER = [OneSpan(at, at, start_ms=900_000 + at, service="web") for at in range(40, 50)]
MATCH = "rows in it may match"
LIVE = [OneSpan(at, at, start_ms=90_000, service="web") for at in range(50, 53)]


def of_partition(spans: list[OneSpan], partition: int = 0) -> list[OneSpan]:
    return [one for one in spans if partition_of(one.trace_id, 2) == partition]


def explained(
    tmp_path: Path, store: StoreSettings, *queries: str, more: dict[str, str] | None = None, **querier: Any
) -> list[httpx.Response]:
    """A chunk of web, one of bank on the other partition, one of later, and some live rows."""
    settings = settings_of(tmp_path, store=store, trace_reach_s=0, **querier)

    def prepare(world: World) -> None:
        for partition, offset, spans in ((0, 0, WEB), (1, 0, BANK), (0, 1, LATER)):
            kept = rows({offset: of_partition(spans, partition)})
            world.stored.manifests.append(stored(settings, partition, offset, offset, kept))
            world.tail.log.setdefault(partition, {})[offset] = b""
        world.send(of_partition(LIVE))

    async def test(client: httpx.AsyncClient, world: World) -> list[httpx.Response]:
        asked = [{**AROUND, "q": query, **(more or {})} for query in queries]
        return [await client.get("/api/explain", params=one) for one in asked]

    return with_api(settings, prepare, test)


def verdicts(answer: Any) -> dict[int, tuple[str, str]]:
    """By partition: in the range there is one chunk of each."""
    return {one["partition"]: (one["verdict"], one["why"]) for one in answer["chunks"]["list"]}


@pytest.mark.integration
def test_each_chunk_of_the_range_has_its_verdict_and_why(tmp_path: Path, store_settings: StoreSettings) -> None:
    by_service, by_attribute = (
        answer.json()
        for answer in explained(
            tmp_path, store_settings, '{ resource.service.name = "web" }', '{ .shop = "a" && status = error }'
        )
    )

    assert verdicts(by_service) == {0: ("read", MATCH), 1: ("left out", "has no span of such a service")}
    assert verdicts(by_attribute) == {
        0: ("read", MATCH),
        1: ("left out", "has no resource.shop or span.shop"),
    }
    chunks = by_service["chunks"]
    counted = [chunks[name] for name in ("known", "outOfRange", "leftOut", "notReached", "kept", "read")]
    assert counted == [3, 1, 1, 0, 0, 1]
    assert chunks["readBytes"] == next(one["bytes"] for one in chunks["list"] if one["verdict"] == "read")
    assert by_service["live"] == {"spans": len(of_partition(LIVE))}
    assert by_service["plan"]["decidedBy"] == "single rows"
    assert by_service["answer"] == {"traces": len(of_partition(WEB + LIVE))}


@pytest.mark.integration
def test_a_search_that_has_enough_says_what_it_did_not_reach(tmp_path: Path, store_settings: StoreSettings) -> None:
    (answer,) = explained(tmp_path, store_settings, "{ duration > 1ms }", more={"limit": "1"})

    assert verdicts(answer.json()) == {
        0: ("read", "may hold more spans of traces that were found"),
        1: ("not reached", "what was read before it was enough"),
    }


@pytest.mark.integration
def test_what_was_asked_before_is_told_to_be_known(tmp_path: Path, store_settings: StoreSettings) -> None:
    query = "{ status = error } | count_over_time() with(exemplars=false)"

    first, again = (answer.json() for answer in explained(tmp_path, store_settings, query, query, more={"step": "10s"}))

    assert verdicts(first)[0][0] == "read"
    assert verdicts(again)[0][0] == "kept"
    assert first["plan"]["kind"] == "metrics"
    assert first["answer"] == again["answer"] == {"series": 1}


@pytest.mark.integration
def test_steps_tell_time_chunks_bytes_and_rows(tmp_path: Path, store_settings: StoreSettings) -> None:
    (answer,) = explained(tmp_path, store_settings, "{ status = error } && { span.shop = `a` }")

    told = answer.json()
    assert told["plan"]["decidedBy"] == "whole traces"
    steps = {step["step"].split(":")[0]: step for step in told["steps"]}
    assert next(iter(steps)) == "snapshot"
    statements = [one for step in told["steps"] for one in step["statements"]]
    assert any(one["chunks"] and one["bytes"] and one["rows"] for one in statements)
    assert 0 < sum(step["ms"] for step in told["steps"] if not step["depth"]) <= told["totalMs"]
    assert all("shop" not in str(one["sql"]) or "?" in one["sql"] for one in statements)


@pytest.mark.integration
def test_chunks_are_named_up_to_a_limit_and_all_counted(tmp_path: Path, store_settings: StoreSettings) -> None:
    (answer,) = explained(tmp_path, store_settings, "{}", explain_chunks_max=1)

    chunks = answer.json()["chunks"]
    assert (len(chunks["list"]), chunks["truncated"], chunks["known"]) == (1, True, 3)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "nothing to explain: q is missing, as in q={ status = error }"),
        ("{ status == error }", "invalid TraceQL query"),
        ("{} | rate() by (", "invalid TraceQL query"),
    ],
)
def test_a_wrong_query_gets_its_sentence(tmp_path: Path, query: str, said: str) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get("/api/explain", params={"q": query, **AROUND})

    answer = with_api(settings_of(tmp_path), lambda _: None, test)

    assert answer.status_code == 400
    assert answer.text.startswith(said)

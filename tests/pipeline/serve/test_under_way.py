"""Queries under way are listed for who may see them, and cancelled by who may; too many of a tenant are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.query.questions import Questions
from pipeline.query.turns import Lane
from pipeline.serve.app import make_app
from pipeline.serve.params import pipeline_of
from pipeline.traceql.check import compiled
from tests.doors import locked, new_token
from tests.pipeline.query.world import T0, OneSpan, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api, with_questions
from topics.settings import Settings

AROUND = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}
TIMES = "range(1000000) a, range(1000000) b, range(1000000) c"
ENDLESS = f"SELECT count(*) FROM {TIMES} WHERE (a.range + b.range * c.range) % 7 = 9"
QUERIES = "/api/status/queries"


async def listed(client: httpx.AsyncClient, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The list, once it is so."""
    async with asyncio.timeout(20):
        while not until(found := (await client.get(QUERIES)).json()["queries"]):
            await asyncio.sleep(0.01)
    return found


def asked(test: Callable[[httpx.AsyncClient, World], Awaitable[None]], tmp_path: Path, **querier: Any) -> None:
    with_api(settings_of(tmp_path, **querier), lambda world: world.send([OneSpan(1, 1)]), test)


def test_a_query_is_listed_from_its_question_to_its_answer_and_ends_when_cancelled(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> None:
        asking = [
            asyncio.create_task(client.get("/api/sql", params={**AROUND, "q": f"{ENDLESS} -- {number}"}))
            for number in range(2)
        ]
        first, second = await listed(client, lambda found: len(found) == 2)
        assert (first["kind"], first["state"], second["state"]) == ("sql", "running", "waiting")
        assert {first["text"], second["text"]} == {f"{ENDLESS} -- 0", f"{ENDLESS} -- 1"}
        assert (first["tenants"], first["ageMs"] >= 0) == (["single-tenant"], True)
        for one in (second, first):  # one that waits, one that runs
            ended = await client.delete(f"{QUERIES}/{one['id']}")
            assert (ended.status_code, ended.json()["state"]) == (200, "cancelled")
        for answer in await asyncio.gather(*asking):
            assert (answer.status_code, answer.text) == (499, "the query was cancelled by an administrator\n")
        await listed(client, lambda found: not found)
        again = await client.get("/api/sql", params={**AROUND, "q": "SELECT count(*) FROM spans"})
        assert again.json()["rows"] == [[1]]  # its place is free

    asked(test, tmp_path, sql_queries_max=1)


def test_a_live_tail_is_listed_and_ends_when_cancelled(tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> None:
        body = compiled("{ status = error }", questions.regex_error).body
        tail = questions.live_tail(["single-tenant"], pipeline_of(body))
        await anext(tail)
        (one,) = questions.under_way.told(None)
        assert (one["kind"], one["text"]) == ("tail", "{ status = error }")
        questions.under_way.cancel(one["id"])
        async with asyncio.timeout(10):
            assert [turn async for turn in tail] == []
        assert questions.under_way.told(None) == []

    with_questions(settings_of(tmp_path, live_tail_every_s=30), lambda world: None, test)


@pytest.mark.parametrize(
    ("path", "params", "kind", "text"),
    [
        (f"/api/traces/{trace_id(1).hex()}", {}, "trace", trace_id(1).hex()),
        ("/api/search", {**AROUND, "q": "{ .a=1 }"}, "search", "{ .a = 1 }"),
        ("/api/search", {**AROUND, "tags": "a=1 b=2"}, "search", "a=1 b=2"),
        ("/api/metrics/query", {**AROUND, "q": "{ .a=1 } | rate()"}, "metrics", "{ .a = 1 } | rate()"),
        ("/api/v2/search/tag/span.a/values", {**AROUND, "q": "{ .b = 2 }"}, "tag values", "span: a of .b = 2"),
        ("/api/v2/search/tags", {**AROUND, "scope": "span"}, "tag names", "span"),
        ("/api/services", AROUND, "services", ""),
    ],
)
def test_every_kind_of_query_says_what_it_asks(
    tmp_path: Path, path: str, params: dict[str, str], kind: str, text: str
) -> None:
    told = list[tuple[str, str]]()

    async def test(questions: Questions, world: World) -> None:
        enter = questions.under_way.enter

        async def noted(tenants: Any, kind: str, text: str, lane: Lane) -> Any:
            told.append((kind, text))
            return await enter(tenants, kind, text, lane)

        questions.under_way.enter = noted  # type: ignore[method-assign]
        transport = httpx.ASGITransport(make_app(questions, world.settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://querier") as client:
            assert (await client.get(path, params=params)).status_code == 200

    with_questions(settings_of(tmp_path), lambda world: world.send([OneSpan(1, 1, attributes=(("a", 1),))]), test)

    assert told == [(kind, text)]


def test_more_than_may_wait_are_refused_with_429_and_other_tenants_are_not(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> None:
        def ask(tenant: str) -> asyncio.Task[httpx.Response]:
            params = {**AROUND, "q": ENDLESS}
            return asyncio.create_task(client.get("/api/sql", params=params, headers={"X-Scope-OrgID": tenant}))

        client.headers["X-Scope-OrgID"] = "admin"
        asking = [ask("heavy") for _ in range(3)]
        await listed(client, lambda found: len(found) == 3)
        refused = await ask("heavy")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert "2 queries of tenant heavy wait already" in refused.text
        asking.append(ask("light"))
        found = await listed(client, lambda found: len(found) == 4)
        assert (await client.delete(f"{QUERIES}/{found[0]['id']}")).status_code == 200
        found = await listed(client, lambda found: len(found) == 3 and any(one["state"] == "running" for one in found))
        assert [one["tenants"] for one in found if one["state"] == "running"] == [["light"]]
        for one in found:
            await client.delete(f"{QUERIES}/{one['id']}")
        await asyncio.gather(*asking)

    settings = settings_of(tmp_path, sql_queries_max=1, tenant_waiting_max=2, multitenancy=True)
    with_api(settings, lambda world: None, test)


def test_a_tenant_sees_its_own_queries_and_cancels_none(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, multitenancy=True)
    tokens = {one: new_token(tmp_path / "tokens.json", "read", "admin", tenants=(one,)) for one in ("a", "b")}
    tokens["all"] = new_token(tmp_path / "tokens.json", "read", "admin")
    settings = Settings(**{**dict(settings), "doors": locked(tmp_path)})

    async def test(client: httpx.AsyncClient, world: World) -> None:
        async def as_(name: str, method: str, path: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[name]}", "X-Scope-OrgID": "a" if name == "all" else name}
            return await client.request(method, path, headers=headers)

        headers = {"Authorization": f"Bearer {tokens['a']}"}
        asking = asyncio.create_task(client.get("/api/sql", params={**AROUND, "q": ENDLESS}, headers=headers))
        async with asyncio.timeout(20):
            while not (own := (await as_("a", "GET", QUERIES)).json())["queries"]:
                await asyncio.sleep(0.01)
        (one,) = own["queries"]
        assert own["mayCancel"] is False
        assert (await as_("b", "GET", QUERIES)).json() == {"queries": [], "mayCancel": False}
        assert (await as_("a", "DELETE", f"{QUERIES}/{one['id']}")).status_code == 403
        assert (await as_("all", "GET", QUERIES)).json()["queries"][0]["id"] == one["id"]
        assert (await as_("all", "POST", f"{QUERIES}/{one['id']}")).status_code == 405
        assert (await as_("all", "DELETE", f"{QUERIES}/none")).status_code == 404
        assert (await as_("all", "DELETE", f"{QUERIES}/{one['id']}")).status_code == 200
        assert (await asking).status_code == 499

    with_api(settings, lambda world: None, test)

"""/api/status/drops of a querier: the numbers of all receivers and workers, added up for the tenant that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from infra.ports import free_port
from pipeline.doors.tokens import ScopeName
from pipeline.drops import PATH, Counts, Drops
from tests.doors import locked, new_token
from tests.pipeline.query.world import OneSpan, trace_id
from tests.pipeline.serve.api import PARTITIONS, World, settings_of, with_api


@asynccontextmanager
async def process(counts: dict[str, Counts]) -> AsyncIterator[str]:
    """A receiver or worker that has counted so; its URL."""
    drops = Drops()
    for tenant, kinds in counts.items():
        for kind, reasons in kinds.items():
            drops.count(tenant, kind, reasons)  # type: ignore[arg-type]

    async def answer(request: web.Request) -> web.Response:
        tenants = request.headers["X-Scope-OrgID"].split("|")
        return web.Response(body=drops.body(tenants, multitenancy=True), content_type="application/json")

    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def asked(tmp_path: Path, tenants: str, ask: Callable[[World, dict[str, str]], None], **querier: object) -> Any:
    """The answer for these tenants; `ask` says who is there, from the URLs of two processes."""
    first = {"a": {"rejected_spans": {"span ID is all zero": 2}}, "b": {"marked_spans": {"attribute_cut": 9}}}
    second = {"a": {"rejected_spans": {"span ID is all zero": 1}, "dead_records": {"no_otlp": 4}}}

    async def test(client: httpx.AsyncClient, world: World) -> Any:
        async with process(first) as one, process(second) as two:
            ask(world, {"one": one, "two": two})
            answer = await client.get(PATH, headers={"X-Scope-OrgID": tenants})
            assert answer.status_code == 200
            return answer.json()

    return with_api(settings_of(tmp_path, multitenancy=True, owners_refresh_s=0, **querier), lambda world: None, test)


def test_numbers_of_all_workers_are_added_up_for_the_tenant_that_asks(tmp_path: Path) -> None:
    def owners(world: World, urls: dict[str, str]) -> None:
        world.owners.update({0: urls["one"], 1: urls["two"]})

    answer = asked(tmp_path, "a", owners, receiver_urls=(f"http://127.0.0.1:{free_port()}",))

    assert answer["tenants"] == {
        "a": {"rejected_spans": {"span ID is all zero": 3}, "dead_records": {"no_otlp": 4}},
    }
    assert [(one["kind"], one["reached"]) for one in answer["sources"]] == [
        ("receiver", False),
        ("worker", True),
        ("worker", True),
    ]
    assert not answer["complete"]
    assert "does not tell its numbers" in answer["reasons"][0]


def test_several_tenants_of_one_request_are_told_each_by_itself(tmp_path: Path) -> None:
    def owners(world: World, urls: dict[str, str]) -> None:
        world.owners.update({0: urls["one"], 1: urls["one"]})

    answer = asked(tmp_path, "a|b", owners, receiver_urls=(f"http://127.0.0.1:{free_port()}",))

    assert answer["tenants"] == {
        "a": {"rejected_spans": {"span ID is all zero": 2}},
        "b": {"marked_spans": {"attribute_cut": 9}},
    }


def test_without_a_worker_the_answer_says_that_it_is_not_complete(tmp_path: Path) -> None:
    answer = asked(tmp_path, "a", lambda _world, _urls: None, receiver_urls=(f"http://127.0.0.1:{free_port()}",))

    assert answer["tenants"] == {}
    assert "no worker is known" in answer["reasons"][-1]


@pytest.mark.parametrize(("scopes", "told"), [(("read", "admin"), True), (("read",), False)])
def test_where_processes_are_is_told_to_who_may_see_all(
    tmp_path: Path, scopes: tuple[ScopeName, ...], told: bool
) -> None:
    token = new_token(tmp_path / "tokens.json", *scopes)
    settings = settings_of(tmp_path, multitenancy=True, receiver_urls=(f"http://127.0.0.1:{free_port()}",))

    async def ask(client: httpx.AsyncClient, _world: World) -> list[str]:
        shown = {"Authorization": f"Bearer {token}", "X-Scope-OrgID": "single-tenant"}
        paths = (PATH, f"/api/where/{trace_id(1).hex()}")
        return [(await client.get(path, headers=shown)).raise_for_status().text for path in paths]

    def owned(world: World) -> None:
        world.send([OneSpan(1, 1)])
        world.owners.update(dict.fromkeys(range(PARTITIONS), f"http://127.0.0.1:{free_port()}"))

    drops, where = with_api(settings.model_copy(update={"doors": locked(tmp_path, tls=False)}), owned, ask)

    assert "receiver" in drops
    assert '"spans":1' in where
    assert ["http://127.0.0.1" in answer for answer in (drops, where)] == [told, told]

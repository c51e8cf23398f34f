"""Limits of questions that tenants have of their own, from a file that may change while the querier runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.doors.overrides import Overrides
from pipeline.query.under_way import UnderWay
from tests.pipeline.query.world import T0, OneSpan, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api
from tests.waiting import wait_until_async
from topics.settings import LimitSettings, Settings

S = T0 // 10**9
AROUND = f"start={S - 10}&end={S + 100}"
SPANS = [OneSpan(1, number, name=f"op {number}" + "x" * 200) for number in range(1, 11)]
OVERRIDES = """
[tenants.a]
search_range_h_max = 1
metrics_range_h_max = 1
search_limit_max = 5
series_max = 2
trace_bytes_max = 1024
[tenants.b]
series_max = 0
metrics_range_h_max = 48
"""


def limited(tmp_path: Path, text: str = OVERRIDES) -> tuple[Settings, Path]:
    path = tmp_path / "overrides.toml"
    path.write_text(text)
    settings = settings_of(tmp_path, multitenancy=True, series_max=3)
    return settings.model_copy(update={"limits": LimitSettings(overrides_path=str(path))}), path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"/api/search?start={S}&end={S + 3601}", "range specified by start and end exceeds 1h0m0s"),
        (f"/plain?start={S}&end={S + 3601}", "exceeds 1h0m0s"),
        (f"/api/explain?q={{}}&start={S}&end={S + 3601}", "range specified by start and end exceeds 1h0m0s"),
        (f"/api/services?start={S}&end={S + 3601}", "range specified by start and end exceeds 1h0m0s"),
        (f"/api/v2/search/tags?start={S}&end={S + 3601}", "range specified by start and end exceeds 1h0m0s"),
        (f"/api/sql?q=SELECT 1&start={S}&end={S + 3601}", "range specified by start and end exceeds 1h0m0s"),
        ("/api/search?limit=6", "limit 6 exceeds max limit 5"),
        (
            f"/api/metrics/query?q={{}}|rate()&start={S}&end={S + 3601}",
            "exceeds the maximum allowed duration of 1h0m0s",
        ),
        (f"/api/metrics/query_range?q={{}}|rate()&start={S}&end={S + 3601}", "maximum allowed duration of 1h0m0s"),
    ],
)
def test_a_tenants_own_limit_counts_for_it_and_for_a_question_about_several(
    tmp_path: Path, path: str, said: str
) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[tuple[int, bool]]:
        answers = [await client.get(path, headers={"X-Scope-OrgID": who}) for who in ("a", "a|c", "c")]
        return [(answer.status_code, said in answer.text) for answer in answers]

    settings, _ = limited(tmp_path)

    assert with_api(settings, lambda world: None, test) == [(400, True), (400, True), (200, False)]


def test_answers_are_as_large_as_the_tenant_may_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.doors.watched.LOOK_EVERY_S", 0.0)
    settings, path = limited(tmp_path, OVERRIDES.replace("tenants.a", 'tenants."single-tenant"'))

    async def test(client: httpx.AsyncClient, world: World) -> Any:
        mine = {"X-Scope-OrgID": "single-tenant"}
        rate = f"/api/metrics/query?q={{}}|rate() by (name)&{AROUND}"

        async def asked(headers: dict[str, str]) -> tuple[int, int]:
            trace = await client.get(f"/api/traces/{trace_id(1).hex()}", headers=headers)
            return trace.status_code, len((await client.get(rate, headers=headers)).json().get("series", []))

        first = await asked(mine)
        path.write_text("[tenants.single-tenant]\nseries_max = 0\n")
        return first, await asked(mine), await asked({"X-Scope-OrgID": "single-tenant|b"})

    found = with_api(settings, lambda world: world.send(SPANS), test)

    assert found == ((422, 2), (200, 10), (200, 3))  # of two tenants the least counts


def test_a_tenant_has_as_many_queries_at_a_time_as_it_was_given(tmp_path: Path) -> None:
    settings, _ = limited(tmp_path, "[tenants.a]\nqueries_max = 1\n[tenants.b]\nqueries_max = 6\n")

    async def main() -> dict[str, int]:
        under_way = UnderWay(settings.querier, Overrides(settings))
        return {who: await running(under_way, who) for who in ("a", "b", "c", "a|b")}

    assert asyncio.run(main()) == {"a": 1, "b": 6, "c": 4, "a|b": 1}


async def running(under_way: UnderWay, tenants: str) -> int:
    """How many of eight queries run at once."""

    async def query() -> None:
        async with under_way.turn(tenants.split("|"), "search", ""):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(query()) for _ in range(8)]
    await wait_until_async(lambda: len(under_way.told(None)) == 8)
    found = sum(one["state"] == "running" for one in under_way.told(None))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found

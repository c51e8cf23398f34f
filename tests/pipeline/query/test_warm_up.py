"""A starting querier reads what its first questions would wait for, and is ready all the same where it cannot."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.query.warm_up import warm_up
from tests.pipeline.query.cuts import PARTITIONS, Asked, Cut, ask
from tests.pipeline.query.test_answers import SHOP
from topics.settings import Settings

pytestmark = pytest.mark.integration
CUT = Cut(chunks=[0, 1], segments=[2])


def test_live_rows_are_there_before_the_first_question(world: Settings) -> None:
    async def question(on: Asked) -> list[str]:
        await warm_up(on.stored, on.snapshots, on.engine, 10)
        asked = list(on.server.asked)
        await on.snapshots.take()
        return [query for query in on.server.asked if query not in asked]

    asked_again = ask(world, SHOP, dict.fromkeys(range(PARTITIONS), CUT), question)

    assert all("want=" not in query or ":3" in query for query in asked_again)  # from where the copies end


@pytest.mark.parametrize("problem", ["the catalog does not know all yet", ""])
def test_what_is_away_does_not_keep_it_from_being_ready(world: Settings, problem: str) -> None:
    async def question(on: Asked) -> float:
        on.stored.problem = problem
        await on.server.stop()
        began_s = asyncio.get_running_loop().time()
        await warm_up(on.stored, on.snapshots, on.engine, 0.5)
        return asyncio.get_running_loop().time() - began_s

    assert ask(world, SHOP, dict.fromkeys(range(PARTITIONS), CUT), question) < 5

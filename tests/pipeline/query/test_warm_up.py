"""A starting querier reads what its first questions would wait for, and is ready all the same where it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.query.warm_up import warm_up
from tests.pipeline.query.cuts import PARTITIONS, Asked, Cut, ask
from tests.pipeline.query.test_answers import SHOP
from tests.pipeline.query.world import TENANT
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


@pytest.mark.parametrize(("copied_bytes_max", "copied"), [(0, False), (1 << 30, True)])
def test_the_newest_chunks_are_copied_as_far_as_allowed(
    world: Settings, monkeypatch: pytest.MonkeyPatch, copied_bytes_max: int, copied: bool
) -> None:
    monkeypatch.setattr("pipeline.query.warm_up.NEWEST_NS", 2**62)  # the spans of these tests are of a certain day

    async def question(on: Asked) -> bool:
        await warm_up(on.stored, on.snapshots, on.engine, 10, copied_bytes_max=copied_bytes_max)
        names = {Path(entry.name).name for entry in on.stored.chunks_for(TENANT, 0, 2**64 - 1)}
        assert names
        return names <= {path.name for path in (world.querier.data_dir / "chunks").rglob("*.parquet")}

    assert ask(world, SHOP, dict.fromkeys(range(PARTITIONS), CUT), question) == copied


@pytest.mark.parametrize("problem", ["the catalog does not know all yet", ""])
def test_what_is_away_does_not_keep_it_from_being_ready(world: Settings, problem: str) -> None:
    async def question(on: Asked) -> float:
        on.stored.problem = problem
        await on.server.stop()
        began_s = asyncio.get_running_loop().time()
        await warm_up(on.stored, on.snapshots, on.engine, 0.5)
        return asyncio.get_running_loop().time() - began_s

    assert ask(world, SHOP, dict.fromkeys(range(PARTITIONS), CUT), question) < 5

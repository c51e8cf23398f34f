"""Places go round among tenants, whoever has asked most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pipeline.query.turns import TurnLimits, Turns
from topics.errors import OverloadedError, QueryTimeoutError, RateLimitedError

LIMITS = TurnLimits(running=2, tenant_running=2, waiting=10, tenant_waiting=4, setting="querier.queries_max")


def with_turns(test: Callable[[Turns], Awaitable[None]], limits: TurnLimits = LIMITS) -> None:
    async def main() -> None:
        await test(Turns(limits))

    asyncio.run(main())


async def waiting(turns: Turns, tenant: str, served: list[str], timeout_s: float = 10) -> asyncio.Task[None]:
    """Somebody who has begun to wait, and notes when they are served."""

    async def wait() -> None:
        await turns.take(tenant, timeout_s)
        served.append(tenant)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def settled() -> None:
    """Whoever was given a place has taken notice: it takes some turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_tenant_that_asks_little_is_next_before_the_queue_of_one_that_asks_much() -> None:
    async def test(turns: Turns) -> None:
        served = list[str]()
        for _ in range(2):
            await turns.take("heavy", 1)
        tasks = [await waiting(turns, tenant, served) for tenant in ("heavy", "heavy", "heavy", "light", "light")]
        for _ in range(2):
            turns.give_back("heavy")
        await settled()
        assert served == ["light", "heavy"]
        for tenant in ("light", "heavy", "light"):
            turns.give_back(tenant)
            await settled()
        assert served == ["light", "heavy", "light", "heavy", "heavy"]
        await asyncio.gather(*tasks)

    with_turns(test)


def test_one_tenant_leaves_places_for_others() -> None:
    async def test(turns: Turns) -> None:
        served = list[str]()
        await turns.take("heavy", 1)
        second = await waiting(turns, "heavy", served)
        await turns.take("light", 1)
        turns.give_back("light")
        assert not second.done()
        turns.give_back("heavy")
        await second

    with_turns(test, TurnLimits(2, 1, 10, 4, ""))


def test_too_many_that_wait_are_refused_with_a_sentence() -> None:
    async def test(turns: Turns) -> None:
        for _ in range(2):
            await turns.take("a", 1)
        tasks = [await waiting(turns, "a", []) for _ in range(4)]
        with pytest.raises(RateLimitedError, match=r"4 queries of tenant a wait already.*querier\.tenant_waiting_max"):
            await turns.take("a", 1)
        tasks += [await waiting(turns, tenant, []) for tenant in ("b", "c", "d", "e", "f", "g")]
        with pytest.raises(OverloadedError, match=r"10 queries wait.*querier\.waiting_max"):
            await turns.take("h", 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with_turns(test)


@pytest.mark.parametrize("late", [False, True])
def test_who_leaves_takes_no_place_along(late: bool) -> None:
    async def test(turns: Turns) -> None:
        for _ in range(2):
            await turns.take("a", 1)
        leaving = await waiting(turns, "b", [])
        if late:
            turns.give_back("a")  # the place is b's, who does not know it yet
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        if not late:
            turns.give_back("a")
        await turns.take("c", 1)
        with pytest.raises(QueryTimeoutError, match=r"querier\.query_timeout_s"):
            await turns.take("c", 0.01)
        turns.give_back("a")
        await turns.take("c", 1)

    with_turns(test)

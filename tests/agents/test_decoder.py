"""When batches are decoded, and what is decoded together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agents.decoder import Decoder
from pipeline.partition.batch import SourceRecord, Wanted
from pipeline.partition.window import Window
from tests.agents.one_partition import otlp
from topics.settings import Settings, WorkerSettings
from topics.spans_by_trace import DEFAULT_TENANT

DEFAULTS = WorkerSettings()
UNHURRIED = Settings(worker=DEFAULTS.model_copy(update={"take_gather_s": 60.0}))


class CountingPool(ThreadPoolExecutor):
    """One thread; together: how many batches each decode took."""

    def __init__(self) -> None:
        super().__init__(1)
        self.together: list[int] = []

    def submit(self, work: Any, /, *given: Any, **named: Any) -> Any:
        self.together.append(len(given[0]))
        return super().submit(work, *given, **named)


def decodes(scenario: Callable[[Decoder], Awaitable[object]]) -> list[int]:
    """How many batches each decode of the scenario took, after a first one: that waits for nothing."""

    async def run() -> None:
        decoder = Decoder(UNHURRIED, pool, partitions=4, secret=b"s" * 32, clock_ns=lambda: 10**9)
        async with asyncio.timeout(30):
            await decoder.prepared(batch(2, 0, 0))
            await scenario(decoder)

    with CountingPool() as pool:
        asyncio.run(run())
    return pool.together[1:]


def batch(partition: int, first: int, last: int) -> Wanted:
    """Records of a partition."""
    records = [SourceRecord(at, DEFAULT_TENANT, otlp(at + 1), 10**9) for at in range(first, last + 1)]
    return Wanted(partition, first, Window(window_s=900, keys_max=1000), records)


def test_what_somebody_waits_for_is_decoded_at_once_when_all_of_it_has_come() -> None:
    async def scenario(decoder: Decoder) -> None:
        with decoder.hurried({0: 2, 1: 3}):
            early = [asyncio.create_task(decoder.prepared(one)) for one in (batch(0, 0, 1), batch(3, 0, 0))]
            await asyncio.sleep(0)
            await asyncio.gather(decoder.prepared(batch(1, 0, 2)), *early)

    assert decodes(scenario) == [3]


def test_who_waits_for_what_is_here_waits_for_nobody_elses() -> None:
    async def scenario(decoder: Decoder) -> None:
        with decoder.hurried({1: 100}), decoder.hurried({0: 2, 2: 1}):
            await decoder.prepared(batch(0, 0, 1))

    assert decodes(scenario) == [1]


def test_what_is_decoded_already_hurries_nothing() -> None:
    async def scenario(decoder: Decoder) -> None:
        with decoder.hurried({2: 1}):
            early = asyncio.create_task(decoder.prepared(batch(0, 0, 1)))
            await asyncio.sleep(0)
            with decoder.hurried({0: 2, 1: 1}):
                await asyncio.gather(decoder.prepared(batch(1, 0, 0)), early)

    assert decodes(scenario) == [2]

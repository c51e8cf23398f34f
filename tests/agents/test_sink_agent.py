"""The sink stores every sealed range that it was given, whatever Faust does meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from agents.app import make_app
from agents.sink_agent import attach_sink
from topics.settings import Settings

RANGES = 8


def test_a_rebalance_loses_no_sealed_range_and_cancels_nobody_who_seals() -> None:
    stored: list[int] = []

    async def main() -> None:
        app = make_app(Settings())

        async def store(ticket: Any) -> None:
            stored.append(ticket)

        worker: Any = SimpleNamespace(store=store)
        sink = attach_sink(app, worker)
        app.flow_control.resume()
        sealing = [asyncio.create_task(worker.seal_requested(number)) for number in range(RANGES)]
        await asyncio.sleep(0)
        app.flow_control.suspend()  # what Faust does when partitions are revoked
        app.flow_control.clear()
        storing = asyncio.create_task(sink())
        await asyncio.wait_for(asyncio.gather(*sealing), 5)
        while len(stored) < RANGES:
            await asyncio.sleep(0)
        storing.cancel()

    asyncio.run(asyncio.wait_for(main(), 10))

    assert stored == list(range(RANGES))

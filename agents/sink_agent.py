"""The sink: sealed ranges into chunks and manifests, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import faust

from agents.owned import SealTicket
from agents.worker import Worker


def attach_sink(app: faust.App, worker: Worker) -> Callable[[], Awaitable[None]]:
    """Sealed ranges -> stored ranges, in the order of the commit. Only here are records of spans_by_trace acknowledged.

    The tickets wait in a queue of ours: a channel of Faust's is emptied in every rebalance, and a partition that stays
    would wait for its seal for ever; who puts into a full one is cancelled then. It is bounded by itself, since a
    partition has one seal under way.
    """
    tickets: asyncio.Queue[SealTicket] = asyncio.Queue()
    worker.seal_requested = tickets.put

    async def sink() -> None:
        while True:
            await worker.store(await tickets.get())

    app.task(sink)
    return sink

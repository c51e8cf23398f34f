"""The sink agent: sealed ranges into chunks and manifests, one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import faust

from agents.worker import Worker


def attach_sink(app: faust.App, worker: Worker) -> Any:
    """Sealed ranges -> stored ranges, in the order of the commit. Only here are records of spans_by_trace acknowledged.

    The channel is in memory: losing it loses nothing, since what it held is read from Kafka again. It is bounded by
    itself, since a partition has one seal under way.
    """
    ranges = app.channel()
    worker.seal_requested = ranges.put

    @app.agent(ranges, name="sink")
    async def sink(tickets: Any) -> AsyncIterator[int]:
        async for ticket in tickets:
            await worker.store(ticket)
            yield ticket.plan.last

    return sink

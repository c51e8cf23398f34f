"""Events of a stream in batches, unacknowledged: what came while the batch before was worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


class Inbox:
    """Events in order. Holds `records_max` or about `bytes_max`, whatever is reached first, and one event at least."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self._records_max, self._bytes_max = records_max, bytes_max
        self._events: list[Any] = []
        self._bytes = 0
        self._filled, self._full, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()

    async def put(self, event: Any) -> None:
        """Add an event; waits for room before."""
        await self._room.wait()
        self._events.append(event)
        self._bytes += len(event.message.value or b"")
        self._filled.set()
        if len(self._events) >= self._records_max or self._bytes >= self._bytes_max:
            self._room.clear()
            self._full.set()

    async def take(self, wait_s: float) -> list[Any]:
        """All events: waits for the first, and then wait_s for others unless there is no room for more."""
        await self._filled.wait()
        if wait_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._full.wait()
        events, self._events, self._bytes = self._events, [], 0
        self._filled.clear()
        self._full.clear()
        self._room.set()
        return events


async def in_batches(
    stream: Any, inbox: Inbox, work: Callable[[list[Any]], Awaitable[None]], *, wait_s: float = 0.0
) -> None:
    """Give the stream's events to `work`, which acknowledges them. Returns when the stream ends.

    Faust's own take() polls: each partition would wake up for nothing, ten times a second or more.
    """

    async def take_all() -> None:
        while True:
            await work(await inbox.take(wait_s))

    stream.enable_acks = False
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(take_all())
        async for event in stream.events():
            await inbox.put(event)
        taking.cancel()

"""A question under way: what it has found so far, until it ends. Whoever leaves ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Found = TypeVar("Found")


class Asked(Generic[T, Found]):
    """What was asked, as a context: `answer` to await, `found` until then; nothing is kept for a slow reader."""

    def __init__(self, ask: Callable[[Callable[[Found], None]], Awaitable[T]]) -> None:
        self.found: Found | None = None
        self._ask = ask
        self.answer: asyncio.Future[T]

    async def __aenter__(self) -> Asked[T, Found]:
        """Begin."""
        self.answer = asyncio.ensure_future(self._ask(self._hear))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, where it has not ended."""
        self.answer.cancel()
        await asyncio.wait([self.answer])

    async def so_far(self, every_s: float) -> AsyncIterator[Found | None]:
        """What is found, so often; ends when there is an answer, or an error."""
        while not (await asyncio.wait([self.answer], timeout=every_s))[0]:
            yield self.found

    def _hear(self, found: Found) -> None:
        self.found = found

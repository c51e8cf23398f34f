"""Events in batches: all that came meanwhile, in order, bounded by records and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from agents.inbox import Inbox, in_batches


def event(number: int, size: int = 1) -> Any:
    return SimpleNamespace(number=number, message=SimpleNamespace(value=b"x" * size))


def numbers(events: list[Any]) -> list[int]:
    return [one.number for one in events]


class Stream:
    """A Faust stream as far as a batch needs it."""

    enable_acks = True

    def __init__(self, count: int) -> None:
        self._count = count

    async def events(self) -> AsyncIterator[Any]:
        for number in range(self._count):
            yield event(number)
        await asyncio.sleep(0)


def test_everything_that_came_is_taken_at_once() -> None:
    async def story() -> None:
        inbox = Inbox(records_max=10, bytes_max=100)
        for number in range(3):
            await inbox.put(event(number))
        assert numbers(await inbox.take(0)) == [0, 1, 2]
        later = asyncio.create_task(inbox.take(0))
        await asyncio.sleep(0)
        assert not later.done()
        await inbox.put(event(3))
        assert numbers(await later) == [3]

    asyncio.run(story())


@pytest.mark.parametrize(("records_max", "bytes_max", "fits"), [(2, 100, 2), (10, 5, 1), (10, 11, 3)])
def test_a_full_inbox_makes_the_stream_wait(records_max: int, bytes_max: int, fits: int) -> None:
    async def story() -> None:
        inbox = Inbox(records_max, bytes_max)
        for number in range(fits):
            await asyncio.wait_for(inbox.put(event(number, size=5)), 1)
        waiting = asyncio.create_task(inbox.put(event(fits)))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert len(await inbox.take(60)) == fits  # a full one does not wait for company
        await waiting
        assert numbers(await inbox.take(0)) == [fits]

    asyncio.run(story())


def test_a_stream_is_worked_off_in_order_and_never_acknowledged_by_itself() -> None:
    async def story() -> None:
        stream, seen = Stream(100), list[int]()

        async def work(events: list[Any]) -> None:
            await asyncio.sleep(0)
            seen.extend(numbers(events))

        await in_batches(stream, Inbox(7, 1000), work)
        assert seen == list(range(len(seen)))
        assert len(seen) >= 90  # what nobody has taken when the stream ends is read again by the next owner
        assert stream.enable_acks is False

    asyncio.run(story())


def test_an_error_of_the_work_ends_the_stream() -> None:
    async def story() -> None:
        async def work(_events: list[Any]) -> None:
            raise OSError("disk")

        with pytest.raises(ExceptionGroup) as caught:
            await in_batches(Stream(100), Inbox(2, 1000), work)
        assert caught.group_contains(OSError, match="disk")

    asyncio.run(story())

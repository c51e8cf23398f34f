"""A question whose chunks were merged or retired under it is asked again: they are elsewhere, not missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pipeline.query.chunks import GoneChunk
from pipeline.query.snapshot import Snapshots
from topics.errors import OvertakenError

T = TypeVar("T")
TRIES = 4


async def settled(snapshots: Snapshots, ask: Callable[[], Awaitable[T]], reasons_of: Callable[[T], Iterable[str]]) -> T:
    """The answer; asked again while chunks that it needed were deleted, and edits that say so came meanwhile.

    A chunk that is missing though it counts stays missing: the answer says so. Raises OvertakenError, and what `ask`
    raises.
    """
    for tries_left in reversed(range(TRIES)):
        edition = snapshots.edition()
        try:
            found = await ask()
        except OvertakenError:
            if not tries_left:
                raise
            continue
        gone = {reason.of_partition for reason in reasons_of(found) if isinstance(reason, GoneChunk)}
        if not gone or not tries_left or not await snapshots.changed_since(edition, gone):
            break
    return found

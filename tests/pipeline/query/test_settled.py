"""A question whose chunks went away under it is asked again, when an edit says where they are; and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.query.chunks import GoneChunk, refs_of
from pipeline.query.settled import TRIES, settled
from tests.pipeline.store.memory_store import entry_of
from topics.errors import OvertakenError

GONE = GoneChunk("chunk a cannot be read: 404", 3)


class Edits:
    """pipeline.query.snapshot.Snapshots, as far as it knows of edits: `new` more are found with each look."""

    def __init__(self, new: int) -> None:
        self.new, self.looked = new, list[int]()

    def edition(self) -> int:
        return self.new * len(self.looked)

    async def changed_since(self, edition: int, partitions: Iterable[int]) -> bool:
        self.looked += partitions
        return self.edition() != edition


def ask(edits: Edits, *answers: list[str] | Exception) -> tuple[list[str], int]:
    """What is answered at last, and after how many tries."""
    waiting = list(answers)

    async def answer() -> list[str]:
        found = waiting.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    given: Any = edits
    return asyncio.run(settled(given, answer, lambda reasons: reasons)), len(answers) - len(waiting)


def test_it_is_asked_again_when_an_edit_took_the_chunk_away() -> None:
    edits = Edits(new=1)

    assert ask(edits, [GONE], []) == ([], 2)
    assert edits.looked == [3]


def test_a_chunk_that_counts_and_is_missing_is_told() -> None:
    assert ask(Edits(new=0), [GONE], []) == ([GONE], 1)


def test_other_reasons_are_no_cause_to_ask_again() -> None:
    assert ask(Edits(new=1), ["slow"], []) == (["slow"], 1)


def test_a_chunk_merged_across_the_horizon_is_cause_to_ask_again() -> None:
    with pytest.raises(OvertakenError):
        refs_of([entry_of(0, 19)], {0: 10})
    assert ask(Edits(new=1), OvertakenError("merged"), []) == ([], 2)


def test_it_is_not_asked_for_ever() -> None:
    assert ask(Edits(new=1), *[[GONE]] * (TRIES + 1)) == ([GONE], TRIES)
    with pytest.raises(OvertakenError):
        ask(Edits(new=1), *[OvertakenError("merged")] * (TRIES + 1))

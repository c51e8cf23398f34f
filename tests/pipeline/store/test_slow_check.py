"""Stored chunks are looked at again, so many bytes in a time; what is damaged is told until it is whole or gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pipeline.clocks import Clocks
from pipeline.store import edit_log
from pipeline.store.edits import Removed
from pipeline.store.slow_check import SlowCheck
from tests.pipeline.store.memory_store import T0, TOPIC, MemoryStore
from tests.pipeline.store.test_edits import edit_of
from tests.pipeline.store.test_verify import flipped, whole
from topics.errors import MalformedRecordError
from topics.settings import HousekeepingSettings, Settings, WorkerSettings

RATE = 65536


class Checked:
    """A store of three chunks, and who looks at them, by a clock of the test."""

    def __init__(self, folder: Path, busy: Callable[[], bool] = lambda: False) -> None:
        self.store, self.middle = whole()
        self.now_s = 0.0
        settings = Settings(
            housekeeping=HousekeepingSettings(check_bytes_per_s=RATE), worker=WorkerSettings(data_dir=folder)
        )
        clocks = Clocks(lambda: T0, lambda: int(self.now_s * 1e9))
        self.check = SlowCheck(settings, self.store, clocks=clocks, busy=busy)
        self.look(0)

    def look(self, after_s: float) -> int:
        """A turn so long after the one before it; how many chunks were looked at."""
        self.now_s += after_s
        before = chunks_checked()
        names, state = edit_log.read(self.store, TOPIC, 0)
        self.check.look(0, names.manifests, state, threading.Event())
        return chunks_checked() - before

    def damage(self) -> None:
        place = (self.store.buckets[0], self.middle.chunks[0].name)
        self.store.objects[place] = flipped(self.store.objects[place])


def chunks_checked() -> int:
    return int(value_of("spanstream_worker_checked_chunks_total"))


def damaged() -> int:
    return int(value_of("spanstream_worker_damaged_chunks"))


def value_of(metric: str) -> float:
    return REGISTRY.get_sample_value(metric) or 0.0


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    found = Checked(tmp_path)
    yield found
    found.check.let_go([])


def test_so_much_is_looked_at_as_has_come_due(checked: Checked) -> None:
    size = sum(len(checked.store.objects[checked.store.buckets[0], name]) for name in checked.middle.chunks[0].objects)

    assert checked.look(0) == 0
    assert checked.look(0.5 * size / RATE) == 1
    assert checked.look(0.4 * size / RATE) == 0  # the first one took more than was due
    assert checked.look(1.2 * size / RATE) == 2
    assert checked.look(1000 * size / RATE) == 3  # each once a turn


def test_a_damaged_chunk_is_told_until_it_is_restored(checked: Checked) -> None:
    place = (checked.store.buckets[0], checked.middle.chunks[0].name)
    held = checked.store.objects[place]
    checked.damage()

    checked.look(60)
    assert damaged() == 1

    checked.store.objects[place] = held
    checked.look(60)
    assert damaged() == 0


def test_a_damaged_chunk_that_was_removed_is_told_no_more(checked: Checked) -> None:
    checked.damage()
    checked.look(60)

    assert edit_log.put(checked.store, edit_of(1, removed=(Removed.of(checked.middle.chunks[0], T0),)))
    checked.look(0)

    assert damaged() == 0


def test_of_partitions_of_others_nothing_is_told(checked: Checked) -> None:
    checked.damage()
    checked.look(60)

    checked.check.let_go([1, 2])

    assert damaged() == 0


def test_a_manifest_that_cannot_be_read_ends_a_turn_and_the_next_goes_on_behind_it(checked: Checked) -> None:
    checked.store.put(checked.store.buckets[0], checked.middle.name, b"garbage", "")
    before, errors = chunks_checked(), 0
    for _ in range(4):
        with contextlib.suppress(MalformedRecordError):
            checked.look(60)
            errors -= 1
        errors += 1

    assert errors >= 3
    assert chunks_checked() - before >= 6


def test_it_waits_while_a_range_is_stored(tmp_path: Path) -> None:
    answers = iter([True, True, False, False, False])
    checked = Checked(tmp_path, busy=lambda: next(answers))

    assert checked.look(60) == 3
    assert next(answers, None) is None


def test_nothing_is_left_on_the_disk(checked: Checked, tmp_path: Path) -> None:
    checked.damage()
    checked.look(60)

    assert list((tmp_path / "check").iterdir()) == []


def test_where_nothing_is_to_be_looked_at_nothing_is(checked: Checked) -> None:
    empty = MemoryStore()
    names, state = edit_log.read(empty, TOPIC, 1)

    checked.check.look(1, names.manifests, state, threading.Event())

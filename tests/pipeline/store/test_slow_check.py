"""Stored chunks are looked at again, so many bytes in a time; what is damaged is told until it is whole or gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pipeline.query.chunks import refs_of, told_damage
from pipeline.store import edit_log
from pipeline.store.catalog import Catalog
from pipeline.store.edits import Removed
from pipeline.store.housekeeping import Retention
from tests.pipeline.store.keepers import new_keeper
from tests.pipeline.store.memory_store import T0, TOPIC
from tests.pipeline.store.test_edits import edit_of
from tests.pipeline.store.test_verify import flipped, whole
from topics.errors import MalformedRecordError
from topics.settings import HousekeepingSettings, Settings, WorkerSettings

RATE = 65536
AN_AGE_H = 1e9


class Checked:
    """A store of three chunks, their keeper, and a clock of the test."""

    def __init__(self, folder: Path, busy: Callable[[], bool] = lambda: False) -> None:
        self.store, self.middle = whole()
        self.now_s = 0.0
        housekeeping = HousekeepingSettings(
            check_bytes_per_s=RATE, compaction_chunk_bytes=0, chunk_retention_h=AN_AGE_H
        )
        self.keeper = new_keeper(
            Settings(housekeeping=housekeeping, worker=WorkerSettings(data_dir=folder)),
            self.store,
            lambda: self.now_s / 3600,
            lambda: Retention(AN_AGE_H * 3600),
            busy=busy,
        )
        self.look(0)

    def look(self, after_s: float) -> int:
        """A turn so long after the one before it; how many chunks were looked at."""
        self.now_s += after_s
        before = chunks_checked()
        self.keeper.keep(0, threading.Event())
        return chunks_checked() - before

    @property
    def place(self) -> tuple[str, str]:
        """Where the chunk in the middle stands."""
        return self.store.buckets[0], self.middle.chunks[0].name

    def damage(self) -> bytes:
        """Change one bit of it; what was there before."""
        held = self.store.objects[self.place]
        self.store.objects[self.place] = flipped(held)
        return held

    def damaged(self) -> list[str]:
        """As an edit says."""
        return sorted(edit_log.read(self.store, TOPIC, 0)[1].damaged)


def chunks_checked() -> int:
    return int(REGISTRY.get_sample_value("spanstream_worker_checked_chunks_total") or 0)


def chunks_told() -> int:
    return int(REGISTRY.get_sample_value("spanstream_worker_damaged_chunks") or 0)


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    found = Checked(tmp_path)
    yield found
    found.keeper.slow_check.let_go([])


def test_so_much_is_looked_at_as_has_come_due(checked: Checked) -> None:
    size = sum(len(checked.store.objects[checked.store.buckets[0], name]) for name in checked.middle.chunks[0].objects)

    assert checked.look(0) == 0
    assert checked.look(0.5 * size / RATE) == 1
    assert checked.look(0.4 * size / RATE) == 0  # the first one took more than was due
    assert checked.look(1.2 * size / RATE) == 2
    assert checked.look(1000 * size / RATE) == 3  # each once a turn


def test_a_damaged_chunk_is_told_until_it_is_restored(checked: Checked) -> None:
    held = checked.damage()

    checked.look(60)
    assert (checked.damaged(), chunks_told()) == ([checked.place[1]], 1)

    checked.store.objects[checked.place] = held
    checked.look(60)
    assert (checked.damaged(), chunks_told()) == ([], 0)


def test_what_is_damaged_is_looked_at_first(checked: Checked) -> None:
    held = checked.damage()
    checked.look(60)
    checked.store.objects[checked.place] = held

    assert checked.look(0.001) == 1
    assert checked.damaged() == []


def test_one_that_is_gone_is_damaged_and_one_that_was_removed_is_told_no_more(checked: Checked) -> None:
    del checked.store.objects[checked.place]
    checked.look(60)
    assert chunks_told() == 1

    sequence = edit_log.read(checked.store, TOPIC, 0)[1].sequence + 1
    assert edit_log.put(checked.store, edit_of(sequence, removed=(Removed.of(checked.middle.chunks[0], T0),)))
    checked.look(0)

    assert (checked.damaged(), chunks_told()) == ([], 0)


def test_readers_know_of_it_by_the_catalog_also_when_it_is_opened_anew(checked: Checked, tmp_path: Path) -> None:
    checked.damage()
    checked.look(60)

    for _ in range(2):
        catalog = Catalog(tmp_path / "catalog", TOPIC, checked.store)
        catalog.refresh(0)
        refs = refs_of(catalog.chunks_for("shop", 0, 2**63), catalog.horizons())
        catalog.close()
        assert [ref.entry.damaged for ref in refs] == [False, True, False]
        assert [checked.place[1] in reason for reason in told_damage(refs)] == [True]


def test_a_checkpoint_knows_it(checked: Checked) -> None:
    checked.damage()
    checked.look(60)
    _, state = edit_log.read(checked.store, TOPIC, 0)

    assert type(state).from_json(state.to_json()) == state
    assert state.damaged == {checked.place[1]}


def test_of_partitions_of_others_nothing_is_told(checked: Checked) -> None:
    checked.damage()
    checked.look(60)

    checked.keeper.slow_check.let_go([1, 2])

    assert chunks_told() == 0


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

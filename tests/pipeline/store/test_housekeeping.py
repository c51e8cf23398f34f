"""Housekeeping: what is too old goes oldest first, what nothing names goes behind a fence, and readers see neither."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.store import commit, edit_log
from pipeline.store.catalog import Catalog
from pipeline.store.edits import Removed
from pipeline.store.housekeeping import Housekeeper, Kept, Retention
from pipeline.store.manifest import ChunkEntry
from tests.pipeline.store.keepers import new_keeper
from tests.pipeline.store.memory_store import T0, TOPIC, MemoryStore, entry_of, manifest_of
from tests.pipeline.store.test_edits import added_of, edit_of
from topics.settings import HousekeepingSettings, Settings

KEPT_H = 100


class House:
    """A bucket, its keeper and a clock in hours after T0."""

    def __init__(self, checkpoint_edits: int = 50) -> None:
        self.store = MemoryStore()
        self.now_h = 0.0
        self.set_by_h = 0.0
        self.retention = Retention(KEPT_H * 3600)
        self.settings = Settings(
            housekeeping=HousekeepingSettings(
                chunk_retention_h=KEPT_H, checkpoint_edits=checkpoint_edits, check_bytes_per_s=0
            )
        )
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Housekeeper:
        return new_keeper(
            self.settings, self.store, lambda: self.now_h, lambda: self.retention, set_by_h=lambda: self.set_by_h
        )

    def keep(self, at_h: float) -> Kept:
        self.now_h = at_h
        return self.keeper.keep(0, threading.Event())

    def counting(self) -> dict[int, list[str]]:
        """First offset -> tenants of the chunks that count."""
        found = edit_log.read_folded(self.store, TOPIC, 0)
        return {one.first: [chunk.tenant for chunk in one.chunks] for one in found}

    def mark(self) -> int:
        return commit.read_mark(self.store, TOPIC, 0).mark

    def chunks(self) -> list[str]:
        return [name for name in self.store.names("chunks/") if name.endswith("t.parquet")]


@pytest.fixture
def house() -> House:
    return House()


def catalog_of(house: House, folder: Path) -> Catalog:
    return Catalog(folder, TOPIC, house.store)


@pytest.fixture
def catalog(house: House, tmp_path: Path) -> Iterator[Catalog]:
    opened = catalog_of(house, tmp_path)
    yield opened
    opened.close()


def all_of(catalog: Catalog, tenant: str = "shop") -> list[ChunkEntry]:
    return catalog.chunks_for(tenant, 0, 2**63)


def test_the_oldest_chunks_go_and_the_newest_manifest_stays(house: House) -> None:
    for number in range(4):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number * 50))

    done = house.keep(at_h=KEPT_H + 51)
    after_two = house.counting()
    house.keep(at_h=1000)

    assert (done.chunks_removed, after_two) == (2, {0: [], 10: [], 20: ["shop"], 30: ["shop"]})
    assert house.counting() == {20: [], 30: []}
    assert house.mark() == 40


def test_objects_outlive_their_names_by_the_longest_question(house: House) -> None:
    house.store.keep(manifest_of(0, 9))
    house.store.keep(manifest_of(10, 19, written_h=KEPT_H))

    house.keep(at_h=KEPT_H + 1)
    at_once = len(house.store.names("chunks/"))
    house.keep(at_h=KEPT_H + 1.5)
    before = len(house.store.names("chunks/"))
    house.keep(at_h=KEPT_H + 2.5)

    assert (at_once, before) == (6, 6)
    assert len(house.store.names("chunks/")) == 3
    assert all("/00000000000000000010-" in name for name in house.store.names("chunks/"))


@pytest.mark.parametrize("set_by_h", [-48, 48])
def test_how_long_a_chunk_has_been_removed_is_not_told_by_a_clock_that_was_set(house: House, set_by_h: int) -> None:
    house.store.keep(manifest_of(0, 9))
    house.store.keep(manifest_of(10, 19, written_h=2 * KEPT_H))
    removed = house.keep(at_h=KEPT_H + 1)

    house.set_by_h = set_by_h
    soon, after = house.keep(at_h=KEPT_H + 1.5), house.keep(at_h=KEPT_H + 2.5)

    assert (removed.chunks_removed, soon.objects_deleted, after.objects_deleted) == (1, 0, 3)


def test_who_comes_to_own_a_partition_counts_anew_how_long_a_chunk_has_been_removed(house: House) -> None:
    """Of another machine's clock nothing is known: an edit of long ago may have been put a moment ago."""
    house.store.keep(manifest_of(0, 9))
    house.store.keep(manifest_of(10, 19, written_h=2 * KEPT_H))
    house.keep(at_h=KEPT_H + 1)
    house.keeper = house.new_keeper()

    first, after = house.keep(at_h=KEPT_H + 3), house.keep(at_h=KEPT_H + 4.5)

    assert (first.objects_deleted, after.objects_deleted) == (0, 3)


def test_empty_manifests_go_oldest_first_and_leave_no_gap(house: House) -> None:
    for number in range(6):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number))

    rounds = [house.keep(at_h=KEPT_H + hours) for hours in (4, 8, 12, 16)]

    gone = [first for one in rounds for first in one.gone]
    assert gone == sorted(set(gone))
    assert gone[:4] == [0, 10, 20, 30]
    firsts = list(house.counting())
    assert firsts == list(range(firsts[0], 60, 10))
    assert house.mark() == 60
    assert len(house.store.names("manifests/spans_by_trace/0/0")) == len(firsts)


def test_tenants_have_retentions_of_their_own(house: House) -> None:
    house.retention = Retention(KEPT_H * 3600, {"short": 10 * 3600, "long": 1000 * 3600})
    house.store.keep(manifest_of(0, 9, tenants=("long", "shop", "short")))
    house.store.keep(manifest_of(10, 19, written_h=90, tenants=("long", "shop", "short")))

    house.keep(at_h=50)
    early = house.counting()
    house.keep(at_h=KEPT_H + 50)
    later = house.counting()

    assert early == {0: ["long", "shop"], 10: ["long", "shop", "short"]}
    assert later == {0: ["long"], 10: ["long", "shop"]}


def test_what_the_window_is_read_from_stays_while_the_partition_is_written(house: House) -> None:
    """A partition far behind stores old records now: copies of what it stored long ago may come next."""
    old = manifest_of(0, 9)
    house.store.keep(old)
    house.store.keep(
        replace(manifest_of(10, 19, written_h=KEPT_H + 5), record_time_max_unix_ns=old.record_time_max_unix_ns + 10)
    )

    house.keep(at_h=KEPT_H + 10)
    behind = house.counting()
    house.keep(at_h=2 * KEPT_H + 10)

    assert behind == {0: ["shop"], 10: ["shop"]}
    assert house.counting() == {0: [], 10: []}


def test_a_round_that_was_interrupted_is_begun_again_by_another_owner(house: House) -> None:
    for number in range(3):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number * KEPT_H))
    stop = threading.Event()
    stop.set()
    house.now_h = KEPT_H + 1
    house.keeper.keep(0, stop)
    untouched = house.counting()

    house.keep(at_h=KEPT_H + 1)
    house.keeper = house.new_keeper()
    for hours in (KEPT_H + 3, KEPT_H + 5):
        house.keep(at_h=hours)

    assert untouched == {0: ["shop"], 10: ["shop"], 20: ["shop"]}
    assert len(house.chunks()) == 2


def test_an_orphan_is_deleted_behind_a_fence_and_after_its_time(house: House) -> None:
    house.store.keep(manifest_of(0, 9))
    house.store.keep_chunk(entry_of(0, 9, token="lost"))
    under_way = entry_of(10, 19, token="under-way")
    house.store.keep_chunk(under_way)

    seen = house.keep(at_h=1)
    house.keep(at_h=2)
    after = house.keep(at_h=26)

    assert (seen.edited, seen.orphans_deleted, after.orphans_deleted) == (True, 0, 3)
    assert house.store.names("chunks/") == sorted(
        name for one in (entry_of(0, 9), under_way) for name in (one.name, one.traces_name, one.filter_name)
    )


@pytest.mark.parametrize("set_by_h", [-48, 48])
def test_how_long_an_object_has_had_no_name_is_not_told_by_a_clock_that_was_set(house: House, set_by_h: int) -> None:
    house.store.keep(manifest_of(0, 9))
    house.store.keep_chunk(entry_of(0, 9, token="lost"))

    house.keep(at_h=1)
    house.set_by_h = set_by_h
    soon, after = house.keep(at_h=2), house.keep(at_h=26)

    assert (soon.orphans_deleted, after.orphans_deleted) == (0, 3)


def test_an_edit_prepared_before_the_fence_is_refused(house: House) -> None:
    """It would name a chunk that the sweep has seen without a name."""
    house.store.keep(manifest_of(0, 9))
    merged = added_of(0, 9, "merged")
    house.store.keep_chunk(merged.chunk)
    prepared = edit_of(1, "other", removed=(Removed.of(entry_of(0, 9), T0),), added=(merged,))

    house.keep(at_h=1)
    taken = edit_log.put(house.store, prepared)
    house.keep(at_h=26)

    assert not taken
    assert house.counting() == {0: ["shop"]}
    assert merged.chunk.name not in house.store.names("chunks/")
    assert entry_of(0, 9).name in house.store.names("chunks/")


def test_a_chunk_that_an_edit_named_in_time_is_no_orphan(house: House) -> None:
    house.store.keep(manifest_of(0, 9))
    merged = added_of(0, 9, "merged")
    house.store.keep_chunk(merged.chunk)
    house.keep(at_h=1)

    assert edit_log.put(house.store, edit_of(2, removed=(Removed.of(entry_of(0, 9), T0),), added=(merged,)))
    for hours in (26, 52):
        house.keep(at_h=hours)

    assert house.store.names("chunks/") == sorted(
        [merged.chunk.name, merged.chunk.traces_name, merged.chunk.filter_name]
    )


def test_checkpoints_keep_the_bucket_small_and_say_the_same(tmp_path: Path) -> None:
    house = House(checkpoint_edits=3)
    for number in range(30):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number * 5))
    for hours in range(KEPT_H, 2 * KEPT_H, 3):
        house.keep(at_h=hours)

    names = house.store.names("manifests/spans_by_trace/0/")
    assert len([name for name in names if "/edits/" in name]) <= 4
    assert len([name for name in names if "/checkpoints/" in name]) == 1
    assert house.mark() == 300
    catalog = catalog_of(house, tmp_path)
    catalog.refresh(0)
    assert {one.name for one in all_of(catalog)} == {
        one.name for manifest in edit_log.read_folded(house.store, TOPIC, 0) for one in manifest.chunks
    }
    catalog.close()


def test_a_catalog_follows_edits_and_knows_the_same_when_it_is_opened_again(house: House, tmp_path: Path) -> None:
    catalog = catalog_of(house, tmp_path)
    for number in range(3):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number * KEPT_H))
    catalog.refresh(0)
    before = len(all_of(catalog))
    house.keep(at_h=KEPT_H + 1)
    catalog.refresh(0)
    after = [one.name for one in all_of(catalog)]
    horizon = catalog.horizons()
    catalog.close()

    opened = catalog_of(house, tmp_path)
    again = [one.name for one in all_of(opened)]
    opened.refresh(0)

    assert (before, len(after), again, horizon) == (3, 2, after, {0: 30})
    assert (opened.horizons(), [one.name for one in all_of(opened)]) == (horizon, after)
    opened.close()


def test_a_merged_chunk_takes_its_parts_place_in_a_catalog_once_all_its_range_is_known(
    house: House, catalog: Catalog
) -> None:
    parts = [manifest_of(0, 9), manifest_of(10, 19)]
    house.store.keep(parts[0])
    catalog.refresh(0)
    house.store.keep(parts[1])
    merged = added_of(0, 19, "merged")
    house.store.keep_chunk(merged.chunk)
    edit_log.put(
        house.store,
        edit_of(1, removed=tuple(Removed.of(entry_of(*ends), T0) for ends in ((0, 9), (10, 19))), added=(merged,)),
    )

    catalog.refresh(0)

    assert (all_of(catalog), catalog.horizons()) == ([merged.chunk], {0: 20})


def test_the_entry_of_a_manifest_that_is_gone_is_not_taken(house: House, catalog: Catalog) -> None:
    """The topic of entries keeps them for longer, and a querier may read it after it has listed the bucket."""
    old = manifest_of(0, 9)
    house.store.keep(old)
    house.store.keep(manifest_of(10, 19, written_h=KEPT_H))
    for hours in (KEPT_H + 5, KEPT_H + 10, KEPT_H + 15):
        house.keep(at_h=hours)
    catalog.refresh(0)

    taken = catalog.apply(old)

    assert (list(house.counting()), taken, catalog.horizons()) == ([10], False, {0: 20})


def test_a_running_catalog_forgets_manifests_that_retention_took(house: House, catalog: Catalog) -> None:
    for number in range(3):
        house.store.keep(manifest_of(number * 10, number * 10 + 9, written_h=number * KEPT_H))
    catalog.refresh(0)

    for hours in (KEPT_H + 5, KEPT_H + 10, KEPT_H + 15):
        house.keep(at_h=hours)
        catalog.refresh(0)

    assert (catalog.count(), catalog.horizons()) == (2, {0: 30})

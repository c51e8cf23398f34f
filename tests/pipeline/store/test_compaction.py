"""Compaction: small old chunks become one, through an edit; late copies go; what is young, large or damaged stays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.partition.sealed import SealedRange
from pipeline.spans import schema
from pipeline.spans.to_otlp import to_proto
from pipeline.store import commit, edit_log, verify
from pipeline.store.catalog import Catalog
from pipeline.store.chunk import decode_rows, read_chunk
from pipeline.store.compaction import Candidate, groups
from pipeline.store.housekeeping import Housekeeper, Kept, Retention
from pipeline.store.manifest import ChunkEntry
from tests.pipeline.spans.otlp_strategies import spans_of
from tests.pipeline.store.keepers import new_keeper
from tests.pipeline.store.memory_store import HOUR_NS, T0, TOPIC, MemoryStore
from tests.pipeline.store.shop import spans_table
from tests.pipeline.store.test_merge import many
from topics.errors import StoreUnavailableError
from topics.settings import HousekeepingSettings, Settings, WorkerSettings

KEPT_H = 1000


class House:
    """A bucket with real chunks, its keeper and a clock in hours after T0."""

    def __init__(self, folder: Path, **settings: float) -> None:
        self.store = MemoryStore()
        self.now_h = 0.0
        self.settings = Settings(
            worker=WorkerSettings(data_dir=folder),
            housekeeping=HousekeepingSettings(
                compaction_parts_min=2, compaction_every_s=0, compaction_share=1, sweep_every_h=1, **settings
            ),
        )
        self.busy = False
        self.end = 0
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Housekeeper:
        return new_keeper(
            self.settings, self.store, lambda: self.now_h, lambda: Retention(KEPT_H * 3600), busy=lambda: self.busy
        )

    def write(self, data: TracesData, tenant: str = "shop", tenants: Sequence[str] = ()) -> None:
        """One more range of ten offsets, sealed now."""
        spans = schema.concat([spans_table(data, tenant=one) for one in (tenants or [tenant])])
        now = T0 + int(self.now_h * HOUR_NS)
        sealed = SealedRange(
            topic=TOPIC,
            partition=0,
            partitions=8,
            first=self.end,
            last=self.end + 9,
            spans=spans,
            record_time_min_unix_ns=now,
            record_time_max_unix_ns=now,
            losses=(),
        )
        stored = commit.store_range(
            self.store, self.settings, sealed, worker="w", now_unix_ns=now, stop=threading.Event()
        )
        assert stored is not None
        self.end += 10

    def keep(self, at_h: float) -> Kept:
        self.now_h = at_h
        return self.keeper.keep(0, threading.Event())

    def counting(self, tenant: str = "shop") -> list[ChunkEntry]:
        found = edit_log.read_folded(self.store, TOPIC, 0)
        return [chunk for one in found for chunk in one.chunks if chunk.tenant == tenant]

    def spans(self, tenant: str = "shop") -> list[bytes]:
        tables = [read_chunk(self.store.objects[one.bucket, one.name]) for one in self.counting(tenant)]
        return sorted(span for table in tables for span in spans_of(to_proto(decode_rows(table))))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def fill(house: House, chunks: int = 4, every_h: float = 1.0) -> None:
    """Chunks an hour apart, then one much later, which is the window."""
    for number in range(chunks):
        house.now_h = number * every_h
        house.write(many(range(number * 10, number * 10 + 20), at=number * 3))
    house.now_h = chunks * every_h + 10
    house.write(many(range(3), at=90))


def test_small_old_chunks_become_one_that_holds_the_same_spans(house: House) -> None:
    fill(house)
    before = house.spans()

    done = house.keep(at_h=20)

    assert (done.chunks_merged, done.edited) == (4, True)
    assert [one.spans for one in house.counting()] == [240, 9]
    assert house.spans() == before
    assert not verify.verify(house.store, TOPIC, 0).problems


def test_late_copies_are_removed(house: House) -> None:
    for number in range(3):
        house.now_h = number
        house.write(many(range(10)))
    house.now_h = 20
    house.write(many(range(3), at=90))

    house.keep(at_h=30)

    assert [one.spans for one in house.counting()] == [30, 9]


def test_each_tenant_has_its_own_chunks(house: House) -> None:
    for number in range(3):
        house.now_h = number
        house.write(many(range(10), at=number * 3), tenants=("shop", "other"))
    house.now_h = 20
    house.write(many(range(3), at=90))
    before = house.spans("shop"), house.spans("other")

    house.keep(at_h=30)

    assert (len(house.counting("shop")), len(house.counting("other"))) == (2, 1)
    assert (house.spans("shop"), house.spans("other")) == before


def test_what_is_young_or_in_the_window_stays(house: House) -> None:
    fill(house)
    for _ in range(3):  # at one time: the window
        house.write(many(range(5), at=60))
    young = house.keep(at_h=4.5)
    old = house.keep(at_h=100)

    assert young.chunks_merged == 3  # the fourth was written 1.5 h before
    assert old.chunks_merged == 0  # the fourth is alone with one of three times its size
    assert [one.spans for one in house.counting()][2:] == [9, 15, 15, 15]


def test_merged_chunks_are_merged_again_while_they_are_small(house: House) -> None:
    fill(house, chunks=2)
    house.keep(at_h=20)
    for number in range(3):
        house.now_h = 30 + number
        house.write(many(range(20), at=200 + number * 3))
    house.keep(at_h=60)

    assert next(one.spans for one in house.counting()) > 120
    assert not verify.verify(house.store, TOPIC, 0).problems


def test_a_reader_sees_all_before_and_after_and_nothing_twice(house: House, tmp_path: Path) -> None:
    fill(house)
    catalog = Catalog(tmp_path / "catalog", TOPIC, house.store)
    catalog.refresh(0)
    before = {one.name for one in catalog.chunks_for("shop", 0, 2**63)}
    house.keep(at_h=20)

    catalog.refresh(0)
    after = {one.name for one in catalog.chunks_for("shop", 0, 2**63)}
    catalog.close()

    assert len(before) == 5
    assert after == {one.name for one in house.counting()}
    assert all((one, name) in house.store.objects for one in house.store.buckets[:1] for name in before)


def test_the_parts_are_deleted_when_no_question_can_be_at_them(house: House) -> None:
    fill(house)
    house.keep(at_h=20)
    house.keep(at_h=20.5)
    at_once = len(house.store.names("chunks/"))
    house.keep(at_h=22)

    assert (at_once, len(house.store.names("chunks/"))) == (18, 6)


def test_of_two_owners_one_merges(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(house)
    before = house.spans()
    other, put = house.new_keeper(), edit_log.put

    def overtaken(store: MemoryStore, edit: object) -> bool:
        monkeypatch.setattr(edit_log, "put", put)
        assert other.keep(0, threading.Event()).chunks_merged == 4
        return put(store, edit)  # type: ignore[arg-type]

    house.now_h = 20
    monkeypatch.setattr(edit_log, "put", overtaken)
    done = house.keep(at_h=20)

    assert done.chunks_merged == 0
    assert house.spans() == before
    assert len(house.store.names("chunks/")) == 18  # nothing of the loser's is left


def test_after_an_unknown_outcome_nothing_is_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edit stood all the same: what it names must not be deleted."""
    fill(house)
    before, put = house.spans(), edit_log.put

    def unknown(store: MemoryStore, edit: object) -> bool:
        put(store, edit)  # type: ignore[arg-type]
        raise StoreUnavailableError("no answer")

    monkeypatch.setattr(edit_log, "put", unknown)
    with pytest.raises(StoreUnavailableError):
        house.keep(at_h=20)
    monkeypatch.setattr(edit_log, "put", put)
    for hour in (21, 24, 30):
        house.keep(at_h=hour)

    assert house.spans() == before
    assert len(house.counting()) == 2


def test_a_damaged_chunk_stays_as_it_is_and_keeps_nobody_else(house: House) -> None:
    fill(house)
    damaged = house.counting()[1]
    content = bytearray(house.store.objects[damaged.bucket, damaged.name])
    content[200] ^= 0xFF
    house.store.objects[damaged.bucket, damaged.name] = bytes(content)

    first = house.keep(at_h=20)
    second = house.keep(at_h=21)

    assert (first.chunks_merged, second.chunks_merged) == (0, 3)
    assert damaged.name in {one.name for one in house.counting()}


def test_merging_waits_while_a_range_is_stored_and_stops_when_the_partition_is_let_go(house: House) -> None:
    fill(house)
    house.busy, house.now_h = True, 20
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()

    done = house.keeper.keep(0, stop)

    assert done.chunks_merged == 0
    assert len(house.store.names("chunks/")) == 15
    assert not list((house.settings.worker.data_dir / "compaction").iterdir())


def test_chunks_whose_row_groups_do_not_fit_the_memory_are_left(tmp_path: Path) -> None:
    house = House(tmp_path, compaction_memory_bytes=1 << 20)
    for number in range(3):
        house.now_h = number
        data = many(range(20), at=number * 3)
        for at, span in enumerate(data.resource_spans[0].scope_spans[0].spans):
            span.attributes.add(key="body").value.string_value = f"{at:05}" * 4000
        house.write(data)
    house.now_h = 20
    house.write(many(range(3), at=90))

    assert house.keep(at_h=30).chunks_merged == 0
    assert len(house.counting()) == 4


def one(first: int, nbytes: int, tenant: str = "shop", written: int = 0) -> Candidate:
    return Candidate(tenant, first, first, f"c{first}", nbytes, 1, 0, written)


def firsts(found: Sequence[Candidate], *, parts: tuple[int, int] = (2, 9), spread: int = 100) -> list[list[int]]:
    return [
        [each.first for each in group]
        for group in groups(found, bytes_max=100, parts=parts, spread_ns=lambda _: spread)
    ]


def test_neighbours_are_grouped_up_to_the_size_that_is_wanted() -> None:
    assert firsts([one(at, 30) for at in range(7)]) == [[0, 1, 2], [3, 4, 5]]
    assert firsts([one(at, 30) for at in range(7)], parts=(2, 2)) == [[0, 1], [2, 3], [4, 5]]
    assert firsts([one(at, 30) for at in range(7)], parts=(4, 9)) == []


def test_large_chunks_stay_and_no_chunk_is_rewritten_for_the_sake_of_a_small_one() -> None:
    assert firsts([one(0, 30), one(1, 60), one(2, 30), one(3, 20)]) == [[0, 2, 3]]
    assert firsts([one(0, 40), one(1, 5), one(2, 5)]) == []


def test_what_was_written_far_apart_stays_apart_so_that_retention_can_take_it() -> None:
    assert firsts([one(at, 10, written=at * 30) for at in range(8)]) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_tenants_are_grouped_each_by_itself() -> None:
    found = [one(0, 10, "a"), one(0, 10, "b"), one(1, 10, "a"), one(1, 10, "b")]

    assert firsts(found) == [[0, 1], [0, 1]]

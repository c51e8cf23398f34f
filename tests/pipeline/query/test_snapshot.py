"""A snapshot holds each span once, and says so where it is not complete."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pytest

from pipeline.query.live import LiveClient
from pipeline.query.owners import Owners
from pipeline.query.snapshot import Snapshot, Snapshots
from tests.pipeline.query.world import (
    TENANT,
    Held,
    LiveServer,
    MemoryStored,
    MemoryTail,
    OneSpan,
    a_manifest,
    otlp,
    rows,
    trace_id,
)
from tests.waiting import wait_until_async
from topics.errors import FormatVersionError, MalformedRecordError, StoreUnavailableError
from topics.partitioner import partition_of
from topics.settings import QuerierSettings, Settings

T = TypeVar("T")
TRACE = next(number for number in range(1, 100) if partition_of(trace_id(number), 1) == 0)


class World:
    """One partition of a topic: a span a record, whose ID is the record's offset + 1."""

    def __init__(self, settings: Settings, threads: ThreadPoolExecutor, records: int) -> None:
        self.server, self.stored = LiveServer(), MemoryStored()
        self.tail = MemoryTail(settings, 1)
        self.tail.log[0] = {offset: otlp([self.span(offset)]) for offset in range(records)}
        self.owners: dict[int, str] = {}
        self.live = LiveClient(
            Owners(lambda: dict(self.owners), refresh_s=0, quiet_s=60),
            bytes_max=settings.querier.live_bytes_max,
            timeout_s=5,
            executor=threads,
        )
        self.snapshots = Snapshots(
            self.stored, self.live, self.tail, partitions=1, executor=threads, unpacked_bytes_max=1 << 20
        )

    @staticmethod
    def span(offset: int) -> OneSpan:
        return OneSpan(TRACE, offset + 1, start_ms=offset)

    def hold(self, low: int, *bounds: tuple[int, int]) -> Held:
        """What the worker holds: these segments."""
        self.owners[0] = self.server.url
        segments = [(a, b, rows({o: [self.span(o)] for o in range(a, b + 1)})) for a, b in bounds]
        held = self.server.held[0] = Held(low=low, next=bounds[-1][1] + 1, segments=segments)
        return held


def in_world(test: Callable[[World], Awaitable[T]], records: int = 10, settings: Settings | None = None) -> T:
    async def main() -> T:
        with ThreadPoolExecutor(2) as threads:
            world = World(settings or Settings(), threads, records)
            await world.server.start()
            try:
                return await test(world)
            finally:
                await world.live.close()
                await world.server.stop()

    return asyncio.run(main())


def offsets(snapshot: Snapshot) -> list[int]:
    found: list[int] = snapshot.rows(["record_offset"], TENANT).column("record_offset").to_pylist()
    return found


def test_what_the_worker_has_not_reached_is_read_from_kafka() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 3), (4, 6))

        snapshot = await world.snapshots.take()

        assert offsets(snapshot) == list(range(10))
        assert snapshot.reasons == []
        assert [s.first for s in snapshot.partitions[0].tail] == [7]

    in_world(test)


def test_kafka_is_asked_at_once_where_the_topic_ends_and_who_owns_it() -> None:
    """Where it hangs, each takes as long as its time-out."""

    async def test(world: World) -> None:
        world.hold(0, (0, 9))
        asked, ends = threading.Event(), world.tail.ends

        def owners() -> dict[int, str]:
            asked.set()
            return world.owners

        def ends_once_owners_are_asked(partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
            assert asked.wait(10)
            return ends(partitions)

        world.live._owners = Owners(owners, refresh_s=60, quiet_s=60)
        world.tail.ends = ends_once_owners_are_asked  # type: ignore[method-assign]

        assert offsets(await world.snapshots.take()) == list(range(10))

    in_world(test)


def test_without_an_owner_all_is_read_from_kafka_at_once() -> None:
    async def test(world: World) -> None:
        world.owners[0] = "http://127.0.0.1:9"
        world.stored.manifests = [a_manifest(0, 0, 3)]

        snapshot = await world.snapshots.take()

        assert offsets(snapshot) == [4, 5, 6, 7, 8, 9]
        assert snapshot.partitions[0].url == ""

    in_world(test)


def test_a_tail_without_owner_is_read_on_from_where_the_last_question_ended() -> None:
    async def test(world: World) -> None:
        first = offsets(await world.snapshots.take())
        world.tail.log[0] |= {10: otlp([world.span(3), world.span(10)])}
        for offset in range(10):
            world.tail.log[0][offset] = b"not read again"

        second = offsets(await world.snapshots.take())

        assert first == list(range(10))
        assert second == list(range(11))

    in_world(test)


def test_a_copy_of_a_span_whose_first_record_was_lost_counts_though_it_was_left_out_before() -> None:
    async def test(world: World) -> None:
        world.tail.log[0][9] = otlp([world.span(0)])
        first = offsets(await world.snapshots.take())
        del world.tail.log[0][0]
        world.stored.manifests = [replace(a_manifest(0, 0, 1), losses=((0, 0),))]

        second = offsets(await world.snapshots.take())

        assert first == list(range(9))
        assert second == list(range(2, 10))

    in_world(test)


def test_rows_are_cut_by_their_offset_not_by_whole_segments() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 9))
        world.stored.manifests = [a_manifest(0, 0, 5)]

        assert offsets(await world.snapshots.take()) == [6, 7, 8, 9]

    in_world(test)


def test_a_gap_in_the_catalog_ends_what_counts_as_stored() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 9))
        world.stored.manifests = [a_manifest(0, 0, 1), a_manifest(0, 4, 6)]

        snapshot = await world.snapshots.take()

        assert snapshot.horizons == {0: 2}
        assert offsets(snapshot) == list(range(2, 10))

    in_world(test)


def test_when_the_worker_has_dropped_it_the_bucket_is_listed_and_the_worker_asked_again() -> None:
    async def test(world: World) -> None:
        world.hold(6, (6, 9))
        world.stored.manifests, world.stored.late = [a_manifest(0, 0, 2)], [a_manifest(0, 3, 5)]

        snapshot = await world.snapshots.take()

        assert snapshot.horizons == {0: 6}
        assert offsets(snapshot) == [6, 7, 8, 9]
        assert snapshot.reasons == []
        assert world.server.asked == ["want=0:3", "want=0:6"]

    in_world(test)


def test_a_snapshot_that_nobody_waits_for_any_more_ends_with_the_querier() -> None:
    """Its threads are gone then: it would fail where nobody sees it."""

    async def test(world: World) -> None:
        world.hold(6, (6, 9))
        begun, go_on = threading.Event(), threading.Event()

        def refresh(_partition: int) -> None:
            begun.set()
            assert go_on.wait(10)

        world.stored.refresh = refresh  # type: ignore[method-assign]
        asking = asyncio.create_task(world.snapshots.take())
        await wait_until_async(begun.is_set)
        asking.cancel()
        world.snapshots.close()
        go_on.set()

        assert world.snapshots._current is not None
        assert world.snapshots._current.task is not None
        with pytest.raises(asyncio.CancelledError):
            await world.snapshots._current.task

    in_world(test)


def test_what_the_worker_dropped_and_no_manifest_names_is_read_from_kafka() -> None:
    async def test(world: World) -> None:
        world.hold(6, (6, 9))

        snapshot = await world.snapshots.take()

        assert offsets(snapshot) == list(range(10))

    in_world(test)


@pytest.mark.parametrize("error", [MalformedRecordError, FormatVersionError, StoreUnavailableError])
def test_what_cannot_be_read_of_the_bucket_is_a_reason_and_no_error(error: type[Exception]) -> None:
    async def test(world: World) -> None:
        world.hold(6, (6, 9))
        world.stored.refused = error("manifests/spans_by_trace/0/3.json: this is no manifest")

        snapshot = await world.snapshots.take()

        assert offsets(snapshot) == list(range(10))  # Kafka has it all
        assert "/3.json: this is no manifest" in snapshot.reasons[0]

    in_world(test)


def test_what_is_not_known_below_the_horizon_is_a_reason() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 9))
        world.stored.missing_parts = ["what is stored of offsets 0 to 3 of partition 0 is not known"]

        whole, one = await world.snapshots.take(), await world.snapshots.take_trace(0, bytes(16))

        assert whole.reasons == one.reasons == world.stored.missing_parts

    in_world(test)


def test_copies_in_the_tail_of_what_the_worker_holds_are_left_out() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 9))
        world.tail.log[0][10] = otlp([world.span(3), world.span(10), world.span(10)])

        assert offsets(await world.snapshots.take()) == [*range(10), 10]

    in_world(test)


def test_what_kafka_deleted_is_named_as_lost() -> None:
    async def test(world: World) -> None:
        world.tail.low[0] = 4
        for offset in range(4):
            del world.tail.log[0][offset]

        snapshot = await world.snapshots.take()

        assert snapshot.losses == {0: [(0, 3)]}
        assert offsets(snapshot) == [4, 5, 6, 7, 8, 9]

    in_world(test)


def test_what_kafka_deleted_but_the_bucket_names_is_not_lost() -> None:
    async def test(world: World) -> None:
        world.tail.low[0] = 4
        world.stored.late = [a_manifest(0, 0, 5)]

        snapshot = await world.snapshots.take()

        assert snapshot.losses == {}
        assert offsets(snapshot) == [6, 7, 8, 9]

    in_world(test)


def test_the_losses_that_a_worker_met_are_named() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 9)).losses = [(2, 3)]

        assert (await world.snapshots.take()).losses == {0: [(2, 3)]}

    in_world(test)


def test_more_live_spans_than_memory_allows_make_the_answer_partial() -> None:
    async def test(world: World) -> None:
        world.live._bytes_max = 1000  # below what a setting may say
        world.hold(0, (0, 9))

        snapshot = await world.snapshots.take()

        assert offsets(snapshot) == []
        assert "querier.live_bytes_max" in snapshot.reasons[0]

    in_world(test)


def test_one_trace_is_looked_for_in_live_segments_and_tail() -> None:
    async def test(world: World) -> None:
        world.hold(0, (0, 6))
        other = replace(world.span(11), trace=next(n for n in range(TRACE + 1, 99)))
        world.tail.log[0][10] = otlp([other])

        snapshot = await world.snapshots.take_trace(0, trace_id(TRACE))

        assert offsets(snapshot) == list(range(10))
        assert {
            kind for view, segment, _ in snapshot.spans(TENANT, trace_id(TRACE)) for kind in [segment in view.live]
        } == {
            True,
            False,
        }

    in_world(test)


def test_a_foreign_span_in_a_record_sets_the_record_aside_as_a_worker_does() -> None:
    async def test(world: World) -> None:
        world.tail.partitions = 2
        mine = next(n for n in range(1, 99) if partition_of(trace_id(n), 2) == 0)
        foreign = next(n for n in range(1, 99) if partition_of(trace_id(n), 2) == 1)
        world.tail.log[0] = {0: otlp([OneSpan(mine, 1)]), 1: otlp([OneSpan(mine, 2), OneSpan(foreign, 3)]), 2: b"\xff"}

        assert offsets(await world.snapshots.take()) == [0]

    in_world(test, settings=Settings(querier=QuerierSettings()))

"""A worker over a simulated Kafka and store: whatever is dropped, read twice or refused, each span is stored once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.index_agent import take_unless_closed
from agents.owned import SealTicket
from tests.agents.one_partition import NS, Simulation, run


def test_a_range_is_stored_then_told_then_acknowledged(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1, 2)
        s.produce(3)
        await s.deliver(2)
        assert s.kafka.committed is None
        await s.seal()

    after = run(tmp_path, story)

    assert (after.store.span_ids(), after.kafka.entries, after.kafka.committed) == ([1, 2, 3], [0], 2)


def test_a_partition_that_stays_is_fetched_again_and_nothing_is_taken_twice(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        s.produce(2)
        await s.deliver(2)
        await s.rebalance_and_stay()
        s.produce(3)

    assert run(tmp_path, story).store.span_ids() == [1, 2, 3]


def test_a_record_that_never_reached_the_actor_is_read_again(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        for span_id in range(1, 6):
            s.produce(span_id)
        await s.deliver(1)
        await s.deliver(1, dropped=2)

    assert run(tmp_path, story).store.span_ids() == [1, 2, 3, 4, 5]


def test_what_came_before_a_rebalance_and_what_is_read_again_may_stand_in_one_batch(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        for span_id in range(1, 6):
            s.produce(span_id)
        records = s.kafka.fetch(5)
        again = [*records[:4], *records[:3]]
        await s.worker.take(0, again, [partial(s.kafka.ack, record.offset) for record in again])
        await s.seal()

    after = run(tmp_path, story)

    assert after.store.span_ids() == [1, 2, 3, 4, 5]
    for manifest, sealed in after.store.manifests.values():
        offsets = sealed.spans.column("record_offset").to_pylist()
        assert offsets == list(range(manifest.first, manifest.last + 1))


def test_records_that_are_missing_within_a_batch_are_read_again(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        for span_id in range(1, 6):
            s.produce(span_id)
        first, _, _, *rest = s.kafka.fetch(5)
        await s.worker.take(0, [first, *rest], [partial(s.kafka.ack, one.offset) for one in (first, *rest)])

    assert run(tmp_path, story).store.span_ids() == [1, 2, 3, 4, 5]


def test_offsets_that_kafka_never_delivers_are_no_loss(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        s.kafka.log += [None, None]  # control records
        s.produce(2)

    after = run(tmp_path, story)

    assert after.store.span_ids() == [1, 2]
    assert all(not manifest.losses for manifest, _ in after.store.manifests.values())


def test_what_retention_deleted_unread_is_named_as_a_loss(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        await s.seal()
        for span_id in (2, 3, 4):
            s.produce(span_id)
        s.kafka.log_start = 3

    after = run(tmp_path, story)

    assert after.store.span_ids() == [1, 4]
    assert [tuple(map(tuple, manifest.losses)) for manifest, _ in after.store.manifests.values()] == [(), ((1, 2),)]


@pytest.mark.parametrize("set_by_s", [0, -3600, 3600])
def test_when_retention_deleted_all_there_was_the_loss_is_named_without_another_record(
    tmp_path: Path, set_by_s: int
) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        s.set_by_ns = set_by_s * NS
        for span_id in (2, 3):
            s.produce(span_id)
        s.kafka.log_start = s.kafka.position = 3
        for _ in range(3):
            s.clock_ns += 6 * NS
            await s.worker.tick()
            await asyncio.sleep(0.01)
        await s.worker.owned[0].task

    after = run(tmp_path, story)

    assert after.store.mark == 3
    assert [tuple(map(tuple, manifest.losses)) for manifest, _ in after.store.manifests.values()] == [((1, 2),)]


def test_a_commit_that_ran_ahead_of_the_store_is_read_again_from_the_mark(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        for span_id in (1, 2, 3):
            s.produce(span_id)
        s.kafka.committed = s.kafka.position = 2
        await s.crash()

    assert run(tmp_path, story).store.span_ids() == [1, 2, 3]


def test_a_worker_whose_range_another_stored_reads_the_mark_and_goes_on(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        s.produce(2)
        await s.another_owner_stores()
        s.produce(3)
        await s.deliver(1)
        await s.seal()

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2, 3]


def test_what_is_stored_is_acknowledged_though_its_fetch_was_dropped(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        s.produce(2)
        await s.another_owner_stores()  # which ends before Kafka hears what it has acknowledged
        await s.crash()
        await s.deliver(0, dropped=2)
        assert (s.store.mark, s.kafka.committed) == (2, None)
        s.kafka.committed = 0
        for _ in range(2):
            s.clock_ns += 6 * NS
            await s.worker.tick()
            await asyncio.sleep(0.01)
            await s.deliver(10)
        assert s.kafka.committed == 2

    run(tmp_path, story)


def test_a_copy_is_dropped_after_a_crash_too(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        await s.seal()
        await s.crash()
        s.produce(1, 2)

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2]


def test_a_worker_that_ends_while_it_takes_records_leaves_them_and_tells_no_error(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1, 2)
        acks = [partial(s.kafka.ack, 0)]
        taking = asyncio.create_task(take_unless_closed(s.worker, 0, s.kafka.fetch(1), acks))
        await asyncio.sleep(0)  # it waits to be decoded

        await s.crash()
        await taking

        assert s.kafka.acked == set()

    assert run(tmp_path, story).store.span_ids() == [1, 2]


def test_spills_at_the_same_time_leave_every_segment_in_the_table_with_its_traces(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        for span_id in range(1, 21):
            s.produce(span_id)
            await s.deliver(1)
        s.limit(live_bytes_max=0)
        await asyncio.gather(*(s.worker.tick() for _ in range(5)))
        state = s.worker.owned[0].state
        assert state is not None
        for segment in state.segments:
            assert (segment.spans, segment.in_table, segment.may_hold(b"t" * 16)) == (None, True, True)
            assert not segment.may_hold(b"u" * 16)

    assert sorted(run(tmp_path, story).store.span_ids()) == list(range(1, 21))


def test_rows_that_go_while_they_are_merged_do_not_end_the_actor(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        owned, real = s.worker.owned[0], s.worker._merged
        assert owned.state is not None
        owned.state.limits = replace(owned.state.limits, segments_max=2)
        s.limit(live_bytes_max=0)
        s.worker._merged = lambda *given: (s.worker.tables.clear(0), real(*given))[1]  # type: ignore[method-assign]
        for span_id in (1, 2, 3):
            s.produce(span_id)
            await s.deliver(1)
        s.worker._merged = real  # type: ignore[method-assign]

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2, 3]


def test_what_is_open_is_bounded_the_largest_partition_is_sealed(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        asked = list[SealTicket]()

        async def note(ticket: SealTicket) -> None:
            asked.append(ticket)

        s.worker.seal_requested = note
        s.produce(1)
        await s.deliver(1)
        assert not asked
        s.limit(open_bytes_max=0)
        s.produce(2)
        await s.deliver(1)
        assert [(one.plan.first, one.plan.last) for one in asked] == [(0, 1)]
        s.produce(3)
        await s.deliver(1)
        assert len(asked) == 1, "one seal of a partition at a time"
        await s.worker.store(asked[0])

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2, 3]


def test_when_memory_is_short_what_is_stored_goes_before_its_grace_is_over(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        state = s.worker.owned[0].state
        assert state is not None
        state.limits = replace(state.limits, drop_grace_s=1000.0)
        s.produce(1)
        await s.deliver(1)
        await s.seal()
        await s.worker.tick()
        assert state.low == 0, "queries on an older snapshot still find it"
        s.limit(memory_bytes_max=0)
        await s.worker.tick()
        assert (state.low, state.segments) == (1, [])
        s.limit(memory_bytes_max=1 << 30)

    run(tmp_path, story)


@pytest.mark.timeout(20)
def test_a_window_that_takes_more_than_the_memory_there_is_stops_nobody(tmp_path: Path) -> None:
    """Nothing is unsealed, so there is nothing to wait for; what is taken is sealed at once."""

    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        await s.seal()
        s.limit(memory_bytes_max=0)
        await s.worker.tick()
        state = s.worker.owned[0].state
        assert state is not None
        assert state.window.nbytes > 0
        s.produce(2)
        await asyncio.wait_for(s.deliver(1), 5)
        await s.seal()

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2]


def test_a_record_that_is_no_otlp_is_set_aside_and_the_partition_goes_on(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.kafka.log.append(b"\xff\xffgarbage")
        s.produce(1)

    after = run(tmp_path, story)

    assert after.store.span_ids() == [1]
    assert [offset for offset, _ in after.kafka.dead] == [0]


STEPS = st.one_of(
    st.tuples(st.just("produce"), st.lists(st.integers(1, 12), min_size=1, max_size=3)),
    st.tuples(st.just("control"), st.none()),
    st.tuples(st.just("deliver"), st.integers(1, 4)),
    st.tuples(st.just("drop"), st.integers(1, 2)),
    st.tuples(st.sampled_from(["seal", "rebalance", "crash", "other", "ahead"]), st.none()),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=25))
def test_after_any_schedule_every_span_is_stored_exactly_once(steps: list[tuple[str, Any]]) -> None:
    produced: set[int] = set()

    async def story(s: Simulation) -> None:
        for step, value in steps:
            if step == "produce":
                s.produce(*value)
                produced.update(value)
            elif step == "control":
                s.kafka.log.append(None)
            elif step == "deliver":
                await s.deliver(value)
            elif step == "drop":
                await s.deliver(0, dropped=value)
            elif step == "ahead" and s.kafka.log:
                s.kafka.committed = s.kafka.position
            else:
                await {
                    "seal": s.seal,
                    "rebalance": s.rebalance_and_stay,
                    "crash": s.crash,
                    "other": s.another_owner_stores,
                    "ahead": s.seal,
                }[step]()

    with TemporaryDirectory() as folder:
        after = run(Path(folder), story)

    assert Counter(after.store.span_ids()) == Counter(produced)
    ranges = sorted((manifest.first, manifest.last) for manifest, _ in after.store.manifests.values())
    assert all(first == last + 1 for (_, last), (first, _) in pairwise(ranges))

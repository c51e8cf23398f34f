"""A worker over a simulated Kafka and store: whatever is dropped, read twice or refused, each span is stored once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from agents.owned import SealTicket
from agents.ports import Assignment
from agents.worker import Worker
from pipeline.partition.batch import SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.spans.dedup import span_keys
from pipeline.store.manifest import Manifest
from pipeline.store.tables import Tables
from topics.settings import Settings, WorkerSettings
from topics.spans_by_trace import DEFAULT_TENANT

TOPIC = "spans_by_trace"
NS = 1_000_000_000


def otlp(*span_ids: int) -> bytes:
    """One record: the spans of a single trace."""
    data = TracesData()
    for span_id in span_ids:
        span = data.resource_spans.add().scope_spans.add().spans.add()
        span.CopyFrom(Span(trace_id=b"t" * 16, span_id=span_id.to_bytes(8, "big"), name="s", start_time_unix_nano=NS))
    return data.SerializeToString()


class SimulatedStore:
    """The bucket: manifests by their first offset, each with the spans that its chunk would hold."""

    def __init__(self) -> None:
        self.manifests: dict[int, tuple[Manifest, SealedRange]] = {}
        self.refuse_next = False

    @property
    def mark(self) -> int:
        return max((manifest.last + 1 for manifest, _ in self.manifests.values()), default=0)

    def span_ids(self) -> list[int]:
        return [
            int.from_bytes(span_id, "big")
            for _, sealed in self.manifests.values()
            for span_id in sealed.spans.column("span_id").to_pylist()
        ]

    def put(self, sealed: SealedRange) -> Manifest | None:
        if sealed.first in self.manifests:
            return None
        manifest = Manifest(
            topic=sealed.topic,
            partition=sealed.partition,
            partitions=sealed.partitions,
            first=sealed.first,
            last=sealed.last,
            token=f"{len(self.manifests)}",
            worker="w",
            written_unix_ns=0,
            record_time_min_unix_ns=sealed.record_time_min_unix_ns,
            record_time_max_unix_ns=sealed.record_time_max_unix_ns,
            losses=sealed.losses,
            chunks=(),
        )
        self.manifests[sealed.first] = manifest, sealed
        return manifest


class SimulatedKafka:
    """One partition's log and the group's reading position. An offset whose value is None is never delivered."""

    def __init__(self) -> None:
        self.log: list[bytes | None] = []
        self.log_start = 0
        self.position = 0
        self.committed: int | None = None
        self.acked: set[int] = set()
        self.entries: list[int] = []
        self.dead: list[tuple[int, str]] = []

    async def ack(self, offset: int) -> None:
        self.acked.add(offset)
        start = self.committed or 0
        while start in self.acked or (start < len(self.log) and self.log[start] is None) or start < self.log_start:
            start += 1
        self.committed = start

    def fetch(self, count: int) -> list[SourceRecord]:
        """The next records that there are."""
        records: list[SourceRecord] = []
        self.position = max(self.position, self.log_start)
        while self.position < len(self.log) and len(records) < count:
            if (value := self.log[self.position]) is not None:
                records.append(SourceRecord(self.position, DEFAULT_TENANT, value, NS * (1 + self.position)))
            self.position += 1
        return records

    async def send_entry(self, manifest: Manifest) -> None:
        self.entries.append(manifest.first)

    async def send_dead(self, _partition: int, record: SourceRecord, reason: str) -> None:
        self.dead.append((record.offset, reason))


class SourceView:
    """agents.worker.Source over the simulated log."""

    def __init__(self, kafka: SimulatedKafka) -> None:
        self._kafka = kafka
        self.send_entry = kafka.send_entry
        self.send_dead = kafka.send_dead

    def end(self, _partition: int) -> int:
        return len(self._kafka.log)

    async def seek(self, _partition: int, offset: int) -> None:
        self._kafka.position = offset

    async def log_start(self, _partition: int) -> int:
        return self._kafka.log_start


class RangesView:
    """agents.worker.Ranges over the simulated store."""

    def __init__(self, store: SimulatedStore, kafka: SimulatedKafka) -> None:
        self._store, self._kafka = store, kafka

    def assignment(self, _partition: int, secret: bytes) -> Assignment:
        held = sorted(self._store.manifests.values(), key=lambda pair: pair[0].first)
        return Assignment(
            mark=self._store.mark,
            newest=held[-1][0] if held else None,
            window=[(span_keys(s.spans, secret), m.record_time_max_unix_ns, m.last) for m, s in held],
            log_start=self._kafka.log_start,
            committed=self._kafka.committed,
        )

    def store(self, sealed: SealedRange, _stop: threading.Event) -> Manifest | None:
        return self._store.put(sealed)


class Simulation:
    """One worker at a time on one partition, and what a schedule may do to it."""

    def __init__(self, path: Path) -> None:
        self.kafka, self.store, self.path = SimulatedKafka(), SimulatedStore(), path
        self.clock_ns = 10 * NS
        self.worker = self._new_worker(self.kafka)

    def _new_worker(self, kafka: SimulatedKafka) -> Worker:
        self.clock_ns += NS
        return Worker(
            Settings(worker=WorkerSettings(seal_age_s=10**6, drop_grace_s=0)),
            topic=TOPIC,
            partitions=1,
            source=SourceView(kafka),
            ranges=RangesView(self.store, kafka),
            tables=Tables(self.path / f"tables-{self.clock_ns}", rocksdb_bytes=4 << 20),
            secret=b"s" * 32,
            clock_ns=lambda: self.clock_ns,
        )

    def produce(self, *span_ids: int) -> None:
        self.kafka.log.append(otlp(*span_ids))

    def limit(self, **limits: float) -> None:
        """Other settings of the worker from now on, those that no configuration may have among them."""
        found = self.worker.settings.worker.model_copy(update=limits)
        self.worker.settings = self.worker.settings.model_copy(update={"worker": found})

    async def own(self) -> None:
        await self.worker.assigned({0})
        await self.worker.owned[0].loaded.wait()

    async def deliver(self, count: int, *, dropped: int = 0) -> None:
        """Hand the next records to the actor; the first `dropped` are fetched and never reach it."""
        taken = self.kafka.fetch(dropped + count)[dropped:]
        if taken:
            await self.worker.owned[0].loaded.wait()
            await self.worker.take(0, taken, [partial(self.kafka.ack, record.offset) for record in taken])

    async def seal(self) -> None:
        owned = self.worker.owned[0]
        await owned.loaded.wait()
        assert owned.state is not None
        if (plan := owned.state.seal()) is not None:
            await self.worker.store(SealTicket(owned, owned.state, plan))

    async def rebalance_and_stay(self) -> None:
        """Faust fetches a partition that stays again from the committed offset."""
        self.kafka.position = self.kafka.committed or 0
        await self.worker.assigned({0})

    async def crash(self) -> None:
        await self.worker.close()
        self.kafka.position = self.kafka.committed or 0
        self.worker = self._new_worker(self.kafka)
        await self.own()

    async def another_owner_stores(self) -> None:
        """A zombie's view: while we hold the partition, another worker reads on from the mark and stores a range."""
        mine, theirs = (self.worker, self.kafka), SimulatedKafka()
        theirs.log, theirs.log_start, theirs.position = self.kafka.log, self.kafka.log_start, self.store.mark
        self.worker, self.kafka = self._new_worker(theirs), theirs
        await self.own()
        await self.deliver(1000)
        await self.seal()
        await self.worker.close()
        self.worker, self.kafka = mine

    async def settle(self) -> None:
        """Deliver and seal until everything is stored: what any schedule must end in."""
        end = max((at for at, value in enumerate(self.kafka.log) if value is not None), default=-1) + 1
        for _ in range(60):
            await self.deliver(1000)
            await self.seal()
            self.clock_ns += 6 * NS
            await self.worker.tick()
            if self.store.mark >= end:
                return
        pytest.fail(f"stuck: stored up to {self.store.mark} of {end}")


def run(path: Path, story: Callable[[Simulation], Coroutine[Any, Any, None]]) -> Simulation:
    """Run a story on a new simulation and let it settle."""

    async def whole() -> Simulation:
        simulation = Simulation(path)
        await simulation.own()
        await story(simulation)
        await simulation.settle()
        await simulation.worker.close()
        return simulation

    return asyncio.run(whole())


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


def test_when_retention_deleted_all_there_was_the_loss_is_named_without_another_record(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        for span_id in (2, 3):
            s.produce(span_id)
        s.kafka.log_start = s.kafka.position = 3
        for _ in range(3):
            s.clock_ns += 6 * NS
            await s.worker.tick()
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


def test_a_copy_is_dropped_after_a_crash_too(tmp_path: Path) -> None:
    async def story(s: Simulation) -> None:
        s.produce(1)
        await s.deliver(1)
        await s.seal()
        await s.crash()
        s.produce(1, 2)

    assert sorted(run(tmp_path, story).store.span_ids()) == [1, 2]


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

"""The partitions that this worker owns: loaded on assignment, filled from records, sealed, stored, let go.

Kafka, the store and the clocks are handed in (`Source`, `Ranges`), so that all of it runs in a simulation. Everything
here runs on one event loop; decoding, encoding and disk run in `Pools`. A partition's own state is
pipeline.partition.state.Partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pyarrow as pa
import structlog

from agents.decoder import Decoder, batches_of, runs_of
from agents.owned import Ack, Owned, SealTicket
from agents.ports import Pools, Ranges, Source
from agents.reading import Reading, skip_lost
from agents.waits import ASSIGNMENT, DISK, Waits
from pipeline import telemetry
from pipeline.allocator import release_memory
from pipeline.clocks import Clocks
from pipeline.partition.batch import Prepared, SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.partition.segment import Segment
from pipeline.partition.state import Partition, PartitionLimits, merged, steady_ns
from pipeline.partition.window import Window
from pipeline.store.manifest import Manifest
from pipeline.store.tables import Slot, Tables
from topics.errors import DiskFullError, NotOwnerError, SpanstreamError
from topics.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")
KEYS_MIN = 1000  # of a window, whatever the number of partitions


class Worker:
    """All owned partitions of the keyed topic `topic` with `partitions` partitions."""

    def __init__(  # noqa: PLR0913 - what a worker touches, each handed in
        self,
        settings: Settings,
        *,
        topic: str,
        partitions: int,
        source: Source,
        ranges: Ranges,
        tables: Tables,
        secret: bytes,
        clocks: Clocks,
    ) -> None:
        self.settings = settings
        self.topic = topic
        self.partitions = partitions
        self.owned: dict[int, Owned] = {}
        self.tables = tables
        self.pools = Pools()
        self.waits = Waits(settings.store.retry_wait_max_s)
        self.seal_requested: Callable[[SealTicket], Awaitable[object]] | None = None
        self.joined = False  # the consumer group has answered once
        self._source = source
        self._ranges = ranges
        self._secret = secret
        self._unix_ns, self._now_ns = clocks
        self._decoder = Decoder(
            settings, self.pools.decode, partitions=partitions, secret=secret, clock_ns=clocks.unix_ns
        )
        self._reading = Reading(source, self.waits, clocks.steady_ns)
        self._epochs = itertools.count()
        self._room = asyncio.Event()
        self._room.set()

    # ---- assignment

    async def assigned(self, partitions: set[int]) -> None:
        """This worker owns exactly these partitions: let go of others, load new ones, keep what stays."""
        self.joined = True
        for partition in self.owned.keys() - partitions:
            self._let_go(partition)
        for owned in self.owned.values():
            owned.compared = False
        for partition in partitions - self.owned.keys():
            self._begin(partition)

    def _begin(self, partition: int) -> None:
        owned = self.owned[partition] = Owned(partition, self._unix_ns(), next(self._epochs))
        owned.task = asyncio.create_task(self._load_until_done(owned), name=f"load-{partition}")

    def _let_go(self, partition: int) -> None:
        owned = self.owned.pop(partition)
        owned.stop.set()
        if owned.task is not None:
            owned.task.cancel()
        with contextlib.suppress(DiskFullError):  # rows of another assignment are never read
            self.tables.clear(partition)
        log.info("partition_let_go", partition=partition)

    async def reload(self, owned: Owned) -> None:
        """Another attempt stored this range, or a step failed: forget the state, read the mark, go on from there."""
        if self.owned.get(owned.partition) is owned:
            self._let_go(owned.partition)
            self._begin(owned.partition)
            self.owned[owned.partition].unacked = owned.unacked
            self.owned[owned.partition].seen = owned.seen

    async def _load_until_done(self, owned: Owned) -> None:
        """Load; what waiting does not mend (a damaged manifest, one of a later version) is said again and again."""
        while not owned.loaded.is_set():
            try:
                await self._load(owned)
            except SpanstreamError as error:
                owned.problem = str(error)
                log.error("partition_not_loaded", partition=owned.partition, error=owned.problem)
                await asyncio.sleep(self.settings.store.retry_wait_max_s)
            except Exception:
                log.exception("partition_not_loaded", partition=owned.partition)
                await asyncio.sleep(self.settings.store.retry_wait_max_s)

    async def _load(self, owned: Owned) -> None:
        partition, keys_max = owned.partition, self._share_of_keys()
        found = await self.waits.until_there(
            ASSIGNMENT, lambda: self._in(self.pools.read, self._ranges.assignment, partition, self._secret, keys_max)
        )
        window = Window(window_s=self.settings.worker.window_s, keys_max=keys_max)
        for keys, time_max_unix_ns, last in found.window:
            window.add(keys[~window.holds(keys)], time_max_unix_ns=time_max_unix_ns, last=last, now_ns=self._now_ns())
        await self._write(self.tables.clear, partition)
        state = Partition(partition=partition, mark=found.mark, window=window, limits=limits_of(self.settings))
        state.record_ns = self._now_ns()  # until a record says how far behind it is
        if (newest := found.newest) is not None:
            state.record_ns = steady_ns(newest.record_time_max_unix_ns, self._now_ns(), self._unix_ns())
            owned.manifests.append(newest)
            await self.waits.until_there("catalog entry", lambda: self._source.send_entry(newest))
        skip_lost(state, found.log_start, self._now_ns())
        await self._ack_below(owned, found.mark)
        owned.state = state
        # Kafka delivers from the committed offset on. That is ahead of the mark where buckets were lost or Faust
        # acknowledged a record it skipped in a rebalance; in a reload it is ahead too.
        owned.seen = max(owned.seen, (found.committed or 0) - 1)
        if owned.seen >= state.next:
            await self._reading.rewind(owned, state)
        owned.heard_ns = self._now_ns()
        owned.loaded.set()
        log.info("partition_loaded", partition=partition, mark=found.mark, next=state.next, window_keys=len(window))

    def _share_of_keys(self) -> int:
        """How many keys the window of each partition may have, now that so many are owned."""
        share = max(KEYS_MIN, self.settings.worker.window_keys_max // max(1, len(self.owned)))
        for owned in self.owned.values():
            if owned.state is not None:
                owned.state.window.keys_max = share
        return share

    # ---- records in

    async def take(self, partition: int, records: Sequence[SourceRecord], acks: Sequence[Ack]) -> None:
        """Take records of one partition, from its one actor. acks: one a record, kept until stored.

        They come in offset order, but for a rebalance or a rewind: from there on a run of its own begins.
        """
        for run in runs_of(records):
            if not await self._take_run(partition, records[run], acks[run]):
                return

    async def _take_run(self, partition: int, records: Sequence[SourceRecord], acks: Sequence[Ack]) -> bool:
        """Take records whose offsets follow each other.

        False: the partition is let go, or read again from before these records, so that what comes after them is old.
        """
        owned = self.owned.get(partition)
        if owned is None:
            return False
        await owned.loaded.wait()
        await self._room.wait()
        state = owned.state
        assert state is not None
        owned.taking = True
        try:
            await self._keep_acks(owned, state, records, acks)
            found = await self._reading.in_order(owned, state, records)
            if found is not None:
                await self._take_in_order(owned, state, found)
            return found is not None
        finally:
            owned.taking = False

    async def _keep_acks(
        self, owned: Owned, state: Partition, records: Sequence[SourceRecord], acks: Sequence[Ack]
    ) -> None:
        """For what is stored already at once, for the rest when it is, or is lost: Faust commits no further before."""
        for record, ack in zip(records, acks, strict=True):
            if record.offset < state.mark:
                await ack()
            else:
                owned.unacked[record.offset] = ack

    async def _take_in_order(self, owned: Owned, state: Partition, records: Sequence[SourceRecord]) -> None:
        partition = owned.partition
        for batch in batches_of(records, self.settings):
            prepared = await self._decoder.prepared(state.wanted(batch))
            if prepared is None:
                continue
            for letter in prepared.dead:
                await self.waits.until_there("dead letter", partial(self._source.send_dead, partition, *letter))
            if self._is_gone(owned, state):
                return
            await self._apply(owned, state, prepared)
        owned.heard_ns = self._now_ns()

    async def reached(self, until: Mapping[int, int], timeout_s: float) -> None:
        """Wait until each partition's records below until[partition] are taken, or it is not owned here.

        timeout_s at most.
        """
        with self._decoder.hurried(until), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for partition, offset in until.items():
                    while self._is_behind(partition, offset):
                        await self.owned[partition].moved.wait()

    def _is_behind(self, partition: int, offset: int) -> bool:
        owned = self.owned.get(partition)
        return owned is not None and owned.state is not None and owned.state.next < offset

    def _is_gone(self, owned: Owned, state: Partition) -> bool:
        """Whether the partition was let go, or loaded anew, since it was looked up."""
        return owned.state is not state or self.owned.get(owned.partition) is not owned

    async def _apply(self, owned: Owned, state: Partition, prepared: Prepared) -> None:
        segment = state.apply(prepared, now_ns=self._now_ns(), now_unix_ns=self._unix_ns())
        owned.moved.set()
        owned.moved = asyncio.Event()
        telemetry.count_batch(prepared)
        await self._write(self.tables.index_segment, owned.slot, segment, prepared.index)
        while olds := state.merge_due():
            try:
                one = await self._in(self.pools.decode, self._merged, owned.slot, olds)
            except NotOwnerError:  # let go, or stored and dropped, meanwhile
                break
            if not state.replace(olds, one):
                break
            await self._write(self.tables.merge_segments, owned.slot, olds, one)
        await self._seal_if_due(owned, state)
        await self._bound_memory()

    # ---- ranges out

    async def tick(self) -> None:
        """Seal what is due by age, let go what is past its grace. Called about twice a second."""
        for owned in list(self.owned.values()):
            if owned.state is not None:
                await self._seal_if_due(owned, owned.state)
                await self._drop(owned, owned.state)
                await self._reading.go_on(owned, owned.state, room=self._room.is_set())
        await self._bound_memory()
        states = [owned.state for owned in self.owned.values() if owned.state is not None]
        telemetry.observe_partitions(states, [self.progress(state) for state in states], self._now_ns())

    async def _seal_if_due(self, owned: Owned, state: Partition) -> None:
        if state.seal_due(self._now_ns()):
            await self._seal(owned, state)

    async def _seal(self, owned: Owned, state: Partition) -> None:
        if self.seal_requested is not None and (plan := state.seal()) is not None:
            await self.seal_requested(SealTicket(owned, state, plan))

    async def store(self, ticket: SealTicket) -> None:
        """The commit of one range, in order: chunks, manifest, catalog entry, acknowledgement; segments go later.

        A crash of this coroutine leaves nothing half done that counts: the partition is loaded again.
        """
        owned, state, plan = ticket.owned, ticket.state, ticket.plan
        if self._is_gone(owned, state):
            return
        try:
            with telemetry.SEAL_SECONDS.time():
                manifest = await self._in(self.pools.seal, self._store_range, ticket)
            if manifest is None:
                await self.reload(owned)
                return
            await self.waits.until_there("catalog entry", lambda: self._source.send_entry(manifest))
            await self._ack_below(owned, plan.last + 1)
            state.stored(plan.last, self._now_ns())
            owned.compared, owned.heard_ns = False, self._now_ns()
            owned.manifests.append(manifest)
            telemetry.count_manifest(manifest)
            log.info(
                "range_stored", partition=owned.partition, first=plan.first, last=plan.last, chunks=len(manifest.chunks)
            )
        except Exception as error:
            if self._is_gone(owned, state):  # and its rows with it
                log.info("seal_abandoned", partition=owned.partition, first=plan.first, error=repr(error))
                return
            log.exception("seal_failed", partition=owned.partition, first=plan.first, last=plan.last)
            await self.reload(owned)

    def _store_range(self, ticket: SealTicket) -> Manifest | None:
        whole = self._merged(ticket.owned.slot, ticket.plan.segments)
        sealed = SealedRange(
            topic=self.topic,
            partition=ticket.owned.partition,
            partitions=self.partitions,
            first=ticket.plan.first,
            last=ticket.plan.last,
            spans=whole.spans,
            record_time_min_unix_ns=whole.record_time_min_unix_ns,
            record_time_max_unix_ns=whole.record_time_max_unix_ns,
            losses=whole.losses,
        )
        manifest = self._ranges.store(sealed, ticket.owned.stop)
        release_memory(above_bytes=self.settings.worker.resident_bytes_max)
        return manifest

    async def _ack_below(self, owned: Owned, offset: int) -> None:
        for below in sorted(at for at in owned.unacked if at < offset):
            await owned.unacked.pop(below)()

    async def _drop(self, owned: Owned, state: Partition, *, at_once: bool = False) -> None:
        if gone := state.drop(self._now_ns(), at_once=at_once):
            await self._write(self.tables.drop_segments, owned.slot, gone)

    # ---- memory

    def progress(self, state: Partition) -> dict[str, int | float | None]:
        """How far a partition is: offsets, lag in records and seconds, what is open, how old. None: not yet known."""
        end = self._source.end(state.partition)
        opened = state.open_segments
        return {
            "mark": state.mark,
            "low": state.low,
            "next": state.next,
            "end": end,
            "lag_records": None if end is None else max(0, end - state.next),
            "lag_s": 0.0 if end is None or end <= state.next else (self._now_ns() - state.record_ns) / 1e9,
            "open_spans": sum(segment.spans_count for segment in opened),
            "open_segments": len(opened),
            "unsealed_s": max((self._now_ns() - segment.oldest_ns for segment in opened), default=0) / 1e9,
            "held_bytes": state.nbytes,
            "window_keys": len(state.window),
        }

    def held_bytes(self) -> int:
        """Bytes of all segments in memory and windows."""
        return sum(owned.state.nbytes for owned in self.owned.values() if owned.state is not None)

    async def _bound_memory(self) -> None:
        """Keep in-memory copies within their share, RocksDB serves the rest; beyond the budgets seal the largest.

        Where windows alone are too large there is nothing to wait for: they shrink as further ranges are stored.
        """
        await self._spill()
        await self._seal_largest()
        worker, owners = self.settings.worker, [owned for owned in self.owned.values() if owned.state is not None]
        if self.held_bytes() > worker.memory_bytes_max:  # the grace of what is stored is the first to go
            for owned in owners:
                if owned.state is not None:
                    await self._drop(owned, owned.state, at_once=True)
        unsealed = sum(segment.nbytes for owned in owners if owned.state for segment in owned.state.segments)
        if not unsealed or (self.held_bytes() <= worker.memory_bytes_max and unsealed <= worker.unsealed_bytes_max):
            self._room.set()
            return
        self._room.clear()  # fetching stops by itself: the actors wait in `take`, Faust's buffers are bounded
        for owned in sorted(owners, key=lambda o: -(o.state.nbytes if o.state else 0))[:1]:
            if owned.state is not None:
                await self._seal(owned, owned.state)

    async def _seal_largest(self) -> None:
        """What is open is what each query on live spans looks at, whatever the number of partitions."""
        opened = {
            number: sum(segment.nbytes for segment in owned.state.open_segments)
            for number, owned in self.owned.items()
            if owned.state is not None
        }
        if sum(opened.values()) > self.settings.worker.open_bytes_max:
            for number in sorted(opened, key=lambda number: -opened[number])[:1]:
                owned = self.owned[number]
                if owned.state is not None and owned.state.plan is None:
                    await self._seal(owned, owned.state)

    async def _spill(self) -> None:
        """Let RocksDB hold the largest segments beyond live_bytes_max; those that are being sealed stay in memory, and
        all do while its disk is full.
        """
        held = [
            (segment, owned)
            for owned in self.owned.values()
            if owned.state is not None
            for segment in owned.state.open_segments
            if segment.spans is not None and segment.spans_count
        ]
        spare = sum(segment.nbytes for segment, _ in held) - self.settings.worker.live_bytes_max
        for segment, owned in sorted(held, key=lambda pair: -pair[0].nbytes):
            if spare <= 0 or segment.spans is None:
                break
            if not segment.in_table:
                try:
                    await self._in(self.pools.read, self._put_rows, owned.slot, segment, segment.spans)
                except DiskFullError as error:
                    self.waits.failed(DISK, error)
                    return
                segment.in_table = True
            segment.spans = None
            spare -= segment.nbytes

    def _put_rows(self, slot: Slot, segment: Segment, spans: pa.Table) -> None:
        """spans: the segment's, which another spill may let go meanwhile."""
        self.tables.put_rows(slot, segment, spans)
        segment.name_traces(spans)

    def segment_rows(self, slot: Slot, segment: Segment) -> pa.Table:
        """A segment's rows from memory, else from RocksDB. Blocking. Raises NotOwnerError when they are gone."""
        spans = segment.spans
        return spans if spans is not None else self.tables.segment_rows(slot, segment)

    def _merged(self, slot: Slot, olds: Sequence[Segment]) -> Segment:
        columns_max = self.settings.worker.attribute_columns_max
        return merged(olds, [self.segment_rows(slot, old) for old in olds], attribute_columns_max=columns_max)

    # ---- waiting

    async def _write(self, call: Callable[..., None], *arguments: object) -> None:
        """To the tables, when there is room on their disk."""
        await self.waits.until_there(DISK, lambda: self._in(self.pools.read, call, *arguments))

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    async def close(self) -> None:
        """Let go of everything; nothing acknowledged depends on what is dropped here."""
        for partition in list(self.owned):
            with contextlib.suppress(Exception):
                self._let_go(partition)
        self.pools.close()


def limits_of(settings: Settings) -> PartitionLimits:
    """The bounds of one partition, from the settings."""
    worker = settings.worker
    return PartitionLimits(
        seal_bytes=worker.seal_bytes,
        seal_spans=worker.seal_spans,
        seal_age_s=worker.seal_age_s,
        segments_max=worker.segments_max,
        drop_grace_s=worker.drop_grace_s,
    )

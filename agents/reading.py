"""Records in the order of their offsets, whatever Faust leaves out of them or Kafka deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from agents.owned import Owned
from agents.ports import Source
from agents.waits import Waits
from pipeline import telemetry
from pipeline.partition.batch import SourceRecord
from pipeline.partition.state import Partition

log = structlog.get_logger(__name__)
STALLED_NS = 5_000_000_000


class Reading:
    """Where partitions are read. now_ns: the steady clock."""

    def __init__(self, source: Source, waits: Waits, now_ns: Callable[[], int]) -> None:
        self._source, self._waits, self._now_ns = source, waits, now_ns

    async def in_order(
        self, owned: Owned, state: Partition, records: Sequence[SourceRecord]
    ) -> Sequence[SourceRecord] | None:
        """The records to take: none that were fetched before a rewind, and none behind a gap that is one.

        None: they are to be read again, from before the gap, which Faust leaves when it skips what it fetched before a
        rebalance. A gap below the log's start is a loss. Where the log has no record either (control records,
        compaction) there is none.
        """
        owned.heard_ns = self._now_ns()
        if owned.rewinding:
            behind = [at for at, record in enumerate(records) if record.offset <= owned.seen]
            owned.seen = max(owned.seen, records[-1].offset)
            if not behind:
                return ()
            owned.rewinding = False
            records = records[behind[0] :]
        first, owned.seen = records[0].offset, max(owned.seen, records[-1].offset)
        if first > state.next:
            partition, start = owned.partition, state.next
            there = await self._waits.until_there("next record", lambda: self._source.next_record(partition, start))
            # Asked in this order, so that what retention deletes meanwhile counts as lost, not as never there.
            log_start = await self._waits.until_there("log start", lambda: self._source.log_start(partition))
            skip_lost(state, log_start, self._now_ns())
            if max(there, state.next) < first:
                await self.rewind(owned, state)
                return None
        return records

    async def go_on(self, owned: Owned, state: Partition, *, room: bool) -> None:
        """Look again where nothing has come for STALLED_NS, though there was room for it.

        Kafka may have records all the same: a fetch was dropped at the end of the log, or raced with a rewind. Or it
        had some, and deleted all of them: then none comes that would show the gap.
        """
        end, idle = self._source.end(owned.partition), owned.task is None or owned.task.done()
        if self._now_ns() - owned.heard_ns <= STALLED_NS or not room:
            return
        if not owned.compared and idle:
            owned.task = asyncio.create_task(self._read_unacked(owned, state), name=f"unacked-{owned.partition}")
            idle = False
        if end is not None and state.next < end:
            if owned.rewinding and idle:
                owned.task = asyncio.create_task(self._name_lost(owned, state), name=f"lost-{owned.partition}")
            owned.seen = max(owned.seen, end - 1)
            await self.rewind(owned, state)

    async def _read_unacked(self, owned: Owned, state: Partition) -> None:
        """A fetch that was dropped may have had records that are stored: nobody acknowledges them, and Kafka would
        think that the group lags until the next record comes.
        """
        owned.compared = True
        committed = await self._waits.until_there("committed", lambda: self._source.committed(owned.partition))
        if owned.state is state and committed is not None and committed < state.mark:
            owned.heard_ns = self._now_ns()
            await self._waits.until_there("seek", lambda: self._source.seek(owned.partition, committed))

    async def _name_lost(self, owned: Owned, state: Partition) -> None:
        start = await self._waits.until_there("log start", lambda: self._source.log_start(owned.partition))
        if owned.state is state and not owned.taking:
            skip_lost(state, start, self._now_ns())

    async def rewind(self, owned: Owned, state: Partition) -> None:
        """Read again from what is to be taken next; what was fetched before does not count."""
        owned.rewinding, owned.heard_ns = True, self._now_ns()
        await self._waits.until_there("seek", lambda: self._source.seek(owned.partition, state.next))


def skip_lost(state: Partition, log_start: int, now_ns: int) -> None:
    """What lies below the log's start is lost, and named."""
    if lost := state.skip_lost(log_start, now_ns):
        telemetry.LOST_RECORDS.inc(lost[1] - lost[0] + 1)
        log.error(
            "records_lost",
            partition=state.partition,
            first=lost[0],
            last=lost[1],
            why="deleted by Kafka's retention",
        )

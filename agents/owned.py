"""What a worker keeps of each partition it owns, beside the partition's own state."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pipeline.partition.state import Partition, SealPlan
from pipeline.store.manifest import Manifest
from pipeline.store.tables import Slot

Ack = Callable[[], Awaitable[None]]
MANIFESTS_KEPT = 100  # of each partition, for the table of chunks


@dataclass(slots=True)
class Owned:
    """One assigned partition: its state once loaded, the records to acknowledge, and the stop of what runs for it."""

    partition: int
    assigned_unix_ns: int  # when: what a querier keeps of an earlier assignment is not continued
    epoch: int  # tells the rows of this assignment in RocksDB from those that a late thread of an earlier one wrote
    state: Partition | None = None
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    unacked: dict[int, Ack] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    task: asyncio.Task[None] | None = None
    problem: str = ""  # why it cannot be loaded, where waiting does not mend that
    taking: bool = False  # a batch is under way: what it was prepared for must not change
    seen: int = -1  # highest offset delivered
    rewinding: bool = False  # the reading position was set back, and nothing from there has come yet
    heard_ns: int = 0  # when records came, were asked for or stored, by the steady clock
    compared: bool = False  # what Kafka has committed was looked at since records were assigned or stored last
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # set and replaced when a batch was taken
    manifests: deque[Manifest] = field(default_factory=lambda: deque(maxlen=MANIFESTS_KEPT))  # stored last

    @property
    def slot(self) -> Slot:
        """Where this assignment's rows stand in the tables."""
        return Slot(self.partition, self.epoch)


@dataclass(frozen=True, slots=True)
class SealTicket:
    """What the sink is given: one sealed range of one owned partition."""

    owned: Owned
    state: Partition
    plan: SealPlan

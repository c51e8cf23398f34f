"""A worker process: the real worker, agents and table endpoint, over the simulated parts. And what Faust does there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.app import worker_url
from agents.index_agent import attach_index
from agents.owned import SealTicket
from agents.ports import Assignment, Pools
from agents.sink_agent import attach_sink
from agents.source import StoreRanges
from agents.table_endpoint import TableEndpoint
from agents.worker import Worker
from pipeline.clocks import Clocks
from pipeline.partition.batch import SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.store import tables
from pipeline.store.housekeeping import Housekeeper, Retention
from pipeline.store.manifest import Manifest
from tests.simulation.kafka import FaustEvent, FaustMessage
from tests.simulation.scheduler import Condition, Process
from tests.simulation.store import SimulatedStore
from topics.errors import KafkaUnavailableError, StoreUnavailableError
from topics.settings import HousekeepingSettings, Settings

if TYPE_CHECKING:
    from tests.simulation.world import World

KEPT_EVENTS = 4  # of a partition, fetched and not yet taken by its actor
FETCH_RECORDS = 4
COMMIT_S = 1.0


class App:
    """faust.App, as far as our agents use it."""

    def __init__(self) -> None:
        self.agents: dict[str, Callable[[Any], Any]] = {}

    def topic(self, name: str, **_: Any) -> str:
        return name

    def task(self, function: Any) -> Any:
        return function

    def agent(self, _source: Any, *, name: str, **_: Any) -> Callable[[Any], Any]:
        def attach(function: Any) -> Any:
            self.agents[name] = function
            return function

        return attach


class Stream:
    """A partition's stream. acked: who is told of an acknowledgement."""

    def __init__(self, acked: Callable[[int], None]) -> None:
        self.queue: asyncio.Queue[FaustEvent] = asyncio.Queue()
        self.enable_acks = True
        self._acked = acked

    async def events(self) -> AsyncIterator[FaustEvent]:
        while True:
            yield await self.queue.get()

    async def ack(self, event: FaustEvent) -> None:
        self._acked(event.message.offset)


class Fetching:
    """One partition of one assignment: where it is read, what was given to its actor, what was acknowledged."""

    def __init__(self, owner: SimulatedWorker, partition: int, position: int) -> None:
        self.owner, self.partition, self.position = owner, partition, position
        self.log = owner.world.kafka.logs[partition]
        self.stream = Stream(self.ack)
        self.given: set[int] = set()
        self.acked: set[int] = set()
        self.scheduled = False
        self.committing = False
        self.ended = False
        self.actor = owner.process.spawn(owner.app.agents["index"](self.stream), f"actor-{partition}")
        self.log.changed.append(self.poke)
        self.poke()

    def poke(self) -> None:
        """Fetch soon."""
        if not self.scheduled and not self.ended:
            self.scheduled = True
            self.owner.world.scheduler.soon(self.fetch, self.owner.process, 0.2)

    def fetch(self) -> None:
        """Some records, to the actor; what lies below the log's start is skipped, as `earliest` says."""
        self.scheduled = False
        if self.ended:
            return
        world, queue = self.owner.world, self.stream.queue
        if queue.qsize() >= KEPT_EVENTS:
            self.poke()
            return
        self.position = max(self.position, self.log.start)
        upto = min(self.log.end, self.position + world.scheduler.rng.randint(1, FETCH_RECORDS))
        self.owner.heard[self.partition] = self.log.end
        found = [(at, entry) for at in range(self.position, upto) if (entry := self.log.entries[at]) is not None]
        self.position = upto
        if found and world.faults.strikes("fetch dropped", "take"):
            found = []
            world.kafka.ran_ahead.add(self.partition)  # Faust takes them for offsets that are never delivered
        for at, entry in found:
            self.given.add(at)
            queue.put_nowait(FaustEvent(FaustMessage(self.partition, at, entry)))
        if found:
            self.owner.enter(self.partition, "take")
        if self.position < self.log.end:
            self.poke()

    def skip(self, but: int) -> None:
        """Faust skips what it fetched before a rebalance, but for what the agent has taken by then."""
        events = [self.stream.queue.get_nowait() for _ in range(self.stream.queue.qsize())]
        for event in events[:but]:
            self.stream.queue.put_nowait(event)

    def seek(self, offset: int) -> None:
        """Read from there; what was fetched before still comes."""
        if not self.owner.world.faults.strikes("seek lost", "replay"):
            self.position = offset
        self.poke()

    def ack(self, offset: int) -> None:
        """The agent has acknowledged a record; it is committed when nothing before it is open."""
        self.acked.add(offset)
        self.owner.enter(self.partition, "ack")
        if not self.committing:
            self.committing = True
            self.owner.world.scheduler.soon(self.commit, self.owner.process, COMMIT_S)

    def commit(self) -> None:
        """Faust commits up to the first record that was given and is not acknowledged."""
        self.committing = False
        if self.ended or not self.acked:
            return
        opened = self.given - self.acked
        offset = min(opened) if opened else max(self.acked) + 1
        if self.owner.world.kafka.committed.get(self.partition, 0) < offset:
            self.owner.commit(self.partition, offset)

    def end(self) -> None:
        """The partition is gone: its actor is cancelled wherever it is."""
        self.ended = True
        self.log.changed.remove(self.poke)
        self.actor.cancel()


class SimulatedWorker:
    """One run of a worker process."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.process = Process(world.scheduler, name)
        self.process.on_thread = self._on_thread
        self.url = f"http://{name}"
        self.settings: Settings = world.settings.model_copy(
            update={"worker": world.settings.worker.model_copy(update={"advertised_url": self.url})}
        )
        self.store = SimulatedStore(world.settings.store, world.buckets, self.process, self._spoil)
        self.fetching: dict[int, Fetching] = {}
        self.heard: dict[int, int] = {}
        self.generation = -1
        self.steps: dict[tuple[int, bool], str] = {}  # partition, whether on the way out -> commit step
        self.app = App()
        self.worker = Worker(
            self.settings,
            topic=world.topic,
            partitions=len(world.kafka.logs),
            source=Source(self),
            ranges=Ranges(self),
            tables=tables.Tables(world.folder / f"tables-{name}", rocksdb_bytes=4 << 20),
            secret=world.scheduler.rng.randbytes(32),
            clocks=Clocks(self.unix_ns, world.scheduler.time_ns),
        )
        self.endpoint = TableEndpoint(self.worker, self._no_owners, worker_url(self.settings), self.settings)
        attach_index(self.app, self.settings, self.worker)  # type: ignore[arg-type]
        sink = attach_sink(self.app, self.worker)  # type: ignore[arg-type]
        self.worker.seal_requested = partial(self._sealed, self.worker.seal_requested)
        self.process.spawn(sink(), "sink")
        self.process.spawn(self._tick(), "tick")
        self.process.spawn(self._keep_house(), "housekeeping")

    def unix_ns(self) -> int:
        """The wall clock of its machine."""
        return self.world.scheduler.time_ns() + self.world.clocks_off_ns[self.name]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.world.tick_s)
            await self.worker.tick()

    async def _keep_house(self) -> None:
        """Sweeps and merges, as often as fits into a seed; retention takes nothing in so short a time."""
        short = {"query_timeout_s": 2.0, "catalog_refresh_s": 1.0}
        settings = self.settings.model_copy(
            update={
                "housekeeping": HousekeepingSettings(
                    removed_kept_s=0,
                    sweep_every_h=2 / 3600,
                    checkpoint_edits=3,
                    compaction_after_h=0,
                    compaction_parts_min=2,
                    compaction_every_s=4,
                    compaction_share=1,
                    check_bytes_per_s=0,
                ),
                "querier": self.settings.querier.model_copy(update=short),
                "worker": self.settings.worker.model_copy(update={"data_dir": self.world.folder / self.name}),
            }
        )
        keeper = Housekeeper(
            settings,
            self.store,
            topic=self.world.topic,
            worker=self.name,
            clocks=Clocks(self.unix_ns, self.world.scheduler.time_ns),
            retention=lambda: Retention(14 * 86_400),
        )
        pool = Pools().seal
        while True:
            await asyncio.sleep(self.world.sweep_every_s)
            for partition, owned in list(self.worker.owned.items()):
                if owned.state is not None:
                    with contextlib.suppress(StoreUnavailableError):
                        await asyncio.get_running_loop().run_in_executor(pool, keeper.keep, partition, owned.stop)

    async def _no_owners(self) -> dict[int, str]:
        return {}

    def unlock(self) -> None:
        """It is gone: its folder can be opened again."""
        self.worker.tables.close()

    # ---- the group

    def on_assigned(self, generation: int, partitions: set[int]) -> None:
        """Faust: actors of what is gone end, what stays is read again from the committed offset; then we are told."""
        if self.process.stopped:
            self.process.held.append(lambda: self.on_assigned(generation, partitions))
            return
        if not self.process.alive or generation <= self.generation:
            return
        rng = self.world.scheduler.rng
        self.generation = generation
        for partition in list(self.fetching):
            if partition not in partitions or rng.random() < 0.6:
                self.fetching.pop(partition).end()
        for partition in sorted(partitions):
            position = self.world.kafka.committed.get(partition, 0)
            if partition in self.fetching:
                kept = self.fetching[partition]
                kept.position = position
                kept.skip(rng.randint(0, KEPT_EVENTS))
                kept.poke()
            else:
                self.fetching[partition] = Fetching(self, partition, position)
        self.process.spawn(self.worker.assigned(partitions), "assigned")

    def commit(self, partition: int, offset: int) -> None:
        self.enter(partition, "commit")
        if self.world.kafka.group.commit(self, self.generation, partition, offset):
            self.world.invariants.committed(partition, offset)

    # ---- where it is

    def enter(self, partition: int, step: str) -> None:
        """The partition has come to a step of its way; faults strike at steps."""
        self.steps[partition, step in OUT] = step
        self.world.faults.at_step(self.world, self, partition, step)

    async def _sealed(self, requested: Callable[[SealTicket], Awaitable[object]], ticket: SealTicket) -> None:
        """From here on until its first object is put a range waits for a thread."""
        self.enter(ticket.owned.partition, "seal")
        await requested(ticket)

    def _on_thread(self, call: Callable[..., object], given: tuple[Any, ...]) -> None:
        """What starts in a thread says where its partition is."""
        name = getattr(call, "__name__", "")
        if name == "_prepare":
            for wanted in given[0]:
                self.enter(wanted.partition, "decode")
        elif name in ("index_segment", "drop_segments"):
            self.enter(given[0].partition, "live" if name == "index_segment" else "drop")
        elif name == "assignment":
            self.enter(given[0], "load")

    def _spoil(self, what: str, name: str) -> str:
        """Whether this request to the store goes wrong."""
        kind, *rest = name.split("/")
        if kind == "probe":
            return self.world.faults.of_store(what, "probe")
        if (kind, what) == ("chunks", "list") or rest[-2:-1] in (["edits"], ["checkpoints"]):
            return self.world.faults.of_store(what, "manifest" if what == "put_if_absent" else "load")
        partition = int(rest[-2] if kind == "chunks" else rest[1])
        step = "load"
        if what == "put":
            step = "chunk" if name.endswith(".parquet") and not name.endswith(".traces.parquet") else "side"
        elif what == "put_if_absent":
            step = "manifest"
        elif what == "remove":
            step = "lose"
        elif what == "get" and self.steps.get((partition, True)) in ("manifest", "settle"):
            step = "settle"
        self.enter(partition, step)
        return self.world.faults.of_store(what, step)


OUT = ("seal", "chunk", "side", "manifest", "settle", "lose", "entry", "ack", "commit", "drop")


class Source:
    """agents.ports.Source of one worker."""

    def __init__(self, owner: SimulatedWorker) -> None:
        self._owner, self._world = owner, owner.world

    def end(self, partition: int) -> int | None:
        return self._owner.heard.get(partition)

    async def seek(self, partition: int, offset: int) -> None:
        self._owner.enter(partition, "replay")
        await self._wait("replay")
        if partition in self._owner.fetching:
            self._owner.fetching[partition].seek(offset)

    async def log_start(self, partition: int) -> int:
        await self._wait("take")
        return self._world.kafka.logs[partition].start

    async def committed(self, partition: int) -> int | None:
        await self._wait("take")
        return self._world.kafka.committed.get(partition)

    async def next_record(self, partition: int, offset: int) -> int:
        await self._wait("take")
        return self._world.kafka.logs[partition].next_record(offset)

    async def send_entry(self, manifest: Manifest) -> None:
        self._owner.enter(manifest.partition, "entry")
        await self._send("entry", lambda: self._world.told(manifest))

    async def send_dead(self, partition: int, record: SourceRecord, reason: str) -> None:
        await self._send("dead", lambda: self._world.kafka.dead.append((partition, record.offset, reason)))

    async def _send(self, step: str, effect: Callable[[], None]) -> None:
        await self._wait(step)
        effect()
        lost = self._world.faults.strikes("answer lost", step)
        await asyncio.sleep(self._world.scheduler.rng.random() * 0.02)
        if lost:
            raise KafkaUnavailableError(f"{step}: answer lost")

    async def _wait(self, step: str) -> None:
        await asyncio.sleep(self._world.scheduler.rng.random() * 0.05)
        if self._world.faults.strikes("kafka away", step):
            raise KafkaUnavailableError(f"{step}: kafka away")


class Ranges:
    """agents.ports.Ranges of one worker: the real one, over a connection to the simulated store."""

    def __init__(self, owner: SimulatedWorker) -> None:
        self._owner = owner
        self._real = StoreRanges(
            owner.settings,
            owner.store,
            topic=owner.world.topic,
            partitions=len(owner.world.kafka.logs),
            worker_url=owner.url,
            offsets=self,
            clock_ns=owner.unix_ns,
        )

    def assignment(self, partition: int, secret: bytes, keys_max: int) -> Assignment:
        return self._real.assignment(partition, secret, keys_max)

    def store(self, sealed: SealedRange, stop: threading.Event) -> Manifest | None:
        return self._real.store(sealed, Stop(self._owner, stop))  # type: ignore[arg-type]

    def log_start(self, partition: int) -> int:
        self._wait()
        return self._owner.world.kafka.logs[partition].start

    def committed(self, partition: int) -> int | None:
        self._wait()
        return self._owner.world.kafka.committed.get(partition)

    def _wait(self) -> None:
        fiber = self._owner.world.scheduler.fiber
        assert fiber is not None
        fiber.sleep(self._owner.world.scheduler.rng.random() * 0.05)
        if self._owner.world.faults.strikes("kafka away", "load"):
            raise KafkaUnavailableError("kafka away")


class Stop:
    """The worker's threading.Event, whose waits take simulated time."""

    def __init__(self, owner: SimulatedWorker, real: threading.Event) -> None:
        self._scheduler, self._real = owner.world.scheduler, real

    def is_set(self) -> bool:
        return self._real.is_set()

    def wait(self, seconds: float) -> bool:
        if not self._real.is_set():
            Condition(self._scheduler).wait(seconds)
        return self._real.is_set()

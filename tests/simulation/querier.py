"""A querier process: the real catalog, its feed, live client, reader of tails, snapshots and look-ups by trace ID."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException

from agents.table_endpoint import LiveQuestion
from pipeline.query.chunks import ChunkReader, refs_of
from pipeline.query.copies import Wanted
from pipeline.query.engine import Session
from pipeline.query.live import LiveClient
from pipeline.query.owners import Owners
from pipeline.query.settled import settled
from pipeline.query.snapshot import Snapshot, Snapshots, filtered
from pipeline.query.tail import TailReader
from pipeline.query.trace_by_id import TraceLookup
from pipeline.query.turns import Lane
from pipeline.spans import schema
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_feed import CatalogFeed
from tests.simulation.kafka import FeedConsumer, SpanKey, TailConsumer
from tests.simulation.scheduler import Event, Mutex, Process
from tests.simulation.store import SimulatedStore
from topics.errors import KafkaUnavailableError, StoreUnavailableError

if TYPE_CHECKING:
    from tests.simulation.workers import SimulatedWorker
    from tests.simulation.world import World

T = TypeVar("T")
ALL_TIMES = 2**64 - 1


class Answer:
    """What a query said. stored, live, tail: spans as they were given, copies included; lost: offsets named as lost."""

    def __init__(self, stored: list[SpanKey], reasons: list[str]) -> None:
        self.stored, self.reasons = stored, reasons
        self.live: list[SpanKey] = []
        self.tail: list[SpanKey] = []
        self.lost: set[tuple[int, int]] = set()

    @property
    def spans(self) -> list[SpanKey]:
        """All of them."""
        return self.stored + self.live + self.tail


class SimulatedQuerier:
    """One run of a querier process; its catalog's folder survives it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = Process(world.scheduler, "querier")
        self.store = SimulatedStore(world.settings.store, world.buckets, self.process, self._spoil)
        self.catalog = Catalog(world.folder / "querier", world.topic, self.store)
        self.catalog._readers = OneByOne()  # type: ignore[assignment]
        self.catalog._refreshing = defaultdict(lambda: Mutex(world.scheduler))  # type: ignore[assignment,arg-type]
        self.feed = CatalogFeed(world.settings, self.catalog)
        self.feed._stop = Event(world.scheduler)  # type: ignore[assignment]
        self.feed._listed = Event(world.scheduler)  # type: ignore[assignment]
        self.feed._consumer = lambda: FeedConsumer(world.kafka, self._kafka_fails)  # type: ignore[method-assign]
        partitions = len(world.kafka.logs)
        self.tail = TailReader(world.settings, partitions)
        self.tail.ends = self._ends  # type: ignore[method-assign]
        self.tail._connect = lambda: TailConsumer(world.kafka, self._kafka_fails)  # type: ignore[method-assign]
        querier = world.settings.querier
        self.live = Client(
            Owners(self._owners, refresh_s=querier.owners_refresh_s, quiet_s=querier.live_timeout_s),
            bytes_max=querier.live_bytes_max,
            timeout_s=querier.live_timeout_s,
            wait_s=querier.live_wait_s,
            executor=None,  # type: ignore[arg-type]
        )
        self.live.querier = self
        self.snapshots = Snapshots(
            self.catalog,
            self.live,
            self.tail,
            partitions=partitions,
            executor=None,  # type: ignore[arg-type]
            unpacked_bytes_max=querier.live_bytes_max // 2,
        )
        self.engine = Engine(self)
        self.lookup = TraceLookup(self.catalog, self.snapshots, self.engine, partitions=partitions)  # type: ignore[arg-type]
        self.process.thread(self.feed._follow)
        self.process.thread(self.feed._list)

    def unlock(self) -> None:
        """It is gone: its folder can be opened again."""
        self.catalog.close()

    async def trace(self, tenant: str, trace_id: bytes) -> Answer:
        """One trace by its ID."""
        missing = self.feed.missing()
        find = partial(self.lookup.find, [tenant], trace_id)
        found = await settled(self.snapshots, find, lambda found: found.reasons)
        return Answer(keys_of(found.spans, tenant), found.reasons + [missing] * bool(missing))

    async def everything(self, tenant: str) -> Answer:
        """All rows of a tenant, as a search finds its rows: a snapshot, and the chunks below its horizons."""
        return await settled(self.snapshots, partial(self._everything, tenant), lambda answer: answer.reasons)

    async def _everything(self, tenant: str) -> Answer:
        missing = self.feed.missing()
        snapshot = await self.snapshots.take()
        reasons = list(snapshot.reasons) + [missing] * bool(missing)
        answer = Answer(await self.engine.run(partial(self._stored, tenant, snapshot, reasons)), reasons)
        answer.live = keys_of(snapshot.rows(["trace_id", "span_id", "kind"], tenant), tenant)
        for view in snapshot.partitions.values():
            for segment in view.tail:
                answer.tail += keys_of(filtered(segment.read(), view.horizon, tenant, None), tenant)
        for span in answer.tail:
            answer.live.remove(span)
        losses = [(partition, loss) for partition, found in snapshot.losses.items() for loss in found]
        answer.lost = {(partition, at) for partition, (first, last) in losses for at in range(first, last + 1)}
        return answer

    def _stored(self, tenant: str, snapshot: Snapshot, reasons: list[str], session: Session) -> list[SpanKey]:
        reader = ChunkReader(session, reasons)
        found: list[SpanKey] = []
        for ref in refs_of(self.catalog.chunks_for(tenant, 0, ALL_TIMES), snapshot.horizons):
            rows = reader.read([ref], _all_rows)
            found += keys_of(rows, tenant)
        return found

    def _owners(self) -> dict[int, str]:
        self._kafka_fails("owners")
        return {partition: f"http://{name}" for partition, name in self.world.kafka.group.owners.items()}

    def _ends(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Start and end of these partitions' logs, as they are now."""
        found = {}
        for partition in partitions:
            self._kafka_fails("ends")
            log = self.world.kafka.logs[partition]
            found[partition] = log.start, log.end
        return found

    def _spoil(self, what: str, _name: str) -> str:
        return self.world.faults.of_store(what, "query")

    def _kafka_fails(self, what: str) -> None:
        if self.world.faults.strikes("kafka away", "query"):
            if what in ("owners", "ends"):
                raise KafkaUnavailableError("kafka away")
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def _all_rows(urls: list[str]) -> tuple[str, list[Any]]:
    return ("SELECT * FROM read_parquet(?)", [urls[0]]) if urls else ("SELECT 1 AS none WHERE false", [])


def keys_of(rows: pa.Table, tenant: str) -> list[SpanKey]:
    """The spans of some rows."""
    if not rows.num_rows:
        return []
    kinds = schema.column(rows, "kind").to_pylist()
    ids = zip(rows.column("trace_id").to_pylist(), rows.column("span_id").to_pylist(), kinds, strict=True)
    return [SpanKey(tenant, bytes(trace_id), bytes(span_id), kind or 0) for trace_id, span_id, kind in ids]


class OneByOne:
    """A pool of readers whose reads come one after another, in the thread that asks."""

    def map(self, call: Callable[[Any], T], given: Iterable[Any]) -> Iterator[T]:
        return iter([call(one) for one in given])

    def shutdown(self) -> None:
        pass


class Engine:
    """pipeline.query.engine.Engine over the objects in the buckets."""

    def __init__(self, querier: SimulatedQuerier) -> None:
        self._querier = querier

    async def run(self, work: Callable[[Any], T], *, lane: Lane = Lane.LONG) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, work, Statements(self._querier))


class Statements:
    """pipeline.query.engine.Session: reads the object a statement names, and lets the world run it."""

    watch = None  # nobody looks on

    def __init__(self, querier: SimulatedQuerier) -> None:
        self._querier = querier

    def open(self, wanted: Sequence[Wanted]) -> None:
        """A seed has few chunks: no query reads too much."""

    def files(self, wanted: Sequence[Wanted], *, fetch: bool) -> dict[str, Path]:
        """Nothing is copied."""
        return {}

    def reach_store(self, *, again: bool = False) -> None:
        """Faults are those of single requests."""

    def sql(self, text: str, parameters: Sequence[Any] = (), **tables: pa.Table) -> pa.Table:
        if not parameters:
            return pa.table({"none": pa.array([], pa.int32())})
        bucket, name = str(parameters[0]).removeprefix("s3://").split("/", 1)
        content = self._querier.store.get(bucket, name)
        if content is None:
            raise StoreUnavailableError(f"404: {name}")
        return self._querier.world.query(content, text, parameters, tables)


class Client(LiveClient):
    """The live client, over a simulated network."""

    querier: SimulatedQuerier

    def _client(self) -> Any:
        return Network(self.querier)


class Network:
    """aiohttp.ClientSession, as far as the live client uses it."""

    def __init__(self, querier: SimulatedQuerier) -> None:
        self._querier = querier

    def get(self, url: str, params: Mapping[str, str]) -> Request:
        return Request(self._querier, url, params)


class Request:
    """One request to a worker. Its answer comes in pieces; each takes its time, and they stay in order."""

    status = 200

    def __init__(self, querier: SimulatedQuerier, url: str, params: Mapping[str, str]) -> None:
        self._querier, self._scheduler = querier, querier.world.scheduler
        self._name = url.removeprefix("http://").split("/")[0]
        self._params = params
        self._arrives_s = 0.0
        self.content = asyncio.StreamReader(loop=querier.process.loop)
        self._ended = False

    async def __aenter__(self) -> Request:
        await asyncio.sleep(self._scheduler.rng.random() * 0.01)
        worker = self._querier.world.workers.get(self._name)
        if worker is None or not worker.process.alive:
            raise aiohttp.ClientConnectionError("refused")
        self._scheduler.soon(lambda: worker.process.spawn(self._serve(worker), "live"), worker.process)
        worker.world.broken.setdefault(worker.process, []).append(self._break)
        self._scheduler.after(self._querier.world.settings.querier.live_timeout_s, self._time_out)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True

    async def read(self) -> bytes:
        return await self.content.read()

    async def _serve(self, worker: SimulatedWorker) -> None:
        async for part in worker.endpoint.live_parts(LiveQuestion.of(self._params)):
            self._later(partial(self.content.feed_data, bytes(part)))
        self._later(self._end)

    def _later(self, call: Callable[[], object]) -> None:
        self._arrives_s = max(self._arrives_s, self._scheduler.now_s + self._scheduler.rng.random() * 0.02)

        def arrive() -> None:
            if not self._ended:
                call()

        # a little after the piece before: what is due at one time comes in any order
        self._arrives_s += 1e-6
        self._scheduler.after(self._arrives_s - self._scheduler.now_s, arrive, self._querier.process)

    def _end(self) -> None:
        self._ended = True
        self.content.feed_eof()

    def _break(self) -> None:
        """The worker is gone: the connection ends early."""
        self._fail(aiohttp.ClientConnectionError("reset"))

    def _time_out(self) -> None:
        self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if not self._ended and self._querier.process.alive:
            self._ended = True
            self.content.set_exception(error)

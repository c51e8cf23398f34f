"""All that can be asked, in one place: HTTP and command line only translate."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import aiohttp

from pipeline import telemetry
from pipeline.doors.outgoing import Outgoing
from pipeline.doors.overrides import Overrides
from pipeline.doors.tls import scheme
from pipeline.query import overview, under_way
from pipeline.query.canaries import all_canaries
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.drops import all_drops
from pipeline.query.engine import Engine
from pipeline.query.explained import Watch
from pipeline.query.identifiers import Attribute, Intrinsic
from pipeline.query.live import LiveClient
from pipeline.query.live_tail import Arrived, LiveTail
from pipeline.query.metrics import Heard as HeardSeries
from pipeline.query.metrics import Metrics, MetricsAnswer, MetricsQuestion
from pipeline.query.owners import Owners
from pipeline.query.search import Heard, Search, SearchAnswer, SearchQuestion, lane_of
from pipeline.query.settled import settled
from pipeline.query.snapshot import Horizons, Snapshots, Tail
from pipeline.query.spread import executor_of
from pipeline.query.statement import Statement
from pipeline.query.tags import Among, FoundServices, Range, TagAnswer, TagCatalog, Tags
from pipeline.query.tags import Heard as HeardTags
from pipeline.query.tail import TailReader
from pipeline.query.tenant_sql import SqlAnswer, TenantSql
from pipeline.query.trace_by_id import FoundTrace, Place, TraceChunks, TraceLookup
from pipeline.query.trace_filter import TraceFilter, filtered
from pipeline.query.turns import Lane
from pipeline.query.warm_up import WarmStored, warm_up
from pipeline.store.manifest import manifest_name
from pipeline.traceql import tree
from pipeline.traceql.text import text_of
from topics import admin, spans_by_trace
from topics.errors import BadQuestionError, KafkaUnavailableError, OverloadedError, QueryTooLargeError
from topics.settings import HIDDEN, Settings
from topics.spans_by_trace import TENANT_HEADER
from topics.topic import full_name, is_missing

IO_THREADS = 8
Answered = TypeVar("Answered", FoundTrace, SearchAnswer, MetricsAnswer, TagAnswer, FoundServices)
_TABLE = re.compile(r"[a-z]{1,40}")
WAIT_S = 1.0
SOON_S = 2.0


class Stored(Horizons, TraceChunks, TagCatalog, WarmStored, Protocol):
    """The catalog, as far as questions need it."""

    def start(self) -> None:
        """Begin to follow what is stored."""

    def damaged(self) -> list[str]:
        """Names of chunks that were found damaged."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kafka:
    """Kafka, as questions need it. All block and raise KafkaUnavailableError.

    partitions: of the keyed topic, 0 where it does not exist. owners: partition -> URL of its worker. tail: a reader of
    the topic, given the number of partitions.
    """

    partitions: Callable[[], int]
    owners: Callable[[], dict[int, str]]
    tail: Callable[[int], Tail]


def real_kafka(settings: Settings) -> Kafka:
    """The cluster of the settings; who asks waits for it no longer than a question may."""
    request_timeout_s = min(settings.kafka.request_timeout_s, settings.querier.kafka_timeout_s)
    hasty = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"request_timeout_s": request_timeout_s})}
    )
    return Kafka(
        partitions=partial(admin.partition_count, settings, spans_by_trace.TOPIC),
        owners=partial(admin.group_owners, hasty),
        tail=partial(TailReader, hasty),
    )


@dataclass(frozen=True, slots=True)
class _Open:
    """What needs the number of partitions, which Kafka tells."""

    partitions: int
    tail: Tail
    snapshots: Snapshots
    traces: TraceLookup
    search: Search
    metrics: Metrics
    tags: Tags
    sql: TenantSql


class Questions:
    """Questions about traces, metrics, tags and services, where a trace stands, and the workers' tables.

    Made on an event loop; `start`, then `close`. Before Kafka has answered once, questions raise
    KafkaUnavailableError.
    """

    def __init__(
        self, settings: Settings, stored: Stored, kafka: Kafka, release_memory: Callable[[], None] = lambda: None
    ) -> None:
        """stored: what the store holds; it is started and closed with this. release_memory: of Engine. Raises
        SettingsError for a file of overrides that cannot be read.
        """
        self._settings = settings
        self.overrides = Overrides(settings)
        """Limits that tenants have of their own."""
        querier = settings.querier
        self._threads = ThreadPoolExecutor(IO_THREADS, "query-io")
        self._executor = executor_of(querier)
        self._engine = Engine(querier, settings.store, release_memory)
        self.under_way = under_way.UnderWay(querier, self.overrides)
        """What is asked at the moment: to be told, and cancelled."""
        self._stored = stored
        self._kafka = kafka
        self._owners = Owners(kafka.owners, refresh_s=querier.owners_refresh_s, quiet_s=querier.live_timeout_s)
        self._live = LiveClient(
            self._owners,
            bytes_max=querier.live_bytes_max,
            timeout_s=querier.live_timeout_s,
            wait_s=querier.live_wait_s,
            executor=self._threads,
            outgoing=Outgoing.of_peer(settings),
        )
        self._open: _Open | None = None
        self._problem = "Kafka has not answered yet"
        self._opening: asyncio.Task[None] | None = None
        self._tails, self._tails_ended = set[asyncio.Event](), False

    def start(self) -> None:
        """Begin to follow the catalog, and to ask Kafka how many partitions there are."""
        self._stored.start()
        self._opening = asyncio.create_task(self._ask_kafka())

    async def close(self) -> None:
        """End what runs: first the questions, then what they stand on."""
        if self._opening is not None:
            self._opening.cancel()
        if self._open is not None:
            self._open.snapshots.close()
        await self._live.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._engine.close()
        self._executor.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._open is not None:
            self._open.sql.close()
            self._open.tail.close()
        self._stored.close()

    def missing(self) -> str:
        """Why questions cannot be answered in full, in a sentence; empty when they can."""
        return self._problem if self._open is None else self._stored.missing() or self._problem

    # ---- the questions

    async def trace(
        self, tenants: Sequence[str], trace_id: bytes, start_ns: int | None = None, end_ns: int | None = None
    ) -> FoundTrace:
        """One trace by its ID (16 bytes)."""
        traces = self._ready().traces
        async with self.under_way.turn(tenants, "trace", trace_id.hex(), Lane.TRACE):
            return await self._settled(partial(traces.find, tenants, trace_id, start_ns, end_ns))

    async def part_of(self, tenants: Sequence[str], found: FoundTrace, asked: TraceFilter) -> FoundTrace:
        """The wanted spans of a found trace."""
        text = f"{found.trace_id.hex()}: {text_of(asked.condition)}"
        ask = partial(self._engine.run, lambda session: filtered(session, found, asked))
        return await self._in_lane(tenants, "part of a trace", text, ask)

    async def search(
        self, tenants: Sequence[str], question: SearchQuestion, heard: Heard | None = None
    ) -> SearchAnswer:
        """Traces by TraceQL or tags; `heard` is told what is found so far."""
        search = self._ready().search
        ask = partial(self._settled, partial(search.find, tenants, question, heard))
        return await self._in_lane(tenants, "search", _searched(question), ask, lane_of(question))

    async def metrics(
        self, tenants: Sequence[str], question: MetricsQuestion, heard: HeardSeries | None = None
    ) -> MetricsAnswer:
        """What spans come to over time; `heard` is told what is measured so far."""
        metrics = self._ready().metrics
        ask = partial(self._settled, partial(metrics.measure, tenants, question, heard))
        return await self._in_lane(tenants, "metrics", text_of(question.query), ask)

    async def _in_lane(
        self,
        tenants: Sequence[str],
        kind: str,
        text: str,
        ask: Callable[..., Awaitable[Answered]],
        lane: Lane = Lane.SHORT,
    ) -> Answered:
        """Few questions know how much they will read: they begin as short ones, and where they are not, again."""
        try:
            async with self.under_way.turn(tenants, kind, text, lane):
                return await ask(lane=lane)
        except QueryTooLargeError:
            if lane is not Lane.SHORT:
                raise
        return await self._in_lane(tenants, kind, text, ask, Lane.LONG)

    async def explain(
        self, tenants: Sequence[str], question: SearchQuestion | MetricsQuestion
    ) -> tuple[Watch, SearchAnswer | MetricsAnswer]:
        """The same, and how it was answered."""
        opened, watch = self._ready(), Watch()
        text = _searched(question) if isinstance(question, SearchQuestion) else text_of(question.query)
        async with self.under_way.turn(tenants, "explain", text):
            if isinstance(question, SearchQuestion):
                return watch, await opened.search.find(tenants, question, watch=watch)
            return watch, await opened.metrics.measure(tenants, question, watch=watch)

    async def sql(self, tenants: Sequence[str], statement: Statement, range_ns: tuple[int, int]) -> SqlAnswer:
        """Rows of a SELECT over the tenants' spans that start in a range. Close the answer in the end."""
        sql = self._ready().sql
        query, leave = await self.under_way.enter(tenants, "sql", statement.text, Lane.SQL)
        with under_way.Cancellable(query):
            answer = await sql.ask(tenants, statement, range_ns, leave)
        query.stop = answer.close
        return answer

    async def tag_names(
        self, tenants: Sequence[str], scopes: Sequence[str], among: Among, limit: int, heard: HeardTags | None = None
    ) -> TagAnswer:
        """Attribute keys by scope; `heard` is told what is found so far."""
        tags = self._ready().tags
        ask = partial(self._settled, partial(tags.names, tenants, scopes, among, limit, heard))
        return await self._in_lane(tenants, "tag names", f"{', '.join(scopes)}{_among(among)}", ask)

    async def tag_values(
        self,
        tenants: Sequence[str],
        of: Attribute | Intrinsic,
        among: Among,
        limit: int,
        heard: HeardTags | None = None,
    ) -> TagAnswer:
        """Values of a tag; `heard` is told those that are found so far."""
        tags = self._ready().tags
        ask = partial(self._settled, partial(tags.values, tenants, of, among, limit, heard))
        return await self._in_lane(tenants, "tag values", f"{_tag(of)}{_among(among)}", ask)

    async def services(self, tenants: Sequence[str], within: Range) -> tuple[dict[str, dict[str, int]], list[str]]:
        """Service -> operation -> spans; and why it may not be complete."""
        ask = partial(self._settled, partial(self._ready().tags.services, tenants, within))
        found = await self._in_lane(tenants, "services", "", ask)
        return found.operations, found.reasons

    async def where(self, found: FoundTrace, *, everything: bool) -> dict[str, Any]:
        """Where each part of a found trace stands: partition, offsets, live segment or manifest, chunk and bucket.

        everything: the caller may see where the workers are; to others their URLs are hidden.
        """
        opened = self._ready()
        topic = full_name(spans_by_trace.TOPIC, self._settings.kafka)
        owner = found.owner or (await self._owners.all()).get(found.partition, "")
        places = [_place(place, topic, self._settings.store.buckets[0]) for place in found.places]
        if not everything:
            owner = owner and HIDDEN
            places = [place | {"worker": HIDDEN} if place.get("worker") else place for place in places]
        return {
            "traceID": found.trace_id.hex(),
            "topic": topic,
            "partition": found.partition,
            "partitions": opened.partitions,
            "owner": owner,
            "horizon": opened.snapshots.horizons([found.partition])[found.partition],
            "spans": found.spans.num_rows,
            "places": places,
            "complete": not found.reasons,
            "reasons": found.reasons,
        }

    def live_tail(self, tenants: Sequence[str], pipeline: tree.Pipeline) -> AsyncIterator[Arrived]:
        """Spans as they arrive, turn by turn, until it is closed or `end_tails`. Raises BadQuestionError at once, and
        OverloadedError above querier.live_tails_max.
        """
        querier, opened = self._settings.querier, self._ready()
        if len(self._tails) >= querier.live_tails_max:
            raise OverloadedError(f"{len(self._tails)} live tails are open, and querier.live_tails_max allows no more")
        tail = LiveTail(opened.snapshots, self._engine, tenants, pipeline, querier.live_tail_spans_max)
        return self._turns(tail, tenants, text_of(pipeline))

    async def _turns(self, tail: LiveTail, tenants: Sequence[str], text: str) -> AsyncIterator[Arrived]:
        end, every_s = asyncio.Event(), self._settings.querier.live_tail_every_s
        self._tails.add(end)
        try:
            with self.under_way.listed(tenants, "tail", text, end.set):
                while not (end.is_set() or self._tails_ended):
                    yield await tail.next()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(every_s):
                            await end.wait()
        finally:
            self._tails.remove(end)

    def end_tails(self) -> None:
        """End what would never end by itself; before the server waits for answers under way."""
        self._tails_ended = True
        for end in self._tails:
            end.set()

    async def system(self, tenants: Sequence[str], *, everything: bool) -> dict[str, Any]:
        """What these tenants have stored by day; the workers, each partition with owner, offsets and what waits, and
        damaged chunks: None where the caller may not see everything, since tenants share partitions.
        """
        opened, stored = self._ready(), self._stored
        days = await self.in_thread(lambda: overview.stored(stored, tenants, time.time_ns()))
        shared = await self._shared(tenants) if everything else dict.fromkeys(("partitions", "workers", "damaged"))
        unread = (one for partition in range(opened.partitions) for one in stored.unread(partition))
        missing = "; ".join(filter(None, dict.fromkeys([self.missing(), *unread])))
        return {"missing": missing, **shared, "days": days}

    async def _shared(self, tenants: Sequence[str]) -> dict[str, Any]:
        opened = self._ready()
        asked = self.in_thread(lambda: opened.tail.ends(range(opened.partitions)))
        ends, owners = await asyncio.gather(asked, self._owners.all())
        workers = await overview.workers(self._soon, owners.values(), {TENANT_HEADER: "|".join(tenants)})
        rows = overview.partitions(ends, opened.snapshots.horizons(ends), owners, workers.told)
        return {"partitions": rows, "workers": workers.rows, "damaged": self._stored.damaged()}

    async def _soon(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        """A page that costs another process next to nothing: who has not answered by then hangs."""
        async with asyncio.timeout(SOON_S):
            return await self._live.get(url, params, headers)

    async def tables(self, tenants: Sequence[str], table: str, params: Mapping[str, str]) -> tuple[int, bytes, str]:
        """A page of the workers' table endpoint, from whichever answers. KafkaUnavailableError where none does.

        table: empty for their list. What else a caller wrote goes as parameters: in a path it could lead elsewhere.
        """
        if table and not _TABLE.fullmatch(table):
            raise BadQuestionError(f"no table {table[:100]!a}")
        path, headers = f"/tables/{table}" if table else "/tables", {TENANT_HEADER: "|".join(tenants)}
        for url in sorted(set((await self._owners.all()).values())):
            try:
                return await self._live.get(url + path, params, headers)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self._owners.silent(url)
        raise KafkaUnavailableError("no worker answers: the tables are theirs")

    async def drops(self, tenants: Sequence[str], *, everything: bool) -> dict[str, Any]:
        """What of these tenants' spans was not kept as it was sent, by reason, over all workers and receivers.

        everything: the caller may see where these processes are.
        """
        receiver = self._settings.receiver
        receivers = self._settings.querier.receiver_urls or (
            f"{scheme(self._settings)}://{receiver.host}:{receiver.http_port}",
        )
        try:
            workers = set((await self._owners.all()).values())
        except KafkaUnavailableError:
            workers = set()
        sources = [("receiver", url.rstrip("/")) for url in receivers] + [("worker", url) for url in workers]
        answer = await all_drops(self._soon, sources, tenants, everything=everything)
        if not workers:
            answer["reasons"].append("no worker is known: Kafka does not answer, or no partition has an owner")
            answer["complete"] = False
        return answer

    async def canaries(self) -> list[dict[str, Any]]:
        """What the canaries of querier.canary_urls say of themselves."""
        return await all_canaries(self._soon, self._settings.querier.canary_urls)

    async def in_thread(self, work: Any) -> Any:
        """Run what takes long (encoding an answer) off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def regex_error(self, pattern: str) -> str | None:
        """What is wrong with a regular expression (RE2), None where nothing is."""
        return self._engine.regex_error(pattern)

    def observe(self) -> None:
        """Set the gauges."""
        telemetry.LIVE_TAILS.set(len(self._tails))
        telemetry.LIVE_COPY_BYTES.set(self._live.nbytes)
        telemetry.ENGINE_BYTES.set(self._engine.nbytes())
        telemetry.COPIES_BYTES.set(self._engine.copied_bytes())

    async def _settled(self, ask: Callable[..., Awaitable[Answered]], **lane: Lane) -> Answered:
        return await settled(self._ready().snapshots, partial(ask, **lane), lambda answer: answer.reasons)

    # ---- opening

    def _ready(self) -> _Open:
        if self._open is None:
            raise KafkaUnavailableError(self._problem)
        return self._open

    async def _ask_kafka(self) -> None:
        while True:
            try:
                partitions = await asyncio.to_thread(self._kafka.partitions)
                if partitions:
                    self._open = opened = self._opened(partitions)
                    self._problem = "what is live and stored is being looked at"  # questions are answered meanwhile
                    await asyncio.to_thread(self._executor.looked)
                    await warm_up(
                        self._stored,
                        opened.snapshots,
                        self._engine,
                        self._settings.querier.warm_up_s_max,
                        copied_bytes_max=self._settings.querier.warm_up_bytes_max,
                    )
                    self._problem = ""
                    return
                self._problem = is_missing(spans_by_trace.TOPIC, self._settings.kafka)
            except KafkaUnavailableError as exc:
                self._problem = str(exc)
            await asyncio.sleep(WAIT_S)

    def _opened(self, partitions: int) -> _Open:
        tail = self._kafka.tail(partitions)
        snapshots = Snapshots(
            self._stored,
            self._live,
            tail,
            partitions=partitions,
            executor=self._threads,
            unpacked_bytes_max=self._settings.querier.live_bytes_max // 2,
        )
        parts = self._stored, snapshots, self._engine
        reach_ns, cells_max = int(self._settings.querier.trace_reach_s * 1e9), self._settings.querier.metrics_cells_max
        cache = ChunkCache(self._settings.querier.chunk_cache_bytes, self._executor)
        return _Open(
            partitions=partitions,
            tail=tail,
            snapshots=snapshots,
            traces=TraceLookup(*parts, partitions=partitions),
            search=Search(*parts, reach_ns=reach_ns, cache=cache),
            metrics=Metrics(*parts, reach_ns=reach_ns, cells_max=cells_max, cache=cache),
            tags=Tags(*parts, cache),
            sql=TenantSql(
                self._stored, snapshots, self._settings.querier, self._settings.store, self._engine.reach_store
            ),
        )


def _searched(question: SearchQuestion) -> str:
    if question.query is not None:
        return text_of(question.query)
    return " ".join(f"{name}={value}" for name, value in question.tags.items())


def _tag(of: Attribute | Intrinsic) -> str:
    return f"{'|'.join(of.scopes)}: {of.key}" if isinstance(of, Attribute) else of.name


def _among(among: Among) -> str:
    return f" of {text_of(among.matching)}" if among.matching is not None else ""


def _place(place: Place, topic: str, manifest_bucket: str) -> dict[str, Any]:
    """One place as JSON: offsets are those of the records where they are known, first and last of chunk or segment."""
    found: dict[str, Any] = {
        "kind": place.kind,
        "tenant": place.tenant,
        "spans": place.spans,
        "offsets": list(place.offsets),
        "first": place.first,
        "last": place.last,
    }
    if place.kind != "store":
        return found | {"worker": place.url}
    return found | {
        "bucket": place.bucket,
        "chunk": place.chunk,
        "manifestBucket": manifest_bucket,
        "manifest": manifest_name(topic, place.partition, place.first),
    }

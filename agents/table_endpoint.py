"""The table endpoint of a worker: live segments for queriers, the tables as JSON for people and tools.

`/live` answers for the partitions owned here. `/tables...` answers for all: any worker asks the others and adds up;
with `?here=1` it answers for itself alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import aiohttp
import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from agents.app import Handler
from agents.owned import Owned
from agents.waits import ASSIGNMENT, DISK
from agents.worker import Worker
from agents.worker_door import CALLER
from pipeline import drops, telemetry
from pipeline.doors.door import Caller
from pipeline.doors.outgoing import Outgoing
from pipeline.partition.segment import Segment, rows_from, rows_of_trace
from pipeline.partition.state import Partition
from pipeline.spans import schema
from pipeline.spans.index import Attributes, Services, add_attributes, add_services
from pipeline.store.manifest import ChunkEntry
from pipeline.store.tables import ATTRIBUTES, SEGMENTS, SERVICES, ipc_bytes
from topics.errors import KafkaUnavailableError, NotOwnerError
from topics.settings import Settings
from topics.spans_by_trace import TENANT_HEADER

T = TypeVar("T")
Owners = Callable[[], Awaitable[dict[int, str]]]
LIMIT_DEFAULT, LIMIT_MAX = 100, 10_000
PEER_TIMEOUT_S = 5.0
OWNERS_WAIT_S = 2.0  # who asks waits PEER_TIMEOUT_S, or querier.live_timeout_s, for the answer
WAIT_S_MAX = 5.0
BLOCK_BYTES = 4 << 20  # of tables whose segments are sent as one block
OF_ALL_TENANTS = ("partitions", "segments")
TABLES = ("partitions", "segments", "chunks", "services", "operations", "attributes")


def block(header: dict[str, Any], ipc: bytes = b"") -> bytes:
    """One block of a live answer: length of the header (4 bytes, big endian), header (JSON), Arrow IPC stream."""
    packed = orjson.dumps(header | {"ipc_bytes": len(ipc)})
    return len(packed).to_bytes(4, "big") + packed + ipc


async def streamed(request: web.Request, parts: AsyncIterator[bytes]) -> web.StreamResponse:
    """An answer sent piece by piece; who asks may go away meanwhile, as a querier does whose question is ended."""
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    with suppress(ConnectionError):
        await answer.prepare(request)
        async for part in parts:
            await answer.write(part)
        await answer.write_eof()
    return answer


class LiveQuestion(NamedTuple):
    """What `/live` is asked. wanted, until: (partition, offset); trace_id: 16 bytes, or none for all traces."""

    wanted: list[tuple[int, int]]
    until: list[tuple[int, int]]
    wait_s: float
    trace_id: bytes

    @classmethod
    def of(cls, query: Mapping[str, str]) -> LiveQuestion:
        """Read the query of a URL. Raises ValueError."""
        wanted, until = _offsets(query.get("want", "")), _offsets(query.get("until", ""))
        trace_id = bytes.fromhex(query.get("trace_id", ""))
        if len(trace_id) not in (0, 16):
            raise ValueError(query.get("trace_id"))
        return cls(wanted, until, min(WAIT_S_MAX, float(query.get("wait_s", "0"))), trace_id)


class TableEndpoint:
    """The handlers. owners: partition -> URL of its worker, as the consumer group says."""

    def __init__(self, worker: Worker, owners: Owners, own_url: str, settings: Settings) -> None:
        self._multitenancy = settings.receiver.multitenancy
        self._outgoing = Outgoing.of_peer(settings)
        self._worker = worker
        self._owners = owners
        self._own_url = own_url
        self._peers: aiohttp.ClientSession | None = None
        self._asking: asyncio.Future[dict[int, str]] | None = None

    def routes(self) -> list[tuple[str, Handler]]:
        """Path and handler of every route; all are GET."""
        return [
            ("/live", self.live),
            ("/ready", self.ready),
            ("/metrics", self.metrics),
            (drops.PATH, self.show_drops),
            ("/tables", self.list_tables),
            ("/tables/{table}", self.show_table),
            ("/tables/{table}/{key:.+}", self.show_key),
        ]

    async def close(self) -> None:
        """Close the connections to other workers."""
        if self._peers is not None:
            await self._peers.close()

    # ---- live segments

    async def live(self, request: web.Request) -> web.StreamResponse:
        """`?want=<partition>:<after>,...[&until=<partition>:<end>,...][&trace_id=<hex>]`: segments from `after` on.

        With `until` the answer waits, at most `wait_s` seconds, until the records below `end` are taken. Each
        block is one segment, or with trace_id its rows of that trace; a last block a partition gives low and next.
        An answer holds a partition's rows from `after` to `next` without gap, or says `low` > `after`.
        """
        try:
            question = LiveQuestion.of(request.query)
        except ValueError:
            return web.Response(
                status=400, text="want=, until=<partition>:<offset>[,...], wait_s=seconds, trace_id=32 hex digits\n"
            )
        return await streamed(request, self.live_parts(question))

    async def live_parts(self, question: LiveQuestion) -> AsyncIterator[bytes]:
        """The body of `/live`, piece by piece."""
        if question.until:
            await self._worker.reached(dict(question.until), question.wait_s)
        async for part in self._live_blocks(dict(question.wanted), question.trace_id):
            yield part

    async def _live_blocks(self, sent: dict[int, int], trace_id: bytes) -> AsyncIterator[bytes]:
        """sent: partition -> first offset that is still to be sent.

        All partitions together, some segments of each at a time: each turn costs a change of threads, whatever it does.
        """
        while sent:
            turn: list[_Piece] = []
            for partition, after in list(sent.items()):
                piece = self._next_piece(partition, after, all_at_once=bool(trace_id))
                if isinstance(piece, bytes):
                    del sent[partition]
                    yield piece
                elif trace_id or sum(map(_piece_bytes, turn)) < BLOCK_BYTES:
                    turn.append(piece)
            if turn:
                for piece, parts in zip(turn, await self._in_thread(self._turn_blocks, turn, trace_id), strict=True):
                    if parts is not None:
                        sent[piece.state.partition] = piece.segments[-1].last + 1
                        for part in parts:
                            yield part

    def _next_piece(self, partition: int, after: int, *, all_at_once: bool) -> _Piece | bytes:
        """The segments that are to be sent next, or the partition's last block."""
        owned = self._worker.owned.get(partition)
        if owned is None or (state := owned.state) is None:
            return block({"partition": partition, "owner": False, "spans": 0})
        if state.low > after:
            return block(_header(owned, state, after, spans=0))
        segments = [segment for segment in state.segments if segment.last >= after]
        if not segments:
            return block(_header(owned, state, state.next, spans=0))
        return _Piece(owned, state, segments if all_at_once else segments[: _few(segments)], after)

    def _turn_blocks(self, turn: list[_Piece], trace_id: bytes) -> list[list[bytes] | None]:
        """The blocks of each piece; None where it was merged or let go meanwhile: it is to be looked for again."""
        found: list[list[bytes] | None] = []
        for piece in turn:
            try:
                found.append(self._segment_blocks(piece, trace_id))
            except NotOwnerError:
                found.append(None)
        return found

    def _segment_blocks(self, piece: _Piece, trace_id: bytes) -> list[bytes]:
        owned, state, segments, after = piece
        if trace_id:
            return [part for one in segments if (part := self._trace_block(owned, state, one, trace_id))]
        first, losses = segments[0], [loss for segment in segments for loss in segment.losses]
        header = {"first": max(first.first, after), "last": segments[-1].last, "losses": losses}
        if len(segments) == 1 and first.first >= after and first.in_table:
            count, ipc = first.spans_count, self._worker.tables.segment_ipc(owned.slot, first)
        else:
            tables = [self._worker.segment_rows(owned.slot, segment) for segment in segments]
            rows = schema.concat([rows_from(tables[0], after), *tables[1:]])
            count, ipc = rows.num_rows, ipc_bytes(rows)
        return [block(_header(owned, state, segments[-1].last + 1, spans=count) | header, ipc if count else b"")]

    def _trace_block(self, owned: Owned, state: Partition, segment: Segment, trace_id: bytes) -> bytes:
        """A segment's rows of one trace; without any and without losses nothing."""
        rows = schema.empty_table()
        if segment.may_hold(trace_id):
            rows = rows_of_trace(self._worker.segment_rows(owned.slot, segment), trace_id)
        if not rows.num_rows and not segment.losses:
            return b""
        header = _header(owned, state, segment.last + 1, spans=rows.num_rows)
        header |= {"first": segment.first, "last": segment.last, "losses": segment.losses}
        # Plain: a dictionary would carry every string of the segment
        return block(header, ipc_bytes(schema.plain(rows)) if rows.num_rows else b"")

    # ---- for operators

    async def ready(self, _request: web.Request) -> web.StreamResponse:
        """200 when every partition that Kafka gave this worker is loaded; 503 with the ones that are not, and when the
        disk is full.
        """
        waiting = [owned for owned in self._worker.owned.values() if owned.state is None]
        if waiting or not self._worker.joined:
            numbers = [owned.partition for owned in waiting]
            told = [self._worker.waits.told.get(ASSIGNMENT, ""), *(owned.problem for owned in waiting)]
            why = f"partitions being loaded: {numbers}" if waiting else "the consumer group has not answered yet"
            why = "; ".join([why, *filter(None, dict.fromkeys(told))]) if waiting else why
            return web.Response(status=503, text=f"{why}\n")
        if (full := self._worker.waits.told.get(DISK)) is not None:
            return web.Response(status=503, text=f"{full}\n")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus text; `?name[]=`: of these samples alone."""
        body = telemetry.page(request.query.getall("name[]", []))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_drops(self, request: web.Request) -> web.StreamResponse:
        """What of the asking tenants' spans this worker did not keep as it was sent."""
        body = drops.DROPS.body(request[CALLER].tenants, multitenancy=self._multitenancy)
        return web.Response(body=body, content_type="application/json")

    # ---- tables for people

    async def list_tables(self, _request: web.Request) -> web.StreamResponse:
        """The names of the tables and where each stands."""
        return _json({"tables": [{"name": name, "url": f"/tables/{name}"} for name in TABLES]})

    async def show_table(self, request: web.Request) -> web.StreamResponse:
        """`?prefix=&limit=`: the first rows of a table in key order, over all workers; `?key=`: one row."""
        if key := request.query.get("key", ""):
            return await self._answer(request, key, exact=True)
        return await self._answer(request, request.query.get("prefix", ""), exact=False)

    async def show_key(self, request: web.Request) -> web.StreamResponse:
        """One row of a table; 404 where no worker has it."""
        return await self._answer(request, request.match_info["key"], exact=True)

    async def _answer(self, request: web.Request, key: str, *, exact: bool) -> web.StreamResponse:
        table, caller = request.match_info["table"], request[CALLER]
        if table in OF_ALL_TENANTS and not caller.everything:
            return _json({"error": f"table {table} tells of all tenants together"}, status=403)
        if table not in TABLES:
            return _json({"error": f"no table {table!r}; there are {', '.join(TABLES)}"}, status=404)
        try:
            limit = int(request.query.get("limit", LIMIT_DEFAULT))
        except ValueError:
            limit = 0
        if not 1 <= limit <= LIMIT_MAX:
            return _json({"error": f"limit must be a whole number from 1 to {LIMIT_MAX}"}, status=400)
        own = await self._in_thread(self._rows, table, caller)
        rows = {name: row for name, row in own.items() if name.startswith(key)}
        peers = _Peers([], 0)
        if "here" not in request.query:
            try:
                peers = await self._add_peers((table, key, caller), rows)
            except KafkaUnavailableError as error:
                return _json(
                    {"error": f"the other workers are not known (here=1 asks this one alone): {error}"}, status=503
                )
            rows = {name: _counted(row) for name, row in rows.items()}
        found = sorted(name for name in rows if name == key or not exact)
        if exact and not found:
            return _json({"error": f"table {table} has no key {key!r}", "missing_workers": peers.missing}, status=404)
        answer: dict[str, Any] = {"table": table, "rows": {name: rows[name] for name in found[:limit]}}
        total = len(found) + peers.cut  # of what peers have too much of, an upper bound
        return _json(answer | {"total": total, "truncated": total > limit, "missing_workers": peers.missing})

    def _rows(self, table: str, caller: Caller) -> dict[str, Any]:
        """A table of the partitions owned here: key -> row. Of services, attributes and chunks the caller's alone."""
        held = [(owned, owned.state) for owned in list(self._worker.owned.values()) if owned.state is not None]
        if table == "partitions":
            return {str(owned.partition): self._worker.progress(state) for owned, state in held}
        if table == "segments":
            return {
                f"{owned.partition}/{first:020d}": row
                for owned, _ in held
                for first, row in self._worker.tables.rows(SEGMENTS, owned.slot)
            }
        if table == "chunks":
            return {
                f"{owned.partition}/{one.name}": row
                for owned, _ in held
                for one, row in _chunk_rows(owned)
                if one.tenant in caller.tenants
            }
        services: Services = {}
        attributes: Attributes = {}
        for owned, _ in held:
            if table == "attributes":
                for _, row in self._worker.tables.rows(ATTRIBUTES, owned.slot):
                    add_attributes(attributes, row)
            else:
                for _, row in self._worker.tables.rows(SERVICES, owned.slot):
                    add_services(services, row)
        return _flat(table, _of(caller, services), _of(caller, attributes))

    async def _add_peers(self, asked: tuple[str, str, Caller], rows: dict[str, Any]) -> _Peers:
        """Add the rows, with keys that begin so, of all other workers."""
        urls = set((await self._told_owners()).values()) - {self._own_url}
        if self._peers is None:
            timeout = aiohttp.ClientTimeout(total=PEER_TIMEOUT_S)
            connector = aiohttp.TCPConnector(ssl=self._outgoing.tls)
            self._peers = aiohttp.ClientSession(timeout=timeout, headers=self._outgoing.headers, connector=connector)
        answers = await asyncio.gather(*(self._ask(url, *asked) for url in sorted(urls)))
        cut = 0
        for answer in filter(None, answers):
            cut += answer["total"] - len(answer["rows"])
            for key, row in answer["rows"].items():
                rows[key] = _added(rows.get(key), row)
        return _Peers([url for url, answer in zip(sorted(urls), answers, strict=True) if answer is None], cut)

    async def _told_owners(self) -> dict[int, str]:
        """What the consumer group says. Raises KafkaUnavailableError, soon: a thread waits for Kafka, one for all."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._owners())
            self._asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # nobody may wait
        done, _ = await asyncio.wait([self._asking], timeout=OWNERS_WAIT_S)
        if not done:
            raise KafkaUnavailableError(f"Kafka has not answered within {OWNERS_WAIT_S:g} s")
        return self._asking.result()

    async def _in_thread(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker.pools.read, work, *given)

    async def _ask(self, url: str, table: str, prefix: str, caller: Caller) -> dict[str, Any] | None:
        assert self._peers is not None
        params = {"here": "1", "prefix": prefix, "limit": str(LIMIT_MAX)}
        try:
            headers = {TENANT_HEADER: "|".join(caller.tenants)}
            async with self._peers.get(f"{url}/tables/{table}", params=params, headers=headers) as answer:
                found: dict[str, Any] = await answer.json()
                return {"rows": found["rows"], "total": found["total"]}
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
            return None


class _Peers(NamedTuple):
    """Workers that did not answer, and how many rows the others left out."""

    missing: list[str]
    cut: int


class _Piece(NamedTuple):
    """Some segments of a partition, of which the offsets from `after` on are to be sent."""

    owned: Owned
    state: Partition
    segments: list[Segment]
    after: int


def _piece_bytes(piece: _Piece) -> int:
    return sum(segment.nbytes for segment in piece.segments)


def _few(segments: list[Segment]) -> int:
    """How many of the first segments go into one block: each costs both sides milliseconds, however small it is."""
    nbytes = 0
    for number, segment in enumerate(segments):
        nbytes += segment.nbytes
        if nbytes > BLOCK_BYTES:
            return max(1, number)
    return len(segments)


def _offsets(text: str) -> list[tuple[int, int]]:
    """`<partition>:<offset>,...`. Raises ValueError."""
    found = []
    for pair in filter(None, text.split(",")):
        partition, offset = pair.split(":")
        found.append((int(partition), int(offset)))
    return found


def _header(owned: Owned, state: Partition, upto: int, *, spans: int) -> dict[str, Any]:
    return {
        "partition": state.partition,
        "owner": True,
        "assigned": owned.assigned_unix_ns,
        "low": state.low,
        "next": upto,
        "losses": state.losses,
        "spans": spans,
    }


def _chunk_rows(owned: Owned) -> Iterator[tuple[ChunkEntry, dict[str, Any]]]:
    """The chunks that were stored last; the catalog of a querier has all."""
    for manifest in list(owned.manifests):
        for one in manifest.chunks:
            yield (
                one,
                {
                    "tenant": one.tenant,
                    "bucket": one.bucket,
                    "manifest": manifest.name,
                    "first": manifest.first,
                    "last": manifest.last,
                    "spans": one.spans,
                    "bytes": one.bytes,
                    "start_min_unix_ns": one.start_min_unix_ns,
                    "start_max_unix_ns": one.start_max_unix_ns,
                },
            )


def _of(caller: Caller, by_tenant: Mapping[str, T]) -> dict[str, T]:
    return {tenant: mine for tenant, mine in by_tenant.items() if tenant in caller.tenants}


def _flat(table: str, services: Services, attributes: Attributes) -> dict[str, Any]:
    if table == "attributes":
        return {f"{tenant}/{name}": {"spans": n} for tenant, names in attributes.items() for name, n in names.items()}
    if table == "operations":
        return {
            f"{tenant}/{service}/{operation}": {"spans": spans}
            for tenant, mine in services.items()
            for service, operations in mine.items()
            for operation, spans in operations.items()
        }
    return {
        f"{tenant}/{service}": {"spans": sum(operations.values()), "operations": sorted(operations)}
        for tenant, mine in services.items()
        for service, operations in mine.items()
    }


def _added(mine: dict[str, Any] | None, theirs: dict[str, Any]) -> dict[str, Any]:
    """Two workers' rows of one key: spans add up, an operation that both have is one. No other row stands at two."""
    if mine is None:
        return theirs
    both = mine | {"spans": mine["spans"] + theirs["spans"]}
    return both | {"operations": sorted({*mine["operations"], *theirs["operations"]})} if "operations" in mine else both


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    """A service's row says how many operations it has; between workers, which ones."""
    return row | {"operations": len(row["operations"])} if "operations" in row else row


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n", content_type="application/json"
    )

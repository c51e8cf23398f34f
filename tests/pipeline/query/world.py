"""Spans, and a small world around them: a worker's live endpoint, a store's catalog, a topic. Values in, values out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from pipeline.partition.sealed import SealedRange
from pipeline.query.blocks import LiveSegment
from pipeline.query.tail import TailRead
from pipeline.query.tail_rows import TailRows
from pipeline.spans import from_otlp, schema
from pipeline.spans.index import Services, add_services
from pipeline.spans.record import Record
from pipeline.store.catalog import kept_values
from pipeline.store.commit import store_range
from pipeline.store.manifest import ChunkEntry, Manifest, chunk_from_values
from pipeline.store.objects import ObjectStore
from pipeline.store.tables import ipc_bytes
from tests.pipeline.store.memory_store import manifest_of
from topics.settings import Settings

T0 = 1_700_000_000 * 10**9
TENANT = "single-tenant"
Value = str | int | float | bool | bytes | list[Any]


@dataclass(frozen=True, slots=True)
class OneSpan:
    """A span as a test says it. start_ms: after T0."""

    trace: int
    id: int
    parent: int = 0
    start_ms: int = 0
    duration_ms: int = 10
    name: str = "op"
    service: str = "shop"
    kind: int = 1
    status: int = 0
    attributes: tuple[tuple[str, Any], ...] = ()
    resource: tuple[tuple[str, Any], ...] = ()
    events: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    trace_state: str = ""

    @property
    def trace_id(self) -> bytes:
        return trace_id(self.trace)


def trace_id(number: int) -> bytes:
    return ((number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "big")


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
    return AnyValue(string_value=value)


def pairs(attributes: Iterable[tuple[str, Any]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes]


def otlp(spans: Iterable[OneSpan]) -> bytes:
    """The spans as TracesData, each under a resource of its own."""
    data = TracesData()
    for one in spans:
        start = T0 + one.start_ms * 10**6
        data.resource_spans.append(
            ResourceSpans(
                resource=Resource(attributes=pairs([("service.name", one.service), *one.resource])),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name="lib", version="1"),
                        spans=[
                            Span(
                                trace_id=one.trace_id,
                                span_id=span_id(one.id),
                                parent_span_id=span_id(one.parent) if one.parent else b"",
                                name=one.name,
                                trace_state=one.trace_state,
                                kind=one.kind,  # type: ignore[arg-type]
                                start_time_unix_nano=start,
                                end_time_unix_nano=start + one.duration_ms * 10**6,
                                attributes=pairs(one.attributes),
                                status=Status(code=one.status),  # type: ignore[arg-type]
                                events=[
                                    Span.Event(name=name, time_unix_nano=start + at, attributes=pairs(attributes))
                                    for at, (name, attributes) in enumerate(one.events)
                                ],
                            )
                        ],
                    )
                ],
            )
        )
    out: bytes = data.SerializeToString()
    return out


def rows(records: Mapping[int, Sequence[OneSpan]], tenant: str = TENANT, columns_max: int = 200) -> pa.Table:
    """The span table of records: offset -> spans."""
    return decoded({offset: otlp(spans) for offset, spans in records.items()}, tenant, columns_max)


def decoded(records: Mapping[int, bytes], tenant: str = TENANT, columns_max: int = 200) -> pa.Table:
    """The span table of records: offset -> OTLP."""
    given = [Record(tenant, offset, body) for offset, body in sorted(records.items())]
    return from_otlp.decode(given, attribute_columns_max=columns_max).spans


def segment(first: int, last: int, spans: pa.Table) -> LiveSegment:
    return LiveSegment(first, last, spans.num_rows, (), bytes(ipc_bytes(spans)) if spans.num_rows else b"")


# ---- the worker's side of /live


@dataclass(slots=True)
class Held:
    """A partition as a worker holds it; segments: (first, last, rows), gap-free from low to next."""

    low: int = 0
    next: int = 0
    assigned: int = 1
    segments: list[tuple[int, int, pa.Table]] = field(default_factory=list)
    losses: list[tuple[int, int]] = field(default_factory=list)


class LiveServer:
    """Serves the contract's /live for some partitions over real HTTP, in a thread-free aiohttp server."""

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        self.asked: list[str] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/tables", self._tables)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _tables(self, request: web.Request) -> web.Response:
        return web.json_response({"tables": [], "asked": request.query_string})

    async def _live(self, request: web.Request) -> web.Response:
        self.asked.append(request.query_string)
        only = bytes.fromhex(request.query.get("trace_id", ""))
        body = b""
        for want in filter(None, request.query.get("want", "").split(",")):
            partition, after = map(int, want.split(":"))
            body += self._partition(partition, after, only)
        return web.Response(body=body)

    def _partition(self, partition: int, after: int, only: bytes) -> bytes:
        held = self.held.get(partition)
        if held is None:
            return _block({"partition": partition, "owner": False, "spans": 0})
        head = {"partition": partition, "owner": True, "assigned": held.assigned}
        head |= {"low": held.low, "losses": held.losses}
        if held.low > after:
            return _block(head | {"next": after, "spans": 0})
        body = b""
        for first, last, spans in held.segments:
            if last < after:
                continue
            found = spans
            if only:
                found = spans.filter(pc.equal(spans.column("trace_id"), pa.scalar(only, pa.binary(16))))
                if not found.num_rows:
                    continue
            ipc = bytes(ipc_bytes(found)) if found.num_rows else b""
            place = {"first": max(first, after), "last": last, "next": last + 1, "spans": found.num_rows}
            body += _block(head | place, ipc)
        return body + _block(head | {"next": held.next, "spans": 0})


def _block(header: dict[str, Any], ipc: bytes = b"") -> bytes:
    packed = orjson.dumps(header | {"ipc_bytes": len(ipc)})
    return len(packed).to_bytes(4, "big") + packed + ipc


# ---- the store's side


class MemoryStored:
    """The catalog of manifests handed in, answered by looking at all of them. late: known to the bucket only.

    refused: what the bucket cannot be read for; missing_parts: what is below H and not known.
    """

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.late: list[Manifest] = []
        self.problem = ""
        self.refused: Exception | None = None
        self.missing_parts: list[str] = []
        self._lock = threading.Lock()

    def start(self) -> None: ...

    def close(self) -> None: ...

    def missing(self) -> str:
        return self.problem

    def edition(self) -> int:
        return 0

    def damaged(self) -> list[str]:
        return []

    def unread(self, _partition: int) -> list[str]:
        return self.missing_parts

    def horizons(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for manifest in sorted(self.manifests, key=lambda each: each.first):
            if manifest.first == found.get(manifest.partition, 0):
                found[manifest.partition] = manifest.last + 1
        return found

    def refresh(self, partition: int) -> None:
        if self.refused is not None:
            raise self.refused
        with self._lock:
            self.manifests += [each for each in self.late if each.partition == partition]
            self.late = [each for each in self.late if each.partition != partition]

    def _entries(self, tenant: str) -> list[tuple[Manifest, ChunkEntry]]:
        mine = [(m, entry) for m in self.manifests for entry in m.chunks if entry.tenant == tenant]
        return [(manifest, chunk_from_values(kept_values(entry))) for manifest, entry in mine]

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None, end_ns: int | None
    ) -> list[ChunkEntry]:
        inside = self.chunks_for(tenant, start_ns or 0, end_ns if end_ns is not None else 2**64)
        mine = [entry for manifest, entry in self._entries(tenant) if manifest.partition == partition]
        return [entry for entry in mine if entry in inside]

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        return [
            entry
            for _, entry in self._entries(tenant)
            if (entry.start_min_unix_ns <= end_ns and entry.end_max_unix_ns >= start_ns)
            or any(start_ns <= start <= end_ns for _, start in entry.outliers)
        ]

    def tenants(self) -> set[str]:
        return {entry.tenant for manifest in self.manifests for entry in manifest.chunks}

    def attributes(self, tenant: str) -> dict[str, int]:
        return {name: 1 for _, entry in self._entries(tenant) for name in entry.attributes}

    def more_keys(self, tenant: str) -> set[str]:
        return {key for _, entry in self._entries(tenant) for key in entry.more_keys}

    def services(self, tenant: str) -> dict[str, dict[str, int]]:
        total: Services = {}
        for entry in (one for manifest in self.manifests for one in manifest.chunks if one.tenant == tenant):
            add_services(total, {"": entry.services})
        return total.get("", {})


def a_manifest(partition: int, first: int, last: int) -> Manifest:
    """One that names no chunk: nothing of these offsets was new."""
    return replace(manifest_of(first, last, tenants=()), partition=partition)


def stored(
    settings: Settings, partition: int, first: int, last: int, spans: pa.Table, topic: str = "spans_by_trace"
) -> Manifest:
    """Store a range for real; its manifest."""
    manifest = store_range(
        ObjectStore(settings.store),
        settings,
        SealedRange(
            topic=topic,
            partition=partition,
            partitions=settings.kafka.partitions,
            first=first,
            last=last,
            spans=spans,
            record_time_min_unix_ns=T0,
            record_time_max_unix_ns=T0,
        ),
        worker="http://127.0.0.1:1",
        now_unix_ns=T0 + 10**9,
        stop=threading.Event(),
    )
    assert manifest is not None
    return manifest


# ---- the topic's side


class MemoryTail:
    """A topic in memory: partition -> offset -> value. Decodes as the real reader does."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.settings = settings
        self.partitions = partitions
        self.log: dict[int, dict[int, bytes]] = {}
        self.low: dict[int, int] = {}

    def ends(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        return {p: (self.low.get(p, 0), max(self.log.get(p, {}), default=-1) + 1) for p in partitions}

    def read(
        self,
        after: Mapping[int, int],
        ends: Mapping[int, tuple[int, int]],
        known: Mapping[int, Sequence[LiveSegment]],
    ) -> dict[int, TailRead]:
        return {p: self._read(p, start, ends[p], b"", known.get(p, ())) for p, start in after.items()}

    def read_trace(
        self, after: Mapping[int, int], ends: Mapping[int, tuple[int, int]], trace_id: bytes
    ) -> dict[int, TailRead]:
        return {p: self._read(p, start, ends[p], trace_id, ()) for p, start in after.items()}

    def _read(
        self, partition: int, start: int, end: tuple[int, int], trace_id: bytes, known: Sequence[LiveSegment]
    ) -> TailRead:
        low, high = end
        taker = TailRows(self.settings, (partition, self.partitions), trace_id, known)
        for offset, value in sorted(self.log.get(partition, {}).items()):
            if max(start, low) <= offset < high:
                taker.add(offset, [], value)
        losses = [(start, low - 1)] if start < low else []
        return TailRead(start=start, reached=high, segments=taker.finish(), losses=losses)

    def close(self) -> None: ...


def spans_of(found: pa.Table) -> list[bytes]:
    """Span IDs of a span table, in its order."""
    ids: list[bytes] = schema.column(found, "span_id").to_pylist()
    return ids

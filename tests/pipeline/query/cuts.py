"""One set of records, cut in any way into stored ranges, live segments and the tail; and questions asked of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.engine import Engine
from pipeline.query.live import LiveClient
from pipeline.query.metrics import Metrics
from pipeline.query.owners import Owners
from pipeline.query.search import Search
from pipeline.query.snapshot import Snapshots
from pipeline.query.tags import Tags
from pipeline.query.trace_by_id import TraceLookup
from pipeline.spans import schema
from tests.pipeline.query.world import (
    TENANT,
    Held,
    LiveServer,
    MemoryStored,
    MemoryTail,
    OneSpan,
    decoded,
    otlp,
    stored,
)
from topics.partitioner import partition_of
from topics.settings import Settings

PARTITIONS = 2
CELLS_MAX = 100
CACHE_BYTES = 1 << 20
TENANTS = [TENANT]
HOUR_NS = 3600 * 10**9
HOW = ("stored", "live", "kafka", "lagging", "mixed")
T = TypeVar("T")


@dataclass(slots=True)
class Cut:
    """How one partition's offsets are cut. chunks, segments: the last offsets of each; after them comes the tail.

    straddle: a segment may begin below H. owner: somebody answers for the live part; else all of it is tail.
    """

    chunks: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    owner: bool = True


def everywhere(offsets: int, how: str) -> dict[int, Cut]:
    """All records in chunks, in segments, or in the tail."""
    last = offsets - 1
    cut = {
        "stored": Cut(chunks=[last], segments=[]),
        "live": Cut(segments=[0, last]),
        "kafka": Cut(owner=False),
        "lagging": Cut(segments=[0]),
        "mixed": Cut(chunks=[0], segments=[last - 1]),
    }[how]
    return dict.fromkeys(range(PARTITIONS), cut)


@dataclass(slots=True)
class Asked:
    """What questions are asked of."""

    settings: Settings
    server: LiveServer
    stored: MemoryStored
    tail: MemoryTail
    traces: TraceLookup
    search: Search
    metrics: Metrics
    tags: Tags
    engine: Engine
    snapshots: Snapshots


def partitioned(records: Sequence[Sequence[Any]]) -> dict[int, dict[int, list[Any]]]:
    """partition -> offset -> spans: each record gives every partition one, of its traces, as a receiver would."""
    found: dict[int, dict[int, list[Any]]] = {p: {} for p in range(PARTITIONS)}
    for spans in records:
        for partition, offsets in found.items():
            mine = [one for one in spans if partition_of(one.trace_id, PARTITIONS) == partition]
            offsets[len(offsets)] = mine
    return found


def deduplicated(records: dict[int, list[OneSpan]]) -> dict[int, list[OneSpan]]:
    """What a worker keeps: the first copy of each span."""
    seen: set[tuple[int, int, int]] = set()
    kept: dict[int, list[OneSpan]] = {}
    for offset, spans in sorted(records.items()):
        kept[offset] = []
        for one in spans:
            if (one.trace, one.id, one.kind) not in seen:
                seen.add((one.trace, one.id, one.kind))
                kept[offset].append(one)
    return kept


class Form(NamedTuple):
    """How a test says spans. kept: of a partition's records what a worker keeps."""

    otlp: Callable[[Sequence[Any]], bytes]
    kept: Callable[[dict[int, list[Any]]], dict[int, list[Any]]]


ONE_SPANS = Form(otlp, deduplicated)


def range_of(records: dict[int, bytes], first: int, last: int, columns_max: int) -> pa.Table:
    inside = {offset: body for offset, body in records.items() if first <= offset <= last and body}
    return decoded(inside, columns_max=columns_max) if inside else schema.empty_table()


def ranges(lasts: Sequence[int], first: int = 0) -> Iterator[tuple[int, int]]:
    for last in sorted(set(lasts)):
        if last >= first:
            yield first, last
            first = last + 1


def ask(
    settings: Settings,
    records: Sequence[Sequence[Any]],
    cuts: dict[int, Cut],
    question: Callable[[Asked], Awaitable[T]],
    form: Form = ONE_SPANS,
) -> T:
    """Cut the records so, for real (chunks in MinIO, segments over HTTP), and ask."""

    async def main() -> T:
        server, catalog = LiveServer(), MemoryStored()
        tail = MemoryTail(settings, PARTITIONS)
        owners: dict[int, str] = {}
        engine = Engine(settings.querier, settings.store)
        with ThreadPoolExecutor(2) as threads:
            live = LiveClient(
                Owners(lambda: owners, refresh_s=60, quiet_s=60),
                bytes_max=settings.querier.live_bytes_max,
                timeout_s=5,
                executor=threads,
            )
            snapshots = Snapshots(catalog, live, tail, partitions=PARTITIONS, executor=threads)
            cache = ChunkCache(CACHE_BYTES)
            asked = Asked(
                settings=settings,
                server=server,
                stored=catalog,
                tail=tail,
                traces=TraceLookup(catalog, snapshots, engine, partitions=PARTITIONS),
                search=Search(catalog, snapshots, engine, reach_ns=3600 * 10**9, cache=cache),
                metrics=Metrics(catalog, snapshots, engine, reach_ns=3600 * 10**9, cells_max=CELLS_MAX, cache=cache),
                tags=Tags(catalog, snapshots, engine, cache),
                engine=engine,
                snapshots=snapshots,
            )
            try:
                await server.start()
                for partition, offsets in partitioned(records).items():
                    sent = {offset: form.otlp(spans) for offset, spans in offsets.items()}
                    kept = {offset: form.otlp(spans) for offset, spans in form.kept(offsets).items()}
                    _lay(settings, (server, catalog, tail, owners), partition, (sent, kept), cuts[partition])
                return await question(asked)
            finally:
                await live.close()
                await server.stop()
                engine.close()

    return asyncio.run(main())


def _lay(
    settings: Settings,
    parts: tuple[LiveServer, MemoryStored, MemoryTail, dict[int, str]],
    partition: int,
    records: tuple[dict[int, bytes], dict[int, bytes]],
    cut: Cut,
) -> None:
    server, catalog, tail, owners = parts
    columns_max = settings.worker.attribute_columns_max
    tail.log[partition], kept = records
    topic, horizon = f"t{uuid.uuid4().hex}", 0  # no range is stored twice under one name
    for first, last in ranges(cut.chunks):
        catalog.manifests.append(
            stored(settings, partition, first, last, range_of(kept, first, last, columns_max), topic=topic)
        )
        horizon = last + 1
    if not cut.owner:
        return
    owners[partition] = server.url
    low = 0  # stored segments are still held for a while: the first one given may begin below H
    bounds = list(ranges(cut.segments, low))
    server.held[partition] = Held(
        low=low,
        next=max([horizon, *(last + 1 for _, last in bounds)]) if bounds else horizon,
        segments=[(first, last, range_of(kept, first, last, columns_max)) for first, last in bounds],
    )
    if bounds and server.held[partition].next > bounds[-1][1] + 1:
        held = server.held[partition]
        first = bounds[-1][1] + 1
        held.segments.append((first, held.next - 1, range_of(kept, first, held.next - 1, columns_max)))
    elif not bounds:
        server.held[partition].low = horizon

"""The commit of a range: chunks first, then the manifest that makes them count. And what a new owner reads of it.

Who holds a partition is decided nowhere but here: of several attempts at one range the manifest of one is taken.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from tenacity import Retrying, retry_if_exception_type, stop_any, wait_random_exponential

from pipeline import telemetry
from pipeline.partition.sealed import SealedRange
from pipeline.spans import validate
from pipeline.store import chunk, edit_log
from pipeline.store.buckets import bucket_of_partition
from pipeline.store.edits import EditState
from pipeline.store.manifest import ChunkEntry, Manifest, chunk_name, manifest_name, parse_manifest_name, read_named
from pipeline.store.objects import ObjectStore
from topics.errors import (
    DamagedChunkError,
    MalformedRecordError,
    StoreConflictError,
    StoreUnavailableError,
)
from topics.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")
TOKEN_BYTES = 8
PARQUET, FILTER = "application/vnd.apache.parquet", "application/octet-stream"


class _StoppedError(Exception):
    """The range is no longer ours to store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A partition's manifests: the mark (0 where there is none), the newest, the names of all, oldest first, the edits.

    newest: as it was put; what of its chunks counts is for `edits` to say.
    """

    mark: int
    newest: Manifest | None
    names: tuple[str, ...]
    edits: EditState


def read_mark(store: ObjectStore, topic: str, partition: int) -> Found:
    """List a partition's manifests: one listing, one read, and a few where there are edits.

    Raises StoreUnavailableError, and for edits that it refuses FormatVersionError and MalformedRecordError.
    """
    listed, edits = edit_log.read(store, topic, partition)
    names = tuple(name for name in listed.manifests if _first(name) >= edits.oldest)
    newest = read_manifest(store, names[-1]) if names else None
    return Found(mark=newest.last + 1 if newest else 0, newest=newest, names=names, edits=edits)


def _first(name: str) -> int:
    parsed = parse_manifest_name(name)
    assert parsed is not None
    return parsed[2]


def read_manifest(store: ObjectStore, name: str) -> Manifest | None:
    """A manifest by its object's name; None where there is none. Raises as Manifest.from_json, with the name."""
    content = store.get(store.buckets[0], name)
    return None if content is None else read_named(name, content, Manifest.from_json)


def window_spans(
    store: ObjectStore, found: Found, *, window_s: float, keys_max: int
) -> Iterator[tuple[Manifest, pa.Table]]:
    """The key columns of the spans stored within the window, oldest range first: what the deduplication window held.

    A chunk that cannot be read is left out, and logged: copies of its spans are stored again.
    Goes back from the newest manifest while record times lie within `window_s` of it, and to no more than `keys_max`
    spans, beyond those of the newest.
    """
    if found.newest is None:
        return
    within = window_manifests(store, found, window_s=window_s, keys_max=keys_max)
    begin = within[-1].first if within else 0
    for added in found.edits.added:  # such a chunk stands at its first manifest, and reaches into the window
        if added.first < begin <= added.last:
            whole = replace(within[-1], record_time_max_unix_ns=added.record_time_max_unix_ns)
            yield from _keys(store, whole, [added.chunk])
    for manifest in reversed(within):
        yield from _keys(store, manifest, found.edits.chunks_of(manifest))


def _keys(store: ObjectStore, manifest: Manifest, chunks: Iterable[ChunkEntry]) -> Iterator[tuple[Manifest, pa.Table]]:
    for entry in chunks:
        try:
            content = store.get(entry.bucket, entry.name)
            if content is None:
                raise DamagedChunkError("it is not there")
            rows = chunk.read_chunk(content, columns=chunk.KEY_COLUMNS)
        except DamagedChunkError as error:  # what is stored twice can be merged, what is not read is lost
            log.error("window_incomplete", chunk=entry.name, error=str(error))
            continue
        first = pa.array(np.zeros(rows.num_rows, dtype=np.int32))
        yield manifest, rows.append_column("tenant", pa.DictionaryArray.from_arrays(first, [entry.tenant]))


def window_manifests(store: ObjectStore, found: Found, *, window_s: float, keys_max: int) -> list[Manifest]:
    """The manifests of the window, newest first; a damaged one is left out, and logged.

    Ranges without records have no time: they neither begin nor end it.
    """
    within: list[Manifest] = []
    latest_ns, spans = 0, 0
    for name in reversed(found.names):
        at_newest = found.newest is not None and name == found.newest.name
        try:
            manifest = found.newest if at_newest else read_manifest(store, name)
        except MalformedRecordError as error:
            log.error("window_incomplete", error=str(error))
            continue
        if manifest is None:
            break
        count = sum(one.spans for one in manifest.chunks)
        if spans and spans + count > keys_max:
            break
        spans += count
        time_ns = manifest.record_time_max_unix_ns
        latest_ns = latest_ns or time_ns
        if 0 < time_ns < latest_ns - int(window_s * 1e9):
            break
        within.append(manifest)
    return within


def store_range(
    store: ObjectStore,
    settings: Settings,
    sealed: SealedRange,
    *,
    worker: str,
    now_unix_ns: int,
    stop: threading.Event,
) -> Manifest | None:
    """Steps 1 and 2 of the commit: write each tenant's chunk, then the manifest. From then on the range is stored.

    Tries for as long as the store is away; `stop` ends it. Returns the manifest when this attempt's stands, None when
    another's does or `stop` was set. A store that does not refuse a second writer is written to all the same, after a
    look; only one worker may run then.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    wait = settings.store.retry_wait_max_s
    written: list[ChunkEntry] = []
    try:
        for tenant, spans in by_tenant(sealed.spans):
            written.append(_put_chunk(store, settings, sealed, (tenant, spans, token, now_unix_ns), (stop, wait)))
        manifest = Manifest(
            topic=sealed.topic,
            partition=sealed.partition,
            partitions=sealed.partitions,
            first=sealed.first,
            last=sealed.last,
            token=token,
            worker=worker,
            written_unix_ns=now_unix_ns,
            record_time_min_unix_ns=sealed.record_time_min_unix_ns,
            record_time_max_unix_ns=sealed.record_time_max_unix_ns,
            losses=sealed.losses,
            chunks=tuple(written),
        )
        conditional = _until_there(store.refuses_second_put, stop, wait)
        ours = _until_there(partial(_put_manifest, store, manifest, conditional), stop, wait)
    except _StoppedError:
        return None
    if ours:
        return manifest
    log.warning("range_lost", topic=sealed.topic, partition=sealed.partition, first=sealed.first, why="another owner")
    _remove(store, written)  # only this attempt's: no manifest can name them any more
    return None


def by_tenant(spans: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each tenant, in the order of the tenants' names."""
    if not spans.num_rows:
        return
    tenants = spans.column("tenant").cast(pa.string())
    names = sorted(pc.unique(tenants).to_pylist())
    if len(names) == 1:
        yield names[0], spans
        return
    for name in names:
        yield name, spans.filter(pc.equal(tenants, name)).combine_chunks()


def _put_chunk(
    store: ObjectStore,
    settings: Settings,
    sealed: SealedRange,
    one: tuple[str, pa.Table, str, int],
    patience: tuple[threading.Event, float],
) -> ChunkEntry:
    tenant, spans, token, now_unix_ns = one
    start = spans.column("start_unix_ns").to_numpy()
    encoded = chunk.encode_chunk(
        spans,
        row_group_spans=settings.chunk.row_group_spans,
        zstd_level=settings.chunk.zstd_level,
        outlier=validate.is_outlier(start, now_unix_ns=now_unix_ns, future_s_max=settings.limits.future_s_max),
    )
    bucket = bucket_of_partition(sealed.partition, sealed.partitions, store.buckets)
    stem = chunk_name(tenant, sealed.topic, sealed.partition, (sealed.first, sealed.last), token, now_unix_ns)
    objects = (
        (f"{stem}.parquet", encoded.parquet, PARQUET),
        (f"{stem}.traces.parquet", encoded.traces, PARQUET),
        (f"{stem}.filter", encoded.trace_filter, FILTER),
    )
    for name, data, content_type in objects:
        _until_there(partial(store.put, bucket, name, data, content_type), *patience)
    return ChunkEntry(
        tenant=tenant,
        bucket=bucket,
        name=objects[0][0],
        traces_name=objects[1][0],
        filter_name=objects[2][0],
        bytes=sum(len(data) for _, data, _ in objects),
        spans=encoded.spans,
        traces=encoded.traces_count,
        start_min_unix_ns=encoded.start_min_unix_ns,
        start_max_unix_ns=encoded.start_max_unix_ns,
        end_max_unix_ns=encoded.end_max_unix_ns,
        outliers=encoded.outliers,
        services=encoded.services,
        attributes=encoded.attributes,
        more_keys=encoded.more_keys,
        values=encoded.values,
    )


def _put_manifest(store: ObjectStore, manifest: Manifest, conditional: bool) -> bool:
    """Whether this attempt's manifest stands; the token in what stands decides.

    Raises StoreUnavailableError when a put was refused or its answer unclear and none stands, or not yet: then it is to
    be put again, since the name takes one only.
    """
    name = manifest_name(manifest.topic, manifest.partition, manifest.first)
    if not conditional and (there := read_manifest(store, name)) is not None:
        return there.token == manifest.token
    try:
        store.put_if_absent(store.buckets[0], name, manifest.to_json())
    except (StoreConflictError, StoreUnavailableError) as error:
        there = read_manifest(store, name)
        if there is None:
            raise StoreUnavailableError(f"{name} was not stored: {error}") from error
        return there.token == manifest.token
    return True


def _until_there(call: Callable[[], T], stop: threading.Event, wait_max_s: float) -> T:
    """Try until the store answers; raises _StoppedError once `stop` is set. Waits are random, up to `wait_max_s`."""
    for attempt in Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.2, max=wait_max_s),
        stop=stop_any(),
        sleep=_sleeper(stop),
        reraise=True,
    ):
        with attempt:
            if stop.is_set():
                raise _StoppedError
            try:
                return call()
            except StoreUnavailableError as error:
                telemetry.AWAY.labels(what="range").inc()
                log.warning("store_away", error=str(error))
                raise
    raise AssertionError("the retry loop ends by its return")


def _sleeper(stop: threading.Event) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        stop.wait(seconds)

    return sleep


def _remove(store: ObjectStore, entries: list[ChunkEntry]) -> None:
    for entry in entries:
        for name in entry.objects:
            try:
                store.remove(entry.bucket, name)
            except StoreUnavailableError as error:
                log.warning("orphan_left", name=name, error=str(error))

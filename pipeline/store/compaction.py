"""Compaction of a partition by its owner: small chunks of a tenant become one, without the copies that came late.

What is merged is old: out of the deduplication window, and so far below the horizon of every question under way that
none sees half of it. It is an edit like any other: of two owners' one counts, and the parts are deleted in their time.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from pipeline import telemetry
from pipeline.clocks import Clocks
from pipeline.store import commit, merge
from pipeline.store.buckets import bucket_of_partition
from pipeline.store.edits import Added, EditState
from pipeline.store.manifest import ChunkEntry, Manifest, chunk_name, manifest_name
from pipeline.store.objects import ObjectStore
from topics.errors import DamagedChunkError, FormatVersionError, StoreUnavailableError
from topics.settings import Settings

log = structlog.get_logger(__name__)
SPREAD = 10  # parts are written within a tenth of the time that chunks are kept: the newest decides when all go
HALF = 2  # no part is larger than half of all: so each span is written anew a few times only
TRACES_MAX = 1_000_000  # of one chunk: their IDs are held for its filter
LEFT_MAX = 10_000
BUSY_S_MAX = 60.0


class StoppedError(Exception):
    """Let go, or the worker had other things to do for long."""


class Candidate(NamedTuple):
    """A chunk that may be merged: its manifest's first offset, and what Added says of it."""

    tenant: str
    first: int
    last: int
    name: str
    bytes: int
    traces: int
    record_time_max_unix_ns: int
    written_unix_ns: int


class Compacted(NamedTuple):
    """A chunk that is written and not yet named, and those whose place it takes."""

    added: Added
    parts: tuple[ChunkEntry, ...]
    copies: int


def candidates(manifests: Iterable[Manifest], state: EditState, protected: Collection[str]) -> Iterator[Candidate]:
    """The chunks that count of these manifests, oldest first, but for those that are `protected`, by manifest."""
    of_added = {one.chunk.name: one for one in state.added}
    for manifest in manifests:
        for chunk in state.chunks_of(manifest) if manifest.name not in protected else ():
            made = of_added.get(chunk.name) or Added(
                first=manifest.first,
                last=manifest.last,
                record_time_max_unix_ns=manifest.record_time_max_unix_ns,
                written_unix_ns=manifest.written_unix_ns,
                chunk=chunk,
            )
            times = made.record_time_max_unix_ns, made.written_unix_ns
            yield Candidate(chunk.tenant, manifest.first, made.last, chunk.name, chunk.bytes, chunk.traces, *times)


def groups(
    found: Iterable[Candidate], *, bytes_max: int, parts: tuple[int, int], spread_ns: Callable[[str], int]
) -> list[tuple[Candidate, ...]]:
    """What is worth merging: neighbours of one tenant, each smaller than half of the largest chunk wanted.

    parts: at least and at most so many. spread_ns: of a tenant, how far apart they may have been written.
    """
    growing: dict[str, list[Candidate]] = {}
    ready: list[tuple[Candidate, ...]] = []

    def close(tenant: str) -> None:
        group = growing.pop(tenant, [])
        largest = max((one.bytes for one in group), default=0)
        if len(group) >= parts[0] and HALF * largest <= sum(one.bytes for one in group):
            ready.append(tuple(group))

    for one in found:
        if HALF * one.bytes > bytes_max or one.traces > TRACES_MAX:
            continue
        group = growing.setdefault(one.tenant, [])
        nbytes, traces = sum(each.bytes for each in group), sum(each.traces for each in group)
        apart = one.written_unix_ns - group[0].written_unix_ns if group else 0
        full = len(group) >= parts[1] or nbytes + one.bytes > bytes_max or traces + one.traces > TRACES_MAX
        if full or apart > spread_ns(one.tenant):
            close(one.tenant)
            group = growing.setdefault(one.tenant, [])
        group.append(one)
    for tenant in list(growing):
        close(tenant)
    return ready


class Compactor:
    """Merges chunks of the partitions of `topic`, one group at a time; blocking.

    busy: whether the worker is storing a range; merging waits then.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        *,
        topic: str,
        clocks: Clocks,
        busy: Callable[[], bool],
    ) -> None:
        self._settings, self._store = settings, store
        self._topic, self._clocks, self._busy = topic, clocks, busy
        self._planned: dict[int, deque[tuple[Candidate, ...]]] = {}
        self._planned_ns: dict[int, int] = {}
        self._left: set[str] = set()  # chunks that cannot be merged

    def due(self, partition: int) -> bool:
        """Whether there may be something to merge."""
        every_ns = int(self._settings.housekeeping.compaction_every_s * 1e9)
        waited = self._clocks.has_passed(self._planned_ns.get(partition), every_ns)
        return bool(self._settings.housekeeping.compaction_chunk_bytes) and (
            waited or bool(self._planned.get(partition))
        )

    def plan(
        self,
        partition: int,
        manifests: Callable[[], Iterable[Manifest]],
        state: EditState,
        protected: Collection[str],
        kept_ns: Callable[[str], int],
        old_unix_ns: int,
    ) -> Iterator[tuple[Candidate, ...]]:
        """Groups to merge, one after the other. kept_ns: of a tenant; old_unix_ns: what was written later waits."""
        waiting = self._planned.setdefault(partition, deque())
        if not waiting:
            keeping = self._settings.housekeeping
            found = (
                one
                for one in candidates(manifests(), state, protected)
                if one.written_unix_ns < old_unix_ns and one.name not in self._left
            )
            waiting += groups(
                found,
                bytes_max=keeping.compaction_chunk_bytes,
                parts=(keeping.compaction_parts_min, keeping.compaction_parts_max),
                spread_ns=lambda tenant: kept_ns(tenant) // SPREAD,
            )
            self._planned_ns[partition] = self._clocks.steady_ns()
        ends_ns = self._clocks.steady_ns() + int(self._settings.housekeeping.compaction_round_s * 1e9)
        while waiting and self._clocks.steady_ns() < ends_ns:
            yield waiting.popleft()

    def merged(
        self, partition: int, group: Sequence[Candidate], state: EditState, stop: threading.Event
    ) -> Compacted | None:
        """The group's chunks as one, written to the store; None: it is not to be, or not now.

        Raises StoreUnavailableError, OSError (the disk).
        """
        manifests = {one.first: commit.read_manifest(self._store, self._name(partition, one.first)) for one in group}
        counting = {
            chunk.name: chunk for manifest in manifests.values() if manifest for chunk in state.chunks_of(manifest)
        }
        entries = [counting.get(one.name) for one in group]
        newest = manifests[group[-1].first]
        if newest is None or None in entries:
            return None  # retention took it meanwhile
        folder = self._settings.worker.data_dir / "compaction"
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(parents=True)
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                chunks = [entry for entry in entries if entry is not None]
                read = self._read(chunks, Path(name), stop)
                if read is None:
                    return None
                done = self._put(newest, group[: len(read)], chunks[: len(read)], read, (Path(name), stop))
        except StoppedError:
            return None
        except merge.TooLargeError as error:
            self._leave([one.name for one in group], str(error))
            return None
        telemetry.COMPACTION_SECONDS.observe(time.monotonic() - began)
        return done

    def remove(self, compacted: Compacted) -> None:
        """Delete a chunk that nobody can name any more: another's edit stands."""
        chunk = compacted.added.chunk
        for name in chunk.objects:
            with suppress(StoreUnavailableError):  # it is swept then
                self._store.remove(chunk.bucket, name)

    @staticmethod
    def count(compacted: Compacted) -> None:
        """It is named."""
        added, nbytes = compacted.added, sum(one.bytes for one in compacted.parts)
        telemetry.CHUNKS_COMPACTED.inc(len(compacted.parts))
        telemetry.COMPACTED_BYTES.labels(side="before").inc(nbytes)
        telemetry.COMPACTED_BYTES.labels(side="after").inc(added.chunk.bytes)
        telemetry.COPIES_REMOVED.inc(compacted.copies)
        log.info(
            "chunks_merged",
            first=added.first,
            last=added.last,
            chunks=len(compacted.parts),
            bytes_before=nbytes,
            bytes_after=added.chunk.bytes,
            copies=compacted.copies,
        )

    # ---- inside

    def _read(self, chunks: Sequence[ChunkEntry], folder: Path, stop: threading.Event) -> list[merge.Part] | None:
        """The chunks as files: as many of them as can be merged with the memory there is; None: not two."""
        parts: list[merge.Part] = []
        for number, chunk in enumerate(chunks):
            if stop.is_set():
                raise StoppedError
            path = folder / f"{number}.parquet"
            with path.open("wb") as file:
                if self._store.download(chunk.bucket, chunk.name, file) is None:
                    self._leave([chunk.name], "it is not there")
                    return None
            try:
                part = merge.Part(path)
            except (DamagedChunkError, FormatVersionError) as error:
                self._leave([chunk.name], str(error))
                return None
            held = sum(one.group_bytes for one in parts) + part.group_bytes
            if held > self._settings.housekeeping.compaction_memory_bytes:
                break
            parts.append(part)
        if len(parts) < 2:
            self._leave([one.name for one in chunks[: len(parts) + 1]], "its row groups are too large")
            return None
        return parts

    def _put(
        self,
        manifest: Manifest,
        group: Sequence[Candidate],
        chunks: Sequence[ChunkEntry],
        parts: Sequence[merge.Part],
        where: tuple[Path, threading.Event],
    ) -> Compacted | None:
        (folder, stop), written = where, max(one.written_unix_ns for one in group)
        attributes: dict[str, int] = {}
        for chunk in chunks:
            for name, count in chunk.attributes.items():
                attributes[name] = attributes.get(name, 0) + count
        try:
            made = merge.merge(
                parts,
                attributes,
                self._layout(),
                tenant=chunks[0].tenant,
                now_unix_ns=written,
                folder=folder,
                pause=self._pause(stop),
            )
        except (DamagedChunkError, FormatVersionError) as error:
            self._leave([chunk.name for chunk, part in zip(chunks, parts, strict=True) if part.damaged], str(error))
            return None
        first, last = min(one.first for one in group), max(one.last for one in group)
        stem = chunk_name(
            chunks[0].tenant,
            self._topic,
            manifest.partition,
            (first, last),
            secrets.token_hex(commit.TOKEN_BYTES),
            self._clocks.unix_ns(),
        )
        bucket = bucket_of_partition(manifest.partition, manifest.partitions, self._store.buckets)
        names = f"{stem}.parquet", f"{stem}.traces.parquet", f"{stem}.filter"
        nbytes = len(made.trace_filter)
        for name, path in zip(names, (folder / merge.PARQUET, folder / merge.TRACES), strict=False):
            nbytes += path.stat().st_size
            self._store.put_file(bucket, name, path, commit.PARQUET)
        self._store.put(bucket, names[2], made.trace_filter, commit.FILTER)
        entry = ChunkEntry(
            tenant=chunks[0].tenant,
            bucket=bucket,
            name=names[0],
            traces_name=names[1],
            filter_name=names[2],
            bytes=nbytes,
            spans=made.spans,
            traces=made.traces_count,
            services=made.services,
            attributes=made.attributes,
            more_keys=made.more_keys,
            values=made.values,
            **made.times.of_entry(),
        )
        added = Added(
            first=first,
            last=last,
            record_time_max_unix_ns=max(one.record_time_max_unix_ns for one in group),
            written_unix_ns=written,
            chunk=entry,
        )
        return Compacted(added, tuple(chunks), made.copies)

    def _layout(self) -> merge.Layout:
        return merge.Layout(
            row_group_spans=self._settings.chunk.row_group_spans,
            zstd_level=self._settings.chunk.zstd_level,
            attribute_columns_max=self._settings.worker.attribute_columns_max,
            future_s_max=self._settings.limits.future_s_max,
            bytes_max=self._settings.housekeeping.compaction_memory_bytes,
        )

    def _pause(self, stop: threading.Event) -> Callable[[], None]:
        """What gives way to the worker's other work: a share of the time, and all of it while a range is stored."""
        share = self._settings.housekeeping.compaction_share
        since = time.monotonic()

        def pause() -> None:
            nonlocal since
            stop.wait((time.monotonic() - since) * (1 / share - 1))
            waited = 0.0
            while self._busy() and not stop.is_set() and waited < BUSY_S_MAX:
                stop.wait(0.2)
                waited += 0.2
            if stop.is_set() or waited >= BUSY_S_MAX:
                raise StoppedError
            since = time.monotonic()

        return pause

    def _leave(self, names: Sequence[str], why: str) -> None:
        """Do not try these again before the next start."""
        if len(self._left) > LEFT_MAX:
            self._left.clear()
        self._left.update(names)
        telemetry.COMPACTION_LEFT.inc(len(names))
        log.warning("chunks_not_merged", chunks=list(names)[:3], count=len(names), why=why)

    def _name(self, partition: int, first: int) -> str:
        return manifest_name(self._topic, partition, first)

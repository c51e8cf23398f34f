"""Whether what manifests and edits name is there and whole: ranges without gap, objects, page checksums, counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store import edit_log, trace_filter
from pipeline.store.commit import read_manifest
from pipeline.store.manifest import ChunkEntry, Manifest, parse_manifest_name
from pipeline.store.objects import ObjectStore
from topics.errors import FormatVersionError, MalformedRecordError

PROBLEMS_MAX = 1000  # kept of a partition; beyond, they are counted


@dataclass(slots=True)
class Verified:
    """What was looked at, and each problem in a sentence. more: problems beyond those that are kept."""

    partition: int
    manifests: int = 0
    edits: int = 0
    chunks: int = 0
    spans: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0

    def note(self, problem: str) -> None:
        """One more."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        else:
            self.more += 1


def partitions_of(store: ObjectStore, topic: str) -> list[int]:
    """The partitions that have a manifest. Raises StoreUnavailableError."""
    listed = store.list(store.buckets[0], f"manifests/{topic}/")
    return sorted({parsed[1] for one in listed if (parsed := parse_manifest_name(one.name)) is not None})


def verify(
    store: ObjectStore, topic: str, partition: int, *, advance: Callable[[int, int], None] = lambda *_: None
) -> Verified:
    """Look at all of a partition. advance: told of the manifests done, and of all. Raises StoreUnavailableError."""
    found = Verified(partition)
    try:
        names, state = edit_log.read(store, topic, partition)
    except (FormatVersionError, MalformedRecordError) as error:
        found.note(f"the edits of partition {partition} cannot be read: {error}")
        return found
    found.edits = state.sequence
    end: int | None = None
    for number, name in enumerate(names.manifests):
        advance(number, len(names.manifests))
        parsed = parse_manifest_name(name)
        if parsed is None or parsed[2] < state.oldest:
            continue  # retention is deleting it
        try:
            manifest = read_manifest(store, name)
        except (FormatVersionError, MalformedRecordError) as error:
            found.note(f"{name}: {error}")
            end = None
            continue
        if manifest is None:
            if _counts_still(store, topic, partition, parsed[2]):
                found.note(f"{name} was listed and is not there")
            continue
        found.manifests += 1
        _check_range(found, manifest, parsed[2], end)
        end = manifest.last + 1
        for chunk in state.chunks_of(manifest):
            _check_chunk(found, store, manifest, chunk)
    advance(len(names.manifests), len(names.manifests))
    return found


def _check_range(found: Verified, manifest: Manifest, first: int, end: int | None) -> None:
    if manifest.first != first or manifest.last < first:
        found.note(f"{manifest.name} says that it is of offsets {manifest.first} to {manifest.last}")
    elif end is not None and first > end:
        found.note(f"{manifest.name} leaves a gap: the one before it ends at offset {end - 1}")
    elif end is not None and first < end:
        found.note(f"{manifest.name} overlaps the one before it, which ends at offset {end - 1}")


def _check_chunk(found: Verified, store: ObjectStore, manifest: Manifest, chunk: ChunkEntry) -> None:
    problems, nbytes = problems_of(store, chunk)
    found.chunks, found.spans, found.bytes = found.chunks + 1, found.spans + chunk.spans, found.bytes + nbytes
    if problems and names_still(store, manifest, chunk):
        for problem in problems:
            found.note(problem)


def problems_of(store: ObjectStore, chunk: ChunkEntry, folder: Path | None = None) -> tuple[list[str], int]:
    """What is wrong with a chunk's objects, in sentences, and the bytes that were read. Raises StoreUnavailableError.

    folder: for one object at a time, so that a row group is all that is held in memory; None: the system's for such.
    """
    problems, nbytes = list[str](), 0
    first_trace = b""
    for name, rows_wanted in ((chunk.name, chunk.spans), (chunk.traces_name, chunk.traces)):
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            size = store.download(chunk.bucket, name, cast(BinaryIO, file))
            if size is None:
                problems.append(f"{name} is not in bucket {chunk.bucket}")
                continue
            nbytes += size
            file.flush()
            try:
                rows, first_trace = _read_whole(file.name)
            except (pa.ArrowException, OSError, KeyError) as error:
                problems.append(f"{name} cannot be read: {str(error).splitlines()[0]}")
                continue
        if rows != rows_wanted:
            problems.append(f"{name} has {rows} rows, its manifest says {rows_wanted}")
    held = store.get(chunk.bucket, chunk.filter_name)
    if held is None:
        problems.append(f"{chunk.filter_name} is not in bucket {chunk.bucket}")
    else:
        nbytes += len(held)
        problems += _of_filter(chunk, held, first_trace)
    return problems, nbytes


def _read_whole(path: str) -> tuple[int, bytes]:
    """Rows and first trace ID of a Parquet file; each page's checksum is looked at, a row group in memory."""
    rows, first = 0, b""
    with pq.ParquetFile(path, page_checksum_verification=True, memory_map=True) as file:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, use_threads=False)
            first = first or group.column("trace_id")[0].as_py()
            rows += group.num_rows
    return rows, first


def _of_filter(chunk: ChunkEntry, held: bytes, trace_id: bytes) -> list[str]:
    try:
        blocks_log2 = trace_filter.blocks_log2_of(held)
    except FormatVersionError as error:
        return [f"{chunk.filter_name}: {error}"]
    if len(held) != trace_filter.HEADER_BYTES + (trace_filter.BLOCK_BYTES << blocks_log2):
        return [f"{chunk.filter_name} has a wrong length"]
    if trace_id and not trace_filter.might_hold(held, trace_id):
        return [f"{chunk.filter_name} does not hold a trace of its chunk"]
    return []


def names_still(store: ObjectStore, manifest: Manifest, chunk: ChunkEntry) -> bool:
    """Whether it counts now: retention may have taken it meanwhile."""
    _, state = edit_log.read(store, manifest.topic, manifest.partition)
    return chunk in state.chunks_of(manifest)


def _counts_still(store: ObjectStore, topic: str, partition: int, first: int) -> bool:
    return first >= edit_log.read(store, topic, partition)[1].oldest

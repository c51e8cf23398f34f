"""A store in memory, for what edits and housekeeping ask of one; now and then it loses an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pipeline.store.manifest import ChunkEntry, Manifest, chunk_name
from pipeline.store.objects import ObjectInfo, ObjectStore
from topics.errors import StoreConflictError, StoreUnavailableError
from topics.settings import StoreSettings

TOPIC = "spans_by_trace"
HOUR_NS = 3600 * 10**9
T0 = 1_700_000_000 * 10**9


class MemoryStore(ObjectStore):
    """pipeline.store.objects.ObjectStore over a dictionary. answers_lost: that many puts are told to have failed."""

    def __init__(self) -> None:
        self.settings = StoreSettings()
        self.objects: dict[tuple[str, str], bytes] = {}
        self.reads: list[str] = []
        self.listings = 0
        self.answers_lost = 0

    def put(self, bucket: str, name: str, data: bytes | memoryview, content_type: str) -> None:
        self.objects[bucket, name] = bytes(data)

    def put_file(self, bucket: str, name: str, path: Path, content_type: str) -> None:
        self.put(bucket, name, path.read_bytes(), content_type)

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
        if (bucket, name) in self.objects:
            raise StoreConflictError(f"{name} exists")
        self.objects[bucket, name] = data
        if self.answers_lost:
            self.answers_lost -= 1
            raise StoreUnavailableError("no answer")

    def get(self, bucket: str, name: str) -> bytes | None:
        self.reads.append(name)
        return self.objects.get((bucket, name))

    def download(self, bucket: str, name: str, file: BinaryIO) -> int | None:
        content = self.objects.get((bucket, name))
        return None if content is None else file.write(content)

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        self.listings += 1
        for held, name in sorted(self.objects):
            if held == bucket and name.startswith(prefix) and name > start_after:
                yield ObjectInfo(name, len(self.objects[held, name]), datetime.now(UTC))

    def remove(self, bucket: str, name: str) -> None:
        self.objects.pop((bucket, name), None)

    def refuses_second_put(self) -> bool:
        return True

    def names(self, prefix: str = "") -> list[str]:
        """Every object's name, of all buckets."""
        return sorted(name for _, name in self.objects if name.startswith(prefix))

    # ---- what is stored

    def keep_chunk(self, entry: ChunkEntry) -> None:
        """A chunk's objects."""
        for name in (entry.name, entry.traces_name, entry.filter_name):
            self.objects[entry.bucket, name] = b"content"

    def keep(self, manifest: Manifest) -> Manifest:
        """A manifest and its chunks."""
        for entry in manifest.chunks:
            self.keep_chunk(entry)
        self.objects[self.buckets[0], manifest.name] = manifest.to_json()
        return manifest


def entry_of(first: int, last: int, tenant: str = "shop", token: str = "t", start_s: int = 0) -> ChunkEntry:
    """A chunk under the name that a worker would give it."""
    stem = chunk_name(tenant, TOPIC, 0, (first, last), token, T0)
    return ChunkEntry(
        tenant=tenant,
        bucket=StoreSettings().buckets[0],
        name=f"{stem}.parquet",
        traces_name=f"{stem}.traces.parquet",
        filter_name=f"{stem}.filter",
        bytes=30,
        spans=1,
        traces=1,
        start_min_unix_ns=start_s * 10**9,
        start_max_unix_ns=start_s * 10**9 + 10,
        end_max_unix_ns=start_s * 10**9 + 20,
    )


def manifest_of(first: int, last: int, written_h: float = 0, tenants: tuple[str, ...] = ("shop",)) -> Manifest:
    """Partition 0's range, written so many hours after T0; records of that time."""
    written = T0 + int(written_h * HOUR_NS)
    return Manifest(
        topic=TOPIC,
        partition=0,
        partitions=8,
        first=first,
        last=last,
        token="t",
        worker="w",
        written_unix_ns=written,
        record_time_min_unix_ns=written,
        record_time_max_unix_ns=written,
        chunks=tuple(entry_of(first, last, tenant) for tenant in tenants),
    )

"""The catalog: what the manifests of all partitions say, in a reader's own RocksDB. May be lost: it is rebuilt.

An entry is a manifest as it came; a small row beside it holds what is needed to choose chunks, and is all that is read
when the catalog is opened. Which chunks may hold a trace is asked of the filters (pipeline.store.filter_groups).
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from pipeline.store.filter_groups import ChunkKey, FilterGroups
from pipeline.store.manifest import ChunkEntry, Manifest, Services, manifest_name, manifest_prefix, parse_manifest_name
from pipeline.store.objects import ObjectStore

MANIFESTS, ROWS, TOTALS, FILTERS, GROUPS, MEMBERS, META = (
    "manifests",
    "rows",
    "totals",
    "filters",
    "groups",
    "members",
    "meta",
)
FAMILIES = (MANIFESTS, ROWS, TOTALS, FILTERS, GROUPS, MEMBERS, META)
CACHE_BYTES = 32 << 20
UINT64_MAX = 2**64 - 1


class _Run(NamedTuple):
    """The range of a manifest."""

    first: int
    last: int


class _TenantChunks:
    """The chunks of one tenant as columns: keys, and the bounds of their times."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, ChunkKey]] = []
        self._start_min = np.zeros(0, dtype=np.uint64)
        self._end_max = np.zeros(0, dtype=np.uint64)
        self.with_outliers: list[ChunkKey] = []

    def add(self, key: ChunkKey, start_min_unix_ns: int, end_max_unix_ns: int, outliers: bool) -> None:
        self._rows.append((start_min_unix_ns, end_max_unix_ns, key))
        if outliers:
            self.with_outliers.append(key)

    def within(self, start_ns: int, end_ns: int) -> list[ChunkKey]:
        """Keys of the chunks whose times overlap the range, outliers aside."""
        if len(self._start_min) != len(self._rows):
            self._start_min = np.array([row[0] for row in self._rows], dtype=np.uint64)
            self._end_max = np.array([row[1] for row in self._rows], dtype=np.uint64)
        low, high = np.uint64(max(0, start_ns)), np.uint64(min(end_ns, UINT64_MAX))
        hit: npt.NDArray[np.bool_] = (self._start_min <= high) & (self._end_max >= low)
        return [self._rows[at][2] for at in np.flatnonzero(hit).tolist()]


class Catalog:
    """What is stored, of one topic. Thread-safe; may block on disk, and where it says so on the store.

    Before `refresh` of a partition has listed the bucket once, its horizon is 0: nothing of it counts as stored.
    """

    def __init__(self, data_dir: Path, topic: str, store: ObjectStore) -> None:
        self._topic = topic
        self._store = store
        self._lock = threading.RLock()
        data_dir.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(
            str(data_dir / "catalog"),
            options=_options(),
            column_families={name: _options() for name in FAMILIES},
            access_type=AccessType.read_write(),
        )
        self._families = {name: self._db.get_column_family(name) for name in FAMILIES}
        self._handles = {name: self._db.get_column_family_handle(name) for name in FAMILIES}
        self._runs: dict[int, dict[int, _Run]] = defaultdict(dict)
        self._base: dict[int, int] = {}
        self._horizon: dict[int, int] = {}
        self._tenants: dict[str, _TenantChunks] = defaultdict(_TenantChunks)
        self._filters = FilterGroups(self._db, self._families, self._handles)
        self._open()

    # ---- filled

    def apply(self, manifest: Manifest) -> bool:
        """Take a manifest; False when it is known."""
        with self._lock:
            if manifest.topic != self._topic or manifest.first in self._runs[manifest.partition]:
                return False
            key = _key(manifest.partition, manifest.first)
            row = _row(manifest)
            batch = WriteBatch(raw_mode=True)
            batch.put(key, manifest.to_json(), self._handles[MANIFESTS])
            batch.put(key, orjson.dumps(row), self._handles[ROWS])
            for chunk in manifest.chunks:
                batch.put(chunk.tenant.encode(), self._added_totals(chunk), self._handles[TOTALS])
            self._db.write(batch)
            self._take_row(manifest.partition, manifest.first, row)
            return True

    def refresh(self, partition: int) -> None:
        """List the bucket's manifests from H on and read those that are not known. Raises StoreUnavailableError."""
        bucket, prefix = self._store.buckets[0], manifest_prefix(self._topic, partition)
        if partition not in self._base:
            first = next(iter(self._store.list(bucket, prefix)), None)
            parsed = parse_manifest_name(first.name) if first else None
            with self._lock:
                self._base[partition] = parsed[2] if parsed else 0
                self._advance(partition)
        after = manifest_name(self._topic, partition, max(0, self._horizon.get(partition, 0) - 1))
        for listed in self._store.list(bucket, prefix, start_after=after if self._horizon.get(partition) else ""):
            parsed = parse_manifest_name(listed.name)
            if parsed is not None and parsed[2] not in self._runs[partition]:
                content = self._store.get(bucket, listed.name)
                if content is not None:
                    self.apply(Manifest.from_json(content))

    def load_filters(self, chunks_max: int) -> int:
        """Read the filters of up to `chunks_max` chunks that have none yet; until then each counts as a maybe."""
        loaded = 0
        for key in self._filters.missing(chunks_max):
            entry = self._entry(key)
            content = self._store.get(entry.bucket, entry.filter_name) if entry is not None else None
            with self._lock:
                self._filters.put(key, content)
            loaded += 1
        return loaded

    # ---- asked

    def horizons(self) -> dict[int, int]:
        """Partition -> H, the end of the gap-free run of its manifests, for partitions that have one."""
        with self._lock:
            return {partition: horizon for partition, horizon in self._horizon.items() if horizon}

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """The tenant's chunks with a span in [start_ns, end_ns], outliers included."""
        with self._lock:
            if tenant not in self._tenants:
                return []
            chunks = self._tenants[tenant]
            keys = dict.fromkeys(chunks.within(start_ns, end_ns))
            odd = [key for key in chunks.with_outliers if key not in keys]
        found = [entry for key in keys if (entry := self._entry(key)) is not None]
        for key in odd:
            entry = self._entry(key)
            if entry is not None and any(start_ns <= start <= end_ns for _, start in entry.outliers):
                found.append(entry)
        return found

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None = None, end_ns: int | None = None
    ) -> list[ChunkEntry]:
        """The chunks that may hold spans of a trace, by their filters and the range where one is given.

        One read of 4 kB for each 64 chunks of the partition.
        """
        with self._lock:
            keys = self._filters.might_hold(tenant, partition, trace_id)
        entries = [entry for key in keys if (entry := self._entry(key)) is not None]
        low, high = start_ns or 0, UINT64_MAX if end_ns is None else end_ns
        return [entry for entry in entries if _overlaps(entry, trace_id, low, high)]

    def services(self, tenant: str) -> Services:
        """Service -> operation -> spans, over all chunks."""
        services: Services = self._totals(tenant).get("services", {})
        return services

    def attributes(self, tenant: str) -> Mapping[str, int]:
        """Attribute column -> spans that have it, over all chunks."""
        attributes: dict[str, int] = self._totals(tenant).get("attributes", {})
        return attributes

    def more_keys(self, tenant: str) -> Iterable[str]:
        """`scope.key` of the keys in map columns, over all chunks."""
        keys: list[str] = self._totals(tenant).get("more_keys", [])
        return keys

    def tenants(self) -> list[str]:
        """Every tenant that has a chunk."""
        with self._lock:
            return sorted(self._tenants)

    def count(self) -> int:
        """Manifests known."""
        with self._lock:
            return sum(len(runs) for runs in self._runs.values())

    def feed_offset(self) -> int:
        """Where the reading of span_chunks goes on."""
        value = self._families[META].get(b"feed_offset")
        return 0 if value is None else int(value)

    def remember_feed_offset(self, offset: int) -> None:
        """Note where the reading of span_chunks goes on."""
        self._families[META][b"feed_offset"] = b"%d" % offset

    def close(self) -> None:
        """Release the folder."""
        with self._lock:
            for family in self._families.values():
                family.close()
            self._families.clear()
            self._handles.clear()  # the folder is free when nothing refers to the database any more
            self._db.close()

    # ---- inside

    def _open(self) -> None:
        self._filters.open()
        for key, value in self._families[ROWS].items():
            partition, first = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            self._take_row(partition, first, orjson.loads(value))

    def _take_row(self, partition: int, first: int, row: list[Any]) -> None:
        last, *chunks = row
        self._runs[partition][first] = _Run(first, int(last))
        for number, (tenant, start_min, end_max, outliers) in enumerate(chunks):
            key = ChunkKey(partition, first, number)
            self._tenants[str(tenant)].add(key, int(start_min), int(end_max), bool(outliers))
            self._filters.expect(str(tenant), key)
        self._advance(partition)

    def _advance(self, partition: int) -> None:
        """Move the horizon along the gap-free run that begins at the base."""
        if partition not in self._base:
            return
        runs, at = self._runs[partition], max(self._horizon.get(partition, 0), self._base[partition])
        while at in runs:
            at = runs[at].last + 1
        self._horizon[partition] = at if at > self._base[partition] else 0

    def _entry(self, key: ChunkKey) -> ChunkEntry | None:
        content = self._families[MANIFESTS].get(_key(key.partition, key.first))
        return None if content is None else Manifest.from_json(content).chunks[key.number]

    def _totals(self, tenant: str) -> dict[str, Any]:
        value = self._families[TOTALS].get(tenant.encode())
        return {} if value is None else orjson.loads(value)

    def _added_totals(self, chunk: ChunkEntry) -> bytes:
        old = self._totals(chunk.tenant)
        services: Services = old.get("services", {})
        for service, operations in chunk.services.items():
            services[service] = dict(Counter(services.get(service, {})) + Counter(operations))
        attributes = dict(Counter(old.get("attributes", {})) + Counter(chunk.attributes))
        more = sorted({*old.get("more_keys", []), *chunk.more_keys})
        return orjson.dumps({"services": services, "attributes": attributes, "more_keys": more})


def _row(manifest: Manifest) -> list[Any]:
    """[last, [tenant, start_min, latest end or start, whether it has outliers], ...]"""
    chunks = [
        [one.tenant, one.start_min_unix_ns, max(one.end_max_unix_ns, one.start_max_unix_ns), bool(one.outliers)]
        for one in manifest.chunks
    ]
    return [manifest.last, *chunks]


def _overlaps(entry: ChunkEntry, trace_id: bytes, start_ns: int, end_ns: int) -> bool:
    latest = max(entry.end_max_unix_ns, entry.start_max_unix_ns)
    if entry.start_min_unix_ns <= end_ns and latest >= start_ns:
        return True
    return any(start_ns <= start <= end_ns and odd == trace_id.hex() for odd, start in entry.outliers)


def _key(partition: int, first: int) -> bytes:
    return partition.to_bytes(4, "big") + first.to_bytes(8, "big")


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(8 << 20)
    options.set_db_write_buffer_size(32 << 20)
    options.set_max_background_jobs(1)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES // len(FAMILIES)))
    options.set_block_based_table_factory(table)
    return options

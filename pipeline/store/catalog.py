"""The catalog: what the manifests of all partitions say, in a reader's own RocksDB. May be lost: it is rebuilt.

Each chunk's entry stands by itself; a small row a manifest holds what is needed to choose chunks, and is all that is
read when the catalog is opened. Which chunks may hold a trace is asked of the filters (pipeline.store.filter_groups).
"""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import structlog
from rocksdict import AccessType, BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from pipeline.store import filter_groups
from pipeline.store.filter_groups import Chunk, ChunkKey, FilterGroups
from pipeline.store.manifest import (
    ChunkEntry,
    Manifest,
    Services,
    chunk_from_values,
    chunk_values,
    manifest_name,
    manifest_prefix,
    name_in_entry,
    parse_manifest_name,
)
from pipeline.store.objects import ObjectStore
from pipeline.store.totals import Totals
from topics.errors import FormatVersionError, MalformedRecordError, SpanstreamError

log = structlog.get_logger(__name__)
LAYOUT = 4  # of the folder; one of another layout is emptied
ENTRIES, ROWS, TOTALS, META = "entries", "rows", "totals", "meta"
FAMILIES = (ENTRIES, ROWS, TOTALS, META, *filter_groups.FAMILIES)
CACHE_BYTES = 32 << 20
READERS = 8  # objects read at a time
AT_ONCE = 64  # manifests of one write
UINT64_MAX = 2**64 - 1


class _Run(NamedTuple):
    """The range of a manifest, and the token of the attempt that stored it."""

    first: int
    last: int
    token: str


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
        low, high = np.uint64(_clipped(start_ns)), np.uint64(_clipped(end_ns))
        hit: npt.NDArray[np.bool_] = (self._start_min <= high) & (self._end_max >= low)
        return [self._rows[at][2] for at in np.flatnonzero(hit).tolist()]


class Catalog:
    """What is stored, of one topic. Thread-safe; may block on disk, and where it says so on the store.

    Entries of chunks come with the names of their services alone: the counts of operations stand in the totals, and are
    most of an entry's bytes.

    Before `refresh` of a partition has listed the bucket once, its horizon is 0: nothing of it counts as stored.
    """

    def __init__(self, data_dir: Path, topic: str, store: ObjectStore) -> None:
        self._topic = topic
        self._store = store
        self._lock = threading.RLock()
        self._refreshing: dict[int, threading.Lock] = defaultdict(threading.Lock)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="catalog")
        self._db = Rdict(
            str(_folder(data_dir)),
            options=_options(),
            column_families={name: _options() for name in FAMILIES},
            access_type=AccessType.read_write(),
        )
        self._families = {name: self._db.get_column_family(name) for name in FAMILIES}
        self._handles = {name: self._db.get_column_family_handle(name) for name in FAMILIES}
        self._filters = FilterGroups(self._db, self._families, self._handles)
        self._forget()
        self._filters.open()
        for key, value in self._families[ROWS].items():
            partition, first = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            self._take_row(partition, first, orjson.loads(value))

    # ---- filled

    def apply(self, manifest: Manifest) -> bool:
        """Take a manifest; False when it is known."""
        return self.apply_all([manifest]) == 1

    def apply_all(self, manifests: Iterable[Manifest]) -> int:
        """Take manifests in one write, all or none; how many were not known."""
        with self._lock:
            added: dict[tuple[int, int], tuple[Manifest, list[Any]]] = {}
            for one in manifests:
                if one.topic == self._topic and one.first not in self._runs[one.partition]:
                    added.setdefault((one.partition, one.first), (one, _row(one)))
            if not added:
                return 0
            batch = WriteBatch(raw_mode=True)
            sums: dict[str, Totals] = {}
            for (number, first), (manifest, row) in added.items():
                batch.put(_key(number, first), orjson.dumps(row), self._handles[ROWS])
                for at, chunk in enumerate(manifest.chunks):
                    key = ChunkKey(number, first, at).packed()
                    batch.put(key, orjson.dumps(kept_values(chunk)), self._handles[ENTRIES])
                    if chunk.tenant not in sums:
                        sums[chunk.tenant] = self._totals(chunk.tenant)
                    sums[chunk.tenant].add(chunk)
            for tenant, total in sums.items():
                batch.put(tenant.encode(), total.to_json(), self._handles[TOTALS])
            self._db.write(batch)
            for (number, first), (_, row) in added.items():
                self._take_row(number, first, row)
            return len(added)

    def manifest_of(self, entry: bytes) -> Manifest | None:
        """The manifest of an entry of span_chunks, read from the bucket where the entry only names it; None: gone.

        Raises StoreUnavailableError and what Manifest.from_json raises.
        """
        name = name_in_entry(entry)
        content = entry if name is None else self._store.get(self._store.buckets[0], name)
        return None if content is None else Manifest.from_json(content)

    def refresh(self, partition: int) -> None:
        """List the bucket's manifests from H on and read those that are not known; the first time, list them all.

        Raises StoreUnavailableError; and what Manifest.from_json raises for one that it refuses: the horizon stays
        before that one, all others are taken.
        """
        with self._lock:
            one_at_a_time = self._refreshing[partition]
        with one_at_a_time:
            if partition not in self._base:
                self._begin(partition)
                return
            horizon = self._horizon.get(partition, 0)
            after = manifest_name(self._topic, partition, horizon - 1) if horizon else ""
            self._read_new(partition, self._listed(partition, after))

    def listed(self, partition: int) -> bool:
        """Whether the partition's manifests have been listed, and what was known compared with them."""
        return partition in self._base

    def load_filters(self, chunks_max: int) -> int:
        """Read the filters of up to `chunks_max` chunks that have none yet; until then each counts as a maybe.

        Returns how many were read, 0 when none is missing. Raises StoreUnavailableError.
        """
        with self._lock:
            keys = self._filters.missing(chunks_max)
        for key, content in zip(keys, self._readers.map(self._filter_of, keys), strict=True):
            with self._lock:
                self._filters.put(key, content)
        return len(keys)

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

        One read of 4 kB for each 64 chunks of the partition that lie in the range.
        """
        low, high = _clipped(start_ns or 0), UINT64_MAX if end_ns is None else _clipped(end_ns)
        with self._lock:
            keys = self._filters.might_hold(tenant, partition, trace_id, low, high)
        entries = [entry for key in keys if (entry := self._entry(key)) is not None]
        return [entry for entry in entries if _overlaps(entry, trace_id, low, high)]

    def services(self, tenant: str) -> Services:
        """Service -> operation -> spans, over all chunks; what found no place is counted under totals.OTHERS."""
        return self._totals(tenant).services

    def attributes(self, tenant: str) -> Mapping[str, int]:
        """Attribute column -> spans that have it, over all chunks."""
        return self._totals(tenant).attributes

    def more_keys(self, tenant: str) -> Iterable[str]:
        """`scope.key` of the keys in map columns, over all chunks."""
        return self._totals(tenant).more_keys

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
        """Release the folder. Nothing else may be under way."""
        self._readers.shutdown()
        with self._lock:
            for family in self._families.values():
                family.close()
            self._families.clear()
            self._handles.clear()  # the folder is free when nothing refers to the database any more
            self._db.close()

    # ---- the bucket

    def _begin(self, partition: int) -> None:
        """Compare what is known with all that is listed: retention may have taken the oldest; a bucket may be new."""
        with self._lock:
            known = dict(self._runs[partition])
        listed = list(self._listed(partition, ""))
        base = listed[0][0] if listed else 0
        there = {first for first, _ in listed}
        gone = [first for first in known if first not in there]
        if any(first >= base for first in gone) or not self._is_same(partition, known, there):
            log.warning("catalog_emptied", partition=partition, why="the bucket has other manifests than the catalog")
            self._empty()
        with self._lock:
            for first in gone:
                self._drop(partition, first)
            self._base[partition] = base
            self._advance(partition)
        self._read_new(partition, listed)

    def _is_same(self, partition: int, known: Mapping[int, _Run], there: set[int]) -> bool:
        """Whether the newest manifest that is known and listed has the token that is known."""
        first = max((one for one in known if one in there), default=None)
        if first is None:
            return True
        content = self._store.get(self._store.buckets[0], manifest_name(self._topic, partition, first))
        return content is not None and Manifest.from_json(content).token == known[first].token

    def _listed(self, partition: int, start_after: str) -> Iterator[tuple[int, str]]:
        """(first offset, name) of a partition's manifests in the bucket, in order."""
        prefix = manifest_prefix(self._topic, partition)
        for info in self._store.list(self._store.buckets[0], prefix, start_after=start_after):
            if (parsed := parse_manifest_name(info.name)) is not None:
                yield parsed[2], info.name

    def _read_new(self, partition: int, listed: Iterable[tuple[int, str]]) -> None:
        names = iter([name for first, name in listed if first not in self._runs[partition]])
        get = partial(self._store.get, self._store.buckets[0])
        refused: list[SpanstreamError] = []
        while some := list(islice(names, AT_ONCE)):
            read: list[Manifest] = []
            for name, content in zip(some, self._readers.map(get, some), strict=True):
                try:
                    read += [] if content is None else [Manifest.from_json(content)]
                except (MalformedRecordError, FormatVersionError) as error:
                    refused.append(type(error)(f"{name}: {error}"))
            self.apply_all(read)
        if refused:
            raise refused[0]

    def _filter_of(self, key: ChunkKey) -> bytes | None:
        entry = self._entry(key)
        return None if entry is None else self._store.get(entry.bucket, entry.filter_name)

    # ---- inside

    def _forget(self) -> None:
        self._runs: dict[int, dict[int, _Run]] = defaultdict(dict)
        self._base: dict[int, int] = {}
        self._horizon: dict[int, int] = {}
        self._tenants: dict[str, _TenantChunks] = defaultdict(_TenantChunks)
        self._filters.forget()

    def _empty(self) -> None:
        """Know nothing again, of any partition."""
        with self._lock:
            for family in self._families.values():
                for key in list(family.keys()):
                    del family[key]
            self._forget()

    def _drop(self, partition: int, first: int) -> None:
        """Leave out a manifest that is no longer there; the totals keep what it counted."""
        if self._runs[partition].pop(first, None) is not None:
            del self._families[ROWS][_key(partition, first)]
            low, high = _key(partition, first), _key(partition, first + 1)
            self._families[ENTRIES].delete_range(low, high)

    def _take_row(self, partition: int, first: int, row: Sequence[Any]) -> None:
        last, token, *chunks = row
        self._runs[partition][first] = _Run(first, last, token)
        for number, (tenant, start_min, end_max, outliers) in enumerate(chunks):
            key = ChunkKey(partition, first, number)
            self._tenants[tenant].add(key, start_min, end_max, outliers)
            times = (0, UINT64_MAX) if outliers else (start_min, end_max)
            self._filters.expect(key, Chunk(tenant, *times))
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
        content = self._families[ENTRIES].get(key.packed())
        return None if content is None else chunk_from_values(orjson.loads(content))

    def _totals(self, tenant: str) -> Totals:
        return Totals(self._families[TOTALS].get(tenant.encode()))


def kept_values(chunk: ChunkEntry) -> dict[str, Any]:
    """What is kept of a chunk's entry."""
    return chunk_values(chunk) | {"services": {service: {} for service in chunk.services}}


def _row(manifest: Manifest) -> list[Any]:
    """[last, token, [tenant, start_min, latest end or start, whether it has outliers], ...]"""
    chunks = [
        [one.tenant, one.start_min_unix_ns, max(one.end_max_unix_ns, one.start_max_unix_ns), bool(one.outliers)]
        for one in manifest.chunks
    ]
    return [manifest.last, manifest.token, *chunks]


def _overlaps(entry: ChunkEntry, trace_id: bytes, start_ns: int, end_ns: int) -> bool:
    latest = max(entry.end_max_unix_ns, entry.start_max_unix_ns)
    if entry.start_min_unix_ns <= end_ns and latest >= start_ns:
        return True
    return any(start_ns <= start <= end_ns and odd == trace_id.hex() for odd, start in entry.outliers)


def _clipped(time_ns: int) -> int:
    return max(0, min(time_ns, UINT64_MAX))


def _key(partition: int, first: int) -> bytes:
    return partition.to_bytes(4, "big") + first.to_bytes(8, "big")


def _folder(data_dir: Path) -> Path:
    """Where the database stands; folders of other layouts are removed."""
    data_dir.mkdir(parents=True, exist_ok=True)
    folder = data_dir / f"catalog-{LAYOUT}"
    for other in data_dir.glob("catalog*"):
        if other != folder and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    return folder


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

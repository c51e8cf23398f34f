"""The catalog: what the manifests of all partitions say, in a reader's own RocksDB. May be lost: it is rebuilt.

Each chunk's entry stands by itself; a small row a manifest holds what is needed to choose chunks, and is all that is
read when the catalog is opened. Which chunks may hold a trace is asked of the filters (pipeline.store.filter_groups).
Edits change rows and entries (pipeline.store.catalog_rows); a chunk put in others' place takes it in one step.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import orjson
import structlog
from rocksdict import AccessType, Rdict, WriteBatch

from pipeline.store import catalog_folder, edit_log
from pipeline.store.catalog_folder import ENTRIES, FAMILIES, META, ROWS, TOTALS
from pipeline.store.catalog_rows import Row, TenantChunks, changed_rows, kept_values, numbered, row_of
from pipeline.store.edit_log import Listed
from pipeline.store.edits import EditState
from pipeline.store.filter_groups import Chunk, ChunkKey, FilterGroups
from pipeline.store.manifest import (
    ChunkEntry,
    Manifest,
    Services,
    chunk_from_values,
    manifest_name,
    name_in_entry,
    parse_manifest_name,
    read_named,
)
from pipeline.store.objects import ObjectStore
from pipeline.store.totals import Totals
from topics.errors import FormatVersionError, MalformedRecordError, SpanstreamError, StoreUnavailableError

log = structlog.get_logger(__name__)
ENTRIES_KEPT = 1024  # about 10 kB each
READERS = 8  # objects read at a time
AT_ONCE = 64  # manifests of one write
LISTINGS_MAX = 5  # of one refresh, while what was listed goes away
EDITS, PARTITIONS = b"edits/%d", b"partitions"  # META's keys: of a partition's edits; of how many the topic had
UINT64_MAX = 2**64 - 1


class _Run(NamedTuple):
    """The range of a manifest, the token of the attempt that stored it, and its row."""

    first: int
    last: int
    token: str
    row: Row


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
            str(catalog_folder.folder(data_dir)),
            options=catalog_folder.options(),
            column_families={name: catalog_folder.options() for name in FAMILIES},
            access_type=AccessType.read_write(),
        )
        self._families = {name: self._db.get_column_family(name) for name in FAMILIES}
        self._handles = {name: self._db.get_column_family_handle(name) for name in FAMILIES}
        self._filters = FilterGroups(self._db, self._families, self._handles)
        self._forget()
        self._filters.open()
        for key, value in self._families[META].items():
            if key.startswith(b"edits/"):
                self._edits[int(key.removeprefix(b"edits/"))] = EditState.from_json(value)
        self._note_damaged()
        for key, value in self._families[ROWS].items():
            partition, first = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            self._take_row(partition, first, Row.from_json(value))

    # ---- filled

    def apply(self, manifest: Manifest) -> bool:
        """Take a manifest; False when it is known."""
        return self.apply_all([manifest]) == 1

    def apply_all(self, manifests: Iterable[Manifest]) -> int:
        """Take manifests in one write, all or none; how many were not known."""
        with self._lock:
            added: dict[tuple[int, int], tuple[Manifest, Row]] = {}
            for one in manifests:
                if one.topic == self._topic and self._is_new(one):
                    added.setdefault((one.partition, one.first), (one, row_of(one, self._edits[one.partition])))
            if not added:
                return 0
            batch = WriteBatch(raw_mode=True)
            sums: dict[str, Totals] = {}
            for (number, first), (manifest, row) in added.items():
                batch.put(_key(number, first), row.to_json(), self._handles[ROWS])
                for at, chunk in numbered(manifest, self._edits[number]):
                    key = ChunkKey(number, first, at).packed()
                    batch.put(key, orjson.dumps(kept_values(chunk)), self._handles[ENTRIES])
                    if chunk.tenant not in sums:
                        sums[chunk.tenant] = self._totals(chunk.tenant)
                    sums[chunk.tenant].add(chunk)
                batch.put(PARTITIONS, b"%d" % manifest.partitions, self._handles[META])
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
        """List the bucket's manifests from H on and the edits, and read what is not known; the first time, list all.

        Raises StoreUnavailableError; and what Manifest.from_json and Edit.from_json raise for one that they refuse: the
        horizon stays before such a manifest, unless it is damaged and others follow (`unread`), all others are taken;
        edits from such a one on are not.
        """
        with self._lock:
            one_at_a_time = self._refreshing[partition]
        with one_at_a_time:
            for _ in range(LISTINGS_MAX):
                if self._refreshed(partition):
                    return
        raise StoreUnavailableError(f"what is stored of partition {partition} changes faster than it can be listed")

    def _refreshed(self, partition: int) -> bool:
        """False: something that was listed is gone."""
        horizon = min([self._horizon.get(partition, 0), *self._unread[partition]]) if partition in self._base else 0
        after = manifest_name(self._topic, partition, horizon - 1) if horizon else ""
        names = edit_log.listed(self._store, self._topic, partition, after)
        state, refused = self._edits[partition], list[SpanstreamError]()
        try:
            if partition not in self._base and names.newest < state.sequence:
                state = EditState()  # another bucket's
            state = edit_log.state_of(self._store, self._topic, partition, names, state)
        except edit_log.Unsettled:
            return False
        except (MalformedRecordError, FormatVersionError) as error:
            refused.append(error)
        firsts = [(first, name) for name in names.manifests if (first := _first(name)) >= state.oldest]
        if partition not in self._base:
            self._begin(partition, names, firsts)
        if not self._read_new(partition, firsts, refused):
            with self._lock:
                self._base.pop(partition, None)
            return False
        self._take_edits(partition, state)
        if refused:
            raise refused[0]
        return True

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

    def damaged(self) -> list[str]:
        """Names of the chunks that count and were found damaged, or not there."""
        return sorted(self._damaged)

    def edition(self) -> int:
        """Another number whenever edits begin to count."""
        return self._edition

    def horizons(self) -> dict[int, int]:
        """Partition -> H, the end of the gap-free run of its manifests, for partitions that have one."""
        with self._lock:
            return {partition: horizon for partition, horizon in self._horizon.items() if horizon}

    def unread(self, partition: int) -> list[str]:
        """What is below the horizon and not known, since its manifest is damaged: sentences."""
        with self._lock:
            told = [(f"{first} to {last}", said) for first, (last, said) in self._unread[partition].items()]
        return [f"what is stored of offsets {at} of partition {partition} is not known: {said}" for at, said in told]

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """The tenant's chunks with a span in [start_ns, end_ns], outliers included."""
        return self._between_edits(lambda: self._chunks_for(tenant, start_ns, end_ns))

    def _chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        with self._lock:
            if tenant not in self._tenants:
                return []
            chunks = self._tenants[tenant]
            keys = dict.fromkeys(chunks.within(_clipped(start_ns), _clipped(end_ns)))
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

        def ask() -> list[ChunkEntry]:
            with self._lock:
                keys = self._filters.might_hold(tenant, partition, trace_id, low, high)
            return [entry for key in keys if (entry := self._entry(key)) is not None]

        return [entry for entry in self._between_edits(ask) if _overlaps(entry, trace_id, low, high)]

    def _between_edits(self, ask: Callable[[], list[ChunkEntry]]) -> list[ChunkEntry]:
        """The answer of a time at which no chunk took the place of others."""
        while True:
            before, damaged = self._edition, self._damaged
            found = ask()
            if before == self._edition:
                return [replace(one, damaged=True) if one.name in damaged else one for one in found]

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

    def written_with(self) -> int:
        """How many partitions the topic had when this was stored; 0: nothing is known."""
        return int(self._families[META].get(PARTITIONS) or 0)

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

    def _begin(self, partition: int, names: Listed, firsts: Sequence[tuple[int, str]]) -> None:
        """Compare what is known with all that is listed: retention may have taken the oldest; a bucket may be new."""
        with self._lock:
            known, sequence = dict(self._runs[partition]), self._edits[partition].sequence
        base = firsts[0][0] if firsts else 0
        there = {first for first, _ in firsts}
        foreign = names.newest < sequence or any(first >= base for first in known if first not in there)
        if foreign or not self._is_same(partition, known, there):
            log.warning("catalog_emptied", partition=partition, why="the bucket has other manifests than the catalog")
            self.empty()
        with self._lock:
            for first in [first for first in self._runs[partition] if first < base]:
                self._drop(partition, first)
            self._base[partition] = base
            self._advance(partition)

    def _is_same(self, partition: int, known: Mapping[int, _Run], there: set[int]) -> bool:
        """Whether the newest manifest that is known and listed has the token that is known."""
        for first in sorted(known.keys() & there, reverse=True):
            content = self._store.get(self._store.buckets[0], manifest_name(self._topic, partition, first))
            with suppress(MalformedRecordError):  # damaged: the one before tells
                return content is not None and Manifest.from_json(content).token == known[first].token
        return True

    def _read_new(self, partition: int, firsts: Sequence[tuple[int, str]], refused: list[SpanstreamError]) -> bool:
        """Read the manifests that are not known; those that are `refused` are noted there. False: one is gone."""
        # Where a damaged one ends is told by the next one's name: what follows counts all the same
        ends = {name: after - 1 for (_, name), (after, _) in pairwise(firsts)}
        unread: dict[int, tuple[int, str]] = {}
        names = iter([name for first, name in firsts if first not in self._runs[partition]])
        get = partial(self._store.get, self._store.buckets[0])
        while some := list(islice(names, AT_ONCE)):
            read: list[Manifest] = []
            for name, content in zip(some, self._readers.map(get, some), strict=True):
                if content is None:
                    return False
                try:
                    read.append(read_named(name, content, Manifest.from_json))
                except (MalformedRecordError, FormatVersionError) as error:
                    refused.append(error)
                    if isinstance(error, MalformedRecordError) and name in ends:
                        unread[_first(name)] = (ends[name], str(error))
            self.apply_all(read)
        with self._lock:
            self._unread[partition] = unread
            self._advance(partition)
        return True

    def _take_edits(self, partition: int, state: EditState) -> None:
        """Let a partition's edits count, all in one step.

        Not yet, where a chunk reaches beyond the horizon: its rows there are still asked of others.
        """
        with self._lock:
            horizon, old = self._horizon.get(partition, 0), self._edits[partition]
            if state == old or any(one.last >= horizon for one in state.added):
                return
            rows = {first: run.row for first, run in self._runs[partition].items()}
            changed, gone, new = changed_rows(partition, rows, (old, state), self._entries_of)
            batch = WriteBatch(raw_mode=True)
            for first, row in changed.items():
                batch.put(_key(partition, first), row.to_json(), self._handles[ROWS])
            for key in gone:
                batch.delete(key.packed(), self._handles[ENTRIES])
            for key, chunk in new.items():
                batch.put(key.packed(), orjson.dumps(kept_values(chunk)), self._handles[ENTRIES])
            batch.put(EDITS % partition, state.to_json(), self._handles[META])
            self._db.write(batch)
            self._edits[partition] = state
            self._note_damaged()
            self._forget_chunks(gone)
            for first, row in changed.items():
                self._take_row(partition, first, row)
            for first in [first for first in self._runs[partition] if first < state.oldest]:
                self._drop(partition, first)
            self._edition += 1

    def _note_damaged(self) -> None:
        self._damaged = frozenset[str]().union(*(state.damaged for state in self._edits.values()))

    def _filter_of(self, key: ChunkKey) -> bytes | None:
        entry = self._entry(key)
        return None if entry is None else self._store.get(entry.bucket, entry.filter_name)

    # ---- inside

    def _forget(self) -> None:
        self._edition = 0
        self._edits: dict[int, EditState] = defaultdict(EditState)
        self._damaged = frozenset[str]()
        self._runs: dict[int, dict[int, _Run]] = defaultdict(dict)
        self._base: dict[int, int] = {}
        self._horizon: dict[int, int] = {}
        self._unread: dict[int, dict[int, tuple[int, str]]] = defaultdict(dict)  # damaged: first -> last, why
        self._tenants: dict[str, TenantChunks] = defaultdict(TenantChunks)
        self._filters.forget()

    def empty(self) -> None:
        """Know nothing again, of any partition."""
        with self._lock:
            for family in self._families.values():
                for key in list(family.keys()):
                    del family[key]
            self._forget()

    def _drop(self, partition: int, first: int) -> None:
        """Leave out a manifest that is no longer there; the totals keep what it counted."""
        if (run := self._runs[partition].pop(first, None)) is not None:
            del self._families[ROWS][_key(partition, first)]
            low, high = _key(partition, first), _key(partition, first + 1)
            self._families[ENTRIES].delete_range(low, high)
            self._forget_chunks([ChunkKey(partition, first, one.number) for one in run.row.chunks])

    def _forget_chunks(self, keys: Sequence[ChunkKey]) -> None:
        for chunks in self._tenants.values() if keys else ():
            chunks.remove(set(keys))
        for key in keys:
            self._filters.drop(key)

    def _is_new(self, one: Manifest) -> bool:
        """Neither known, nor gone: the topic tells of manifests for longer than retention keeps them."""
        oldest = max(self._base.get(one.partition, 0), self._edits[one.partition].oldest)
        return one.first not in self._runs[one.partition] and one.first >= oldest

    def _take_row(self, partition: int, first: int, row: Row) -> None:
        """Take a manifest's row, or what an edit made of it: chunks that are known already stay as they are."""
        before = self._runs[partition].get(first)
        known = {one.number for one in before.row.chunks} if before else set()
        self._runs[partition][first] = _Run(first, row.last, row.token, row)
        for one in row.chunks:
            if one.number not in known:
                key = ChunkKey(partition, first, one.number)
                self._tenants[one.tenant].add(key, one.start_min, one.end_max, one.outliers)
                times = (0, UINT64_MAX) if one.outliers else (one.start_min, one.end_max)
                self._filters.expect(key, Chunk(one.tenant, *times))
        self._advance(partition)

    def _entries_of(self, partition: int, first: int) -> dict[int, str]:
        """Number -> name of the chunks of a manifest."""
        run = self._runs[partition].get(first)
        keys = [ChunkKey(partition, first, one.number) for one in run.row.chunks] if run else []
        return {key.number: entry.name for key in keys if (entry := self._entry(key)) is not None}

    def _advance(self, partition: int) -> None:
        """Move the horizon along the gap-free run that begins at the base; damaged manifests leave no gap."""
        if partition not in self._base:
            return
        runs, unread = self._runs[partition], self._unread[partition]
        at = max(self._horizon.get(partition, 0), self._base[partition])
        while at in runs or at in unread:
            at = (runs[at].last if at in runs else unread[at][0]) + 1
        self._horizon[partition] = at if at > self._base[partition] else 0

    def _entry(self, key: ChunkKey) -> ChunkEntry | None:
        content = self._families[ENTRIES].get(key.packed())
        return None if content is None else _read_entry(content)

    def _totals(self, tenant: str) -> Totals:
        return Totals(self._families[TOTALS].get(tenant.encode()))


@lru_cache(ENTRIES_KEPT)
def _read_entry(content: bytes) -> ChunkEntry:
    """Read once for all questions about the same chunks: new objects also have the collector walk the old ones."""
    return chunk_from_values(orjson.loads(content))


def _overlaps(entry: ChunkEntry, trace_id: bytes, start_ns: int, end_ns: int) -> bool:
    latest = max(entry.end_max_unix_ns, entry.start_max_unix_ns)
    if entry.start_min_unix_ns <= end_ns and latest >= start_ns:
        return True
    return any(start_ns <= start <= end_ns and odd == trace_id.hex() for odd, start in entry.outliers)


def _first(name: str) -> int:
    parsed = parse_manifest_name(name)
    return parsed[2] if parsed else -1


def _clipped(time_ns: int) -> int:
    return max(0, min(time_ns, UINT64_MAX))


def _key(partition: int, first: int) -> bytes:
    return partition.to_bytes(4, "big") + first.to_bytes(8, "big")

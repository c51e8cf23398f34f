"""Rules of the protocol, each broken on purpose in the real code: the simulation must find every one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from agents.owned import Ack, Owned
from agents.ports import Assignment
from agents.reading import Reading
from agents.source import StoreRanges
from agents.worker import Worker
from pipeline.clocks import Clocks
from pipeline.partition.batch import SourceRecord
from pipeline.partition.state import Partition
from pipeline.partition.window import Keys, Window
from pipeline.query import settled, snapshot
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.query.tail_rows import TailRows
from pipeline.store import commit, compaction, housekeeping
from pipeline.store.catalog import Catalog
from pipeline.store.housekeeping import Housekeeper
from pipeline.store.manifest import ChunkEntry, parse_chunk_object
from pipeline.store.objects import ObjectStore
from tests.simulation import workers
from tests.simulation.store import Buckets

Real = Callable[..., Any]


async def _as_they_come(
    _reading: Reading, _owned: Owned, state: Partition, records: Sequence[SourceRecord]
) -> Sequence[SourceRecord]:
    return [record for record in records if record.offset >= state.next]


async def _acknowledged_at_once(
    _worker: Worker, _owned: Owned, _state: Partition, _records: Sequence[SourceRecord], acks: Sequence[Ack]
) -> None:
    for ack in acks:
        await ack()


def _nothing_held(_window: Window, keys: Keys) -> np.ndarray[Any, Any]:
    return np.zeros(len(keys), dtype=bool)


def _last_wins(buckets: Buckets, bucket: str, name: str, data: bytes) -> bool:
    buckets.put(bucket, name, data)
    return True


def _one_further(catalog: Catalog, real: Real = Catalog.horizons) -> dict[int, int]:
    return {partition: horizon + 1 for partition, horizon in real(catalog).items()}


def _empty_window(ranges: StoreRanges, *given: Any, real: Real = StoreRanges.assignment) -> Assignment:
    found: Assignment = real(ranges, *given)
    return replace(found, window=[])


def _from_committed(ranges: StoreRanges, *given: Any, real: Real = StoreRanges.assignment) -> Assignment:
    found: Assignment = real(ranges, *given)
    return replace(found, mark=found.committed or found.mark)


def _manifest_alone(*given: Any, real: Real = commit._put_chunk) -> ChunkEntry:
    """The manifest is put although the chunk's last object is not."""
    store = given[0]

    def put(bucket: str, name: str, *content: Any) -> None:
        if not name.endswith(".filter"):
            type(store).put(store, bucket, name, *content)

    with mock.patch.object(store, "put", put):
        entry: ChunkEntry = real(*given)
        return entry


def _removes_the_winners(store: ObjectStore, entries: Iterable[ChunkEntry], real: Real = commit._remove) -> None:
    """A loser goes by the place of its chunks, not by its token."""
    for entry in entries:
        folder = entry.name.rpartition("-")[0]
        names = [found.name for found in store.list(entry.bucket, folder)]
        for name in names:
            store.remove(entry.bucket, name)
    real(store, list(entries))


@contextmanager
def _uncut() -> Iterator[None]:
    """Owners are asked for all that they hold, and all of it counts, whether it is stored or not."""

    async def ask(snapshots: Snapshots, horizons: dict[int, int], *given: Any, real: Real = Snapshots._ask) -> Any:
        return await real(snapshots, dict.fromkeys(horizons, 0), *given)

    def filtered(rows: pa.Table, _horizon: int, *given: Any, real: Real = snapshot.filtered) -> pa.Table:
        return real(rows, 0, *given)

    def rows_of(one: Snapshot, segment: Any, _horizon: int, *given: Any, real: Real = Snapshot._rows_of) -> Any:
        return real(one, segment, 0, *given)

    asks, cuts = mock.patch.object(Snapshots, "_ask", ask), mock.patch.object(snapshot, "filtered", filtered)
    with asks, cuts, mock.patch.object(Snapshot, "_rows_of", rows_of):
        yield


def _any_gap_is_a_loss(state: Partition, log_start: int, now_unix_ns: int, real: Real = Partition.skip_lost) -> Any:
    return real(state, max(log_start, state.next + 1), now_unix_ns)


async def _not_at_all(*_given: Any) -> None:
    pass


def _whoever_stands(*given: Any, real: Real = commit._put_manifest) -> bool:
    """What stands counts as this attempt's, whatever its token."""
    real(*given)
    return True


def _of_the_first_part(*given: Any, real: Real = compaction.Compactor._put) -> Any:
    """What is written is the first part's, what is removed are all."""
    *others, parts, where = given
    return real(*others, parts[:1], where)


def _of(where: Any, name: str, planted: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(where, name, planted)


@contextmanager
def _sweeps_all() -> Iterator[None]:
    """Whatever has no name goes at once, wherever it begins."""
    at_once = mock.patch.object(Housekeeper, "grace_ns", 0)
    with at_once, mock.patch.object(housekeeping, "parse_chunk_object", _from_the_start):
        yield


def _from_the_start(name: str) -> tuple[str, int, int] | None:
    parsed = parse_chunk_object(name)
    return parsed and (parsed[0], parsed[1], -1)


PLANTED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a gap is read again": _of(Reading, "in_order", _as_they_come),
    "a gap that Kafka has records in is no loss": _of(Partition, "skip_lost", _any_gap_is_a_loss),
    "records are read again from the mark": _of(Reading, "rewind", _not_at_all),
    "a record is acknowledged when a manifest names it": _of(Worker, "_keep_acks", _acknowledged_at_once),
    "the mark is what the manifests say": _of(StoreRanges, "assignment", _from_committed),
    "the window is made anew with an assignment": _of(StoreRanges, "assignment", _empty_window),
    "a copy within the window is none": _of(Window, "holds", _nothing_held),
    "chunks stand before their manifest": _of(commit, "_put_chunk", _manifest_alone),
    "of two owners' manifests one counts": _of(Buckets, "put_if_absent", _last_wins),
    "the token tells whose manifest stands": _of(commit, "_put_manifest", _whoever_stands),
    "a loser removes its own chunks only": _of(commit, "_remove", _removes_the_winners),
    "rows are held until they are stored": _of(Partition, "drop", lambda state, *_, **__: state.segments),
    "the horizon is where manifests end": _of(Catalog, "horizons", _one_further),
    "live rows are cut at the horizon": _uncut,
    "a sweep knows what manifests name": _of(Housekeeper, "_named", lambda *_: set()),
    "a sweep lets alone what is being stored": _sweeps_all,
    "a question is asked again when its chunks were merged": _of(settled, "TRIES", 1),
    "a merge leaves out no span": _of(compaction.Compactor, "_put", _of_the_first_part),
    "ages go by a clock that nobody sets": _of(workers, "Clocks", lambda unix_ns, _steady_ns: Clocks(unix_ns, unix_ns)),
    "a copy in the tail is none": _of(TailRows, "_new", lambda _rows, spans: spans),
}

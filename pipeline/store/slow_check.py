"""Chunks are looked at again, page by page: DuckDB passes over checksums, so a damaged byte is a wrong sum in silence.

So slowly that nobody notices: of each partition that the worker owns so many bytes a second, one manifest after
the other, from any of them on: a worker may be started anew before it has come to the end.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Sequence

import structlog

from pipeline import telemetry
from pipeline.clocks import Clocks
from pipeline.store.commit import read_manifest
from pipeline.store.edits import EditState
from pipeline.store.manifest import ChunkEntry, Manifest, parse_chunk_object
from pipeline.store.objects import ObjectStore
from pipeline.store.verify import names_still, problems_of
from topics.settings import Settings

log = structlog.get_logger(__name__)
BUSY_POLL_S = 0.1


class SlowCheck:
    """Looks at the chunks of a worker's partitions, blocking. busy: whether a range is being stored; it waits then."""

    def __init__(self, settings: Settings, store: ObjectStore, *, clocks: Clocks, busy: Callable[[], bool]) -> None:
        self._settings, self._store = settings, store
        self._clocks, self._busy = clocks, busy
        self._turn_ns: dict[int, int] = {}  # partition -> when it last had its turn, by the steady clock
        self._left_bytes: dict[int, float] = {}  # what it may still read; less than 0 after a large chunk
        self._last: dict[int, str] = {}  # the manifest looked at last
        self._damaged: dict[int, set[str]] = {}

    def look(self, partition: int, names: Sequence[str], state: EditState, stop: threading.Event) -> None:
        """As many of a partition's chunks as have come due since its last turn. names: of its manifests, in order.

        Raises StoreUnavailableError; MalformedRecordError and FormatVersionError of a manifest.
        """
        rate, now_ns = self._settings.housekeeping.check_bytes_per_s, self._clocks.steady_ns()
        since_s = (now_ns - self._turn_ns.get(partition, now_ns)) / 1e9
        self._turn_ns[partition] = now_ns
        left = min(self._left_bytes.get(partition, 0.0), 0.0) + since_s * rate
        self._forget_gone(partition, state)
        at = _first_behind(names, self._last.get(partition))
        for name in (*names[at:], *names[:at]) if rate else ():
            if left <= 0 or stop.is_set():
                break
            self._last[partition] = name
            if (manifest := read_manifest(self._store, name)) is not None:
                left -= sum(self._check(manifest, chunk, stop) for chunk in state.chunks_of(manifest))
        self._left_bytes[partition] = left

    def let_go(self, owned: Collection[int]) -> None:
        """Only these partitions are the worker's: others' damage is told by their owners."""
        for partition in self._turn_ns.keys() - set(owned):
            del self._turn_ns[partition]
            self._damaged.pop(partition, None)
        self._tell()

    def _forget_gone(self, partition: int, state: EditState) -> None:
        """Damaged chunks that were removed since, or merged."""
        for name in list(self._damaged.get(partition, ())):
            parsed = parse_chunk_object(name)
            if name in state.removed or (parsed is not None and parsed[2] < state.oldest):
                self._damaged[partition].remove(name)
        self._tell()

    def _tell(self) -> None:
        telemetry.CHUNKS_DAMAGED.set(sum(map(len, self._damaged.values())))

    def _check(self, manifest: Manifest, chunk: ChunkEntry, stop: threading.Event) -> int:
        """The bytes that were read."""
        while self._busy() and not stop.wait(BUSY_POLL_S):
            pass
        if stop.is_set():
            return 0
        folder = self._settings.worker.data_dir / "check"
        folder.mkdir(parents=True, exist_ok=True)
        problems, nbytes = problems_of(self._store, chunk, folder)
        telemetry.CHUNKS_CHECKED.inc()
        damaged = self._damaged.setdefault(manifest.partition, set())
        damaged.discard(chunk.name)
        if problems and names_still(self._store, manifest, chunk):
            damaged.add(chunk.name)
            log.error("chunk_damaged", bucket=chunk.bucket, chunk=chunk.name, problems=problems)
        self._tell()
        return nbytes


def _first_behind(names: Sequence[str], last: str | None) -> int:
    """Where the first name behind the last one stands; any place where there is no last one."""
    if last is None:
        return secrets.randbelow(len(names)) if names else 0
    return next((at for at, name in enumerate(names) if name > last), 0)

"""Chunks are looked at again, page by page: DuckDB passes over checksums, so a damaged byte is a wrong sum in silence.

So slowly that nobody notices: of each partition that the worker owns so many bytes a second, one manifest after
the other, from any of them on: a worker may be started anew before it has come to the end. What is damaged is looked at
again with each turn; an edit tells readers of it, so that their answers say so.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import structlog

from pipeline import telemetry
from pipeline.clocks import Clocks
from pipeline.store.commit import read_manifest
from pipeline.store.edits import EditState
from pipeline.store.manifest import ChunkEntry, Manifest, manifest_name, parse_chunk_object
from pipeline.store.objects import ObjectStore
from pipeline.store.verify import names_still, problems_of
from topics.settings import Settings

log = structlog.get_logger(__name__)
BUSY_POLL_S = 0.1
DAMAGED_MAX = 1000  # of a partition that readers are told of: each of their answers names those it meets


class Found(NamedTuple):
    """What an edit has to tell: names of chunks found damaged, and of those found whole again."""

    damaged: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()


class SlowCheck:
    """Looks at the chunks of a worker's partitions, blocking. busy: whether a range is being stored; it waits then."""

    def __init__(self, settings: Settings, store: ObjectStore, *, clocks: Clocks, busy: Callable[[], bool]) -> None:
        self._settings, self._store = settings, store
        self._clocks, self._busy = clocks, busy
        self._turn_ns: dict[int, int] = {}  # partition -> when it last had its turn, by the steady clock
        self._left_bytes: dict[int, float] = {}  # what it may still read; less than 0 after a large chunk
        self._last: dict[int, str] = {}  # the manifest looked at last
        self._damaged: dict[int, int] = {}

    def look(self, partition: int, names: Sequence[str], state: EditState, stop: threading.Event) -> Found:
        """As many of a partition's chunks as have come due since its last turn. names: of its manifests, in order.

        Raises StoreUnavailableError; MalformedRecordError and FormatVersionError of a manifest.
        """
        rate, now_ns = self._settings.housekeeping.check_bytes_per_s, self._clocks.steady_ns()
        since_s = (now_ns - self._turn_ns.get(partition, now_ns)) / 1e9
        self._turn_ns[partition] = now_ns
        left = min(self._left_bytes.get(partition, 0.0), 0.0) + since_s * rate
        whole, damaged = set[str](), set[str]()
        for manifest in self._manifests(partition, names, state) if rate else ():
            for chunk in state.chunks_of(manifest):
                if left > 0 and not stop.is_set():
                    problems, nbytes = self._check(manifest, chunk, stop)
                    left -= nbytes
                    (damaged if problems else whole).add(chunk.name)
            if left <= 0 or stop.is_set():
                break
        self._left_bytes[partition] = left
        new = sorted(damaged - state.damaged)[: max(0, DAMAGED_MAX - len(state.damaged))]
        return Found(tuple(new), tuple(sorted(whole & state.damaged)))

    def tell(self, partition: int, damaged: int) -> None:
        """So many chunks of a partition are damaged."""
        self._damaged[partition] = damaged
        telemetry.CHUNKS_DAMAGED.set(sum(self._damaged.values()))

    def let_go(self, owned: Collection[int]) -> None:
        """Only these partitions are the worker's: others' damage is told by their owners."""
        for partition in self._turn_ns.keys() - set(owned):
            del self._turn_ns[partition]
            self.tell(partition, 0)

    def _manifests(self, partition: int, names: Sequence[str], state: EditState) -> Iterator[Manifest]:
        """Those of damaged chunks, then all from the one behind the last, round to it again."""
        parsed = [one for name in state.damaged if (one := parse_chunk_object(name)) is not None]
        again = sorted({manifest_name(*one) for one in parsed}.intersection(names))
        at = _first_behind(names, self._last.get(partition))
        for name in dict.fromkeys((*again, *names[at:], *names[:at])):
            if name not in again:
                self._last[partition] = name
            if (manifest := read_manifest(self._store, name)) is not None:
                yield manifest

    def _check(self, manifest: Manifest, chunk: ChunkEntry, stop: threading.Event) -> tuple[list[str], int]:
        """What is wrong with a chunk, and the bytes that were read."""
        while self._busy() and not stop.wait(BUSY_POLL_S):
            pass
        folder = self._settings.worker.data_dir / "check"
        folder.mkdir(parents=True, exist_ok=True)
        problems, nbytes = problems_of(self._store, chunk, folder)
        telemetry.CHUNKS_CHECKED.inc()
        if problems and not names_still(self._store, manifest, chunk):
            problems = []
        if problems:
            log.error("chunk_damaged", bucket=chunk.bucket, chunk=chunk.name, problems=problems)
        return problems, nbytes


def _first_behind(names: Sequence[str], last: str | None) -> int:
    """Where the first name behind the last one stands; any place where there is no last one."""
    if last is None:
        return secrets.randbelow(len(names)) if names else 0
    return next((at for at, name in enumerate(names) if name > last), 0)

"""Counts a load in the chunks themselves: rows as they are stored, not merged by any query."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from agents.load.blocks import Load
from agents.load.check import Counted, expected
from pipeline.store.chunk import read_chunk
from pipeline.store.manifest import Manifest, parse_manifest_name
from pipeline.store.objects import ObjectStore

POLL_S = 0.5


def count_stored(
    store: ObjectStore,
    topic: str,
    load: Load,
    acknowledged: Mapping[int, npt.NDArray[np.bool_]] | None,
    settle_s: float,
) -> Counted:
    """Read every chunk that a manifest of the topic names, and compare as `check` does; examples likewise.

    Waits up to settle_s until every acknowledged span is stored. Raises StoreUnavailableError.
    """
    wanted = _Wanted(load, acknowledged)
    deadline, started = time.monotonic() + settle_s, time.monotonic()
    found: Counter[bytes] = Counter()
    read: set[str] = set()
    while True:
        for manifest in _manifests(store, topic, read):
            for chunk in manifest.chunks:
                if (content := store.get(chunk.bucket, chunk.name)) is not None:  # else it is missing, or too old
                    found.update(wanted.rows_of(content))
        if wanted.required <= found.keys() or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    counted = wanted.compared(found)
    counted.seconds = time.monotonic() - started
    return counted


class _Wanted:
    """The spans of a load as 24 bytes each."""

    def __init__(self, load: Load, acknowledged: Mapping[int, npt.NDArray[np.bool_]] | None) -> None:
        traces = list(expected(load, acknowledged))
        self.traces = len(traces)
        self.required = {one.trace_id + span_id for one in traces for span_id in one.required}
        self._allowed = {one.trace_id + span_id for one in traces for span_id in one.allowed}
        self._trace_ids = pa.array([one.trace_id for one in traces], pa.binary(16))

    def rows_of(self, parquet: bytes) -> list[bytes]:
        """The chunk's rows that are of the load's traces."""
        rows = read_chunk(parquet, ["trace_id", "span_id"])
        ours = rows.filter(pc.is_in(rows.column("trace_id"), value_set=self._trace_ids))
        pairs = zip(ours.column("trace_id").to_pylist(), ours.column("span_id").to_pylist(), strict=True)
        return [trace_id + span_id for trace_id, span_id in pairs]

    def compared(self, found: Counter[bytes]) -> Counted:
        counted = Counted(traces=self.traces, spans=sum(found.values()))
        for kind, ids in (
            ("missing", self.required - found.keys()),
            ("unexpected", found.keys() - self._allowed),
            ("doubled", {one for one, copies in found.items() if copies > 1}),
        ):
            by_trace: dict[bytes, list[bytes]] = {}
            for one in sorted(ids):
                by_trace.setdefault(one[:16], []).append(one[16:])
            for trace_id, span_ids in by_trace.items():
                setattr(counted, kind, getattr(counted, kind) + counted.note(kind, trace_id, span_ids))
        return counted


def _manifests(store: ObjectStore, topic: str, read: set[str]) -> Iterator[Manifest]:
    """Those that were not read yet; each once."""
    for one in store.list(store.buckets[0], f"manifests/{topic}/"):
        if (
            parse_manifest_name(one.name)
            and one.name not in read
            and (content := store.get(store.buckets[0], one.name)) is not None
        ):
            read.add(one.name)
            yield Manifest.from_json(content)

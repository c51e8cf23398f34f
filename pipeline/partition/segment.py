"""A segment: the spans of a run of consecutive records, queryable, not yet in a chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.spans import schema

MERGE_FAN_IN = 8  # segments that are merged at once; settings bound how many there may be


Halves = npt.NDArray[np.uint64]


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """Decoded, deduplicated spans of the offsets [first, last], gap-free with its neighbours.

    spans: a span table, or None while only the live table in RocksDB holds it (see `spans_count` for its size).
    arrived_ns and oldest_ns: the worker's steady clock when its first record came, and when the oldest was written;
    record times are Kafka's.
    losses: offset ranges within it that Kafka deleted before they were read. in_table: RocksDB has the rows too.
    traces: of which traces they are, once somebody asked.
    """

    first: int
    last: int
    spans: pa.Table | None
    spans_count: int
    nbytes: int
    arrived_ns: int
    oldest_ns: int
    record_time_min_unix_ns: int
    record_time_max_unix_ns: int
    losses: tuple[tuple[int, int], ...] = ()
    in_table: bool = False
    traces: Halves | None = None

    def may_hold(self, trace_id: bytes) -> bool:
        """False: it has no span of the trace (16 bytes). The first question takes time in the order of its spans."""
        if self.traces is None:
            if (spans := self.spans) is None:
                return True
            self.name_traces(spans)
            assert self.traces is not None
        low = _halves_of(trace_id)[1]
        at = int(np.searchsorted(self.traces, low))
        return at < len(self.traces) and bool(self.traces[at] == low)

    def name_traces(self, spans: pa.Table) -> None:
        """Keep of which traces its rows are, once. spans: the rows, which may be let go meanwhile."""
        if self.traces is None:
            self.traces = _traces_of(spans)


def rows_from(spans: pa.Table, offset: int) -> pa.Table:
    """The rows whose record lies at `offset` or later: a slice, since rows stand in arrival order."""
    offsets = spans.column("record_offset").to_numpy()
    return spans.slice(int(np.searchsorted(offsets, offset)))


def _traces_of(spans: pa.Table) -> Halves:
    """The second halves of the rows' trace IDs, sorted, each once: the random ones, where a sender pads short IDs."""
    return np.unique(schema.fixed_bytes(spans, "trace_id", 16).view("<u8")[:, 1])


def rows_of_trace(spans: pa.Table, trace_id: bytes) -> pa.Table:
    """The rows of one trace (16 bytes); other columns are touched only on a hit."""
    halves = schema.fixed_bytes(spans, "trace_id", 16).view("<u8")
    high, low = _halves_of(trace_id)
    rows = np.flatnonzero((halves[:, 0] == high) & (halves[:, 1] == low))
    return spans.take(pa.array(rows)) if len(rows) else schema.empty_table()


def _halves_of(trace_id: bytes) -> Halves:
    return np.frombuffer(trace_id, dtype="<u8")

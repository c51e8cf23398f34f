"""A segment: the spans of a run of consecutive records, queryable, not yet in a chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.spans import schema

MERGE_FAN_IN = 8  # segments that are merged at once; settings bound how many there may be


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """Decoded, deduplicated spans of the offsets [first, last], gap-free with its neighbours.

    spans: a span table, or None while only the live table in RocksDB holds it (see `spans_count` for its size).
    arrived_unix_ns: the worker's clock when its first record came; record times are Kafka's.
    losses: offset ranges within it that Kafka deleted before they were read. in_table: RocksDB has the rows too.
    """

    first: int
    last: int
    spans: pa.Table | None
    spans_count: int
    nbytes: int
    arrived_unix_ns: int
    record_time_min_unix_ns: int
    record_time_max_unix_ns: int
    losses: tuple[tuple[int, int], ...] = ()
    in_table: bool = False


def rows_from(spans: pa.Table, offset: int) -> pa.Table:
    """The rows whose record lies at `offset` or later: a slice, since rows stand in arrival order."""
    offsets = spans.column("record_offset").to_numpy()
    return spans.slice(int(np.searchsorted(offsets, offset)))


def rows_of_trace(spans: pa.Table, trace_id: bytes) -> pa.Table:
    """The rows of one trace (16 bytes); other columns are touched only on a hit."""
    halves = schema.fixed_bytes(spans, "trace_id", 16).view("<u8")
    high, low = np.frombuffer(trace_id, dtype="<u8").tolist()
    rows = np.flatnonzero((halves[:, 0] == high) & (halves[:, 1] == low))
    return spans.take(pa.array(rows)) if len(rows) else schema.empty_table()

"""Rows of traces are brought together by their IDs, whatever bytes these have."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.query.candidates import NO_TRACES, joined, traces_of

ALL = (0, 2**64 - 1)
HALF = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
ROW = st.tuples(HALF, HALF, st.integers(0, 9), st.integers(0, 5))  # halves of the ID, start, duration


def trace_id(high: int, low: int) -> bytes:
    return np.array([high, low], dtype=np.uint64).tobytes()


def of_rows(rows: list[tuple[bytes, int, int]]) -> pa.Table:
    ids, starts, durations = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "trace_id": pa.array(ids, pa.binary(16)),
            "start_unix_ns": pa.array(starts, pa.uint64()),
            "duration_ns": pa.array(durations, pa.int64()),
        }
    )


@given(st.lists(ROW), st.lists(ROW), st.integers(0, 4), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_traces_of_chunks_and_live_rows_are_found_as_row_by_row(
    stored: list[tuple[int, int, int, int]],
    live: list[tuple[int, int, int, int]],
    spans_min: int,
    range_ns: tuple[int, int],
) -> None:
    rows = [(trace_id(high, low), start, duration) for high, low, start, duration in stored]
    live_rows = [(trace_id(high, low), start, duration) for high, low, start, duration in live]
    by_trace = defaultdict[bytes, list[tuple[int, int]]](list)
    for one, start, duration in rows + live_rows:
        by_trace[one].append((start, start + duration))
    fitting = {
        one: min(start for start, _ in spans)
        for one, spans in by_trace.items()
        if len(spans) >= spans_min and any(start <= range_ns[1] and end >= range_ns[0] for start, end in spans)
    }
    chunk = pa.table(  # a row a trace of a chunk, where each chunk has one span
        {
            "trace_id": pa.array([one for one, _, _ in rows], pa.binary()),
            "start_min_unix_ns": pa.array([start for _, start, _ in rows], pa.uint64()),
            "end_max_unix_ns": pa.array([start + duration for _, start, duration in rows], pa.uint64()),
            "span_count": pa.array([1] * len(rows), pa.int64()),
        }
    )

    found = joined(chunk if rows else NO_TRACES, traces_of(of_rows(live_rows), range_ns), range_ns, spans_min)

    wanted = sorted(((-start, one) for one, start in fitting.items()))
    assert [(-row["start"], row["trace_id"]) for row in found.to_pylist()] == wanted


def test_of_no_rows_there_are_no_traces() -> None:
    assert not traces_of(of_rows([]), ALL).num_rows
    assert not joined(NO_TRACES, traces_of(of_rows([]), ALL), ALL, 1).num_rows

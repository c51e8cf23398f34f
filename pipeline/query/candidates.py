"""Traces that may be in a search's answer: how they are found in chunks and live rows, and taken latest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.query import plan
from pipeline.query.chunks import CHUNK_NUMBER, IN_RANGE, rows_by_chunk, rows_of
from pipeline.query.conditions import Condition
from pipeline.query.tenant_spans import UINT64_MAX
from pipeline.spans import schema


def first_starts(rows: pa.Table) -> pa.Table:
    """Traces and the first start among these rows, latest first."""
    return latest_first(traces_of(rows, None).select(["trace_id", "start"]))


def traces_of(rows: pa.Table, range_ns: tuple[int, int] | None) -> pa.Table:
    """A row a trace: its first start, whether a span overlaps the range, and how many spans there are.

    By codes, which takes half as long as grouping by ID.
    """
    coded = rows.column("trace_id").combine_chunks().dictionary_encode()
    codes, traces = coded.indices.to_numpy(), len(coded.dictionary)
    start, inside = np.full(traces, UINT64_MAX, dtype=np.uint64), np.ones(traces, dtype=bool)
    np.minimum.at(start, codes, rows.column("start_unix_ns").to_numpy())
    if range_ns is not None:
        inside[:] = False
        inside[codes[plan.overlap(rows, range_ns)]] = True
    spans = np.bincount(codes, minlength=traces)
    return pa.table({"trace_id": coded.dictionary, "start": start, "inside": inside, "spans": spans})


def latest_first(found: pa.Table) -> pa.Table:
    """As Candidates.add takes it."""
    return found.sort_by([("start", "descending"), ("trace_id", "ascending")])


def none() -> pa.Table:
    """No trace."""
    return pa.table({"trace_id": pa.array([], pa.binary()), "start": pa.array([], pa.uint64())})


def rows_sql(urls: list[str], *, condition: Condition, within: tuple[int, int] | None) -> tuple[str, list[Any]]:
    """Traces with a row that fulfils a condition. within: the range that it overlaps; None: it may be anywhere."""
    text = (
        f"SELECT trace_id, min(start_unix_ns) AS start FROM ({rows_of(urls)}) "
        f"WHERE {'true' if within is None else IN_RANGE} AND {condition.sql} GROUP BY trace_id"
    )
    values = [] if within is None else [within[1], within[0], within[0]]
    return text, ([urls] if urls else []) + values + condition.values


def by_chunk_sql(urls: list[str], *, condition: Condition) -> tuple[str, list[Any]]:
    """The same of each chunk, with its number; wherever the rows are."""
    text = (
        f"SELECT trace_id, min(start_unix_ns) AS start, {CHUNK_NUMBER} FROM ({rows_by_chunk(urls)}) "
        f"WHERE {condition.sql} GROUP BY ALL"
    )
    return text, ([urls] if urls else []) + condition.values


def traces_sql(urls: list[str], *, range_ns: tuple[int, int], spans_min: int) -> tuple[str, list[Any]]:
    """Where rows alone say nothing, a row a trace does: who is too much, a decision over the whole trace leaves out.

    live: of `traces_of`; spans_min: of all that is read, which then must be all rows of a trace.
    """
    stored = (
        "SELECT trace_id, start_min_unix_ns, start_min_unix_ns <= ?::UBIGINT AND end_max_unix_ns >= ?::UBIGINT, "
        "span_count FROM read_parquet(?) UNION ALL "
    )
    text = (
        "SELECT trace_id, min(started) AS start "
        f"FROM ({stored if urls else ''}SELECT * FROM {{live}}) AS t(trace_id, started, inside, spans) "
        f"GROUP BY trace_id HAVING bool_or(inside) AND sum(spans) >= {int(spans_min)} ORDER BY start DESC, trace_id"
    )
    return text, [range_ns[1], range_ns[0], urls] if urls else []


class Candidates:
    """Traces with a matching span, taken latest first, each once. 24 bytes a trace."""

    def __init__(self) -> None:
        self._runs: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]] = []
        self._at: list[int] = []
        self._taken: set[bytes] = set()

    @property
    def groups(self) -> int:
        """How many groups were added."""
        return len(self._runs)

    @property
    def taken(self) -> int:
        """How many traces were taken."""
        return len(self._taken)

    def add(self, table: pa.Table) -> None:
        """table: trace_id, start; latest first."""
        self._runs.append((table.column("start").to_numpy(), schema.bytes_of(table.column("trace_id"), 16)))
        self._at.append(0)

    def latest(self) -> int:
        """The start of the next one; -1 where none is left."""
        starts = [int(run[0][at]) for run, at in zip(self._runs, self._at, strict=True) if at < len(run[0])]
        return max(starts, default=-1)

    def take(self, count: int, *, floor: int) -> list[bytes]:
        """Up to `count` of the latest that start at `floor` or later and were not taken before."""
        batch: list[bytes] = []
        while len(batch) < count and (latest := self.latest()) >= max(floor, 0):
            for number, (starts, ids) in enumerate(self._runs):
                while self._at[number] < len(starts) and starts[self._at[number]] == latest:
                    trace_id = ids[self._at[number]].tobytes()
                    self._at[number] += 1
                    if trace_id not in self._taken:
                        self._taken.add(trace_id)
                        batch.append(trace_id)
        return batch

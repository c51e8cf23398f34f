"""Traces that may be in a search's answer: how they are found in chunks and live rows, and taken latest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query import plan
from pipeline.query.chunks import CHUNK_NUMBER, IN_RANGE, rows_by_chunk, rows_of
from pipeline.query.conditions import Condition
from pipeline.spans import schema

ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: takes apart what differs in few bits
ALIKE_BITS = 20  # a million sums, which is more than traces are asked for at a time as a rule
NO_TRACES = pa.table(
    {
        "trace_id": pa.array([], pa.binary()),
        "start_min_unix_ns": pa.array([], pa.uint64()),
        "end_max_unix_ns": pa.array([], pa.uint64()),
        "span_count": pa.array([], pa.int64()),
        CHUNK_NUMBER: pa.array([], pa.uint64()),
    }
)


def first_starts(rows: pa.Table) -> pa.Table:
    """Traces and the first start among these rows, latest first."""
    return latest_first(traces_of(rows, None).select(["trace_id", "start"]))


def traces_of(rows: pa.Table, range_ns: tuple[int, int] | None) -> pa.Table:
    """A row a trace: its first start, whether a span overlaps the range, and how many spans there are."""
    inside = np.ones(rows.num_rows, dtype=bool) if range_ns is None else plan.overlap(rows, range_ns)
    spans = np.ones(rows.num_rows, dtype=np.int64)
    return _by_trace(_parts(rows.column("trace_id"), rows.column("start_unix_ns").to_numpy(), inside, spans))


def joined(stored: pa.Table, live: pa.Table, range_ns: tuple[int, int], spans_min: int) -> pa.Table:
    """Where rows alone say nothing, a row a trace does: who is too much, a decision over the whole trace leaves out.

    stored: rows of traces_sql; live: of traces_of; spans_min: of all that is read, which then must be all rows of a
    trace. Traces of which a part overlaps the range, latest first.
    """
    stored = stored.drop_null()  # not by the engine: it believes the statistics of what is damaged
    started, ended, spans = (
        stored.column(name).to_numpy() for name in ("start_min_unix_ns", "end_max_unix_ns", "span_count")
    )
    inside = (started <= range_ns[1]) & (ended >= range_ns[0])
    parts = pa.concat_tables([_parts(stored.column("trace_id"), started, inside, spans), live])
    if spans_min > 1:
        parts = parts.filter(_sums_of_alike(parts) >= spans_min)
    found = _by_trace(parts)
    fits = pc.and_(found.column("inside"), pc.greater_equal(found.column("spans"), spans_min))
    return latest_first(found.select(["trace_id", "start"]).filter(fits))


def _parts(trace_id: pa.ChunkedArray, *columns: npt.NDArray[Any]) -> pa.Table:
    """What is known of traces in some place: starts, whether inside, spans."""
    return pa.table([trace_id.cast(pa.binary(16)), *columns], ["trace_id", "start", "inside", "spans"])


def _by_trace(parts: pa.Table) -> pa.Table:
    """One row a trace of several."""
    sums = [("start", "min"), ("inside", "any"), ("spans", "sum")]
    found = parts.group_by("trace_id", use_threads=False).aggregate(sums)
    return found.select(["trace_id", *map("_".join, sums)]).rename_columns(parts.column_names)


def _sums_of_alike(parts: pa.Table) -> npt.NDArray[Any]:
    """Of each row at least the spans of its trace: those of all rows whose IDs are alike in some bits of a mix."""
    halves = schema.bytes_of(parts.column("trace_id"), 16).view(np.uint64)
    alike = (((halves[:, 0] * ODD ^ halves[:, 1]) * ODD) >> np.uint64(64 - ALIKE_BITS)).astype(np.int64)
    sums: npt.NDArray[Any] = np.bincount(alike, parts.column("spans").to_numpy(), 1 << ALIKE_BITS)
    return sums[alike]


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


def traces_sql(urls: list[str]) -> tuple[str, list[Any]]:
    """The traces of each chunk, with its number, of the objects with a row a trace; null where it is damaged."""
    stored = f"SELECT *, file_index AS {CHUNK_NUMBER} FROM read_parquet(?, union_by_name = true) UNION ALL BY NAME "
    text = (
        "SELECT trace_id::BLOB AS trace_id, start_min_unix_ns::UBIGINT AS start_min_unix_ns, "
        f"end_max_unix_ns::UBIGINT AS end_max_unix_ns, span_count::BIGINT AS span_count, {CHUNK_NUMBER} "
        f"FROM ({stored if urls else ''}SELECT * FROM {{live}}) WHERE octet_length(trace_id::BLOB) = 16"
    )
    return text, [urls] if urls else []


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

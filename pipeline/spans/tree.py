"""The order of spans in a chunk, and parents as distances: spans of a trace together, parents before children."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spans import schema

Ints = npt.NDArray[np.int64]
SPAN_ID_BYTES = 8
ODD_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Arranged(NamedTuple):
    """order: the row of the table at each place of the chunk. The others are in the chunk's order.

    parent_row: distance up to the parent's row, null where the parent is not here; outside_parent_span_id: the parent's
    ID where there is one that no distance gives.
    """

    order: Ints
    parent_row: pa.Array
    outside_parent_span_id: pa.Array


def arrange(spans: pa.Table) -> Arranged:
    """Sort by trace ID, then start, but never a child before its parent. O(n log n), no Python a span.

    Any input is arranged without loss: spans that share an ID (a client and its server), spans that are their own
    parent, cycles, parent IDs of a wrong length. Of several rows with the parent's ID the first in the table is taken.
    """
    trace = np.ascontiguousarray(schema.fixed_bytes(spans, "trace_id", 16)).view(">u8").astype(np.uint64)
    span_id = np.ascontiguousarray(schema.fixed_bytes(spans, "span_id", SPAN_ID_BYTES)).view("<u8").ravel()
    parent_id, named = _parent_ids(spans)
    parent = _find_parents(trace, span_id, parent_id, named)
    start = schema.column(spans, "start_unix_ns").to_numpy()
    parent, depth, after = climb(parent, start)
    order = np.lexsort((depth, after, trace[:, 1], trace[:, 0]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    known = parent[order] >= 0
    distance = np.where(known, np.arange(len(order)) - place[np.maximum(parent, 0)][order], 0).astype(np.int32)
    outside = schema.column(spans, "parent_span_id").combine_chunks().take(pa.array(order))
    outside = pc.if_else(pa.array(known), pa.scalar(None, pa.binary()), outside)
    if isinstance(outside, pa.ChunkedArray):
        outside = outside.combine_chunks()
    return Arranged(order, pa.array(distance, mask=~known), outside)


def parent_span_ids(rows: pa.Table) -> pa.Array:
    """The parents' IDs of rows in a chunk's order; whole traces, since a distance stays within its trace."""
    outside = chunk_column(rows, "outside_parent_span_id", pa.binary())
    distance = chunk_column(rows, "parent_row", pa.int32())
    if distance.null_count == rows.num_rows:
        return outside
    at = np.arange(rows.num_rows) - pc.fill_null(distance, 0).to_numpy()
    parents = pc.cast(rows.column("span_id").combine_chunks(), pa.binary())
    if isinstance(parents, pa.ChunkedArray):
        parents = parents.combine_chunks()
    found = parents.take(pa.array(at, mask=distance.is_null().to_numpy(zero_copy_only=False)))
    return pc.coalesce(found, outside)


def chunk_column(rows: pa.Table, name: str, type_: pa.DataType) -> pa.Array:
    """A chunk's column that a span table does not have, as one array; nulls where it is missing."""
    if name not in rows.column_names:
        return pa.nulls(rows.num_rows, type_)
    column = rows.column(name).combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _parent_ids(spans: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Parent IDs as numbers, and which rows name a parent by 8 bytes."""
    column = schema.column(spans, "parent_span_id")
    named = pc.fill_null(pc.equal(pc.binary_length(column), SPAN_ID_BYTES), fill_value=False)
    eight = pc.if_else(named, column, pa.scalar(b"\0" * SPAN_ID_BYTES, pa.binary()))
    joined = np.frombuffer(b"".join(_content(eight)), dtype="<u8")
    return joined, named.to_numpy()


def _content(column: pa.ChunkedArray) -> list[bytes]:
    """The values of a binary column without nulls, end to end, a piece a chunk."""
    pieces = []
    for chunk in column.chunks:
        if len(chunk):
            offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            pieces.append(chunk.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0])).to_pybytes())
    return pieces


def _find_parents(
    trace: npt.NDArray[np.uint64],
    span_id: npt.NDArray[np.uint64],
    parent_id: npt.NDArray[np.uint64],
    named: npt.NDArray[np.bool_],
) -> Ints:
    """The row of each span's parent in the table, -1 where there is none."""
    if not len(span_id):
        return np.zeros(0, dtype=np.int64)
    salt = (trace[:, 0] ^ (trace[:, 1] * ODD_MULTIPLIER)) * ODD_MULTIPLIER
    key, wanted = salt + span_id * ODD_MULTIPLIER, salt + parent_id * ODD_MULTIPLIER
    found = _first_with(key, wanted)
    same = named & (span_id[found] == parent_id)
    for half in trace.T:
        same &= half[found] == half
    return np.where(same & (found != np.arange(len(found))), found, -1)


def _first_with(keys: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> Ints:
    """The first place of each wanted key among the keys; any place where it is not there."""
    order = np.argsort(keys)
    there = keys[order]
    if (there[1:] == there[:-1]).any():
        order = np.argsort(keys, kind="stable")  # of equal ones the first; twice the time
    asked = np.argsort(wanted)  # sorted, they walk the keys in order: with fewer cache misses
    at = np.empty(len(wanted), dtype=np.int64)
    at[asked] = np.searchsorted(there, wanted[asked])
    return order[np.minimum(at, len(order) - 1, out=at)]


def climb(parent: Ints, start: npt.NDArray[np.uint64]) -> tuple[Ints, Ints, npt.NDArray[np.uint64]]:
    """Parents without cycles, depths, and the latest start on each row's way up: pointer jumping, O(n log depth).

    A row on a cycle, or below one, loses its parent.
    """
    if not len(parent):
        return parent, np.zeros(0, dtype=np.int64), start
    jump = np.where(parent >= 0, parent, np.arange(len(parent)))
    depth = (parent >= 0).astype(np.int64)  # edges from a row to where it jumps
    after = start
    for _ in range(len(parent).bit_length() + 1):
        after = np.maximum(after, after[jump])
        depth += depth[jump]
        further = jump[jump]
        if (further == jump).all():
            break
        jump = further
    endless = parent[jump] >= 0  # whoever has not come to a root by then goes in circles
    if endless.any():
        return climb(np.where(endless, -1, parent), start)
    return parent, depth, after

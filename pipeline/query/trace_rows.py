"""Whole traces as rows: from chunks and live segments, each span once, with its place in the tree of its trace.

Every span is in a tree: one whose parent was not received is the root of its own, and of a ring of spans the earliest.
Of several spans with the parent's ID a server span's parent is the client, any other's the server, else the earliest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query import fields
from pipeline.query.chunks import SERVICE_SQL, ChunkReader, ChunkRef
from pipeline.query.engine import quoted
from pipeline.spans import dedup, schema, tree
from pipeline.traceql.tree import KINDS

Ints = npt.NDArray[np.int64]
ALWAYS = ("trace_id", "span_id", "parent_span_id", "kind", "name", "start_unix_ns", "duration_ns", "record_offset")
SERVICE = "service"
SERVER, CLIENT = KINDS.index("server"), KINDS.index("client")
# Of spans that share start and ID the first kind by its word is the earliest
KIND_RANKS = np.argsort(np.argsort(KINDS))
NO_PARENT = pa.array([b"", bytes(8)], pa.binary())
INT64_MAX = np.uint64(2**63 - 1)
FROM_CHUNKS = (
    "SELECT * FROM read_parquet(?, union_by_name = true, filename = true, file_row_number = true) UNION ALL BY NAME "
)
FROM_LIVE = (
    "SELECT *, NULL::INTEGER AS parent_row, NULL::BLOB AS outside_parent_span_id, NULL::VARCHAR AS filename, "
    "NULL::BIGINT AS file_row_number FROM {live}"
)


class TraceRows(NamedTuple):
    """Rows of whole traces, sorted by trace, start, span ID and kind. parent: of each row its parent's row, or -1."""

    table: pa.Table
    trace_ids: npt.NDArray[np.uint8]  # of each trace, shape (n, 16)
    trace: Ints  # the number of each row's trace, ascending
    parent: Ints
    depth: Ints


def columns_read(wanted: Iterable[str]) -> list[str]:
    """The columns of span tables that these columns of rows are made of."""
    plain = {name.removeprefix(fields.PARENT) for name in wanted if not name.startswith("trace ")}
    return sorted(plain | {*ALWAYS, schema.SERVICE_COLUMN, "resource_more"})


def read(
    reader: ChunkReader, refs: Sequence[ChunkRef], live: pa.Table, trace_ids: pa.Array, wanted: Iterable[str]
) -> TraceRows:
    """The rows of these traces with the columns `wanted`. live: rows with `columns_read(wanted)`, others too."""
    wanted = list(wanted)
    names = columns_read(wanted)
    if not refs and live.column("resource_more").null_count == live.num_rows:
        return _with_trace_columns(_arranged(_each_once(_of_live(live, trace_ids))), wanted)

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        shown = ", ".join(quoted(name) for name in names if name != "parent_span_id")
        text = (
            f"SELECT {shown}, parent_span_id, parent_row, outside_parent_span_id, {SERVICE_SQL} AS {SERVICE}, "
            "coalesce(split_part(split_part(filename, '/', -1), '-', 1)::BIGINT, record_offset) AS place, "
            f"filename IS NOT NULL AS stored FROM ({FROM_CHUNKS if urls else ''}{FROM_LIVE}) "
            "WHERE trace_id IN (SELECT trace_id FROM {ids}) ORDER BY filename, file_row_number"
        )
        return text, [urls] if urls else []

    rows = reader.read(refs, statement, live=live, ids=pa.table({"trace_id": trace_ids}))
    return _with_trace_columns(_arranged(_each_once(_with_parent_ids(rows))), wanted)


def parents_within(spans: pa.Table) -> Ints:
    """Of the spans of one trace, sorted by start, the row of each one's parent; -1 where there is none."""
    columns = {name: schema.column(spans, name) for name in ("span_id", "parent_span_id", "kind")}
    return _without_rings(_parents(pa.table(columns), np.zeros(spans.num_rows, dtype=np.int64)))


def _of_live(live: pa.Table, trace_ids: pa.Array) -> pa.Table:
    """Live rows of these traces as the engine would give them: the same columns, the service beside them."""
    rows = live.filter(pc.is_in(live.column("trace_id"), value_set=trace_ids))
    for name, type_ in (("parent_row", pa.int32()), ("outside_parent_span_id", pa.binary())):
        rows = rows.append_column(name, pa.nulls(rows.num_rows, type_))
    rows = rows.append_column(SERVICE, rows.column(schema.SERVICE_COLUMN).cast(pa.string()))
    return schema.plain(rows.append_column("place", rows.column("record_offset")))


def _with_parent_ids(rows: pa.Table) -> pa.Table:
    """Chunks say how far up a parent stands; live rows have its ID."""
    stored = rows.filter(rows.column("stored"))
    live = rows.filter(pc.invert(rows.column("stored")))
    at = rows.column_names.index("parent_span_id")
    parents = tree.parent_span_ids(stored).cast(pa.binary())
    return pa.concat_tables([stored.set_column(at, "parent_span_id", parents), live], promote_options="permissive")


def _each_once(rows: pa.Table) -> pa.Table:
    """Of copies of a span the one at the least offset."""
    high, low = _halves(rows)
    span_id = schema.bytes_of(rows.column("span_id"), 8).view(">u8").ravel().astype(np.uint64)
    kind = pc.fill_null(rows.column("kind"), 0).to_numpy()
    start = rows.column("start_unix_ns").to_numpy()
    kept = dedup.least_copies((kind, span_id, low, high), rows.column("place").to_numpy(), start)
    rank = KIND_RANKS[np.clip(kind[kept], 0, len(KIND_RANKS) - 1)]
    kept = kept[np.lexsort((rank, span_id[kept], start[kept], low[kept], high[kept]))]
    return rows.take(pa.array(kept)).combine_chunks()


def _arranged(rows: pa.Table) -> TraceRows:
    high, low = _halves(rows)
    new = np.ones(rows.num_rows, dtype=bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    trace = np.cumsum(new) - 1
    ids = schema.bytes_of(rows.column("trace_id"), 16)[np.flatnonzero(new)]
    parent = _without_rings(_parents(rows, trace))
    _, depth, _ = tree.climb(parent, rows.column("start_unix_ns").to_numpy())
    return TraceRows(rows, ids, trace, parent, depth)


def _parents(rows: pa.Table, trace: Ints) -> Ints:
    """The row of each row's parent, -1 where there is none; rings are left in."""
    if not rows.num_rows:
        return np.zeros(0, dtype=np.int64)
    ids = rows.column("span_id").cast(pa.binary())
    coded = pa.chunked_array([*ids.chunks, *rows.column("parent_span_id").cast(pa.binary()).chunks]).dictionary_encode()
    codes = pc.fill_null(coded.combine_chunks().indices, -1).to_numpy().astype(np.int64)
    values = int(codes.max()) + 1
    own, wanted = trace * values + codes[: rows.num_rows], trace * values + codes[rows.num_rows :]
    kind = pc.fill_null(rows.column("kind"), 0).to_numpy()
    earliest, client, server = (
        _earliest(own, wanted, among) for among in (np.ones(len(own), dtype=bool), kind == CLIENT, kind == SERVER)
    )
    fitting = np.where(kind == SERVER, client, server)
    return np.where(_names_none(rows), -1, np.where(fitting >= 0, fitting, earliest))


def _earliest(own: Ints, wanted: Ints, among: npt.NDArray[np.bool_]) -> Ints:
    """For each row the first other one of `among` whose own code it wants, -1 where there is none."""
    rows = np.flatnonzero(among)
    if not len(rows):
        return np.full(len(own), -1, dtype=np.int64)
    order = rows[np.argsort(own[rows], kind="stable")]
    at = np.searchsorted(own[order], wanted)
    at += order[np.minimum(at, len(order) - 1)] == np.arange(len(own))  # nobody is the parent of himself
    found = order[np.minimum(at, len(order) - 1)]
    return np.where((at < len(order)) & (own[found] == wanted), found, -1)


def _without_rings(parent: Ints) -> Ints:
    """The earliest span of a ring loses its parent."""
    jump = np.where(parent >= 0, parent, np.arange(len(parent)))
    for _ in range(len(parent).bit_length() + 1):
        jump = jump[jump]
    endless = np.flatnonzero(parent[jump] >= 0)  # whoever has not come to a root by then goes in circles
    parent, done = parent.copy(), set[int]()
    for row in endless.tolist():
        path, at = list[int](), row
        while at >= 0 and at not in done:
            done.add(at)
            path.append(at)
            at = int(parent[at])
        if at in path:
            parent[min(path[path.index(at) :])] = -1
    return parent


def _names_none(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which spans say that they have no parent."""
    parents = rows.column("parent_span_id").cast(pa.binary())
    found: npt.NDArray[np.bool_] = pc.or_(parents.is_null(), pc.is_in(parents, value_set=NO_PARENT)).to_numpy()
    return found


def _with_trace_columns(rows: TraceRows, wanted: Iterable[str]) -> TraceRows:
    table = rows.table
    for name in dict.fromkeys(wanted):
        if name.startswith(fields.PARENT):
            at = pa.array(rows.parent, mask=rows.parent < 0)
            table = table.append_column(name, table.column(name.removeprefix(fields.PARENT)).take(at))
        elif name in OF_TRACE:
            table = table.append_column(name, OF_TRACE[name](rows))
    return rows._replace(table=table)


# ---- what only the whole trace tells


def _child_count(rows: TraceRows) -> pa.Array:
    return pa.array(np.bincount(rows.parent[rows.parent >= 0], minlength=len(rows.parent)))


def _has_parent(rows: TraceRows) -> pa.Array:
    return pa.array(rows.parent >= 0)


def _trace_duration(rows: TraceRows) -> pa.Array:
    """From the first start to the last end."""
    if not len(rows.trace):
        return pa.array([], pa.int64())
    start = np.minimum(rows.table.column("start_unix_ns").to_numpy(), INT64_MAX).astype(np.int64)
    end = np.maximum(start, start + rows.table.column("duration_ns").to_numpy())
    first = np.searchsorted(rows.trace, np.arange(len(rows.trace_ids)))
    duration = np.maximum.reduceat(end, first) - np.minimum.reduceat(start, first)
    return pa.array(duration[rows.trace])


def _root_column(column: str) -> Callable[[TraceRows], pa.Array]:
    def of_root(rows: TraceRows) -> pa.Array:
        """Of the first span without a parent, by start and span ID; null where there is none."""
        at = np.flatnonzero(_names_none(rows.table))
        root = np.full(len(rows.trace_ids), -1, dtype=np.int64)
        root[rows.trace[at][::-1]] = at[::-1]
        found = root[rows.trace]
        texts = pc.fill_null(rows.table.column(column).cast(pa.string()), "")
        return texts.take(pa.array(found, mask=found < 0))

    return of_root


def _nested(which: int) -> Callable[[TraceRows], pa.Array]:
    def numbered(rows: TraceRows) -> pa.Array:
        """Nested sets: left and right of each row, and its parent's left, -1 for a root. One counter a trace."""
        children: dict[int, list[int]] = {}
        for row, parent in enumerate(rows.parent.tolist()):
            children.setdefault(parent if parent >= 0 else -1 - int(rows.trace[row]), []).append(row)
        found = np.zeros((3, len(rows.parent)), dtype=np.int64)
        for number in range(len(rows.trace_ids)):
            counter = 0
            waiting = [(row, False) for row in reversed(children.get(-1 - number, []))]
            while waiting:
                row, done = waiting.pop()
                counter += 1
                if done:
                    found[1, row] = counter
                    continue
                found[0, row] = counter
                parent = int(rows.parent[row])
                found[2, row] = found[0, parent] if parent >= 0 else -1
                waiting.append((row, True))
                waiting += [(child, False) for child in reversed(children.get(row, []))]
        return pa.array(found[which])

    return numbered


OF_TRACE: dict[str, Callable[[TraceRows], pa.Array]] = {
    fields.CHILD_COUNT: _child_count,
    fields.HAS_PARENT: _has_parent,
    fields.TRACE_DURATION: _trace_duration,
    fields.ROOT_NAME: _root_column("name"),
    fields.ROOT_SERVICE: _root_column(SERVICE),
    fields.NESTED_LEFT: _nested(0),
    fields.NESTED_RIGHT: _nested(1),
    fields.NESTED_PARENT: _nested(2),
}


def _halves(rows: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    halves = schema.bytes_of(rows.column("trace_id"), 16).view(">u8").astype(np.uint64)
    return halves[:, 0], halves[:, 1]

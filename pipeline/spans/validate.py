"""Spans that break a limit or look wrong are cut and marked, never rejected: their sender was told they are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spans import schema

Ints = npt.NDArray[np.int64]
UNLIMITED = 1 << 62
YEAR_2000_UNIX_NS = 946_684_800 * 10**9
END_BEFORE_START, TIME_OUTLIER = "end_before_start", "time_outlier"
ATTRIBUTE_CUT, ATTRIBUTES_DROPPED = "attribute_cut", "attributes_dropped"
MORE_ENTRY = pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", schema.MORE_VALUE)])
TEXTS = (
    "name",
    "status_message",
    "trace_state",
    "scope_name",
    "scope_version",
    "resource_schema_url",
    "scope_schema_url",
)


class Checked(NamedTuple):
    """The spans with their marks, and (tenant, mark) -> spans."""

    spans: pa.Table
    counts: Counter[tuple[str, str]]


def is_outlier(
    start_unix_ns: npt.NDArray[np.uint64], *, now_unix_ns: int, future_s_max: float
) -> npt.NDArray[np.bool_]:
    """Starts before 2000 or more than `future_s_max` ahead: they must not widen a chunk's range of time."""
    latest = min(now_unix_ns + int(future_s_max * 1e9), 2**64 - 1)
    outlier: npt.NDArray[np.bool_] = (start_unix_ns < YEAR_2000_UNIX_NS) | (start_unix_ns > latest)
    return outlier


def check(
    spans: pa.Table,
    *,
    now_unix_ns: int,
    attribute_bytes_max: int,
    attributes_max: int,
    future_s_max: float,
    attributes_max_by_tenant: Mapping[str, int] | None = None,
) -> Checked:
    """Mark odd times, cut values longer than `attribute_bytes_max`, drop attributes beyond `attributes_max`.

    Free of copies where nothing is wrong. What is dropped is counted in the dropped_attributes_count of the span, its
    resource or its scope.
    """
    marks: dict[str, npt.NDArray[np.bool_]] = {}
    if not spans.num_rows:
        return Checked(spans, Counter())
    marks[END_BEFORE_START] = spans.column("duration_ns").to_numpy() < 0
    start = spans.column("start_unix_ns").to_numpy()
    marks[TIME_OUTLIER] = is_outlier(start, now_unix_ns=now_unix_ns, future_s_max=future_s_max)
    allowed = _allowed(spans, attributes_max, attributes_max_by_tenant or {})
    spans, marks[ATTRIBUTES_DROPPED] = _drop_attributes(spans, allowed)
    spans, marks[ATTRIBUTE_CUT] = _cut_values(spans, attribute_bytes_max)
    return _marked(spans, {mark: rows for mark, rows in marks.items() if rows.any()})


def _marked(spans: pa.Table, marks: dict[str, npt.NDArray[np.bool_]]) -> Checked:
    """Append the marks to the spans' own, and count them."""
    counts: Counter[tuple[str, str]] = Counter()
    if not marks:
        return Checked(spans, counts)
    tenants = spans.column("tenant").cast(pa.string())
    old = schema.column(spans, schema.MARKS_COLUMN).combine_chunks()
    old = old.combine_chunks() if isinstance(old, pa.ChunkedArray) else old
    sizes = pc.fill_null(pc.list_value_length(old), 0).to_numpy()
    rows = [np.repeat(np.arange(spans.num_rows), sizes)]
    values: list[str] = old.flatten().to_pylist()
    for mark, marked in marks.items():
        at = np.flatnonzero(marked)
        rows.append(at)
        values += [mark] * len(at)
        for row in pc.value_counts(tenants.take(pa.array(at))).to_pylist():
            counts[row["values"], mark] += row["counts"]
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    counted = np.bincount(row, minlength=spans.num_rows)
    offsets = pa.array(np.concatenate(([0], np.cumsum(counted))).astype(np.int32))
    texts = pa.array(values, pa.string()).take(pa.array(order))
    lists = pa.ListArray.from_arrays(offsets, texts, mask=pa.array(counted == 0))
    return Checked(_with_column(spans, schema.MARKS_COLUMN, lists), counts)


def _with_column(spans: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = spans.column_names.index(name) if name in spans.column_names else None
    return spans.append_column(name, values) if at is None else spans.set_column(at, name, values)


def _cut_values(spans: pa.Table, bytes_max: int) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Cut strings and bytes longer than `bytes_max`: at a whole character, and for `:any` values to the empty value."""
    cut = np.zeros(spans.num_rows, dtype=bool)
    for name in spans.column_names:
        if name not in TEXTS and schema.parse_column(name) is None and not name.endswith("_more"):
            continue
        column = spans.column(name)
        shorter, rows = _cut_column(column, bytes_max)
        if rows is not None:
            cut |= rows
            spans = _with_column(spans, name, shorter)
    return spans, cut


def _cut_column(column: pa.ChunkedArray, bytes_max: int) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    if pa.types.is_dictionary(column.type):
        if max((_longest(chunk.dictionary) for chunk in column.chunks), default=0) <= bytes_max:
            return column, None
        shorter, rows = _cut_column(column.cast(column.type.value_type), bytes_max)
        return shorter.dictionary_encode(), rows
    if not pa.types.is_string(column.type) and not pa.types.is_binary(column.type):
        return _cut_nested(column, bytes_max)
    if _longest(column) <= bytes_max:
        return column, None
    long = pc.fill_null(pc.greater(pc.binary_length(column), bytes_max), fill_value=False).to_numpy()
    values = column.combine_chunks()
    found = values.to_pylist()
    for row in np.flatnonzero(long).tolist():
        found[row] = _shorter(found[row], bytes_max)
    return pa.array(found, column.type), long


def _cut_nested(column: pa.ChunkedArray, bytes_max: int) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    """Lists and maps: only where their bytes together could hold a long value, and then row by row."""
    kind = column.type
    if pa.types.is_list(kind) and not (
        pa.types.is_string(kind.value_type)
        or pa.types.is_binary(kind.value_type)
        or pa.types.is_nested(kind.value_type)
    ):
        return column, None
    if not pa.types.is_nested(kind):
        return column, None
    flat = pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type)
    if flat and max((_longest(chunk.flatten()) for chunk in column.chunks), default=0) <= bytes_max:
        return column, None
    rows = np.zeros(len(column), dtype=bool)
    found = column.to_pylist()
    for row, value in enumerate(found):
        if value is not None:
            found[row] = _shorter_inside(value, bytes_max)
            rows[row] = found[row] != value
    return (pa.array(found, kind), rows) if rows.any() else (column, None)


def _shorter_inside(value: object, bytes_max: int) -> object:
    if isinstance(value, str | bytes):
        return _shorter(value, bytes_max)
    if isinstance(value, dict):
        return {key: _shorter_inside(inner, bytes_max) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_shorter_inside(inner, bytes_max) for inner in value)
    return value


def _shorter(value: str | bytes, bytes_max: int) -> str | bytes:
    if isinstance(value, bytes):
        return value if len(value) <= bytes_max else b""
    encoded = value.encode()
    return value if len(encoded) <= bytes_max else encoded[:bytes_max].decode("utf-8", "ignore")


def _longest(column: pa.Array | pa.ChunkedArray) -> int:
    """Bytes of the longest value, or more where a null hides some: from the offsets, 5 us a column of 12,000."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return max((int(np.diff(_ends(chunk)).max()) for chunk in chunks if len(chunk)), default=0)


def _ends(values: pa.Array) -> npt.NDArray[np.int32]:
    """The offsets of strings or bytes, one more than there are."""
    ends = np.frombuffer(values.buffers()[1], dtype=np.int32)
    return ends[values.offset : values.offset + len(values) + 1]


def _allowed(spans: pa.Table, default: int, by_tenant: Mapping[str, int]) -> Ints:
    """How many attributes each row may have."""
    allowed = np.full(spans.num_rows, default, dtype=np.int64)
    if by_tenant:
        tenants = spans.column("tenant").cast(pa.string())
        for tenant, own in by_tenant.items():
            allowed[pc.equal(tenants, tenant).to_numpy()] = own
    return allowed


def _drop_attributes(spans: pa.Table, allowed: Ints) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Drop the attributes of a span, a resource, a scope, an event or a link beyond what its row may have."""
    over = np.zeros(spans.num_rows, dtype=bool)
    for scope in schema.ROW_SCOPES:
        count = "dropped_attributes_count" if scope == "span" else f"{scope}_dropped_attributes_count"
        spans, dropped = _drop_attributes_of(scope, spans, allowed, count)
        over |= dropped
    for scope in schema.LIST_SCOPES:
        spans, dropped = _drop_attributes_inside(scope, spans, allowed)
        over |= dropped
    return spans, over


def _drop_attributes_inside(scope: str, spans: pa.Table, allowed: Ints) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Those of events or links: their lists flattened are a table of a row each, for which the same rule holds."""
    none = np.zeros(spans.num_rows, dtype=bool)
    more, count = schema.more_column(scope), f"{scope}_dropped_attributes_count"
    names = _attribute_columns(scope, spans)
    if len(names) <= allowed.min(initial=UNLIMITED) and more not in spans.column_names:
        return spans, none
    # One chunk each: the lists of a scope are parallel, so all share the offsets of the first
    lists = {
        name: pa.concat_arrays(schema.column(spans, name).chunks)
        for name in [*names, count, more]
        if name in spans.column_names
    }
    sizes = pc.fill_null(pc.list_value_length(next(iter(lists.values()))), 0).to_numpy()
    inner, dropped = _drop_attributes_of(
        scope, pa.table({name: array.flatten() for name, array in lists.items()}), np.repeat(allowed, sizes), count
    )
    if not dropped.any():
        return spans, none
    offsets = pa.array(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32))
    for name in inner.column_names:
        values = inner.column(name).combine_chunks()
        spans = _with_column(spans, name, pa.ListArray.from_arrays(offsets, values))
    none[np.repeat(np.arange(spans.num_rows), sizes)[dropped]] = True
    return spans, none


def _attribute_columns(scope: str, spans: pa.Table) -> list[str]:
    names = [name for name in spans.column_names if (parsed := schema.parse_column(name)) and parsed.scope == scope]
    return sorted(
        set(names) - {schema.MARKS_COLUMN}, key=lambda name: (name != schema.SERVICE_COLUMN, names.index(name))
    )


def _drop_attributes_of(
    scope: str, spans: pa.Table, allowed: Ints, count: str
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Those of the map column first, from its end; a resource's service last. count: the column that says how many."""
    none = np.zeros(spans.num_rows, dtype=bool)
    names = _attribute_columns(scope, spans)
    more = schema.more_column(scope)
    if len(names) <= allowed.min(initial=UNLIMITED) and more not in spans.column_names:
        return spans, none
    known = spans.column_names
    maps = spans.column(more) if more in known else pa.chunked_array([pa.nulls(spans.num_rows, schema.MORE)])
    rare = pc.fill_null(pc.list_value_length(maps.cast(pa.list_(MORE_ENTRY))), 0).to_numpy()
    held = sum((spans.column(name).is_valid().to_numpy().astype(np.int64) for name in names), rare.astype(np.int64))
    over = np.maximum(held - allowed, 0)
    if not over.any():
        return spans, none
    counted = spans.column(count).fill_null(0).to_numpy() if count in known else np.zeros(spans.num_rows, np.uint32)
    spans = _with_column(spans, count, pa.array(counted + over.astype(np.uint32), pa.uint32()))
    left = over.copy()
    if rare.any():
        entries = maps.to_pylist()
        for row in np.flatnonzero(over).tolist():
            keep = max(0, int(rare[row] - left[row]))
            left[row] -= rare[row] - keep
            entries[row] = (entries[row] or [])[:keep] or None
        spans = _with_column(spans, more, pa.array(entries, schema.MORE))
    for name in reversed(names):
        if not left.any():
            break
        column = spans.column(name)
        away = (left > 0) & column.is_valid().to_numpy()
        left -= away
        if away.any():
            values = pc.if_else(pa.array(~away), column, pa.scalar(None, column.type))
            spans = _with_column(spans, name, values)
    return spans, over > 0

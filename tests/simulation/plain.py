"""Plain things in the place of RocksDB, of the OTLP decoder, of Parquet and of DuckDB, behind the same interfaces.

Most seeds use them, since they take a tenth of the time; every REAL_EVERY-th seed uses the real ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans import schema
from pipeline.spans.from_otlp import Decoded
from pipeline.spans.index import index_of
from pipeline.spans.record import BadRecord, Record
from pipeline.spans.validate import Checked
from pipeline.store import chunk, trace_filter
from pipeline.store.chunk import EncodedChunk
from pipeline.store.merge import PARQUET, TRACES, Merged

Disk = dict[str, dict[str, dict[bytes, bytes]]]  # folder -> column family -> rows


class PlainFamily:
    """A column family of rocksdict: sorted keys."""

    def __init__(self, name: str, rows: dict[bytes, bytes]) -> None:
        self.name, self._rows = name, rows

    def put(self, key: bytes, value: bytes, _options: Any = None) -> None:
        self._rows[key] = bytes(value)

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    __setitem__ = put

    def __delitem__(self, key: bytes) -> None:
        self._rows.pop(key, None)

    delete = __delitem__

    def items(self, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(self._rows)
        return iter([(key, self._rows[key]) for key in keys[bisect_left(keys, from_key) :]])

    def keys(self) -> Iterator[bytes]:
        return iter(sorted(self._rows))

    def delete_range(self, low: bytes, high: bytes, write_opt: Any = None) -> None:
        for key in [key for key in self._rows if low <= key < high]:
            del self._rows[key]

    def close(self) -> None:
        pass


class PlainBatch:
    """rocksdict.WriteBatch: all or nothing."""

    def __init__(self, raw_mode: bool = True) -> None:
        self.writes: list[tuple[PlainFamily, bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes, family: PlainFamily) -> None:
        self.writes.append((family, key, bytes(value)))

    def delete(self, key: bytes, family: PlainFamily) -> None:
        self.writes.append((family, key, None))


class PlainDatabase:
    """rocksdict.Rdict; what is written stays in `disk` when the process dies."""

    def __init__(self, disk: Disk, path: str, **_: Any) -> None:
        folder = disk.setdefault(path, {})
        self._family: Callable[[str], PlainFamily] = lambda name: PlainFamily(name, folder.setdefault(name, {}))

    def get_column_family(self, name: str) -> PlainFamily:
        return self._family(name)

    get_column_family_handle = get_column_family

    def write(self, batch: PlainBatch, _options: Any = None) -> None:
        for family, key, value in batch.writes:
            if value is None:
                family.delete(key)
            else:
                family.put(key, value)

    def close(self) -> None:
        pass


# ---- records to rows


def decode(records: Sequence[Record], *, attribute_columns_max: int) -> Decoded:
    """pipeline.spans.from_otlp.decode for the few fields that the simulation's spans have."""
    bad: list[BadRecord] = []
    rows: list[tuple[str, int, Any]] = []
    for index, record in enumerate(records):
        try:
            data = TracesData.FromString(record.value)
        except DecodeError as error:
            bad.append(BadRecord(index, f"no_otlp: {error}"))
            continue
        scopes = (scope for resource in data.resource_spans for scope in resource.scope_spans)
        rows += [(record.tenant, record.offset, span) for scope in scopes for span in scope.spans]
    if not rows:
        return Decoded(schema.empty_table(), bad, Counter())
    spans = [span for _, _, span in rows]
    tenants = sorted({tenant for tenant, _, _ in rows})
    codes = pa.array([tenants.index(tenant) for tenant, _, _ in rows], pa.int32())
    table = pa.table(
        {
            "tenant": pa.DictionaryArray.from_arrays(codes, pa.array(tenants)),
            "record_offset": pa.array([offset for _, offset, _ in rows], pa.int64()),
            "trace_id": pa.array([span.trace_id for span in spans], pa.binary(16)),
            "span_id": pa.array([span.span_id for span in spans], pa.binary(8)),
            "parent_span_id": pa.nulls(len(spans), pa.binary()),
            "start_unix_ns": pa.array([span.start_time_unix_nano for span in spans], pa.uint64()),
            "duration_ns": pa.array(np.full(len(spans), 1000), pa.int64()),
            "name": pa.array([span.name for span in spans]),
            "kind": pa.array([span.kind for span in spans], pa.int32()),
        }
    )
    return Decoded(table, bad, Counter())


def check(spans: pa.Table, **_: Any) -> Checked:
    """pipeline.spans.validate.check for spans that are right."""
    return Checked(spans, Counter())


def indexes_of(spans: pa.Table, part: Any, parts: int) -> list[Any]:
    """pipeline.spans.index.indexes_of: nothing is asked of it here."""
    return [index_of(spans.slice(0, 0)) for _ in range(parts)]


# ---- rows to chunks


def encode_chunk(spans: pa.Table, *, row_group_spans: int, zstd_level: int, outlier: Any) -> EncodedChunk:
    """pipeline.store.chunk.encode_chunk with an Arrow stream in the place of Parquet."""
    rows = spans.select(["trace_id", "span_id", "start_unix_ns", "duration_ns", "name", "kind"]).combine_chunks()
    rows = rows.append_column("parent_row", pa.nulls(rows.num_rows, pa.int32()))
    rows = rows.append_column("outside_parent_span_id", pa.nulls(rows.num_rows, pa.binary()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    start = rows.column("start_unix_ns").to_numpy()
    traces = np.unique(schema.fixed_bytes(rows, "trace_id", 16), axis=0)
    return EncodedChunk(
        parquet=sink.getvalue().to_pybytes(),
        traces=b"traces",
        trace_filter=trace_filter.build(traces),
        spans=rows.num_rows,
        traces_count=len(traces),
        start_min_unix_ns=int(start.min()),
        start_max_unix_ns=int(start.max()),
        end_max_unix_ns=int(start.max()) + 1000,
        outliers=(),
        services={},
        attributes={},
        more_keys=(),
        values={},
    )


def read_chunk(content: bytes, columns: list[str] | None = None) -> pa.Table:
    """pipeline.store.chunk.read_chunk of such a chunk."""
    rows = pa.ipc.open_stream(content).read_all()
    return rows if columns is None else rows.select(columns)


class PlainPart:
    """pipeline.store.merge.Part of such a chunk."""

    group_bytes, damaged = 1, False

    def __init__(self, path: Path) -> None:
        self.table = read_chunk(path.read_bytes())


def merge(parts: Sequence[PlainPart], *_: Any, folder: Path, pause: Callable[[], None], **__: Any) -> Merged:
    """pipeline.store.merge.merge of such chunks."""
    pause()
    rows = pa.concat_tables([part.table for part in parts]).combine_chunks()
    seen: dict[tuple[Any, ...], int] = {}
    for at, key in enumerate(zip(*(rows.column(name).to_pylist() for name in chunk.KEY_COLUMNS), strict=True)):
        seen.setdefault(key, at)
    kept = rows.take(pa.array(sorted(seen.values())))
    encoded = encode_chunk(kept, row_group_spans=0, zstd_level=0, outlier=None)
    (folder / PARQUET).write_bytes(encoded.parquet)
    (folder / TRACES).write_bytes(encoded.traces)
    times = chunk.Times()
    times.add(kept, np.zeros(kept.num_rows, dtype=bool))
    return Merged(
        trace_filter=encoded.trace_filter,
        spans=kept.num_rows,
        copies=rows.num_rows - kept.num_rows,
        traces_count=encoded.traces_count,
        times=times,
        services={},
        attributes={},
        more_keys=(),
        values={},
    )


def query(content: bytes, text: str, values: Sequence[Any], tables: Mapping[str, pa.Table]) -> pa.Table:
    """The statements that a trace by ID and a look at all rows make, over one such chunk."""
    rows = read_chunk(content)
    if "WHERE trace_id = ?" in text:
        ids = rows.column("trace_id").to_pylist()
        return rows.take(pa.array([at for at, trace_id in enumerate(ids) if trace_id == values[1]], pa.int64()))
    return rows

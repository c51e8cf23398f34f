"""Chunks: the spans of one tenant and range as Parquet, sorted by trace; beside each its traces and its filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.spans import schema, tree
from pipeline.spans.few_values import FewValues, Values
from pipeline.spans.gather import Gather
from pipeline.spans.index import NO_SERVICE, index_of
from pipeline.store import trace_filter
from pipeline.store.manifest import MORE_KEYS_MAX, Services
from pipeline.store.own_rows import only_own
from pipeline.store.totals import CHUNK_OPERATIONS_MAX, bounded
from topics.errors import DamagedChunkError, FormatVersionError

FORMAT = 1
FORMAT_KEY = b"spanstream.format"
OUTLIERS_MAX = 1000  # of one chunk's entry; with more of them the chunk counts as of all times
NOT_STORED = ("tenant", "record_offset", "parent_span_id")
# Times too: zstd finds more in plain ones than in delta-packed ones, and DuckDB reads BYTE_STREAM_SPLIT of floats only.
PLAIN = (
    "trace_id",
    "span_id",
    "start_unix_ns",
    "duration_ns",
    "outside_parent_span_id",
    "link_trace_id",
    "link_span_id",
)
KEY_COLUMNS = ["trace_id", "span_id", "kind"]
TRACE_COLUMNS = ["trace_id", "start_unix_ns", "duration_ns", "status_code", "name", schema.SERVICE_COLUMN]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk:
    """The three objects of a chunk, and what its entry says of them. Times leave outliers out."""

    parquet: bytes
    traces: bytes
    trace_filter: bytes
    spans: int
    traces_count: int
    start_min_unix_ns: int
    start_max_unix_ns: int
    end_max_unix_ns: int
    outliers: tuple[tuple[str, int], ...]
    services: Services
    attributes: dict[str, int]
    more_keys: tuple[str, ...]
    values: Values


def encode_chunk(
    spans: pa.Table, *, row_group_spans: int, zstd_level: int, outlier: npt.NDArray[np.bool_]
) -> EncodedChunk:
    """Encode the spans of one tenant, at least one, in any order. outlier: which of their starts cannot be, shape (n,).

    3 us of CPU a span, off the GIL for the most part. Memory beside the table: the traces, and a row group.
    """
    tenant = spans.column("tenant")[0].as_py()
    spans = only_own(spans)
    services, attributes = index_of(spans)
    arranged = tree.arrange(spans)
    rows = _Rows(_with_small_dictionaries(spans, row_group_spans // 4), arranged)
    traces = traces_of(rows.take(0, spans.num_rows, TRACE_COLUMNS))
    distinct = schema.fixed_bytes(traces, "trace_id", 16)
    times = Times()
    times.add(spans, outlier)
    few = FewValues()
    few.add(spans)
    return EncodedChunk(
        parquet=_parquet(
            (rows.take(at, row_group_spans) for at in range(0, spans.num_rows, row_group_spans)), zstd_level
        ),
        traces=_parquet(
            (traces.slice(at, row_group_spans) for at in range(0, traces.num_rows, row_group_spans)), zstd_level
        ),
        trace_filter=trace_filter.build(distinct),
        spans=spans.num_rows,
        traces_count=traces.num_rows,
        **times.of_entry(),
        services=bounded(services[tenant], CHUNK_OPERATIONS_MAX),
        attributes=attributes[tenant],
        more_keys=more_keys(spans),
        values=few.values(),
    )


class _Rows:
    """A chunk's rows, made as they are written: a whole sorted copy would be the largest thing in memory."""

    def __init__(self, spans: pa.Table, arranged: tree.Arranged) -> None:
        self._columns = [name for name in spans.column_names if name not in NOT_STORED]
        self._gather = Gather(spans.select(self._columns))
        self._arranged = arranged

    def take(self, first: int, count: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Up to `count` rows from place `first` on; columns: those wanted, where the table has them."""
        wanted = self._columns if columns is None else [name for name in columns if name in self._columns]
        rows = self._gather.rows(self._arranged.order[first : first + count], wanted)
        rows = rows.append_column("parent_row", self._arranged.parent_row.slice(first, count))
        return rows.append_column("outside_parent_span_id", self._arranged.outside_parent_span_id.slice(first, count))


def _with_small_dictionaries(spans: pa.Table, entries_max: int) -> pa.Table:
    """Texts of many values as plain strings: each row group would hold the whole dictionary."""
    for at, one in enumerate(spans.schema):
        if pa.types.is_dictionary(one.type):
            column = spans.column(at)
            if sum(len(chunk.dictionary) for chunk in column.chunks) > entries_max:
                spans = spans.set_column(at, one.name, column.cast(one.type.value_type))
    return spans


def decode_rows(rows: pa.Table) -> pa.Table:
    """Rows read from a chunk, whole traces in its order, with `parent_span_id` in the place of the distances."""
    parents = tree.parent_span_ids(rows)
    kept = [name for name in rows.column_names if name not in ("parent_row", "outside_parent_span_id")]
    return rows.select(kept).append_column("parent_span_id", parents)


def read_chunk(parquet: bytes, columns: list[str] | None = None) -> pa.Table:
    """A chunk's rows, page checksums verified.

    Raises FormatVersionError for one of a later version, DamagedChunkError for bytes that are not a chunk's any more.
    """
    with damage():
        return opened(pa.BufferReader(parquet)).read(columns=columns)


def opened(source: Path | pa.NativeFile, read_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
    """A chunk, page checksums verified, within `damage`. read_dictionary: columns that are read as dictionaries."""
    file = pq.ParquetFile(
        source, page_checksum_verification=True, pre_buffer=False, read_dictionary=list(read_dictionary)
    )
    found = int((file.metadata.metadata or {}).get(FORMAT_KEY, b"1"))
    if found > FORMAT:
        raise FormatVersionError(f"a chunk has format {found}, this version reads up to {FORMAT}: upgrade spanstream")
    return file


@contextmanager
def damage() -> Iterator[None]:
    """What reading a chunk within may raise is DamagedChunkError; FormatVersionError passes."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # a damaged length asks for any memory
        raise DamagedChunkError(f"this is no chunk any more: {error}") from error


def _parquet(row_groups: Iterable[pa.Table], zstd_level: int) -> bytes:
    """Plain Parquet: no Arrow schema inside, so that every engine sees the same types."""
    sink = pa.BufferOutputStream()
    writer = Writer(sink, zstd_level)
    for rows in row_groups:
        writer.write(rows)
    writer.close()
    return sink.getvalue().to_pybytes()


class Writer:
    """A Parquet object written a row group at a time, at least one."""

    def __init__(self, sink: Path | pa.NativeFile, zstd_level: int) -> None:
        self._sink, self._zstd_level = sink, zstd_level
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        """One row group; its columns are those of the first."""
        if self._writer is None:
            self._writer = _writer(self._sink, rows.schema, self._zstd_level)
        self._writer.write_table(rows.cast(self._writer.schema), row_group_size=rows.num_rows)
        self.rows += rows.num_rows

    def close(self) -> None:
        """The end."""
        assert self._writer is not None
        self._writer.close()


def _writer(sink: Path | pa.NativeFile, fields: pa.Schema, zstd_level: int) -> pq.ParquetWriter:
    coded = [one for one in fields if one.name not in PLAIN and not _is_split(one)]
    return pq.ParquetWriter(
        sink,
        fields.with_metadata({FORMAT_KEY: str(FORMAT).encode()}),
        compression="zstd",
        compression_level=zstd_level,
        use_dictionary=[_leaf(one) for one in coded],
        column_encoding={one.name: "BYTE_STREAM_SPLIT" for one in fields if _is_split(one)},
        write_page_index=False,  # a column has one page a row group: the row group's statistics say it all
        write_page_checksum=True,
        store_schema=False,
        write_statistics=[one.name for one in fields if _is_pruned_by(one)],
    )


def _is_split(field: pa.Field) -> bool:
    return bool(pa.types.is_floating(field.type))


def _is_pruned_by(field: pa.Field) -> bool:
    """Whether a row group's least and greatest value may leave it out: they cost a tenth of the writing.

    Of texts that are seldom the same they do not, and no engine looks at those of lists.
    """
    return not (pa.types.is_nested(field.type) or pa.types.is_string(field.type))


def _leaf(field: pa.Field) -> str:
    """The path of a column's values: that of a list is `name.list.element`."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


@dataclass(slots=True)
class Times:
    """What a chunk's entry says of its times; spans are added, a portion at a time."""

    starts: tuple[int, int] | None = None
    end_max_unix_ns: int = 0
    outliers: list[tuple[str, int]] = field(default_factory=list)

    def add(self, spans: pa.Table, outlier: npt.NDArray[np.bool_]) -> None:
        """outlier: which of their starts cannot be, shape (n,)."""
        start, end = _starts_and_ends(spans)
        if len(self.outliers) <= OUTLIERS_MAX:
            odd = np.flatnonzero(outlier)[: OUTLIERS_MAX + 1]
            trace_ids = spans.column("trace_id").take(pa.array(odd)).to_pylist()
            self.outliers += [(trace_id.hex(), int(start[row])) for trace_id, row in zip(trace_ids, odd, strict=True)]
        usual = ~outlier
        if usual.any():
            low, high = int(start[usual].min()), int(start[usual].max())
            self.starts = (min(low, self.starts[0]), max(high, self.starts[1])) if self.starts else (low, high)
            self.end_max_unix_ns = max(self.end_max_unix_ns, int(end[usual & (end >= start)].max()))

    def of_entry(self) -> dict[str, Any]:
        """The values of a chunk's entry."""
        if len(self.outliers) > OUTLIERS_MAX:
            limits = {"start_min_unix_ns": 0, "start_max_unix_ns": 2**64 - 1, "end_max_unix_ns": 2**64 - 1}
            return limits | {"outliers": ()}
        low, high = self.starts or (0, 0)
        return {
            "start_min_unix_ns": low,
            "start_max_unix_ns": high,
            "end_max_unix_ns": self.end_max_unix_ns,
            "outliers": tuple(self.outliers),
        }


def _starts_and_ends(rows: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Of each span; one that ends before its start ends with it."""
    start = rows.column("start_unix_ns").to_numpy()
    return start, np.maximum(start, start + rows.column("duration_ns").to_numpy().view(np.uint64))


def traces_of(rows: pa.Table) -> pa.Table:
    """One row a trace of a chunk's rows; such tables of several chunks merge by minimum, maximum, sum and union.

    root_name and root_service: of the first span without a parent, null where the root is not here.
    """
    trace_id = schema.fixed_bytes(rows, "trace_id", 16)
    first = np.flatnonzero(np.concatenate(([True], (trace_id[1:] != trace_id[:-1]).any(axis=1))))
    number = np.zeros(rows.num_rows, dtype=np.int64)
    number[first[1:]] = 1
    number = np.cumsum(number)
    start, end = _starts_and_ends(rows)
    failed = pc.equal(schema.column(rows, "status_code"), schema.STATUS_ERROR).fill_null(False).to_numpy()
    root = _root_rows(rows, number, len(first))
    service = pc.fill_null(schema.column(rows, schema.SERVICE_COLUMN).cast(pa.string()), NO_SERVICE).combine_chunks()
    return pa.table(
        {
            "trace_id": rows.column("trace_id").take(pa.array(first)),
            "start_min_unix_ns": np.minimum.reduceat(start, first),
            "end_max_unix_ns": np.maximum.reduceat(end, first),
            "root_name": rows.column("name").cast(pa.string()).take(root),
            "root_service": service.take(root),
            "span_count": np.diff(np.append(first, rows.num_rows)),
            "error_count": np.add.reduceat(failed.astype(np.int64), first),
            "services": _services(service, number, len(first)),
        }
    )


def _root_rows(rows: pa.Table, number: npt.NDArray[np.int64], traces: int) -> pa.Array:
    rootless = (
        rows.column("parent_row").is_null().to_numpy() & rows.column("outside_parent_span_id").is_null().to_numpy()
    )
    at = np.flatnonzero(rootless)
    found = np.full(traces, -1, dtype=np.int64)
    found[number[at][::-1]] = at[::-1]  # of several the first stays
    return pa.array(found, mask=found < 0)


def _services(service: pa.Array, number: npt.NDArray[np.int64], traces: int) -> pa.ListArray:
    """The distinct services of each trace."""
    array = service.combine_chunks() if isinstance(service, pa.ChunkedArray) else service
    coded = array.dictionary_encode()
    pairs = np.unique(number * len(coded.dictionary) + coded.indices.to_numpy())
    counts = np.bincount(pairs // len(coded.dictionary), minlength=traces)
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, coded.dictionary.take(pa.array(pairs % len(coded.dictionary))))


def more_keys(rows: pa.Table, keys_max: int = MORE_KEYS_MAX) -> tuple[str, ...]:
    """The keys of the map columns, `scope.key`, at most `keys_max`."""
    found: set[str] = set()
    for scope in schema.SCOPES:
        name = schema.more_column(scope)
        if name in rows.column_names:
            for chunk in rows.column(name).chunks:
                maps = chunk if scope in schema.ROW_SCOPES else chunk.flatten()
                found |= {f"{scope}.{key}" for key in pc.unique(maps.keys).to_pylist()}
    return tuple(sorted(found)[:keys_max])

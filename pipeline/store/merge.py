"""Chunks of one tenant merged into one, trace by trace: a few rows of each in memory, whatever their sizes.

Every chunk is sorted by trace ID. What lies before the least of the IDs that the parts have come to is complete, and is
arranged and written; of copies of a span the one of the earliest part stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.spans import dedup, fold, schema, tree, validate
from pipeline.spans.few_values import FewValues, Values
from pipeline.spans.gather import Gather
from pipeline.spans.index import add_services, index_of
from pipeline.store import chunk, trace_filter
from pipeline.store.manifest import MORE_KEYS_MAX, Services
from pipeline.store.totals import CHUNK_OPERATIONS_MAX, bounded
from topics.errors import DamagedChunkError, FormatVersionError

TRACE_ROWS_MAX = 500_000  # of one trace, held at once
ROWS_MIN = 64  # of a part, read at once
PARQUET, TRACES = "merged.parquet", "merged.traces.parquet"  # the files
DISTANCES = {"parent_row": pa.int32(), "outside_parent_span_id": pa.binary()}


class TooLargeError(Exception):
    """The parts cannot be merged within the memory allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a merged chunk is written. bytes_max: of rows held, about."""

    row_group_spans: int
    zstd_level: int
    attribute_columns_max: int
    future_s_max: float
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A chunk whose files are written, its filter, and what its entry says. copies: rows left out."""

    trace_filter: bytes
    spans: int
    copies: int
    traces_count: int
    times: chunk.Times
    services: Services
    attributes: dict[str, int]
    more_keys: tuple[str, ...]
    values: Values


class Part:
    """One chunk, a few rows of it at a time. Raises DamagedChunkError, FormatVersionError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = False
        with chunk.damage(), chunk.opened(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            self.columns = tuple(file.schema_arrow.names)
        self.rows = sum(group.num_rows for group in groups)
        self.group_bytes = max((group.total_byte_size for group in groups), default=0)
        self.row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)

    def batches(self, bytes_max: int) -> Iterator[pa.Table]:
        """Its rows in order, about `bytes_max` of them at a time."""
        texts = [name for name in self.columns if name not in DISTANCES and schema.type_of(name) == schema.TEXT]
        rows = max(ROWS_MIN, bytes_max // max(1, self.row_bytes))
        try:
            with chunk.damage(), chunk.opened(self.path, read_dictionary=texts) as file:
                for batch in file.iter_batches(batch_size=rows, use_threads=False):
                    yield _typed(pa.Table.from_batches([batch]))
        except (DamagedChunkError, FormatVersionError):
            self.damaged = True
            raise


def merge(  # noqa: PLR0913 - what is merged, how, and where to
    parts: Sequence[Part],
    attributes: Mapping[str, int],
    layout: Layout,
    *,
    tenant: str,
    now_unix_ns: int,
    folder: Path,
    pause: Callable[[], None],
) -> Merged:
    """Merge parts, the earliest first. attributes: column -> spans that have it; pause: called between portions.

    Raises TooLargeError, DamagedChunkError, FormatVersionError, OSError, and whatever `pause` raises.
    """
    rare = fold.rarest(attributes, layout.attribute_columns_max)
    columns = {name: None for part in parts for name in part.columns if name not in DISTANCES and name not in rare}
    columns |= {schema.more_column(name.partition(".")[0]): None for name in rare}
    writing = _Writing(tenant, [*columns], layout, folder, now_unix_ns)
    for rows in _complete(parts, layout):
        pause()
        writing.add(fold.without(rows, rare))
    return writing.finished(sum(part.rows for part in parts))


def _complete(parts: Sequence[Part], layout: Layout) -> Iterator[pa.Table]:
    """Whole traces of all parts, in the order of their IDs, about a row group at a time."""
    reading = [_Reading(part.batches(layout.bytes_max // (4 * len(parts)))) for part in parts]
    taken: list[pa.Table] = []
    count = nbytes = 0
    while any(one.rows.num_rows or not one.ended for one in reading):
        for one in reading:
            if not one.rows.num_rows:
                one.read()
        bound = min((one.last for one in reading if not one.ended), default=None)
        pieces = [piece for one in reading if (piece := one.before(bound)).num_rows]
        if not pieces:
            _read_on(reading, bound, layout)
            continue
        taken += pieces
        count += sum(piece.num_rows for piece in pieces)
        nbytes += sum(piece.nbytes for piece in pieces)
        if count >= layout.row_group_spans or nbytes >= layout.bytes_max // 2:
            yield _each_once(taken)
            taken, count, nbytes = [], 0, 0
    if taken:
        yield _each_once(taken)


def _read_on(reading: Sequence[_Reading], bound: tuple[int, int] | None, layout: Layout) -> None:
    """A trace goes on beyond what was read of some parts."""
    for one in reading:
        if not one.ended and one.last == bound:
            one.read()
    held = sum(one.rows.num_rows for one in reading), sum(one.rows.nbytes for one in reading)
    if held[0] > TRACE_ROWS_MAX or held[1] > layout.bytes_max:
        raise TooLargeError("a trace in it takes more memory than is allowed")


class _Reading:
    """What was read of a part and is not yet taken."""

    def __init__(self, batches: Iterator[pa.Table]) -> None:
        self._batches = batches
        self.rows: pa.Table = schema.empty_table()
        self.ended = False

    def read(self) -> None:
        """Some rows more, or the end."""
        if self.ended:
            return
        more = next(self._batches, None)
        if more is None:
            self.ended = True
        else:
            self.rows = pa.concat_tables([self.rows, more]) if self.rows.num_rows else more

    @property
    def last(self) -> tuple[int, int]:
        """The trace ID that it has come to, as two numbers."""
        high, low = _halves(self.rows.slice(self.rows.num_rows - 1))
        return int(high[0]), int(low[0])

    def before(self, bound: tuple[int, int] | None) -> pa.Table:
        """Take the rows of traces before this one; None: of all, since no part goes on."""
        count = self.rows.num_rows
        if bound is not None and count:
            high, low = _halves(self.rows)
            first, second = np.uint64(bound[0]), np.uint64(bound[1])
            count = int(np.count_nonzero((high < first) | ((high == first) & (low < second))))
        taken, self.rows = self.rows.slice(0, count), self.rows.slice(count)
        return chunk.decode_rows(taken.combine_chunks()) if count else taken


def _each_once(pieces: Sequence[pa.Table]) -> pa.Table:
    """Pieces of parts, the earlier ones first where they share a trace, without copies."""
    spans = schema.concat(pieces)
    high, low = _halves(spans)
    ids = schema.fixed_bytes(spans, "span_id", 8).view(">u8")[:, 0]
    kinds = spans.column("kind").fill_null(0).to_numpy()
    at = np.arange(spans.num_rows)
    kept = np.sort(dedup.least_copies((kinds, ids, low, high), at, at))
    return spans if len(kept) == spans.num_rows else Gather(spans).rows(kept, spans.column_names)


class _Writing:
    """A chunk's files, written trace by trace."""

    def __init__(self, tenant: str, columns: list[str], layout: Layout, folder: Path, now_unix_ns: int) -> None:
        self._tenant, self._columns, self._layout = tenant, columns, layout
        self._now_unix_ns = now_unix_ns
        self._rows = chunk.Writer(folder / PARQUET, layout.zstd_level)
        self._traces = chunk.Writer(folder / TRACES, layout.zstd_level)
        self._trace_ids: list[npt.NDArray[np.uint8]] = []
        self._times = chunk.Times()
        self._services: dict[str, dict[str, dict[str, int]]] = {}
        self._attributes: dict[str, int] = {}
        self._more_keys: set[str] = set()
        self._few = FewValues()

    def add(self, spans: pa.Table) -> None:
        """Whole traces, with IDs beyond those that were added before."""
        tenants = pa.DictionaryArray.from_arrays(np.zeros(spans.num_rows, dtype=np.int32), [self._tenant])
        index = index_of(spans.append_column("tenant", tenants))
        add_services(self._services, index.services)
        self._services = {self._tenant: bounded(self._services[self._tenant], CHUNK_OPERATIONS_MAX)}
        for name, count in index.attributes[self._tenant].items():
            self._attributes[name] = self._attributes.get(name, 0) + count
        start = spans.column("start_unix_ns").to_numpy()
        future_s = self._layout.future_s_max
        self._times.add(spans, validate.is_outlier(start, now_unix_ns=self._now_unix_ns, future_s_max=future_s))
        self._more_keys.update(chunk.more_keys(spans))
        self._few.add(spans)
        arranged = tree.arrange(spans)
        rows = pa.table({name: schema.column(spans, name) for name in self._columns})
        rows = schema.plain(Gather(rows.combine_chunks()).rows(arranged.order, self._columns))
        rows = rows.append_column("parent_row", arranged.parent_row)
        rows = rows.append_column("outside_parent_span_id", arranged.outside_parent_span_id)
        self._rows.write(rows)
        traces = chunk.traces_of(rows)
        self._trace_ids.append(schema.fixed_bytes(traces, "trace_id", 16).copy())
        self._traces.write(traces)

    def finished(self, spans_read: int) -> Merged:
        """The chunk."""
        self._rows.close()
        self._traces.close()
        trace_ids = np.concatenate(self._trace_ids)
        return Merged(
            trace_filter=trace_filter.build(trace_ids),
            spans=self._rows.rows,
            copies=spans_read - self._rows.rows,
            traces_count=len(trace_ids),
            times=self._times,
            services=self._services[self._tenant],
            attributes=self._attributes,
            more_keys=tuple(sorted(self._more_keys)[:MORE_KEYS_MAX]),
            values=self._few.values(),
        )


def _typed(rows: pa.Table) -> pa.Table:
    """Rows read from a chunk, with the types of a span table."""
    types = {name: DISTANCES.get(name) or schema.type_of(name) for name in rows.column_names}
    return rows.cast(pa.schema(list(types.items())))


def _halves(rows: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Trace IDs as two numbers, which sort as they do."""
    ids = np.ascontiguousarray(schema.fixed_bytes(rows, "trace_id", 16)).view(">u8").astype(np.uint64)
    return ids[:, 0], ids[:, 1]

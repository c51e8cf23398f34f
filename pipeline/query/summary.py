"""What a list of traces says of each: start, end, root, spans and errors by service. From all rows of the trace."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.query.chunks import ROOT, SERVICE_SQL, ChunkReader, ChunkRef
from pipeline.query.plan import SpanSet
from pipeline.query.trace_rows import SERVICE, TraceRows
from pipeline.spans.index import NO_SERVICE
from pipeline.spans.schema import SERVICE_COLUMN, STATUS_ERROR

COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "kind",
    "start_unix_ns",
    "duration_ns",
    "status_code",
    "name",
    "record_offset",
    SERVICE_COLUMN,
    "resource_more",
)
MORE_COLUMNS = ("status_code", "record_offset")  # beside those that rows of whole traces always have
FROM_CHUNKS = "SELECT * FROM read_parquet(?, union_by_name = true, filename = true) UNION ALL BY NAME "
FROM_LIVE = (
    "SELECT *, NULL::INTEGER AS parent_row, parent_span_id AS outside_parent_span_id, NULL::VARCHAR AS filename "
    "FROM {live}"
)
# A root has no parent at all; of several the first by start, then by span ID. Of copies of a span the one at the least
# offset counts: a chunk's name starts with its offsets, and live rows lie after all chunks. Neither a chunk nor what
# is live has copies within itself, so only traces of several sources are looked through for them.
SQL = f"""
WITH spans AS (
    SELECT trace_id, span_id, coalesce(kind, 0) AS kind, start_unix_ns AS started, status_code, name,
        start_unix_ns::HUGEINT + duration_ns AS ended, {SERVICE_SQL} AS service,
        (coalesce(split_part(filename, '/', -1), '~'), record_offset) AS place,
        {ROOT} AS root,
        hash(coalesce(filename, '')) AS source
    FROM ({{source}}) WHERE trace_id IN (SELECT trace_id FROM {{ids}})
), spread AS (
    SELECT trace_id FROM spans GROUP BY trace_id HAVING min(source) <> max(source)
), once AS (
    SELECT * FROM spans ANTI JOIN spread USING (trace_id)
    UNION ALL
    SELECT * FROM spans SEMI JOIN spread USING (trace_id)
    QUALIFY row_number() OVER (PARTITION BY trace_id, span_id, kind ORDER BY place, started) = 1
), traces AS (
    SELECT trace_id, min(started) AS first, greatest(max(ended), min(started)) AS last,
        min(struct_pack(started := started, span_id := span_id, kind := kind, name := name, service := service))
            FILTER (root) AS top,
        count(*) AS spans_count, count(*) FILTER (status_code = {STATUS_ERROR}) AS errors_count
    FROM once GROUP BY trace_id
), picked AS (
    SELECT * FROM traces WHERE {{condition}} ORDER BY {{sorting}} LIMIT ?
)
SELECT trace_id, any_value(first) AS first, any_value(last)::VARCHAR AS last, any_value(top) AS top, service,
    count(*) AS spans, count(*) FILTER (status_code = {STATUS_ERROR}) AS errors
FROM once JOIN picked USING (trace_id) GROUP BY trace_id, service
"""
ANY = "true"


@dataclass(frozen=True, slots=True)
class Pick:
    """Which traces are wanted: SQL over first, last (start and end) and top (the root), its values, and how many.

    sorting: what stands behind ORDER BY.
    """

    condition: str
    values: list[Any]
    sorting: str
    limit: int

    @property
    def is_any(self) -> bool:
        """Whether nothing is asked but how many."""
        return self.condition == ANY


@dataclass(slots=True, kw_only=True)
class TraceSummary:
    """One trace of a list. has_root: a span without a parent is known; services: name -> [spans, errors].

    span_sets: what a TraceQL query found in it.
    """

    trace_id: bytes
    start_unix_ns: int
    end_unix_ns: int
    has_root: bool = False
    root_service: str = ""
    root_name: str = ""
    services: dict[str, list[int]] = field(default_factory=dict)
    span_sets: list[SpanSet] = field(default_factory=list)

    @property
    def duration_ns(self) -> int:
        """From the first start to the last end, 0 where ends lie before starts."""
        return max(0, self.end_unix_ns - self.start_unix_ns)

    @property
    def spans(self) -> int:
        """All its spans."""
        return sum(spans for spans, _ in self.services.values())

    @property
    def errors(self) -> int:
        """Its spans with status error."""
        return sum(errors for _, errors in self.services.values())


def of_whole_traces(rows: TraceRows) -> pa.Table:
    """Rows that were read for another reason, with MORE_COLUMNS, as if they were live."""
    plain = rows.table.select([name for name in COLUMNS if name != SERVICE_COLUMN])
    return plain.append_column(SERVICE_COLUMN, rows.table.column(SERVICE))


def newest_of_rows(rows: TraceRows, trace_ids: Container[bytes], limit: int) -> list[TraceSummary]:
    """What `summaries` gives of rows of whole traces with MORE_COLUMNS, newest first, where nothing else is asked."""
    if not len(rows.trace_ids):
        return []
    firsts = np.searchsorted(rows.trace, np.arange(len(rows.trace_ids) + 1))
    started = np.minimum.reduceat(rows.table.column("start_unix_ns").to_numpy(), firsts[:-1])
    ids = [one.tobytes() for one in rows.trace_ids]
    wanted = [number for number, trace_id in enumerate(ids) if trace_id in trace_ids]
    wanted.sort(key=lambda number: (-int(started[number]), ids[number]))
    return [_summary(ids[at], rows.table.slice(firsts[at], firsts[at + 1] - firsts[at])) for at in wanted[:limit]]


def _summary(trace_id: bytes, rows: pa.Table) -> TraceSummary:
    """Of one trace's rows, each span once."""
    starts, durations, statuses, names, services, parents, span_ids, kinds = (
        rows.column(name).to_pylist()
        for name in (
            *("start_unix_ns", "duration_ns", "status_code", "name", SERVICE, "parent_span_id", "span_id", "kind"),
        )
    )
    roots = [(starts[at], span_ids[at], kinds[at] or 0, at) for at, parent in enumerate(parents) if not parent]
    found = TraceSummary(
        trace_id=trace_id,
        start_unix_ns=min(starts),
        end_unix_ns=max(min(starts), *map(add, starts, durations)),
        has_root=bool(roots),
        root_name=(roots and names[min(roots)[-1]]) or "",
        root_service=(roots and services[min(roots)[-1]]) or "",
    )
    for service, status in zip(services, statuses, strict=True):
        counts = found.services.setdefault(service or NO_SERVICE, [0, 0])
        counts[0] += 1
        counts[1] += status == STATUS_ERROR
    return found


def summaries(
    reader: ChunkReader, refs: Sequence[ChunkRef], live: pa.Table, trace_ids: pa.Array, pick: Pick
) -> list[TraceSummary]:
    """Of the traces that have rows and fit, the first ones. live: their rows (others are passed over) with COLUMNS."""

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        source = (FROM_CHUNKS if urls else "") + FROM_LIVE
        text = SQL.format(source=source, condition=pick.condition, sorting=pick.sorting, ids="{ids}")
        return text, ([urls] if urls else []) + [*pick.values, pick.limit]

    rows = reader.read(refs, statement, live=live, ids=pa.table({"trace_id": trace_ids}))
    found: dict[bytes, TraceSummary] = {}
    for row in rows.to_pylist():
        trace_id, root = row["trace_id"], row["top"]
        if trace_id not in found:
            found[trace_id] = TraceSummary(
                trace_id=trace_id,
                start_unix_ns=row["first"],
                end_unix_ns=int(row["last"]),
                has_root=root is not None,
                root_name=(root and root["name"]) or "",
                root_service=(root and root["service"]) or "",
            )
        found[trace_id].services[row["service"] or NO_SERVICE] = [row["spans"], row["errors"]]
    return list(found.values())

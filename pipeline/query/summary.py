"""What a list of traces says of each: start, end, root, spans and errors by service. From all rows of the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.query.chunks import ChunkReader, ChunkRef
from pipeline.store.tables import NO_SERVICE

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
    "resource.service.name",
    "resource_more",
)
ERROR = 2
SERVICE_SQL = "coalesce(\"resource.service.name\", resource_more['service.name'].string)"
# A root has no parent at all; of several the first by start, then by span ID. Of copies of a span the one at the least
# offset counts: a chunk's name starts with its offsets, and live rows lie after all chunks.
SQL = f"""
WITH spans AS (
    SELECT trace_id, span_id, coalesce(kind, 0) AS kind, start_unix_ns AS started, status_code, name,
        start_unix_ns::HUGEINT + duration_ns AS ended, {SERVICE_SQL} AS service,
        {{place}} AS place, {{root}} AS root
    FROM ({{source}}) WHERE trace_id IN (SELECT trace_id FROM {{ids}})
), once AS (
    SELECT * FROM spans
    QUALIFY row_number() OVER (PARTITION BY trace_id, span_id, kind ORDER BY place, started) = 1
)
SELECT trace_id, service, count(*) AS spans, count(*) FILTER (status_code = {ERROR}) AS errors,
    min(started) AS started, max(ended)::VARCHAR AS ended,
    min(struct_pack(started := started, span_id := span_id, kind := kind, name := name, service := service))
        FILTER (root) AS root
FROM once GROUP BY trace_id, service
"""


@dataclass(slots=True, kw_only=True)
class TraceSummary:
    """One trace of a list. has_root: a span without a parent is known; services: name -> [spans, errors]."""

    tenant: str
    trace_id: bytes
    start_unix_ns: int = 2**64
    end_unix_ns: int = -(2**64)
    has_root: bool = False
    root_service: str = ""
    root_name: str = ""
    services: dict[str, list[int]] = field(default_factory=dict)

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

    def order(self) -> tuple[int, bytes]:
        """Newest first, then by trace ID."""
        return -self.start_unix_ns, self.trace_id


def summaries(
    reader: ChunkReader, refs: Sequence[ChunkRef], live: pa.Table, trace_ids: pa.Array, tenant: str
) -> list[TraceSummary]:
    """Summaries of the traces that have rows. live: their rows with COLUMNS."""

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        return _sql(bool(urls)), [urls] if urls else []

    rows = reader.read(refs, statement, live=live, ids=pa.table({"trace_id": trace_ids}))
    found: dict[bytes, TraceSummary] = {}
    roots: dict[bytes, tuple[Any, ...]] = {}
    for row in rows.to_pylist():
        trace = found.setdefault(row["trace_id"], TraceSummary(tenant=tenant, trace_id=row["trace_id"]))
        trace.start_unix_ns = min(trace.start_unix_ns, row["started"])
        trace.end_unix_ns = max(trace.end_unix_ns, int(row["ended"]))
        counts = trace.services.setdefault(row["service"] or NO_SERVICE, [0, 0])
        counts[0] += row["spans"]
        counts[1] += row["errors"]
        if (root := row["root"]) is not None:
            key = root["started"], root["span_id"], root["kind"]
            if trace.trace_id not in roots or key < roots[trace.trace_id]:
                roots[trace.trace_id] = key
                trace.has_root = True
                trace.root_name, trace.root_service = root["name"] or "", root["service"] or ""
    return list(found.values())


def _sql(with_chunks: bool) -> str:
    live = (
        "SELECT *, NULL::INTEGER AS parent_row, parent_span_id AS outside_parent_span_id, NULL::VARCHAR AS filename "
        "FROM {live}"
    )
    chunks = "SELECT * FROM read_parquet(?, union_by_name = true, filename = true) UNION ALL BY NAME "
    return SQL.format(
        source=(chunks if with_chunks else "") + live,
        root="parent_row IS NULL AND coalesce(octet_length(outside_parent_span_id), 0) = 0",
        place="(coalesce(split_part(filename, '/', -1), '~'), record_offset)",
        ids="{ids}",
    )

"""Spans of a file, asked as a querier is: for `spanstream tui --from`."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.commands.waterfall import ERROR, Row, rows_of
from pipeline.receive.otlp_json import to_protobuf
from pipeline.spans import to_otlp
from pipeline.store.chunk import decode_rows
from topics.errors import BadQuestionError, MalformedRequestError, NotFoundError, SpanstreamError

VALUES_MAX = 50_000_000
PARQUET_MAGIC = b"PAR1"
proto: Any = trace_pb2


def read_spans(file: Path, bytes_max: int) -> Any:
    """TracesData of a Parquet chunk or export, or of OTLP JSON (one document, or one a line). BadQuestionError."""
    if file.stat().st_size > bytes_max:
        raise BadQuestionError(
            f"{file} is larger than terminal.tui_file_bytes_max ({bytes_max} bytes): raise it, or export fewer traces:"
            " `spanstream export --limit`"
        )
    body = file.read_bytes()
    try:
        if body.startswith(PARQUET_MAGIC):
            rows = pq.read_table(pa.BufferReader(body))
            return to_otlp.to_proto(decode_rows(rows) if "parent_row" in rows.column_names else rows)
        return _json(body)
    except (SpanstreamError, pa.ArrowException, KeyError) as exc:
        raise BadQuestionError(f"{file} holds no spans that can be read: {exc}") from exc


def _json(body: bytes) -> Any:
    """Repeated fields of messages that follow each other are one message's."""
    lines = body.splitlines()
    one_a_line = bool(lines) and lines[0].strip().endswith(b"}") and lines[0].strip().startswith(b"{")
    parts = [line for line in lines if line.strip()] if one_a_line else [body]
    read = [to_protobuf(part, VALUES_MAX) for part in parts]
    if rejected := [reason for _, reasons, _ in read for reason in reasons]:
        raise MalformedRequestError(", ".join(dict.fromkeys(rejected)))
    return proto.TracesData.FromString(b"".join(data for data, _, _ in read))


class FileSource:
    """The traces of a file. A search looks for a text in names, services and IDs: TraceQL needs a querier."""

    live = False

    def __init__(self, name: str, traces_data: Any) -> None:
        self.name = name
        self._traces: dict[str, Any] = defaultdict(proto.TracesData)
        for resource in traces_data.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    part = self._traces[span.trace_id.hex()].resource_spans.add(resource=resource.resource)
                    part.scope_spans.add(scope=scope.scope).spans.append(span)
        self._rows = {trace_id: rows_of(data) for trace_id, data in self._traces.items()}

    def search(self, query: str) -> list[dict[str, Any]]:
        """Newest first, as /api/search tells them."""
        wanted = query.strip().lower().strip("{}").strip()
        found = [
            summary_of_rows(trace_id, rows)
            for trace_id, rows in self._rows.items()
            if not wanted or wanted in trace_id or any(wanted in f"{r.service} {r.span.name}".lower() for r in rows)
        ]
        return sorted(found, key=lambda one: -int(one["startTimeUnixNano"]))

    def trace(self, trace_id: str) -> Any:
        """TracesData of one trace."""
        if trace_id.zfill(32) not in self._traces:
            raise NotFoundError(f"no span of trace {trace_id} is in {self.name}")
        return self._traces[trace_id.zfill(32)]

    def services(self) -> dict[str, dict[str, int]]:
        """Service -> operation -> spans."""
        found: dict[str, dict[str, int]] = defaultdict(Counter)
        for rows in self._rows.values():
            for row in rows:
                found[row.service][row.span.name] += 1
        return found


def summary_of_rows(trace_id: str, rows: list[Row]) -> dict[str, Any]:
    """A trace as /api/search tells it."""
    stats: dict[str, dict[str, int]] = {}
    for row in rows:
        one = stats.setdefault(row.service, {"spanCount": 0, "errorCount": 0})
        one["spanCount"] += 1
        one["errorCount"] += row.span.status.code == ERROR
    start = min(row.span.start_time_unix_nano for row in rows)
    end = max(row.span.end_time_unix_nano for row in rows)
    return {
        "traceID": trace_id,
        "rootServiceName": rows[0].service,
        "rootTraceName": rows[0].span.name,
        "startTimeUnixNano": str(start),
        "durationMs": (end - start) // 10**6,
        "serviceStats": stats,
    }

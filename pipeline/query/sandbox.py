"""A DuckDB of one question: it reads the question's chunks and tables, and nothing else, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.query.chunks import ROOT, SERVICE_SQL
from pipeline.query.engine import create_secret, load_httpfs, wait_within
from pipeline.query.statement import LIVE
from pipeline.spans import schema
from pipeline.traceql.tree import KINDS, STATUSES
from topics.settings import QuerierSettings, StoreSettings

REPLACED = (
    *("tenant", "record_offset", "trace_id", "span_id", "parent_span_id", "start_unix_ns", "duration_ns", "name"),
    *("kind", "status_code", "parent_row", "outside_parent_span_id", "filename", "file_row_number"),
)
BASE_COLUMNS = (*schema.FIXED, schema.SERVICE_COLUMN, "resource_more")
TRACES = """
SELECT tenant, trace_id, try_cast(min(start_unix_ns) AS BIGINT).make_timestamp_ns() AS start_time,
    min(start_unix_ns) AS start_unix_ns,
    (max(start_unix_ns::HUGEINT + greatest(duration_ns, 0)) - min(start_unix_ns))::BIGINT AS duration_ns,
    count(*) AS spans, count(*) FILTER (status = 'error') AS errors,
    arg_min(name, start_unix_ns) FILTER (is_root) AS root_name,
    arg_min(service, start_unix_ns) FILTER (is_root) AS root_service,
    list_sort(list(DISTINCT service)) AS services
FROM spans GROUP BY tenant, trace_id
"""


@dataclass(frozen=True, slots=True)
class TenantRows:
    """What one tenant's rows of a snapshot are made of. live: with BASE_COLUMNS and others; reasons: why they may be
    wrong.
    """

    tenant: str
    urls: Sequence[str]
    live: pa.Table
    reasons: Sequence[str] = ()


def sandbox(
    rows: Sequence[TenantRows],
    range_ns: tuple[int, int],
    querier: QuerierSettings,
    store: StoreSettings,
    *,
    parents: bool,
) -> duckdb.DuckDBPyConnection:
    """A database with the views `spans` and `traces`. What is set last cannot be set back. Raises duckdb.Error."""
    config: dict[str, Any] = {
        "memory_limit": f"{querier.sql_memory_bytes_max >> 10}KiB",
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    if querier.threads:
        config["threads"] = querier.threads
    connection = duckdb.connect(config=config)
    urls = [url for one in rows for url in one.urls]
    if urls:
        load_httpfs(connection)
        create_secret(connection, store)
        wait_within(connection, querier, store)
        connection.execute(f"SET allowed_paths = {_list(urls)}")
    connection.execute("SET enable_external_access = false")
    for number, one in enumerate(rows):
        connection.register(f"{LIVE}{number}", one.live)
    parts = " UNION ALL BY NAME ".join(
        _spans(one, f"{LIVE}{number}", range_ns, parents=parents) for number, one in enumerate(rows)
    )
    connection.execute(f"CREATE VIEW spans AS {parts}")
    connection.execute(f"CREATE VIEW traces AS {TRACES}")
    connection.execute("SET lock_configuration = true")
    return connection


def _spans(rows: TenantRows, live: str, range_ns: tuple[int, int], *, parents: bool) -> str:
    parent, joined = "", ""
    if parents:
        parent, joined = _parents(rows.urls)
    return (
        f"SELECT {_text(rows.tenant)} AS tenant, lower(hex(r.trace_id)) AS trace_id, lower(hex(r.span_id)) AS span_id, "
        f"{parent}make_timestamp_ns(try_cast(r.start_unix_ns AS BIGINT)) AS start_time, r.start_unix_ns, "
        "r.duration_ns, r.duration_ns / 1e6 AS duration_ms, coalesce(r.name, '') AS name, "
        f"{_word(KINDS, 'r.kind')} AS kind, {_word(STATUSES, 'r.status_code')} AS status, "
        f"coalesce({SERVICE_SQL}, '') AS service, ({ROOT} AND coalesce(octet_length(r.parent_span_id), 0) = 0) "
        f"AS is_root, r.* EXCLUDE ({', '.join(REPLACED)}) FROM ({_all_rows(rows.urls, live)}) r{joined} "
        f"WHERE r.start_unix_ns BETWEEN {int(range_ns[0])} AND {int(range_ns[1])}"
    )


def _all_rows(urls: Sequence[str], live: str) -> str:
    chunks = f"SELECT * FROM {_chunks(urls)} UNION ALL BY NAME " if urls else ""
    nothing: Mapping[str, str] = {
        "parent_row": "INTEGER",
        "outside_parent_span_id": "BLOB",
        "filename": "VARCHAR",
        "file_row_number": "BIGINT",
    }
    return f"{chunks}SELECT *, {', '.join(f'NULL::{type_} AS {name}' for name, type_ in nothing.items())} FROM {live}"


def _chunks(urls: Sequence[str]) -> str:
    return f"read_parquet({_list(urls)}, union_by_name = true, filename = true, file_row_number = true)"


def _parents(urls: Sequence[str]) -> tuple[str, str]:
    """Chunks say how far up a parent stands: its ID is joined from there."""
    of_row = "coalesce(r.outside_parent_span_id, r.parent_span_id)"
    if not urls:
        return f"nullif(lower(hex({of_row})), '') AS parent_span_id, ", ""
    joined = (
        f" LEFT JOIN (SELECT filename, file_row_number, span_id AS parent_id FROM {_chunks(urls)}) p "
        "ON p.filename = r.filename AND p.file_row_number = r.file_row_number - r.parent_row"
    )
    return f"nullif(lower(hex(coalesce(p.parent_id, {of_row}))), '') AS parent_span_id, ", joined


def _word(words: Sequence[str], column: str) -> str:
    return f"coalesce({_list(words)}[coalesce({column}, 0) + 1], {_text(words[0])})"


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

"""Exports: a file that is whole or not there, in formats that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.commands.export import export
from tests.agents.commands.answers import Answers
from tests.agents.commands.test_tags_diff_tail import serve_trace, trace_of

proto: Any = trace_pb2


def two_traces(text: str = "a") -> None:
    """The second has an attribute that the first lacks."""
    first, second = trace_of(1, [("root", 100, 0), ("db", 5, 0)]), trace_of(2, [("root", 7, 2)])
    attribute = second.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="user")
    attribute.value.string_value = text
    serve_trace(1, first)
    serve_trace(2, second)
    Answers.table["/api/search"] = (200, json.dumps({"traces": [{"traceID": "2"}, {"traceID": "1"}]}).encode())


def run(querier: str, file: Path, *more: str) -> Any:
    return CliRunner().invoke(export, [str(file), "--url", querier, *more])


def test_a_folder_that_takes_no_file_is_a_sentence(querier: str) -> None:
    told = run(querier, Path("/proc/x.json"))

    assert told.exit_code == 1
    assert told.stderr.startswith("/proc/.x.json.")
    assert told.stderr.endswith(".part: No such file or directory\n")


def test_parquet_has_the_columns_of_all_portions(querier: str, tmp_path: Path) -> None:
    two_traces(text="a" * 1024)  # each a portion

    told = run(querier, tmp_path / "x.parquet", "--json", "--terminal-export-portion-bytes", "1024")

    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["spans"] == 3
    rows = duckdb.sql(f"SELECT name, duration_ns, \"span.user\" FROM '{tmp_path}/x.parquet' ORDER BY 2").fetchall()
    assert rows == [("db", 5 * 10**6, None), ("root", 7 * 10**6, "a" * 1024), ("root", 100 * 10**6, None)]
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_otlp_is_one_message_and_json_a_message_a_line(querier: str, tmp_path: Path) -> None:
    two_traces()

    assert run(querier, tmp_path / "x.otlp").exit_code == 0
    assert run(querier, tmp_path / "x.json").exit_code == 0
    assert run(querier, tmp_path / "x.jsonl").exit_code == 0

    data = proto.TracesData.FromString((tmp_path / "x.otlp").read_bytes())
    assert [len(one.scope_spans[0].spans) for one in data.resource_spans] == [1, 2]
    lines = [json.loads(line) for line in (tmp_path / "x.json").read_text().splitlines()]
    assert lines[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] == f"{2:032x}"
    spans = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [span["name"] for span in spans] == ["root", "root", "db"]


@pytest.mark.parametrize("kind", ["parquet", "otlp", "json", "jsonl"])
def test_nothing_is_left_of_an_export_that_fails(querier: str, tmp_path: Path, kind: str) -> None:
    two_traces()
    Answers.table[f"/api/v2/traces/{1:032x}"] = (503, b"away")

    assert run(querier, tmp_path / f"x.{kind}").exit_code == 1

    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_replaced_on_demand_only(querier: str, tmp_path: Path) -> None:
    two_traces()
    file = tmp_path / "x.otlp"
    file.write_bytes(b"mine")

    refused = run(querier, file)

    assert refused.exit_code == 2
    assert file.read_bytes() == b"mine"
    assert run(querier, file, "--force").exit_code == 0
    assert file.read_bytes() != b"mine"


def test_a_name_that_says_no_format_is_refused(querier: str, tmp_path: Path) -> None:
    assert "--format" in run(querier, tmp_path / "x.csv").stderr


def test_where_there_is_no_terminal_nothing_is_drawn(querier: str, tmp_path: Path) -> None:
    two_traces()

    assert run(querier, tmp_path / "x.otlp").stderr.splitlines()[0].startswith(f"{tmp_path}/x.otlp: 2 traces")

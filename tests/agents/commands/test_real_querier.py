"""The asking commands against a real querier with the shop's spans."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from agents.cli import load_command
from tests.queriers import querier
from tests.shop_stack import ShopStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
BY_SERVICE = "SELECT service, count(*) AS spans, max(start_time) AS last FROM spans GROUP BY ALL ORDER BY 2 DESC, 1"


def run(shop: ShopStack, *words: str, **options: Any) -> Result:
    return CliRunner().invoke(load_command(words[0]), [*words[1:], "--url", shop.url], **options)


def answered(shop: ShopStack, *words: str, **options: Any) -> Result:
    done = run(shop, *words, **options)
    assert done.exit_code == 0, done.output
    return done


# ---- sql


def test_rows_are_a_table_on_a_terminal_and_the_same_in_every_form(shop: ShopStack) -> None:
    rows = json.loads(answered(shop, "sql", BY_SERVICE, "--json").stdout)["rows"]

    table = answered(shop, "sql", BY_SERVICE).stdout.splitlines()
    lines = answered(shop, "sql", BY_SERVICE, "--format", "ndjson").stdout.splitlines()
    cells = list(csv.reader(io.StringIO(answered(shop, "sql", BY_SERVICE, "--format", "csv").stdout, newline="")))
    arrow = pa.ipc.open_stream(answered(shop, "sql", BY_SERVICE, "--format", "arrow").stdout_bytes).read_all()

    assert sum(row[1] for row in rows) == shop.shop.spans
    assert table[0].split() == ["service", "spans", "last"]
    assert table[1].split()[:2] == [rows[0][0], str(rows[0][1])]
    assert [list(json.loads(line).values()) for line in lines] == rows
    assert [row[:2] for row in cells[1:]] == [[row[0], str(row[1])] for row in rows]
    assert arrow.column("spans").to_pylist() == [row[1] for row in rows]


def test_sql_is_read_from_stdin_and_long_tables_are_cut_with_a_hint(shop: ShopStack) -> None:
    done = answered(shop, "sql", "-", "--rows", "3", input="SELECT name FROM spans ORDER BY name")

    assert len(done.stdout.splitlines()) == 1 + 3
    assert "--rows" in done.stderr


def test_wrong_sql_ends_with_the_queriers_sentence(shop: ShopStack) -> None:
    for form in ("table", "csv"):
        done = run(shop, "sql", "SELECT nothing FROM spans", "--format", form)
        assert (done.exit_code, done.stdout) == (2, "")
        assert '"nothing"' in done.stderr


def test_an_answer_above_the_limit_breaks_off_with_a_sentence(shop: ShopStack, tmp_path: Path) -> None:
    own = shop.settings.querier.model_copy(update={"sql_bytes_max": 1 << 20})
    with querier(shop.settings.model_copy(update={"querier": own}), tmp_path) as url:
        asked = ["SELECT repeat('x', 1000) FROM range(20000)", "--format", "csv", "--url", url]
        done = CliRunner().invoke(load_command("sql"), asked)

    assert done.exit_code == 1
    assert "limit of bytes or time" in done.stderr


def test_control_characters_of_strangers_steer_no_terminal(shop: ShopStack) -> None:
    told = answered(shop, "sql", "SELECT chr(27) || '[2J' AS odd, chr(27) AS \"\x1b[31m\"").stdout

    assert "\x1b" not in told


# ---- explain


def test_explain_tells_plan_chunks_and_steps(shop: ShopStack) -> None:
    told = answered(shop, "explain", '{ resource.service.name = "payment" && status = error }', "--sql").stdout

    assert "the 20 newest traces, decided by single rows" in told
    assert "rows in it may match" in told
    assert "traces with a row that may match" in told
    assert "SELECT" in told


def test_explain_takes_metrics_queries_and_tells_scripts_all(shop: ShopStack) -> None:
    told = json.loads(answered(shop, "explain", "{} | rate() by (name)", "--json").stdout)

    assert told["plan"]["kind"] == "metrics"
    assert told["chunks"]["known"] == len(told["chunks"]["list"]) > 0
    assert told["answer"]["series"] > 5
    assert told["complete"]


def test_what_cannot_be_explained_ends_with_the_queriers_sentence(shop: ShopStack) -> None:
    done = run(shop, "explain", "{ status == error }")

    assert done.exit_code == 2
    assert "invalid TraceQL query" in done.stderr

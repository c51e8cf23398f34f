"""The asking commands against a real querier with the shop's spans."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from textual.widgets import DataTable, Static

from agents.cli import load_command
from agents.commands.querier import Querier
from agents.commands.tui import QuerierSource
from agents.commands.tui_app import Details, TracesApp, Waterfall
from tests.browser.shop import ShopData, order, send
from tests.queriers import querier
from tests.shop_stack import ShopStack
from tests.waiting import wait_until_async
from topics.settings import Settings, TerminalSettings

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


# ---- tail, export, tui: within their settings


def test_tail_tells_what_arrives_once_and_no_more_than_its_settings_say(shop: ShopStack) -> None:
    rng, sent = random.Random(1), list[str]()
    following = threading.Timer(1.0, lambda: sent.extend(_send_orders(shop, rng, 3)))
    following.start()

    flags = ("--for", "6", "--json", "--terminal-tail-every-s", "0.5", "--terminal-tail-reach-s", "600")
    done = answered(shop, "tail", "{ name = `POST /orders` && status != error }", *flags)

    following.join()
    told = [json.loads(line)["traceID"] for line in done.stdout.splitlines()]
    assert set(sent) <= set(told)
    assert len(told) == len(set(told))


def test_tail_hears_and_tells_no_more_than_it_may(shop: ShopStack) -> None:
    _send_orders(shop, random.Random(2), 3)
    flags = ("--for", "0", "--json", "--terminal-tail-traces-max", "2", "--rate")

    done = answered(shop, "tail", "{}", *flags, "1")
    refused = run(shop, "tail", "{}", *flags, "3")

    assert len(done.stdout.splitlines()) <= 1
    assert (refused.exit_code, "terminal.tail_traces_max (2)" in refused.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["parquet", "otlp", "json", "jsonl"])
def test_an_export_has_every_span_whatever_the_size_of_pages_and_portions(
    shop: ShopStack, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / f"failed.{kind}"
    pages = ("--terminal-export-page-traces", "7", "--terminal-export-portion-bytes", "2000")

    told = json.loads(answered(shop, "export", str(file), "--q", "{ status = error }", *pages, "--json").stdout)

    failed = set(shop.shop.failed)
    assert (told["traces"], told["spans"], told["partial"]) == (len(failed), 7 * len(failed), 0)
    if kind == "parquet":
        ids = pq.read_table(file, columns=["trace_id"]).column(0).to_pylist()
        assert (len(ids), {one.hex() for one in ids}) == (7 * len(failed), failed)
    elif kind != "otlp":
        text = file.read_text()
        assert all(trace_id in text for trace_id in failed)


def test_a_rare_attribute_beyond_the_columns_of_an_export_is_kept_in_its_map(shop: ShopStack, tmp_path: Path) -> None:
    file = tmp_path / "few.parquet"

    few = ("--terminal-export-attribute-columns-max", "1")
    answered(shop, "export", str(file), "--q", "{ name = `charge card` }", "--limit", "2", *few)

    columns = pq.read_schema(file).names
    assert "span_more" in columns
    assert "payment.provider" in str(pq.read_table(file).column("span_more").to_pylist())


def test_the_terminal_interface_shows_no_more_than_its_settings_say(shop: ShopStack) -> None:
    limits = TerminalSettings(tui_traces_max=5, tui_spans_max=2, tui_value_chars_max=7)

    async def main() -> None:
        with Querier(shop.url, settings=Settings(terminal=limits)) as asked:
            app = TracesApp(QuerierSource(asked, 3600), limits)
            async with app.run_test(size=(100, 30)) as pilot:
                await wait_until_async(lambda: [one.row_count for one in app.screen.query(DataTable)] == [5], 30)
                await pilot.press("slash", *"{ status = error }", "enter")
                await wait_until_async(lambda: "5 traces" in str(app.query_one("#status", Static).render()), 30)
                app._open(shop.shop.slow)
                await wait_until_async(lambda: isinstance(app.screen, Waterfall), 30)
                await wait_until_async(lambda: [one.row_count for one in app.screen.query(DataTable)] == [2], 30)
                await pilot.press("enter")
                await wait_until_async(lambda: isinstance(app.screen, Details) and app.screen.query("#details"), 30)
                text = str(app.screen.query_one("#details", Static).render())
                assert "service.name fronten\n" in text

    asyncio.run(main())


def _send_orders(shop: ShopStack, rng: random.Random, count: int) -> list[str]:
    """Orders of this moment that do not fail."""
    data = ShopData(started_unix_ns=0)
    now = time.time_ns()
    send(shop.otlp_url, [order(rng, now - 10**9, now + 3600 * 10**9, data) for _ in range(count)])
    return data.good

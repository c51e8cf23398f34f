"""The Python client against a real querier: answers as objects, tables and HTML, and errors with its sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import httpx
import polars as pl
import pyarrow as pa
import pytest

import spanstream
from infra.ports import free_port
from tests.browser.shop import HOSTILE_NAMES, ShopData
from tests.doors import locked, new_token
from tests.pages import ROOT
from tests.queriers import querier
from tests.shop_stack import ShopStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ERRORS = "{ status = error }"
HARMLESS_TAGS = {
    *("div", "table", "thead", "tbody", "tr", "th", "td", "small", "b", "i", "span", "code", "svg", "polyline"),
}


@pytest.fixture
def client(shop: ShopStack) -> Iterator[spanstream.Client]:
    with spanstream.connect(shop.url) as opened:
        yield opened


class Seen(HTMLParser):
    """What a browser would make of HTML: its tags, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


# ---- search


def test_a_search_gives_the_traces_of_the_api_in_its_order(client: spanstream.Client, shop: ShopStack) -> None:
    asked = {"q": ERRORS, "since": "1h", "limit": 30}
    told = httpx.get(f"{shop.url}/api/search", params=asked, timeout=30).json()["traces"]

    found = client.search(ERRORS, limit=30)

    assert [one.trace_id for one in found] == [one["traceID"] for one in told]
    assert {one.trace_id for one in found} <= set(shop.shop.failed)
    first = found[0]
    assert (first.root_service, first.root_name, first.matched) == ("frontend", "POST /orders", 3)
    assert (first.spans, first.errors, set(first.services)) == (7, 3, {"frontend", "checkout", "inventory", "payment"})
    assert first.start_unix_ns == int(told[0]["startTimeUnixNano"])
    assert found.complete
    assert not found.message


def test_pages_joined_by_their_cursors_are_the_whole(client: spanstream.Client, shop: ShopStack) -> None:
    end = time.time()
    start, pages, cursor = end - 3600, list[str](), ""
    while True:
        found = client.search(ERRORS, start=start, end=end, limit=7, cursor=cursor)
        pages += [one.trace_id for one in found]
        if not (cursor := found.next_cursor):
            break

    assert sorted(pages) == sorted(shop.shop.failed)


def test_selected_attributes_come_with_the_found_spans(client: spanstream.Client) -> None:
    found = client.search("{ span.payment.amount > 0 } | select(span.payment.provider, span.payment.retried)", limit=1)

    (span,) = found[0].found
    assert isinstance(span["payment.provider"], str)
    assert span["payment.retried"] is False
    assert span["duration_ns"] > 0


# ---- a trace


def test_a_trace_is_its_spans_in_the_order_of_the_tree(client: spanstream.Client, shop: ShopStack) -> None:
    trace = client.trace(shop.shop.slow.upper())

    assert [(span.depth, span.service, span.name, span.kind) for span in trace] == [
        (0, "frontend", "POST /orders", "server"),
        (1, "checkout", "POST /checkout", "server"),
        (2, "inventory", "POST /reserve", "server"),
        (3, "inventory", "SELECT stock", "client"),
    ]
    assert trace.duration_ns == 2600 * 10**6
    assert trace[3].attributes["db.system.name"] == "postgresql"
    assert trace[3].resource["service.version"] == "1.4.2"
    assert [span.parent_span_id for span in trace] == ["", *(span.span_id for span in trace[:3])]


def test_a_failed_span_has_its_status_and_its_event(client: spanstream.Client, shop: ShopStack) -> None:
    trace = client.trace(shop.shop.failed[0])

    (span,) = [one for one in trace if one.name == "charge card"]
    assert (span.status, span.status_message) == ("error", "the bank did not answer in 300 ms")
    assert (span.events[0]["name"], span.events[0]["attributes"]["exception.type"]) == ("exception", "TimeoutError")


def test_a_trace_as_a_table_has_a_column_an_attribute(client: spanstream.Client, shop: ShopStack) -> None:
    table = client.trace(shop.shop.failed[0]).arrow()

    assert table.num_rows == 7
    (row,) = [one for one in table.to_pylist() if one["name"] == "charge card"]
    assert isinstance(row["span.payment.amount"], float)
    assert row["span.payment.retried"] is False
    assert row["resource.service.version"] == "2.1.0"
    assert json.loads(row["events"])[0]["name"] == "exception"
    assert str(table.schema.field("start").type) == "timestamp[ns, tz=UTC]"


# ---- metrics


def test_series_have_labels_times_and_values(client: spanstream.Client, shop: ShopStack) -> None:
    counted = client.metrics("{ name = `charge card` } | count_over_time() by (status)", since="1h", step="1m")

    totals = {one.labels["status"]: sum(one.values) for one in counted}
    assert totals["error"] == len(shop.shop.failed)
    assert all(len(one.times_ms) == len(one.values) for one in counted)
    table = counted.arrow()
    assert table.column_names == ["time", "value", "status"]
    assert table.num_rows == sum(len(one.values) for one in counted)


def test_an_instant_has_one_value_a_series(client: spanstream.Client, shop: ShopStack) -> None:
    (only,) = client.metrics("{ status = error && name = `charge card` } | count_over_time()", instant=True)

    assert (only.times_ms, only.values) == ((), (float(len(shop.shop.failed)),))


def test_a_range_is_told_by_datetimes_too(client: spanstream.Client) -> None:
    now = datetime.now(UTC)

    long = client.metrics("{} | count_over_time()", start=now - timedelta(hours=1), end=now, instant=True)
    short = client.metrics("{} | count_over_time()", start=now - timedelta(minutes=5), end=now, instant=True)

    assert 0 < short[0].values[0] < long[0].values[0]


def test_a_range_of_metrics_ends_where_it_is_said_to(client: spanstream.Client) -> None:
    starts = [row["start_unix_ns"] for row in client.sql("SELECT start_unix_ns FROM spans ORDER BY start_unix_ns")]
    end = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=starts[len(starts) // 2] // 1000)
    start, step = end - timedelta(minutes=7), timedelta(microseconds=1)

    (counted,) = client.metrics("{} | count_over_time()", start=start, end=end, instant=True)

    low, high = ((one - datetime.fromtimestamp(0, UTC)) // step * 1000 for one in (start, end))
    assert counted.values == (sum(low < one <= high for one in starts),)


# ---- SQL and tables


def test_rows_of_sql_keep_their_types(client: spanstream.Client, shop: ShopStack) -> None:
    rows = client.sql("SELECT count(*) AS n, max(start_time) AS last, [1, 2] AS list FROM spans")

    assert (len(rows), rows.columns) == (1, ["n", "last", "list"])
    (row,) = rows
    assert (row["n"], row["list"]) == (shop.shop.spans, [1, 2])
    assert str(rows.arrow().schema.field("last").type) == "timestamp[ns]"


def every_answer(client: spanstream.Client, shop: ShopStack) -> dict[str, Any]:
    return {
        "search": client.search("{}", limit=100),
        "trace": client.trace(shop.shop.hostile),
        "metrics": client.metrics("{} | rate() by (resource.service.name)", since="30m", step="1m"),
        "sql": client.sql("SELECT * FROM spans"),
    }


@pytest.mark.parametrize("kind", ["search", "trace", "metrics", "sql"])
def test_every_answer_becomes_a_frame_of_pandas_and_of_polars(
    client: spanstream.Client, shop: ShopStack, kind: str
) -> None:
    answer = every_answer(client, shop)[kind]
    table = answer.arrow()

    pandas, polars = answer.pandas(), answer.polars()

    assert table.num_rows > 5
    assert pandas.shape == polars.shape == (table.num_rows, table.num_columns)
    assert list(pandas.columns) == polars.columns == table.column_names
    assert polars.to_arrow().column(0).to_pylist() == table.column(0).to_pylist()


def test_what_reads_arrows_c_stream_takes_an_answer_as_it_is(client: spanstream.Client, shop: ShopStack) -> None:
    trace = client.trace(shop.shop.slow)

    assert pa.table(trace).num_rows == pl.DataFrame(trace).height == 4
    assert duckdb.from_arrow(pa.table(trace)).count("*").fetchall() == [(4,)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, _: client.search("{ name =~ `<.*` }"),
        lambda client, shop: client.trace(shop.hostile),
        lambda client, _: client.metrics("{ name =~ `<.*` } | rate() by (name)"),
        lambda client, _: client.sql("SELECT name, service FROM spans WHERE name LIKE '<%'"),
    ],
    ids=["search", "trace", "metrics", "sql"],
)
def test_a_notebook_shows_a_table_in_which_hostile_names_are_text(
    client: spanstream.Client, shop: ShopStack, ask: Callable[[spanstream.Client, ShopData], Any]
) -> None:
    seen = Seen(ask(client, shop.shop)._repr_html_())

    assert "table" in seen.tags
    assert seen.tags <= HARMLESS_TAGS
    assert not seen.handlers
    assert HOSTILE_NAMES[0] in seen.text


# ---- errors


def test_errors_have_the_queriers_sentence_and_status(client: spanstream.Client, shop: ShopStack) -> None:
    for ask, asked in (
        (lambda: client.search("{ status == error }"), {"q": "{ status == error }"}),
        (lambda: client.search("{}", limit=10**6), {"q": "{}", "limit": 10**6}),
    ):
        with pytest.raises(spanstream.BadQuestionError) as caught:
            ask()
        told = httpx.get(f"{shop.url}/api/search", params={**asked, "since": "1h"}, timeout=30)
        assert (str(caught.value), caught.value.status) == (told.text.strip(), 400)
    with pytest.raises(spanstream.BadQuestionError, match="SELECT"):
        client.sql("DELETE FROM spans")
    with pytest.raises(spanstream.BadQuestionError, match="metrics function"):
        client.metrics("{}")


def test_a_trace_that_nobody_knows_and_an_id_that_is_none_are_told(client: spanstream.Client) -> None:
    with pytest.raises(spanstream.NotFoundError, match="0abc is known"):
        client.trace("abc")
    with pytest.raises(spanstream.BadQuestionError, match="no trace ID"):
        client.trace("xyz")


def test_wrong_times_are_told_before_anything_is_asked(client: spanstream.Client) -> None:
    with pytest.raises(spanstream.BadQuestionError, match="time zone"):
        client.search("{}", start=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(spanstream.BadQuestionError, match="start"):
        client.sql("SELECT 1", end=1.0)


def test_where_no_querier_answers_the_error_names_the_url() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with spanstream.connect(url) as client, pytest.raises(spanstream.UnavailableError, match=re.escape(url)):
        client.search("{}")
    with pytest.raises(spanstream.BadQuestionError, match="no URL"):
        spanstream.connect("127.0.0.1:3200")


def test_a_token_and_a_tenant_open_the_door(shop: ShopStack, tmp_path: Path) -> None:
    doors = locked(tmp_path, tls=False)
    token = new_token(tmp_path / "tokens.json", "read", tenants=("single-tenant",))
    several = shop.settings.receiver.model_copy(update={"multitenancy": True})
    with querier(shop.settings.model_copy(update={"doors": doors, "receiver": several}), tmp_path) as url:
        for shown, status in (({}, 401), ({"token": token, "tenant": "other"}, 403)):
            with spanstream.connect(url, **shown) as client, pytest.raises(spanstream.NotAllowedError) as caught:
                client.search("{}")
            assert caught.value.status == status
        with spanstream.connect(url, token=token, tenant="single-tenant") as client:
            assert len(client.search("{}")) == 20


# ---- the module and its page


def test_importing_and_connecting_loads_no_table_library() -> None:
    code = "import spanstream, sys; spanstream.connect(); print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    roots = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert not roots & {"pyarrow", "pandas", "polars", "numpy", "duckdb", "topics", "pipeline", "agents", "infra"}


def test_the_examples_of_the_page_run(shop: ShopStack, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}

    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:3200", shop.url), "docs/python.md", "exec"), names)

    names["client"].close()
    assert len(blocks) >= 8
    assert all(len(names[answer]) for answer in ("failed", "slowest", "trace", "rates", "p99", "rows", "before"))
    assert "invalid TraceQL query: parse error at line 1, col 10" in capsys.readouterr().out

"""The terminal interface, over files and over a querier, by its keys."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from agents.commands.ask import otlp_json
from agents.commands.file_source import FileSource, read_spans
from agents.commands.tui_app import Details, Keys, Services, TracesApp, Waterfall
from pipeline.spans import from_otlp
from pipeline.spans.record import Record
from tests.agents.commands.test_tags_diff_tail import trace_of
from tests.waiting import wait_until, wait_until_async
from topics.errors import BadQuestionError, QuerierUnavailableError
from topics.settings import TerminalSettings

LIMITS = TerminalSettings()
FILE_BYTES_MAX = LIMITS.tui_file_bytes_max


def shop() -> Any:
    """Two traces; the second fails in its third span, which has what a terminal must not obey."""
    data = trace_of(1, [("GET /cart", 100, 0)])
    second = trace_of(2, [("POST /pay", 300, 0), ("lookup", 20, 0), ("charge", 200, 2)])
    attribute = second.resource_spans[0].scope_spans[0].spans[2].attributes.add(key="card[bold]")
    attribute.value.string_value = "\x1b[2Jvisa"
    data.MergeFrom(second)
    return data


def driven(source: Any, test: Callable[[TracesApp, Pilot[None]], Awaitable[None]]) -> None:
    async def main() -> None:
        app = TracesApp(source, LIMITS)
        async with app.run_test(size=(80, 24)) as pilot:
            await test(app, pilot)

    asyncio.run(main())


async def shown(app: TracesApp, rows: int) -> None:
    await wait_until_async(lambda: app.screen.query_one(DataTable).row_count == rows)


def test_from_the_list_to_a_failed_span_and_back_by_keys() -> None:
    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await shown(app, 2)
        await pilot.press("slash", *"charge", "enter")
        await shown(app, 1)
        await pilot.press("enter")
        await wait_until_async(lambda: isinstance(app.screen, Waterfall))
        await shown(app, 3)
        await pilot.press("n", "enter")
        await wait_until_async(lambda: isinstance(app.screen, Details))
        text = str(app.screen.query_one("#details", Static).render())
        assert "charge" in text
        assert "card[bold]" in text
        assert "visa" in text
        assert "\x1b" not in text
        await pilot.press("escape", "escape")
        assert len(app.screen_stack) == 1

    driven(FileSource("shop", shop()), test)


def test_ctrl_c_ends_it_from_anywhere() -> None:
    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await shown(app, 2)
        await pilot.press("slash", "ctrl+c")
        await wait_until_async(lambda: not app.is_running)

    driven(FileSource("shop", shop()), test)


def test_services_and_keys_have_their_screens() -> None:
    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await shown(app, 2)
        await pilot.press("s")
        await wait_until_async(lambda: isinstance(app.screen, Services))
        assert app.screen.query_one(DataTable).row_count == 4
        await pilot.press("q", "question_mark")
        assert isinstance(app.screen, Keys)
        await pilot.press("escape")
        assert len(app.screen_stack) == 1

    driven(FileSource("shop", shop()), test)


def test_j_and_k_move_what_is_seen() -> None:
    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await shown(app, 2)
        await pilot.press("s")
        await wait_until_async(lambda: isinstance(app.screen, Services))
        services = app.screen.query_one(DataTable)
        await pilot.press("j")
        assert services.cursor_row == 1
        await pilot.press("s", "q")
        assert len(app.screen_stack) == 1
        assert app.screen.query_one(DataTable).cursor_row == 0
        await pilot.press("enter")
        await wait_until_async(lambda: isinstance(app.screen, Waterfall))
        await pilot.press("enter")
        await wait_until_async(lambda: isinstance(app.screen, Details))
        text = app.screen.query_one(VerticalScroll)
        await wait_until_async(lambda: text.max_scroll_y > 0)
        await pilot.press("j", "j", "k")
        await wait_until_async(lambda: text.scroll_y == 1)

    long = trace_of(1, [("GET /cart", 100, 0)])
    for at in range(60):
        long.resource_spans[0].scope_spans[0].spans[0].attributes.add(key=f"key {at}").value.int_value = at
    long.MergeFrom(trace_of(2, [("POST /pay", 300, 0)]))
    driven(FileSource("shop", long), test)


def test_a_long_name_leaves_room_for_what_stands_beside_it() -> None:
    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await shown(app, 1)
        await pilot.press("s")
        await wait_until_async(lambda: isinstance(app.screen, Services))
        table = app.screen.query_one(DataTable)
        await wait_until_async(lambda: table.virtual_size.width > 0)
        assert table.virtual_size.width <= 80

    named = trace_of(1, [("x" * 10_000, 100, 0)])
    named.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = "y" * 10_000
    driven(FileSource("shop", named), test)


def test_a_querier_that_went_away_is_a_sentence_on_the_screen() -> None:
    class Gone(FileSource):
        def search(self, query: str) -> list[dict[str, Any]]:
            raise QuerierUnavailableError("the querier does not answer [x]")

    async def test(app: TracesApp, pilot: Pilot[None]) -> None:
        await wait_until_async(lambda: "does not answer [x]" in str(app.query_one("#status", Static).render()))

    driven(Gone("shop", shop()), test)


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_a_file_is_read_in_every_format_that_spans_come_in(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"x.{kind}"
    if kind == "json":
        file.write_text(json.dumps(otlp_json(shop()), indent=2))
    elif kind == "jsonl":
        file.write_text("\n".join(json.dumps(otlp_json(trace_of(at, [("a", 1, 0)]))) for at in (1, 2)))
    else:
        record = Record("t", 0, shop().SerializeToString())
        pq.write_table(from_otlp.decode([record], attribute_columns_max=10).spans, file)

    found = FileSource(file.name, read_spans(file, FILE_BYTES_MAX)).search("")

    assert {one["traceID"] for one in found} == {f"{1:032x}", f"{2:032x}"}


def test_a_chunk_is_read_with_the_parents_of_its_spans() -> None:
    golden = Path(__file__).parents[2] / "pipeline" / "store" / "golden" / "chunk-1.parquet"

    spans = [
        span
        for resource in read_spans(golden, FILE_BYTES_MAX).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]

    known = {span.span_id for span in spans}
    assert spans
    assert any(span.parent_span_id in known for span in spans)


@pytest.mark.parametrize("body", [b"", b"no spans", b"PAR1 broken", b'{"resourceSpans": 1}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x").write_bytes(body)

    with pytest.raises(BadQuestionError):
        read_spans(tmp_path / "x", FILE_BYTES_MAX)


def test_without_a_terminal_it_says_so_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(otlp_json(shop())))

    words = [sys.executable, "-m", "agents.cli", "tui", "--from", str(file)]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)

    assert ended.returncode != 0
    assert "tui needs a terminal" in ended.stderr
    assert "\x1b[?1049h" not in ended.stdout


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux: apt-get install tmux")
def test_it_works_in_a_terminal_of_80_by_24(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(otlp_json(shop())))
    socket = f"t{uuid.uuid4().hex[:8]}"

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-L", socket, *words], capture_output=True, text=True, check=False).stdout

    command = f"{sys.executable} -m agents.cli tui --from {file}"
    tmux("new-session", "-d", "-x", "80", "-y", "24", command)
    try:
        wait_until(lambda: "POST /pay" in tmux("capture-pane", "-p"), 60, "the list is shown")
        wait_until(lambda: "q End" in tmux("capture-pane", "-p"), 30, "keys are taken")
        tmux("send-keys", "/")
        tmux("send-keys", "charge", "Enter")
        wait_until(lambda: "1 trace," in tmux("capture-pane", "-p"), 30, "the list is searched")
        tmux("send-keys", "Enter")
        screen = wait_until(lambda: "━" in (seen := tmux("capture-pane", "-p")) and seen, 30, "a waterfall")
        assert "charge" in screen
        tmux("send-keys", "Escape")
        wait_until(lambda: "newest first" in tmux("capture-pane", "-p"), 30, "back in the list")
        tmux("send-keys", "q")
        wait_until(lambda: not tmux("list-sessions"), 30, "it ended")
    finally:
        tmux("kill-server")

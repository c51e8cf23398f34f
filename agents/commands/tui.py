"""`spanstream tui`: newest traces, search, waterfall, span details and services in a terminal, also over ssh."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import rich_click as click

from agents.commands.ask import seconds_of
from agents.commands.file_source import FileSource, read_spans
from agents.commands.querier import Querier, asks_querier_without_json
from topics.errors import BadQuestionError

SETTINGS = tuple(
    f"terminal.tui_{name}" for name in ("every_s", "traces_max", "spans_max", "value_chars_max", "file_bytes_max")
)


class Source(Protocol):
    """Where traces come from. All block, and raise SpanstreamError."""

    name: str
    live: bool

    def search(self, query: str) -> list[dict[str, Any]]:
        """Traces as /api/search tells them, newest first."""

    def trace(self, trace_id: str) -> Any:
        """TracesData."""

    def services(self) -> dict[str, dict[str, int]]:
        """Service -> operation -> spans."""


class QuerierSource:
    """A running querier."""

    live = True

    def __init__(self, querier: Querier, since_s: int) -> None:
        self.name = querier.url
        self._querier, self._since_s = querier, since_s

    def search(self, query: str) -> list[dict[str, Any]]:
        """The newest of the last `since_s`."""
        now = int(time.time())
        limit = self._querier.terminal.tui_traces_max
        asked = {"q": query or "{}", "start": now - self._since_s, "end": now + 1, "limit": limit}
        found: list[dict[str, Any]] = self._querier.ask("/api/search", asked).get("traces", [])
        return found

    def trace(self, trace_id: str) -> Any:
        """From live segments and the store alike."""
        return self._querier.trace(trace_id).traces_data

    def services(self) -> dict[str, dict[str, int]]:
        """Of all that is known."""
        found: dict[str, dict[str, int]] = self._querier.ask("/api/services").get("services", {})
        return found


@click.command()
@click.option(
    "--from",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A Parquet chunk or export, or OTLP JSON: no server is asked",
)
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@partial(asks_querier_without_json, settings=SETTINGS)
def tui(querier: Querier, *, file: Path | None, since: str) -> None:
    """Newest traces, search, waterfall, span details and services, with the keyboard. `?` shows the keys."""
    from agents.commands.tui_app import TracesApp

    source: Source
    if file is None:
        source = QuerierSource(querier, seconds_of(since))
        source.search("{}")  # a querier that does not answer is a sentence, not an empty screen
    else:
        if not file.is_file():
            raise BadQuestionError(f"there is no file {file}")
        source = FileSource(file.name, read_spans(file, querier.terminal.tui_file_bytes_max))
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadQuestionError("tui needs a terminal; `spanstream search` and `spanstream trace` print what it shows")
    TracesApp(source, querier.terminal).run()

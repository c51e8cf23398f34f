"""What commands write: colours on a terminal only, JSON for scripts, errors on stderr."""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from topics.visible import visible

TABLE_WIDTH_MAX = 10_000


@functools.cache
def screen() -> Console:
    """stdout, for answers. Lines stay whole: a terminal that is narrower wraps them, a pipe gets them as they are."""
    return _safe(Console(soft_wrap=True, highlight=False))


def width() -> int | None:
    """Columns of the terminal that answers go to; None where it is none."""
    return screen().width if screen().is_terminal else None


@functools.cache
def notes() -> Console:
    """stderr, for progress and what is no answer."""
    return _safe(Console(stderr=True, soft_wrap=True, highlight=False))


class _Safe:
    """A renderable whose text cannot steer the terminal: names of services and spans are strangers' words."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._inner)


class _SafeHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [one if isinstance(one, Control) else _Safe(one) for one in renderables]


def _safe(console: Console) -> Console:
    console.push_render_hook(_SafeHook())
    return console


def bare_table(header_style: str = "dim", *, show_header: bool = True) -> Table:
    """A table without lines, as all commands show theirs."""
    return Table(box=None, pad_edge=False, header_style=header_style, show_header=show_header)


class _Whole:
    """A table with the room that it needs, whatever the terminal has: an ID that was cut is no use to anybody."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self._table, options.update(max_width=TABLE_WIDTH_MAX), pad=False):
            while line and not line[-1].text.strip(" "):  # padding, which would wrap into empty lines
                line.pop()
            yield from line[:-1]
            if line:
                yield Segment(line[-1].text.rstrip(" "), line[-1].style)
            yield Segment.line()


def show_table(table: Table) -> None:
    """A table on stdout."""
    screen().print(_Whole(table), end="")


def say(line: str) -> None:
    """A line on stderr, as it is: brackets are no markup."""
    notes().print(Text(line))


def say_error(sentence: str) -> None:
    """An error on stderr, red on a terminal."""
    notes().print(Text(sentence, style="bold red"))


def write_json(value: Any) -> None:
    """One JSON document on stdout, indented."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
    sys.stdout.flush()


def write_json_line(value: Any) -> None:
    """One JSON document on a line of stdout, at once."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()

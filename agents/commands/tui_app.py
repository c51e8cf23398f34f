"""The terminal interface: what is on its screens and what the keys do."""

from __future__ import annotations

from typing import Any, ClassVar

from google.protobuf.json_format import MessageToDict
from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static

from agents.commands.ask import summary_of
from agents.commands.tui import Source
from agents.commands.waterfall import ERROR, Row, bar, colour_of, duration, rows_of
from topics.errors import SpanstreamError
from topics.settings import TerminalSettings

BAR_WIDTH = 24
NAME_WIDTH = 34
SERVICE_WIDTH, OPERATION_WIDTH = 24, 38  # in 80 columns the spans stand beside them
KEYS = """\
/        search (TraceQL with a querier, a text in a file)
enter    open the trace, then the span's details
esc, q   back; q in the list ends, Ctrl-C anywhere
j k      down, up
r        ask again
l        follow: ask again and again, on or off
s        services and their operations
n p      next and previous failed span of a trace
?        these keys"""


class Keys(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark", "app.pop_screen", "Back")]

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static(Text(KEYS), id="keys")


class Details(Screen[None]):
    """All that one span says."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "app.pop_screen", "Back")]

    def __init__(self, row: Row, resource: Any, value_chars_max: int) -> None:
        super().__init__()
        self._row, self._resource, self._value_chars_max = row, resource, value_chars_max

    def compose(self) -> ComposeResult:
        """Plain text: what senders write is no markup."""
        with VerticalScroll():
            yield Static(details(self._row, self._resource, self._value_chars_max), id="details")
        yield Footer()


class Waterfall(Screen[None]):
    """The spans of one trace."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,q", "app.pop_screen", "Back"),
        ("n", "failed(1)", "Next error"),
        ("p", "failed(-1)", "Previous error"),
    ]

    def __init__(self, traces_data: Any, terminal: TerminalSettings) -> None:
        super().__init__()
        self._terminal = terminal
        self._rows = rows_of(traces_data)
        self._resources = {
            id(span): resource.resource
            for resource in traces_data.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }
        self._traces_data = traces_data

    def compose(self) -> ComposeResult:
        """A line about the trace, and its spans."""
        first = self._rows[0].span
        end = max(row.span.end_time_unix_nano for row in self._rows)
        start = min(row.span.start_time_unix_nano for row in self._rows)
        failed = sum(row.span.status.code == ERROR for row in self._rows)
        counts = f"{_counted(len(self._rows), 'span')}  {_counted(failed, 'error')}"
        line = f"{first.trace_id.hex()}  {duration(end - start)}  {counts}"
        shown = self._terminal.tui_spans_max
        more = f"  the first {shown:,} are shown" if len(self._rows) > shown else ""
        yield Static(Text(line + more, "bold"))
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Fill the table."""
        table = self.query_one(DataTable)
        table.add_column("span", width=NAME_WIDTH)
        table.add_column("", width=BAR_WIDTH)
        table.add_column("duration", width=10)
        start = min(row.span.start_time_unix_nano for row in self._rows)
        end = max(row.span.end_time_unix_nano for row in self._rows)
        for row in self._rows[: self._terminal.tui_spans_max]:
            failed, colour = row.span.status.code == ERROR, colour_of(row.service)
            name = Text("  " * min(row.depth, 10) + ("⋯ " if row.orphan else ""), "dim")
            name.append("✗ " if failed else "", "red").append(f"{row.service} ", colour)
            name.append(_clean(row.span.name)[:200], "bold")
            lasted = Text(duration(row.span.end_time_unix_nano - row.span.start_time_unix_nano), justify="right")
            bars = Text(bar(row.span, start, end, BAR_WIDTH), "red" if failed else colour)
            table.add_row(name, bars, lasted)
        table.focus()

    def action_failed(self, step: int) -> None:
        """To the next or previous failed span."""
        table = self.query_one(DataTable)
        at = table.cursor_row + step
        while 0 <= at < table.row_count:
            if self._rows[at].span.status.code == ERROR:
                table.move_cursor(row=at)
                return
            at += step

    @on(DataTable.RowSelected)
    def open_span(self, chosen: DataTable.RowSelected) -> None:
        """Its details."""
        row = self._rows[chosen.cursor_row]
        resource = self._resources.get(id(row.span))
        self.app.push_screen(Details(row, resource, self._terminal.tui_value_chars_max))


class Services(Screen[None]):
    """Services and their operations."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "app.pop_screen", "Back")]

    def __init__(self, services: dict[str, dict[str, int]]) -> None:
        super().__init__()
        self._services = services

    def compose(self) -> ComposeResult:
        """One table."""
        yield DataTable(cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """A row an operation."""
        table = self.query_one(DataTable)
        for title, width in (("service", SERVICE_WIDTH), ("operation", OPERATION_WIDTH), ("spans", 9)):
            table.add_column(title, width=width)
        for service, operations in sorted(self._services.items()):
            for name, count in sorted(operations.items(), key=lambda one: (-one[1], one[0])):
                shown = (
                    Text(_clean(service), colour_of(service)),
                    Text(_clean(name)),
                    Text(f"{count:,}", justify="right"),
                )
                table.add_row(*shown)
        table.focus()


class TracesApp(App[None]):
    """The newest traces, and what leads from them."""

    CSS = """
    Input { border: none; height: 1; }
    #status { height: 1; color: $text-muted; }
    DataTable { height: 1fr; }
    #keys { width: auto; height: auto; max-width: 100%; padding: 1 2; border: round $primary; background: $surface; }
    Keys { align: center middle; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "search", "Search"),
        ("r", "refresh", "Again"),
        ("l", "follow", "Follow"),
        ("s", "services", "Services"),
        ("j", "move(1)", ""),
        ("k", "move(-1)", ""),
        ("question_mark", "keys", "Keys"),
        ("q", "quit", "End"),
        Binding("ctrl+c", "quit", show=False, priority=True),  # as every command; copying is the terminal's
    ]

    def __init__(self, source: Source, terminal: TerminalSettings) -> None:
        super().__init__()
        self._terminal = terminal
        self._source = source
        self._following = source.live
        self._query = ""
        self._found: list[str] = []

    def compose(self) -> ComposeResult:
        """Search line, status, list."""
        yield Input(placeholder="/ search: { status = error }" if self._source.live else "/ search: part of a name")
        yield Static(id="status")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Ask at once, then as long as it is followed."""
        table = self.query_one(DataTable)
        for title, width in (("start", 12), ("duration", 9), ("spans", 5), ("err", 3), ("root", 40)):
            table.add_column(title, width=width)
        table.focus()
        self.action_refresh()
        self.set_interval(self._terminal.tui_every_s, self._again)

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """What concerns the list counts while it is seen, and services are not opened above services."""
        if action in {"search", "refresh", "follow"}:
            return len(self.screen_stack) == 1
        return not (action == "services" and isinstance(self.screen, Services))

    def _again(self) -> None:
        if self._following and len(self.screen_stack) == 1:
            self.action_refresh()

    def action_refresh(self) -> None:
        """Ask for the list."""
        self._ask(self._query)

    @work(thread=True, exclusive=True, group="list")
    def _ask(self, query: str) -> None:
        try:
            found = self._source.search(query)
        except SpanstreamError as exc:
            self.call_from_thread(self._say, str(exc))
        else:
            self.call_from_thread(self._show, found)

    def _show(self, found: list[dict[str, Any]]) -> None:
        table = self.screen_stack[0].query_one(DataTable)
        chosen = self._found[table.cursor_row] if table.cursor_row < len(self._found) else ""
        self._found = [one["traceID"] for one in found]
        table.clear()
        for one in found:
            _, start, lasted, spans, errors, root = summary_of(one)
            table.add_row(Text(start.plain[11:23]), lasted, spans, errors, root)
        if chosen in self._found:
            table.move_cursor(row=self._found.index(chosen))
        following = ", followed" if self._following else ""
        none = "" if found else "  nothing found: send spans to port 4318, or search for less"
        self._say(f"{self._source.name}  {_counted(len(found), 'trace')}, newest first{following}{none}")

    def _say(self, line: str) -> None:
        self.screen_stack[0].query_one("#status", Static).update(Text(line))

    @on(Input.Submitted)
    def search_for(self, asked: Input.Submitted) -> None:
        """Ask for what was written."""
        self._query = asked.value.strip()
        self.screen_stack[0].query_one(DataTable).focus()
        self.action_refresh()

    @on(DataTable.RowSelected)
    def open_trace(self, chosen: DataTable.RowSelected) -> None:
        """Its waterfall."""
        if len(self.screen_stack) == 1 and chosen.cursor_row < len(self._found):
            self._open(self._found[chosen.cursor_row])

    @work(thread=True, exclusive=True, group="trace")
    def _open(self, trace_id: str) -> None:
        try:
            data = self._source.trace(trace_id)
        except SpanstreamError as exc:
            self.call_from_thread(self._say, str(exc))
        else:
            self.call_from_thread(self.push_screen, Waterfall(data, self._terminal))

    def action_search(self) -> None:
        """To the search line."""
        if len(self.screen_stack) == 1:
            self.query_one(Input).focus()

    def action_follow(self) -> None:
        """Ask again and again, or not."""
        self._following = self._source.live and not self._following
        self.action_refresh()

    def action_move(self, by: int) -> None:
        """The cursor of what is seen up or down; a text without one is scrolled."""
        for table in self.screen.query(DataTable):
            table.move_cursor(row=table.cursor_row + by)
        for text in self.screen.query(VerticalScroll):
            text.scroll_relative(y=by, animate=False)

    @work(thread=True, exclusive=True, group="services")
    def action_services(self) -> None:
        """All services."""
        try:
            found = self._source.services()
        except SpanstreamError as exc:
            self.call_from_thread(self._say, str(exc))
            self.call_from_thread(self.notify, str(exc), severity="error", markup=False)
        else:
            self.call_from_thread(self.push_screen, Services(found))

    def action_keys(self) -> None:
        """What the keys do."""
        self.push_screen(Keys())

    def on_key(self, event: Any) -> None:
        """Esc leaves the search line."""
        if event.key == "escape" and len(self.screen_stack) == 1:
            self.query_one(DataTable).focus()


def details(row: Row, resource: Any, value_chars_max: int) -> Text:
    """A span as text, each value cut where it is long."""
    span, text = row.span, Text()
    text.append(f"{_clean(span.name)}\n", "bold").append(f"{row.service}\n", colour_of(row.service))
    lasted = duration(span.end_time_unix_nano - span.start_time_unix_nano)
    text.append(f"span {span.span_id.hex()}  parent {span.parent_span_id.hex() or 'none'}  {lasted}\n")
    if span.status.code == ERROR:
        text.append(f"error {_clean(span.status.message)}\n", "red")
    _attributes(text, "attributes", span.attributes, value_chars_max)
    _attributes(text, "resource", resource.attributes if resource is not None else [], value_chars_max)
    for event in span.events:
        after = duration(event.time_unix_nano - span.start_time_unix_nano)
        title = f"event {_clean(event.name)} after {after}"
        _attributes(text, title, event.attributes, value_chars_max, always=True)
    for link in span.links:
        title = f"link {link.trace_id.hex()} {link.span_id.hex()}"
        _attributes(text, title, link.attributes, value_chars_max, always=True)
    return text


def _attributes(text: Text, title: str, found: Any, value_chars_max: int, *, always: bool = False) -> None:
    if found or always:
        text.append(f"\n{title}\n", "bold dim")
    for one in found:
        value = next(iter(MessageToDict(one.value).values()), "")
        text.append(f"  {_clean(one.key)} ", "cyan").append(f"{_clean(str(value))[:value_chars_max]}\n")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _clean(text: str) -> str:
    """Control characters would move the terminal's cursor."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)

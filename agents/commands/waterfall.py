"""A trace as rows of a waterfall: parents above children, in the order of their starts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from agents.commands.terminal import bare_table

BAR_WIDTH, BAR_WIDTH_MIN = 40, 10
SERVICE_WIDTH_MIN = 8
DURATION_WIDTH, GAPS = 8, 6  # `-1.23 ms`, and what stands between four columns
ERROR = 2
COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
KINDS = ("", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class Row:
    """One span. depth: 0 for a root. orphan: it names a parent that is not in the trace."""

    span: Any
    service: str
    depth: int
    orphan: bool


def rows_of(traces_data: Any) -> list[Row]:
    """Every span once, whatever the parents say: orphans are roots, and a cycle is entered at its first span."""
    spans = [
        (span, _service(resource.resource))
        for resource in traces_data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    spans.sort(key=lambda one: (one[0].start_time_unix_nano, one[0].span_id, one[0].kind))
    known = {span.span_id for span, _ in spans}
    children: dict[bytes, list[int]] = {}
    roots = []
    for index, (span, _) in enumerate(spans):
        if span.parent_span_id in known and span.parent_span_id != span.span_id:
            children.setdefault(span.parent_span_id, []).append(index)
        else:
            roots.append(index)
    rows: list[Row] = []
    seen: set[int] = set()
    for start in [*roots, *range(len(spans))]:  # what no root leads to stands in a cycle
        for index, depth in _walk(start, spans, children, seen):
            span, service = spans[index]
            orphan = bool(span.parent_span_id) and span.parent_span_id not in known
            rows.append(Row(span, service, depth, orphan))
    return rows


def _walk(
    start: int, spans: list[tuple[Any, str]], children: dict[bytes, list[int]], seen: set[int]
) -> Iterator[tuple[int, int]]:
    """(index, depth) of a span and all below it, each index once; without recursion, since a trace may be deep."""
    stack = [(start, 0)]
    while stack:
        index, depth = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        yield index, depth
        stack += [(child, depth + 1) for child in reversed(children.get(spans[index][0].span_id, ()))]


def waterfall(rows: list[Row], rows_max: int, columns: int | None = None) -> Table:
    """The first rows_max rows as a table: name, service, bar, duration. columns: of the terminal, None: no limit.

    In a narrow one the bar, the service's name and the span's name give way; a duration never does.
    """
    bar_width = BAR_WIDTH if columns is None else min(BAR_WIDTH, max(BAR_WIDTH_MIN, columns // 4))
    service_width = None if columns is None else max(SERVICE_WIDTH_MIN, columns // 6)
    room = None if columns is None else max(1, columns - bar_width - (service_width or 0) - DURATION_WIDTH - GAPS)
    start = min((row.span.start_time_unix_nano for row in rows), default=0)
    end = max((row.span.end_time_unix_nano for row in rows), default=0)
    table = bare_table()
    table.add_column("span", no_wrap=True, overflow="ellipsis", max_width=room)
    table.add_column("service", no_wrap=True, overflow="ellipsis", max_width=service_width)
    table.add_column("", no_wrap=True, width=bar_width)
    table.add_column("duration", no_wrap=True, justify="right")
    for row in rows[:rows_max]:
        span, colour = row.span, colour_of(row.service)
        failed = span.status.code == ERROR
        kind = KINDS[span.kind] if 0 < span.kind < len(KINDS) else ""
        name = Text("  " * row.depth + ("⋯ " if row.orphan else ""), "dim")
        name.append(span.name or "(no name)", "bold red" if failed else "bold")
        name.append(f" {kind}" if kind else "", "dim")
        if failed:
            name.append(f" ✗ {span.status.message}", "red")
        table.add_row(
            name,
            Text(row.service, colour),
            Text(bar(span, start, end, bar_width), "red" if failed else colour),
            Text(duration(span.end_time_unix_nano - span.start_time_unix_nano)),
        )
    return table


def bar(span: Any, start_unix_ns: int, end_unix_ns: int, width: int = BAR_WIDTH) -> str:
    """Where the span lies in the trace, `width` characters; every span shows at least one."""
    whole = max(1, end_unix_ns - start_unix_ns)
    first = min(width - 1, max(0, (span.start_time_unix_nano - start_unix_ns) * width // whole))
    last = min(width, max(first + 1, -(-(span.end_time_unix_nano - start_unix_ns) * width // whole)))
    return " " * first + "━" * (last - first)


def duration(ns: int) -> str:
    """A duration for people: `12.3 ms`. Negative ones stay what they are."""
    size = abs(ns)
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if size >= factor:
            return f"{ns / factor:.3g} {unit}" if size < 1000 * factor else f"{ns / factor:,.0f} {unit}"
    return f"{ns} ns"


def colour_of(service: str) -> str:
    """The same colour for a service everywhere."""
    return COLOURS[zlib.crc32(service.encode()) % len(COLOURS)]


def _service(resource: Any) -> str:
    return next((kv.value.string_value for kv in resource.attributes if kv.key == "service.name"), "") or "unknown"

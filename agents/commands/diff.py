"""`spanstream diff`: what differs between two traces, by service and operation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import rich_click as click
from rich.text import Text

from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, screen, show_table, write_json
from agents.commands.waterfall import ERROR, Row, colour_of, duration, rows_of


@dataclass(slots=True)
class Share:
    """What one operation is of a trace. duration_ns: of all its spans together."""

    spans: int = 0
    errors: int = 0
    duration_ns: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """One operation in both traces; no spans where a trace does not have it."""

    service: str
    operation: str
    a: Share
    b: Share

    @property
    def change(self) -> str:
        """`added`, `removed`, `changed` (spans or errors), or `same`."""
        if not self.a.spans:
            return "added"
        if not self.b.spans:
            return "removed"
        return "same" if (self.a.spans, self.a.errors) == (self.b.spans, self.b.errors) else "changed"

    @property
    def more_ns(self) -> int:
        return self.b.duration_ns - self.a.duration_ns


@click.command()
@click.argument("trace_a")
@click.argument("trace_b")
@asks_querier
def diff(querier: Querier, *, trace_a: str, trace_b: str, as_json: bool) -> None:
    """What differs from TRACE_A to TRACE_B by service and operation, the greatest change of duration first.

    Exit code 1 where a trace is unknown.
    """
    answers = [querier.trace(trace_a), querier.trace(trace_b)]
    before, after = (rows_of(answer.traces_data) for answer in answers)
    found = differences(before, after)
    if as_json:
        write_json({"a": _whole(before), "b": _whole(after), "operations": [_told(one) for one in found]})
    else:
        _show(before, after, found)
    for name, answer in zip("AB", answers, strict=True):
        if answer.partial:
            say(f"Trace {name} is PARTIAL: {answer.message}")


def differences(before: list[Row], after: list[Row]) -> list[Difference]:
    """Each operation of either trace once, the greatest change of duration first."""
    shares_a, shares_b = _shares(before), _shares(after)
    found = [
        Difference(*key, shares_a.get(key, Share()), shares_b.get(key, Share())) for key in {**shares_a, **shares_b}
    ]
    return sorted(found, key=lambda one: (-abs(one.more_ns), one.service, one.operation))


def _shares(rows: list[Row]) -> dict[tuple[str, str], Share]:
    shares: dict[tuple[str, str], Share] = defaultdict(Share)
    for row in rows:
        share = shares[row.service, row.span.name]
        share.spans += 1
        share.errors += row.span.status.code == ERROR
        share.duration_ns += max(0, row.span.end_time_unix_nano - row.span.start_time_unix_nano)
    return shares


def _whole(rows: list[Row]) -> dict[str, Any]:
    start = min(row.span.start_time_unix_nano for row in rows)
    return {
        "traceID": rows[0].span.trace_id.hex(),
        "spans": len(rows),
        "errors": sum(row.span.status.code == ERROR for row in rows),
        "durationNanos": max(row.span.end_time_unix_nano for row in rows) - start,
    }


def _told(one: Difference) -> dict[str, Any]:
    return asdict(one) | {"change": one.change, "more_ns": one.more_ns}


def _show(before: list[Row], after: list[Row], found: list[Difference]) -> None:
    for name, whole in (("A", _whole(before)), ("B", _whole(after))):
        line = Text(f"{name}  {whole['traceID']}  ", "bold").append(duration(whole["durationNanos"]))
        screen().print(line.append(f"  {whole['spans']:,} spans  {whole['errors']:,} errors"))
    table = bare_table()
    for title in ("", "service", "operation", "spans A", "B", "errors A", "B", "duration A", "B", "B - A"):
        table.add_column(title, justify="left" if title in ("", "service", "operation") else "right")
    signs = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "same": (" ", "")}
    for one in found:
        table.add_row(
            Text(*signs[one.change]),
            Text(one.service, colour_of(one.service)),
            Text(one.operation),
            *(str(count) for count in (one.a.spans, one.b.spans, one.a.errors, one.b.errors)),
            *(duration(share.duration_ns) if share.spans else "" for share in (one.a, one.b)),
            Text(f"{'+' if one.more_ns > 0 else ''}{duration(one.more_ns)}", "red" if one.more_ns > 0 else "green"),
        )
    show_table(table)

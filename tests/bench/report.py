"""Figures: named, with a unit and a limit; printed as a table and written as JSON."""

from __future__ import annotations

import json
import os
import platform
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

UNMEASURED = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """A figure to measure; lower is better. at_most: its limit, None where it has none."""

    name: str
    unit: str
    at_most: float | None


def asked(name: str, cold: float, warm: float) -> tuple[Row, Row]:
    """A question's rows: its first answer of a new process, and the next ones."""
    return Row(f"{name}, cold", "ms", cold), Row(f"{name}, warm", "ms", warm)


EXECUTED = ("attribute equality, 20 newest", "regex, no match", "rate() by service", "quantiles by service")


def executor_modes() -> list[tuple[str, int, int]]:
    """Name, workers of a Dask cluster (0: the querier's own threads), threads of each engine (0: one a core)."""
    return [("one thread", 0, 1), ("threads", 0, 0)] + [(f"Dask with {count}", count, 1) for count in (1, 2, 4)]


ROWS = (
    Row("receiver CPU", "us/span", 4.5),
    Row("worker CPU, fetch to stored", "us/span", 9.0),
    Row("stored, all objects", "bytes/span", 42.0),
    Row("stored, events on 10 % and links on 2 %", "bytes/span", None),
    Row("found after acknowledgement by ID, p50", "ms", 300.0),
    Row("found after acknowledgement by ID, p99", "ms", 1000.0),
    Row("found after acknowledgement by tag, p50", "ms", 300.0),
    Row("found after acknowledgement by tag, p99", "ms", 1000.0),
    Row("trace by ID from the store, warm p50", "ms", 30.0),
    Row("trace by ID from live segments, p50", "ms", 30.0),
    Row("peak memory, receiver", "MB", 150.0),
    Row("peak memory, worker", "MB", 600.0),
    Row("peak memory, querier", "MB", 700.0),
    Row("start until ready", "s", 10.0),
    Row("restart after kill -9, 1 M unsealed spans", "s", 20.0),
    Row("trace by ID meanwhile, from Kafka, p50", "ms", 2000.0),
    *asked("trace by ID", 80, 25),
    *asked("attribute equality, 20 newest", 400, 60),
    *asked("service and duration", 400, 90),
    *asked("regex, no match", 250, 65),
    *asked("{} && {}", 600, 200),
    *asked(">> no match", 400, 110),
    *asked(">> all match", 600, 400),
    *asked("count() > 150", 300, 80),
    *asked("rate() by service", 350, 80),
    *asked("quantiles by service", 700, 300),
    *asked("compare() of errors", 1500, 700),
    *asked("newest 20 of {}", 300, 60),
    *asked("tag names", 60, 15),
    *asked("tag values", 60, 15),
    Row("rate() by service again, its range moved on", "ms", 20.0),
    Row("peak memory, querier, any question", "MB", 900.0),
    Row("found by ID beside a browser, a notebook and a heavy query, p99", "ms", 1000.0),
    Row("found by tag beside a browser, a notebook and a heavy query, p99", "ms", 1000.0),
    Row("page, all that it loads", "kB", 300.0),
    Row("page, first usable view", "s", 1.0),
    Row("page, Explore of the last hour", "s", 2.0),
    Row("page, trace of 100,000 spans: shown", "s", 2.0),
    Row("page, scrolling it: worst frame of 95 %", "ms", 33.0),
    Row("page, scrolling it: a frame, on average", "ms", 20.0),  # 50 frames a second
    Row("page, a span of it in full", "ms", 300.0),
    Row("page, memory after a minute of live tail", "MB", 200.0),
    Row("compaction, chunks before", "", None),
    Row("compaction, chunks after", "", None),
    Row("compaction, bytes before", "bytes/span", None),
    Row("compaction, bytes after", "bytes/span", None),
    Row("compaction, trace by ID before, p50", "ms", None),
    Row("compaction, trace by ID after, p50", "ms", None),
    Row("compaction, CPU", "us/span", None),
    Row("compaction, memory beside an idle worker's", "MB", None),
    *(
        Row(f"{name}, {mode}", "ms", None)
        for mode, _, _ in executor_modes()
        for name in ("the first question of all", *EXECUTED)
    ),
    *(Row(f"memory of a worker, {mode}", "MB", None) for mode, workers, _ in executor_modes() if workers),
)


class Report:
    """Collects values of rows; what raises leaves its rows unmeasured, and its error is printed."""

    def __init__(self, rows: Sequence[Row] = ROWS) -> None:
        self._rows = rows
        self._values: dict[str, float] = {}
        self._console = Console()

    def group(self, what: str, call: Callable[[], None]) -> None:
        """Measure several things; where they cannot be begun, their rows say so and the others are measured."""

        def all_of_it() -> Mapping[str, float]:
            call()
            return {}

        self.measure(what, all_of_it)

    def measure(self, what: str, call: Callable[[], Mapping[str, float]]) -> None:
        """Run one measurement and keep its figures."""
        self._console.print(f"[bold]{what}[/bold]")
        try:
            found = call()
        except Exception:
            self._console.print(traceback.format_exc(), markup=False)
            return
        for name, value in found.items():
            assert name in {row.name for row in self._rows}, name
            self._values[name] = max(value, self._values.get(name, 0.0))
            self._console.print(f"  {name}: {value:.2f}")

    def rows(self) -> list[dict[str, object]]:
        """Every row, measured or not."""
        return [
            {"name": row.name, "value": round(self._values.get(row.name, UNMEASURED), 3)} | asdict(row)
            for row in self._rows
        ]

    def finish(self, path: Path) -> int:
        """Print the table, write the JSON; 1 when a figure is over its limit or was not measured, else 0."""
        table = Table(title=f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")
        for column in ("figure", "value", "unit", "at most"):
            table.add_column(column, justify="left" if column == "figure" else "right")
        over = False
        for row in self.rows():
            value, limit = float(str(row["value"])), row["at_most"]
            bad = value >= UNMEASURED or (limit is not None and value > float(str(limit)))
            over = over or bad
            shown = "not measured" if value >= UNMEASURED else f"{value:,.2f}"
            table.add_row(str(row["name"]), f"[red]{shown}[/red]" if bad else shown, str(row["unit"]), str(limit or ""))
        self._console.print(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = ("name", "value", "unit", "at_most")
        path.write_text(json.dumps([{key: row[key] for key in keys} for row in self.rows()], indent=2) + "\n")
        return int(over)

"""`spanstream metrics`: a TraceQL metrics query, with a small chart of each series."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import rich_click as click
from rich.table import Table
from rich.text import Text

from agents.commands.ask import seconds_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, show_table, write_json

BARS = "▁▂▃▄▅▆▇█"
CHART_WIDTH = 40
Point = tuple[int, float]  # Unix ms and value


@click.command()
@click.argument("query")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 1d (default 1h)")
@click.option("--step", help="Distance of points, such as 10s or 1m (default: about 240 points)")
@click.option("--instant", is_flag=True, help="One value for the whole time")
@asks_querier
def metrics(querier: Querier, *, query: str, since: str, step: str | None, instant: bool, as_json: bool) -> None:
    """What spans come to over time: a TraceQL query that ends in a metrics function.

    '{ status = error } | rate() by (resource.service.name)'. --json gives the querier's answer as it is.
    """
    end = int(time.time()) + 1
    asked = {"q": query, "start": end - 1 - seconds_of(since), "end": end, "step": None if instant else step}
    answer = querier.ask("/api/metrics/query" if instant else "/api/metrics/query_range", asked)
    if as_json:
        write_json(answer)
        return
    show_table(_values(answer) if instant else _charts(answer))
    if not answer.get("series"):
        say("No span matches in this time")
    if answer.get("message"):
        say(f"The answer is PARTIAL: {answer['message']}")


def _charts(answer: dict[str, Any]) -> Table:
    table = _table("series", "min", "max", "last", "")
    every = [int(sample["timestampMs"]) for one in answer.get("series", []) for sample in one.get("samples", [])]
    for one in answer.get("series", []):
        points = [(int(sample["timestampMs"]), float(sample.get("value", 0))) for sample in one.get("samples", [])]
        values = [value for _, value in points]
        numbers = [f"{value:,.4g}" for value in (min(values), max(values), values[-1])]
        table.add_row(_name(one), *numbers, Text(chart(points, min(every), max(every)), "cyan"))
    return table


def _values(answer: dict[str, Any]) -> Table:
    table = _table("series", "value")
    for one in answer.get("series", []):
        table.add_row(_name(one), f"{float(one.get('value', 0)):,.4g}")
    return table


def _table(*titles: str) -> Table:
    table = bare_table()
    for title in titles:
        table.add_column(title, justify="left" if title in ("series", "") else "right")
    return table


def _name(one: dict[str, Any]) -> Text:
    labels = {label["key"]: str(next(iter(label["value"].values()), "")) for label in one["labels"]}
    if list(labels) == ["__name__"]:
        return Text(labels["__name__"])
    return Text(", ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__"))


def chart(points: Sequence[Point], first_ms: int, last_ms: int, width: int = CHART_WIDTH) -> str:
    """The points in time as bars: of those that share a place the greatest, a blank where there is none."""
    span_ms, highest = max(1, last_ms - first_ms), max(abs(value) for _, value in points) or 1.0
    found: dict[int, float] = {}
    for at_ms, value in points:
        place = (at_ms - first_ms) * (width - 1) // span_ms
        found[place] = max(value, found.get(place, value))
    return "".join(
        BARS[max(0, round(found[place] / highest * (len(BARS) - 1)))] if place in found else " "
        for place in range(min(width, max(found) + 1))
    )

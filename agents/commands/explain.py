"""`spanstream explain`: how a querier answers a TraceQL query."""

from __future__ import annotations

import time
from typing import Any

import rich_click as click
from rich.table import Table
from rich.text import Text

from agents.commands.ask import ORDERS, seconds_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, screen, show_table, write_json

VERDICTS = {"read": "green", "kept": "cyan", "left out": "dim", "not reached": "dim"}
SQL_SHOWN = 300


@click.command()
@click.argument("query")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option("--order", type=click.Choice(ORDERS), default="newest", help="Of a search (default newest)")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, help="Traces of a search (default 20)")
@click.option("--chunks", metavar="N", type=click.IntRange(min=0), default=20, help="Chunks shown (default 20)")
@click.option("--sql", "with_sql", is_flag=True, help="Show each statement's text too")
@asks_querier
def explain(querier: Querier, *, query: str, since: str, order: str, limit: int, **shown: Any) -> None:
    """Answer a TraceQL query and tell how: the plan, which chunks were chosen and why, bytes, the time of each step.

    Asked twice it shows what caches do. --json gives all of it, with every statement.
    """
    end = int(time.time()) + 1
    times = {"start": end - 1 - seconds_of(since), "end": end}
    answer = querier.ask("/api/explain", {"q": query, "order": order, "limit": limit} | times)
    if shown["as_json"]:
        write_json(answer)
        return
    _show_plan(answer)
    if shown["chunks"] and answer["chunks"]["list"]:
        _show_chunks(answer["chunks"], shown["chunks"])
    _show_steps(answer, with_sql=shown["with_sql"])
    if answer.get("message"):
        say(f"The answer is PARTIAL: {answer['message']}")


def _show_plan(answer: dict[str, Any]) -> None:
    plan, chunks = answer["plan"], answer["chunks"]
    lines = [("query", plan["query"])]
    if plan["kind"] == "search":
        lines.append(("plan", f"the {plan['limit']} {plan['order']} traces, decided by {plan['decidedBy']}"))
    else:
        lines.append(("plan", f"metrics, {plan['points']:,} points"))
    for one in answer["conditions"]:
        values = f"   with {', '.join(one['values'])}" if one["values"] else ""
        lines.append(("rows where", one["sql"][:SQL_SHOWN] + values[:SQL_SHOWN]))
    found = ", ".join(f"{count:,} {what}" for what, count in answer["answer"].items())
    lines += [
        ("live", f"{answer['live']['spans']:,} spans"),
        ("chunks", f"{chunks['known']:,} stored, {_size(chunks['knownBytes'])}: {_counted(chunks)}"),
        ("answer", f"{found} in {answer['totalMs']:,.1f} ms"),
    ]
    table = bare_table(show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, Text(text))
    show_table(table)


def _counted(chunks: dict[str, Any]) -> str:
    named = {
        "outOfRange": "of other times",
        "leftOut": "left out",
        "notReached": "not reached",
        "kept": "known from before",
    }
    parts = [f"{chunks['read']:,} read ({_size(chunks['readBytes'])})"]
    return ", ".join(parts + [f"{chunks[key]:,} {word}" for key, word in named.items() if chunks[key]])


def _show_chunks(chunks: dict[str, Any], rows: int) -> None:
    table = _table("chunk", "partition", "spans", "bytes", "verdict", "why")
    for one in chunks["list"][:rows]:
        table.add_row(
            Text(one["chunk"].rsplit("/", 1)[-1]),
            str(one["partition"]),
            f"{one['spans']:,}",
            _size(one["bytes"]),
            Text(one["verdict"], VERDICTS.get(one["verdict"], "")),
            Text(one["why"], "dim"),
        )
    screen().print()
    show_table(table)
    if len(chunks["list"]) > rows:
        say(f"{len(chunks['list']) - rows:,} more chunks: --chunks shows them")


def _show_steps(answer: dict[str, Any], *, with_sql: bool) -> None:
    table = _table("step", "ms", "chunks", "bytes", "rows")
    for step in answer["steps"]:
        table.add_row(Text("  " * step["depth"] + step["step"]), f"{step['ms']:,.1f}", "", "", "")
        for one in step["statements"]:
            said = " ".join(one["sql"].split())[:SQL_SHOWN] if with_sql else "a statement"
            table.add_row(
                Text("  " * (step["depth"] + 1) + said, "dim"),
                Text(f"{one['ms']:,.1f}", "dim"),
                f"{one['chunks']:,}",
                _size(one["bytes"]),
                f"{one['rows']:,}",
            )
    screen().print()
    show_table(table)


def _table(*titles: str) -> Table:
    table = bare_table()
    for title in titles:
        right = title in ("partition", "spans", "bytes", "ms", "chunks", "rows")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    return table


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"

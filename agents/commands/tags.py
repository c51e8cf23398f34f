"""`spanstream tags|values`: which attributes spans have, and which values those take."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import rich_click as click
from rich.text import Text

from agents.commands.ask import seconds_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, screen, show_table, write_json

SCOPES = ("resource", "span", "event", "link", "instrumentation", "intrinsic")


@click.command()
@click.option("--scope", type=click.Choice(SCOPES), help="Of this scope only")
@click.option("--q", "query", help="Of spans that match this TraceQL filter only, such as '{ status = error }'")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Names of each scope (default: the querier's)")
@asks_querier
def tags(
    querier: Querier, *, scope: str | None, query: str | None, since: str, limit: int | None, as_json: bool
) -> None:
    """Names of attributes by scope, as TraceQL writes them. --json gives the querier's answer as it is."""
    answer = querier.ask("/api/v2/search/tags", {"scope": scope, "q": query, "limit": limit} | _range(since))
    if as_json:
        write_json(answer)
        return
    for found in sorted(answer.get("scopes", []), key=lambda one: str(one["name"])):
        prefix = "" if found["name"] == "intrinsic" else f"{found['name']}."
        for name in sorted(found.get("tags", [])):
            screen().print(Text(prefix, "dim").append(name, "default"), soft_wrap=True)
    _say_partial(answer)


@click.command()
@click.argument("tag")
@click.option("--q", "query", help="Of spans that match this TraceQL filter only, such as '{ status = error }'")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Values (default: the querier's)")
@asks_querier
def values(querier: Querier, *, tag: str, query: str | None, since: str, limit: int | None, as_json: bool) -> None:
    """Values of an attribute with their types: resource.service.name, span.http.route, .user.id, status.

    --json gives the querier's answer as it is.
    """
    path = f"/api/v2/search/tag/{quote(tag, safe='')}/values"
    answer = querier.ask(path, {"q": query, "limit": limit} | _range(since))
    if as_json:
        write_json(answer)
        return
    table = bare_table()
    table.add_column("value", overflow="fold")
    table.add_column("type", style="dim")
    found = [(str(one.get("type", "")), str(one.get("value", ""))) for one in answer.get("tagValues", [])]
    for kind, value in sorted(found):
        table.add_row(Text(value), Text(kind))
    show_table(table)
    if not found:
        say(f"No span of the last {since} has {tag}: `spanstream tags` lists names")
    _say_partial(answer)


def _range(since: str) -> dict[str, Any]:
    end = int(time.time()) + 1
    return {"start": end - 1 - seconds_of(since), "end": end}


def _say_partial(answer: dict[str, Any]) -> None:
    if answer.get("status") == "PARTIAL":
        say(f"The answer is PARTIAL: {answer.get('message', '')}")

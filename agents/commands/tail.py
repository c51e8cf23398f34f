"""`spanstream tail`: matches of a query as they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import rich_click as click
from rich.text import Text

from agents.commands.ask import summary_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import say, screen, write_json_line

ASKED_S = 30  # how far back each question looks: spans may arrive that late
SEEN_MAX = 20_000
LIMIT = 200


class Follower:
    """Which of the answers' traces are new. Remembers at most `SEEN_MAX` traces, the oldest forgotten first."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def new(self, traces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those not seen before, oldest first; the answers come newest first."""
        found = [one for one in traces if one["traceID"] not in self._seen]
        self._seen.update(dict.fromkeys(one["traceID"] for one in found))
        for trace_id in list(self._seen)[: max(0, len(self._seen) - SEEN_MAX)]:
            del self._seen[trace_id]
        return found[::-1]


@click.command()
@click.argument("query", default="{}")
@click.option("--rate", metavar="N", type=click.IntRange(1, LIMIT), default=20, help="Lines a second (default 20)")
@click.option("--for", "for_s", metavar="S", type=click.FloatRange(min=0), help="End after so many seconds")
@asks_querier
def tail(querier: Querier, *, query: str, rate: int, for_s: float | None, as_json: bool) -> None:
    """Traces that match a TraceQL query, as they arrive, until Ctrl-C. Each is shown once, when first found.

    What is more than --rate a second is counted and not shown. --json writes a line of JSON a trace.
    """
    follower, end_s = Follower(), None if for_s is None else time.monotonic() + for_s
    begun, first = int(time.time()), True
    while True:
        asked_at_s, now = time.monotonic(), int(time.time())
        start = max(now - ASKED_S, begun - 1)
        answer = querier.ask("/api/search", {"q": query, "start": start, "end": now + 1, "limit": LIMIT})
        if first:
            say(f"Following {query} at {querier.url}: Ctrl-C ends")
            first = False
        found = follower.new(answer.get("traces", []))
        for one in found[-rate:]:
            _show(one, as_json=as_json)
        if len(found) > rate:
            more = "at least " if answer.get("nextCursor") else ""
            say(f"{more}{len(found) - rate:,} skipped: more than {rate} a second match")
        if answer.get("status") == "PARTIAL":
            say(f"The answer is PARTIAL: {answer.get('message', '')}")
        if end_s is not None and time.monotonic() >= end_s:
            return
        time.sleep(max(0.0, asked_at_s + 1 - time.monotonic()))


def _show(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json_line(one)
    else:
        screen().print(Text("  ").join(summary_of(one)), soft_wrap=True)

"""`spanstream tail`: matches of a query as they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import rich_click as click
from rich.text import Text

from agents.commands.ask import summary_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import say, screen, write_json_line
from topics.errors import BadQuestionError

SETTINGS = tuple(f"terminal.tail_{name}" for name in ("every_s", "reach_s", "traces_max", "seen_traces_max"))


class Follower:
    """Which of the answers' traces are new. Remembers at most `seen_max` traces, the oldest forgotten first."""

    def __init__(self, seen_max: int) -> None:
        self._seen_max = seen_max
        self._seen: dict[str, None] = {}

    def new(self, traces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those not seen before, oldest first; the answers come newest first."""
        found = [one for one in traces if one["traceID"] not in self._seen]
        self._seen.update(dict.fromkeys(one["traceID"] for one in found))
        for trace_id in list(self._seen)[: max(0, len(self._seen) - self._seen_max)]:
            del self._seen[trace_id]
        return found[::-1]


@click.command()
@click.argument("query", default="{}")
@click.option("--rate", metavar="N", type=click.IntRange(min=1), default=20, help="Lines each time (default 20)")
@click.option("--for", "for_s", metavar="S", type=click.FloatRange(min=0), help="End after so many seconds")
@partial(asks_querier, settings=SETTINGS)
def tail(querier: Querier, *, query: str, rate: int, for_s: float | None, as_json: bool) -> None:
    """Traces that match a TraceQL query, as they arrive, until Ctrl-C. Each is shown once, when first found.

    What is more than --rate each time is counted and not shown. --json writes a line of JSON a trace.
    """
    limits = querier.terminal
    if rate > limits.tail_traces_max:
        raise BadQuestionError(f"--rate is {rate}, more than terminal.tail_traces_max ({limits.tail_traces_max})")
    follower, end_s = Follower(limits.tail_seen_traces_max), None if for_s is None else time.monotonic() + for_s
    begun, first = int(time.time()), True
    while True:
        asked_at_s, now = time.monotonic(), int(time.time())
        start = max(now - limits.tail_reach_s, begun - 1)
        asked = {"q": query, "start": start, "end": now + 1, "limit": limits.tail_traces_max}
        answer = querier.ask("/api/search", asked)
        if first:
            say(f"Following {query} at {querier.url}: Ctrl-C ends")
            first = False
        found = follower.new(answer.get("traces", []))
        for one in found[-rate:]:
            _show(one, as_json=as_json)
        if len(found) > rate:
            more = "at least " if answer.get("nextCursor") else ""
            say(f"{more}{len(found) - rate:,} skipped: more than {rate} match each time")
        if answer.get("status") == "PARTIAL":
            say(f"The answer is PARTIAL: {answer.get('message', '')}")
        if end_s is not None and time.monotonic() >= end_s:
            return
        time.sleep(max(0.0, asked_at_s + limits.tail_every_s - time.monotonic()))


def _show(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json_line(one)
    else:
        screen().print(Text("  ").join(summary_of(one)), soft_wrap=True)

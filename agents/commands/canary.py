"""`spanstream canary`: known traces in by the front door, and back by every way of asking, again and again."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from agents.commands.options import with_settings
from agents.commands.outgoing import OUTGOING, chosen_url, querier_url, receiver_url
from agents.commands.querier import Querier
from agents.commands.terminal import say, write_json
from agents.exit_codes import FAILED
from pipeline.doors.outgoing import Outgoing
from topics.errors import BadQuestionError
from topics.settings import Settings

AGES = "0s,10s,1m,1h,1d"
ONCE_AGES = "0s,10s"
AGES_MAX = 20
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.option(
    "--once", is_flag=True, help="Write one trace, look at it at each age, end; exit code 1: not all was there"
)
@click.option("--every", default="15s", help="How often a trace is written (default 15s)")
@click.option("--ages", help=f"When a trace is looked at (default {AGES}; with --once {ONCE_AGES})")
@click.option("--fresh", default="5s", help="So long a trace may take until it is found first (default 5s)")
@click.option("--state", type=click.Path(path_type=Path), help="A file: a canary started again looks at what is in it")
@click.option("--metrics-port", metavar="N", type=click.IntRange(0, 65535), help="Prometheus metrics on 127.0.0.1")
@click.option("--otlp-url", help="OTLP/HTTP to send to (default: http://receiver.host:receiver.http_port)")
@click.option("--querier-url", help="Whom to ask (default: http://querier.host:querier.http_port)")
@click.option("--tenant", default="", help="X-Scope-OrgID, where there are tenants")
@click.option("--json", "as_json", is_flag=True, help="The counts at the end, for scripts")
@with_settings(
    *("receiver.host", "receiver.http_port", "querier.host", "querier.http_port"),
    *("kafka", *OUTGOING, "log"),
    stays=True,
)
def canary(settings: Settings, **given: Any) -> None:
    """Write known traces and read them back: by ID, by search, by tag names and values, at each age.

    What is missing, doubled or not as it was written is said in a line, with the place where it went missing: receiver,
    kafka, worker, live, chunk or catalog. Runs until SIGTERM or Ctrl-C; exit code 1 where anything was not right.
    """
    from agents.canary.run import Canary, Plan
    from agents.canary.stages import reader_of
    from agents.canary.state import State

    ages_s = ages_of(given["ages"] or (ONCE_AGES if given["once"] else AGES))
    every_s = seconds(given["every"])
    plan = Plan(every_s=every_s, ages_s=ages_s, fresh_s=seconds(given["fresh"]))
    state = State(given["state"], pending_max=int(ages_s[-1] / max(every_s, 0.1)) + 100)
    if given["metrics_port"] is not None:
        from prometheus_client import start_http_server

        start_http_server(given["metrics_port"], "127.0.0.1")
    asked = chosen_url(given, "querier_url", querier_url(settings))
    with Querier(asked, given["tenant"], Outgoing.of_command(settings)) as querier:
        otlp_url = chosen_url(given, "otlp_url", receiver_url(settings))
        one = Canary(plan, otlp_url, querier, state, reader_of(settings.kafka), say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: one.stop.set())
        one.once() if given["once"] else one.run()
    told = one.told
    document = {
        "traces": told.traces,
        "checks": told.checks,
        "wrong": dict(told.wrong),
        "fresh_s_max": round(told.fresh_s_max, 3),
    }
    if given["as_json"]:
        write_json(document)
    else:
        say(
            f"{told.traces:,} traces, {told.checks:,} checks, {told.wrong.total():,} not right;"
            f" found within {told.fresh_s_max:.2f} s"
        )
    if told.wrong:
        sys.exit(FAILED)


def seconds(text: str) -> float:
    """`1.5m` -> 90. Raises BadQuestionError."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text.strip())
    if not match:
        raise BadQuestionError(f"{text!r} is no time: a number and s, m, h or d, such as 10s")
    return float(match[1]) * UNITS_S[match[2]]


def ages_of(text: str) -> tuple[float, ...]:
    """`0s,10s,1m` in growing order. Raises BadQuestionError."""
    ages_s = tuple(sorted({seconds(one) for one in text.split(",")}))
    if len(ages_s) > AGES_MAX:
        raise BadQuestionError(f"--ages names {len(ages_s)} ages, at most {AGES_MAX}")
    return ages_s

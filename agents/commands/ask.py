"""`spanstream trace|search|services|drops`: questions to a querier."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from typing import Any

import rich_click as click
from google.protobuf.json_format import MessageToDict
from rich.text import Text

from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, screen, show_table, width, write_json
from agents.commands.waterfall import colour_of, duration, rows_of, waterfall
from agents.trace_answer import TraceAnswer
from topics.errors import BadQuestionError

ORDERS = ("newest", "oldest", "longest", "shortest", "most_spans", "most_errors")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("trace_id")
@click.option("--otlp", is_flag=True, help="OTLP TracesData (protobuf) on stdout, all of the trace as it was sent")
@click.option("--rows", metavar="N", type=click.IntRange(min=1), default=1000, help="Spans shown (default 1000)")
@asks_querier
def trace(querier: Querier, *, trace_id: str, otlp: bool, rows: int, as_json: bool) -> None:
    """Show one trace as a waterfall, from live segments and the store alike. Shorter trace IDs are padded.

    --json gives OTLP as JSON, with IDs in hex; --otlp gives its protobuf bytes. Exit code 1 for an unknown trace.
    """
    answer = querier.trace(trace_id)
    if otlp:
        sys.stdout.buffer.write(answer.traces_data.SerializeToString())
    elif as_json:
        write_json(otlp_json(answer.traces_data))
    else:
        show_trace(answer, rows)
    if answer.partial:
        say(f"The answer is PARTIAL: {answer.message}")


@click.command()
@click.argument("query", required=False)
@click.option("--tags", help="key=value key2='a b': all must match on the spans or resource of one service's batch")
@click.option("--service", help="Part of a service's name, in any case")
@click.option("--name", help="Part of a span's name, in any case")
@click.option("--min-duration", help="Of the whole trace: 100ms, 1.5s")
@click.option("--max-duration", help="Of the whole trace")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option("--order", type=click.Choice(ORDERS), default="newest", help="What comes first (default newest)")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=20, help="Traces (default 20)")
@asks_querier
def search(querier: Querier, *, since: str, limit: int, as_json: bool, **given: str | None) -> None:
    """Traces that match, the newest first, live and stored alike: by a TraceQL query, or by tags.

    A query: '{ status = error && duration > 100ms }'. --json gives the querier's answer as it is, with the spans found.
    """
    tags = " ".join(filter(None, [given["tags"], _tag("service.name", given["service"]), _tag("name", given["name"])]))
    end = int(time.time()) + 1
    answer = querier.ask(
        "/api/search",
        {
            "q": given["query"],
            "tags": tags or None,
            "minDuration": given["min_duration"],
            "maxDuration": given["max_duration"],
            "order": given["order"],
            "limit": limit,
            "start": end - 1 - seconds_of(since),
            "end": end,
        },
    )
    if as_json:
        write_json(answer)
        return
    table = bare_table()
    for title in ("trace", "start", "duration", "spans", "errors", "root"):
        table.add_column(title, justify="right" if title in ("duration", "spans", "errors") else "left")
    for one in answer.get("traces", []):
        table.add_row(*summary_of(one))
    show_table(table)
    if not answer.get("traces"):
        say(f"No trace matches in the last {since}: --since 7d looks further back")
    if answer.get("status") == "PARTIAL" or answer.get("message"):
        say(f"The answer is PARTIAL: {answer.get('message', '')}")


@click.command()
@asks_querier
def services(querier: Querier, *, as_json: bool) -> None:
    """Services and their operations, with the number of spans of each."""
    answer = querier.ask("/api/services")
    if as_json:
        write_json(answer)
        return
    table = bare_table()
    table.add_column("service")
    table.add_column("operation")
    table.add_column("spans", justify="right")
    for service, operations in sorted(answer.get("services", {}).items()):
        for operation, count in sorted(operations.items(), key=lambda one: (-one[1], one[0])):
            table.add_row(Text(service, colour_of(service)), Text(operation), f"{count:,}")
    show_table(table)
    if not answer.get("services"):
        say("No span is there yet: `spanstream load` sends some, `spanstream doctor` tries every part")
    if not answer.get("complete", True):
        say(f"The answer is PARTIAL: {answer.get('message', '')}")


@click.command()
@asks_querier
def drops(querier: Querier, *, as_json: bool) -> None:
    """What was not kept as it was sent, by reason: refused, rejected, marked, copies, dead records.

    Over all workers that own partitions and the receivers of querier.receiver_urls, each since its start.
    """
    answer = querier.ask("/api/status/drops")
    if as_json:
        write_json(answer)
        return
    table = bare_table()
    for title in ("tenant", "what", "reason", "count"):
        table.add_column(title, justify="right" if title == "count" else "left", overflow="fold")
    for tenant, kinds in sorted(answer["tenants"].items()):
        for kind, reasons in sorted(kinds.items()):
            for reason, count in sorted(reasons.items(), key=lambda one: (-one[1], one[0])):
                table.add_row(
                    Text(tenant or "(not readable)"), Text(kind.replace("_", " ")), Text(reason), f"{count:,}"
                )
    show_table(table)
    if answer["complete"] and not answer["tenants"]:
        say("All was kept as it was sent, since these processes started")
    if not answer["complete"]:
        say("The answer is PARTIAL: " + "; ".join(answer["reasons"]))


def show_trace(answer: TraceAnswer, rows_max: int = 1000) -> None:
    """A line about the trace, then its waterfall."""
    rows = rows_of(answer.traces_data)
    start = min(row.span.start_time_unix_nano for row in rows)
    end = max(row.span.end_time_unix_nano for row in rows)
    errors = sum(row.span.status.code == 2 for row in rows)
    head = Text(rows[0].span.trace_id.hex(), "bold")
    head.append(f"  {when(start)}  {duration(end - start)}  {len(rows):,} spans")
    head.append(f"  {len({row.service for row in rows})} services")
    head.append(f"  {errors:,} errors" if errors else "", "red")
    screen().print(head)
    show_table(waterfall(rows, rows_max, width()))
    if len(rows) > rows_max:
        say(f"{len(rows) - rows_max:,} more spans are not shown: --rows {len(rows)} shows all")


def otlp_json(traces_data: Any) -> dict[str, Any]:
    """OTLP/JSON: IDs in hex, where protobuf's own JSON has base64."""
    document: dict[str, Any] = MessageToDict(traces_data)
    for resource, told in zip(traces_data.resource_spans, document.get("resourceSpans", []), strict=True):
        for scope, told_scope in zip(resource.scope_spans, told.get("scopeSpans", []), strict=True):
            for span, told_span in zip(scope.spans, told_scope.get("spans", []), strict=True):
                _hex_ids(span, told_span)
                for link, told_link in zip(span.links, told_span.get("links", []), strict=True):
                    _hex_ids(link, told_link)
    return document


def seconds_of(text: str) -> int:
    """`15m` -> 900. Raises BadQuestionError."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not match:
        raise BadQuestionError(f"--since is {text!r}, must be a number and s, m, h or d, such as 15m")
    return int(match[1]) * UNITS_S[match[2]]


def when(unix_ns: int) -> str:
    """Local time, to the millisecond; what no calendar has is shown as a number."""
    try:
        return datetime.fromtimestamp(unix_ns / 1e9).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{unix_ns} ns"


def _hex_ids(message: Any, told: dict[str, Any]) -> None:
    for field, name in (("trace_id", "traceId"), ("span_id", "spanId"), ("parent_span_id", "parentSpanId")):
        if name in told:
            told[name] = getattr(message, field).hex()


def _tag(key: str, value: str | None) -> str | None:
    if not value:
        return None
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{quoted}"'


def summary_of(one: dict[str, Any]) -> list[Text]:
    """A found trace as a line: ID, start, duration, spans, errors, root."""
    stats = one.get("serviceStats", {}).values()
    errors = sum(part.get("errorCount", 0) for part in stats)
    root = Text(one.get("rootServiceName", ""), colour_of(one.get("rootServiceName", "")))
    root.append(f" {one.get('rootTraceName', '')}", "bold")
    return [
        Text(one["traceID"].zfill(32)),
        Text(when(int(one.get("startTimeUnixNano", 0)))),
        Text(duration(one.get("durationMs", 0) * 10**6)),
        Text(f"{sum(part.get('spanCount', 0) for part in stats):,}"),
        Text(f"{errors:,}" if errors else "", "red"),
        root,
    ]

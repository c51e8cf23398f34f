"""`spanstream load`: send realistic spans, and count them back."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from agents.commands.options import with_settings
from agents.commands.outgoing import OUTGOING, chosen_url, querier_url, receiver_url
from agents.commands.terminal import notes, screen, write_json
from agents.exit_codes import FAILED
from agents.load.blocks import AGE_S, Load
from agents.load.check import Counted, Question, check
from agents.load.send import Sent, Target, send
from pipeline.doors.outgoing import Outgoing
from topics.errors import BadQuestionError
from topics.settings import Settings

Result = TypeVar("Result")
SEED_MAX = 2**31


@click.command()
@click.option(
    "--spans", metavar="N", type=click.IntRange(min=1), default=100_000, help="About so many spans (default 100000)"
)
@click.option(
    "--rate",
    metavar="X",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Spans a second (default 0: as fast as it goes)",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, SEED_MAX),
    help="Decides everything but the times (default: any, told)",
)
@click.option(
    "--age-s",
    metavar="X",
    type=click.FloatRange(0, 366 * 86_400),
    default=AGE_S,
    help="Traces start so long before they are sent (default 2)",
)
@click.option(
    "--check", "do_check", is_flag=True, help="Count back every span; exit code 1 where one is not there once"
)
@click.option(
    "--check-only", is_flag=True, help="Send nothing: count back what the same --spans and --seed sent before"
)
@click.option("--check-store", is_flag=True, help="Count the rows in the chunks too, once all of them are stored")
@click.option(
    "--settle-s", metavar="X", type=click.FloatRange(min=0), default=30.0, help="Ask again so long for missing spans"
)
@click.option("--otlp-url", help="OTLP/HTTP to send to (default: http://receiver.host:receiver.http_port)")
@click.option("--querier-url", help="Whom --check asks (default: http://querier.host:querier.http_port)")
@click.option("--tenant", default="", help="X-Scope-OrgID, where the receiver takes tenants")
@click.option(
    "--connections", metavar="N", type=click.IntRange(1, 256), default=4, help="Requests at a time (default 4)"
)
@click.option(
    "--give-up-s", metavar="X", type=click.FloatRange(min=0), default=60.0, help="Try an unanswered request so long"
)
@click.option("--json", "as_json", is_flag=True, help="For scripts")
@with_settings(
    *("receiver.host", "receiver.http_port", "querier.host", "querier.http_port"),
    *("kafka.topic_prefix", "store", *OUTGOING, "log"),
)
def load(settings: Settings, **given: Any) -> None:
    """Send spans of a shop of twenty services, as their SDKs would: about 20 spans a trace, 300 bytes a span.

    What is answered with 429 or 503, or not answered, is sent again. --check then asks the querier for every trace by
    its ID: a span whose request was acknowledged must be there once, any other at most once; copies that the querier
    merged count as doubled. --check-store counts the rows of the chunks themselves, without any querier.
    """
    if given["check_only"] and given["seed"] is None:
        raise BadQuestionError("--check-only needs the --seed, and the --spans, of the load that was sent before")
    seed = given["seed"] if given["seed"] is not None else secrets.randbelow(SEED_MAX)
    work = Load(given["spans"], seed, given["age_s"])
    outgoing = Outgoing.of_command(settings)
    target = Target(
        url=chosen_url(given, "otlp_url", receiver_url(settings)),
        tenant=given["tenant"],
        outgoing=outgoing,
        spans_per_s=given["rate"],
        connections=given["connections"],
        give_up_s=given["give_up_s"],
    )
    with notes().status("preparing the load"):
        work.prepare()
    sent = None if given["check_only"] else _with_bar("sending", work.spans, lambda tell: _send(work, target, tell))
    counted = None
    if given["do_check"] or given["check_only"]:
        question = Question(
            url=chosen_url(given, "querier_url", querier_url(settings)),
            tenant=given["tenant"],
            outgoing=outgoing,
            settle_s=given["settle_s"],
        )
        acknowledged = sent.acknowledged if sent else None
        counted = _with_bar(
            "counting traces",
            work.traces,
            lambda tell: check(work, acknowledged, question, lambda so_far: tell(so_far.traces)),
        )
    stored = _count_stored(settings, work, sent, given["settle_s"]) if given["check_store"] else None
    document = as_document(work, sent, {"check": counted, "check_store": stored})
    tell = write_json if given["as_json"] else show
    tell(document)
    if document["failed"]:
        sys.exit(FAILED)


async def _send(work: Load, target: Target, tell: Callable[[int], None]) -> Sent:
    return await send(work, target, lambda so_far: tell(so_far.spans))


def _with_bar(what: str, total: int, work: Callable[[Callable[[int], None]], Awaitable[Result]]) -> Result:
    """Run on uvloop with a progress bar, which shows on a terminal only."""
    import uvloop

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes(), transient=True, disable=not notes().is_terminal) as bar:
        task = bar.add_task(what, total=total)

        async def run() -> Result:
            return await work(lambda done: bar.update(task, completed=done))

        return uvloop.run(run())


def as_document(work: Load, sent: Sent | None, counted: Mapping[str, Counted | None]) -> dict[str, Any]:
    """The outcome for scripts; `failed`: what was sent is not all acknowledged, or not all there once."""
    document: dict[str, Any] = {"seed": work.seed, "spans": work.spans, "traces": work.traces, "failed": False}
    if sent is not None:
        document["sent"] = {
            "spans": sent.spans,
            "spans_acknowledged": sent.spans_acknowledged,
            "spans_rejected": sent.spans_rejected,
            "requests": sent.requests,
            "bytes": sent.bytes,
            "retries": sent.retries,
            "seconds": round(sent.seconds, 3),
            "spans_per_s": round(sent.spans / sent.seconds) if sent.seconds else 0,
            "problem": sent.problem,
        }
        document["failed"] = sent.spans_acknowledged < sent.spans
    for name, found in counted.items():
        if found is not None:
            document[name] = _counted(found)
            document["failed"] = document["failed"] or not found.exact
    return document


def _counted(counted: Counted) -> dict[str, Any]:
    return {
        "traces": counted.traces,
        "spans": counted.spans,
        "missing": counted.missing,
        "doubled": counted.doubled,
        "unexpected": counted.unexpected,
        "partial_answers": counted.partial,
        "partial_reasons": dict(counted.partial_reasons.most_common(5)),
        "examples": counted.examples,
        "seconds": round(counted.seconds, 3),
    }


def _count_stored(settings: Settings, work: Load, sent: Sent | None, settle_s: float) -> Counted:
    from agents.load.stored import count_stored
    from pipeline.store.objects import ObjectStore
    from topics import spans_by_trace
    from topics.topic import full_name

    store = ObjectStore(settings.store)
    try:
        topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        return count_stored(store, topic, work, sent.acknowledged if sent else None, settle_s)
    finally:
        store.close()


def show(document: dict[str, Any]) -> None:
    """The outcome for people."""
    out = screen()
    if sent := document.get("sent"):
        out.print(
            f"sent {sent['spans']:,} spans of {document['traces']:,} traces in {sent['seconds']:.1f} s"
            f" ({sent['spans_per_s']:,} spans/s, {sent['bytes'] / 1e6:.1f} MB, seed {document['seed']})"
        )
        if sent["retries"]:
            out.print(f"{sent['retries']:,} requests had to be sent again")
        if sent["spans_acknowledged"] < sent["spans"]:
            lacking = sent["spans"] - sent["spans_acknowledged"]
            out.print(Text(f"{lacking:,} spans were not acknowledged: {sent['problem'] or 'rejected'}", "bold red"))
    for name, where in (("check", "found"), ("check_store", "in the chunks:")):
        if name in document:
            _show_counted(document[name], where)


def _show_counted(counted: dict[str, Any], where: str) -> None:
    out = screen()
    wrong = {kind: counted[kind] for kind in ("missing", "doubled", "unexpected", "partial_answers")}
    told = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in wrong.items())
    style = "bold red" if any(wrong.values()) else "bold green"
    out.print(Text(f"{where} {counted['spans']:,} spans of {counted['traces']:,} traces: {told}", style))
    for kind, examples in counted["examples"].items():
        for example in examples:
            out.print(Text(f"  {kind}: trace and span {example}"))
    for reason, count in counted["partial_reasons"].items():
        out.print(Text(f"  {count:,} answers are partial: {reason}"))

"""`spanstream demo`: the whole way of a span on this machine, step by step, and a worker killed under load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import rich_click as click
from rich.text import Text

from agents.commands.ask import show_trace
from agents.commands.local_run import LocalRun, variables_of
from agents.commands.options import ALL, given_by, with_settings
from agents.commands.querier import Querier
from agents.commands.terminal import notes, say, say_error, screen
from agents.commands.up import interrupt_on_sigterm, until_interrupted
from agents.commands.where import show_where
from agents.exit_codes import FAILED
from infra.ports import is_free
from topics.errors import NotFoundError, QuerierUnavailableError, StackError
from topics.settings import Settings, origins

DEMO: dict[str, Any] = {
    "store.buckets": ("spans-a", "spans-b"),
    "worker.seal_age_s": 8.0,  # so that a chunk is seen soon; 900 s otherwise
    "kafka.session_timeout_s": 6.0,
}
PORTS = (
    *("receiver.grpc_port", "receiver.http_port", "querier.http_port", "querier.grpc_port", "worker.port"),
    *("stack.kafka_port", "stack.kafka_controller_port", "stack.store_port"),
)
SHOP_SPANS = 9
STEP_TIMEOUT_S = 60.0
KILL_AFTER = 0.4  # of the load
POLL_S = 0.1
Answer = TypeVar("Answer")


@click.command()
@with_settings(*ALL)
@click.option("--once", is_flag=True, help="End after the last step; exit code 0 only if all of it was seen")
@click.option("--spans", metavar="N", type=click.IntRange(min=1000), default=30_000, help="Of the load (default 30000)")
@click.option("--rate", metavar="X", type=click.FloatRange(min=100), default=5000.0, help="Spans a second (5000)")
@click.pass_context
def demo(context: click.Context, settings: Settings, *, once: bool, spans: int, rate: float) -> None:
    """Start everything, send a trace with a stock OpenTelemetry program, follow it from Kafka into a chunk, then kill
    the worker with -9 under load and count what is stored.

    Two buckets, chunks after 8 s, data in `demo` below the data folder; a port that is in use is replaced by a free
    one, unless it was asked for.
    """
    interrupt_on_sigterm()
    chosen = demo_settings(settings, origins(*given_by(context)))
    started = time.monotonic()
    with LocalRun(chosen, say_first_line) as run, Querier(run.addresses.querier) as querier:
        story = Story(run, querier)
        story.title(f"Everything runs, after {time.monotonic() - started:.1f} s")
        screen().print(
            f"  object store {run.store_kind} with buckets {', '.join(chosen.store.buckets)}, Kafka at", end=" "
        )
        screen().print(f"{run.addresses.kafka}, data in {run.run_path.parent}")
        try:
            seen = story.tell(spans, rate)
        except KeyboardInterrupt:
            return
        if once:
            sys.exit(0 if seen else FAILED)
        say(f"Everything keeps running: {run.addresses.querier} (Ctrl-C stops it).")
        until_interrupted(run.supervisor, "Stopping; the data stays.")


def say_first_line(text: str) -> None:
    """Without the end of a log: a worker is killed here on purpose."""
    say(text.partition(" Its log is")[0])


def demo_settings(settings: Settings, origin: Mapping[str, str]) -> Settings:
    """The demo's values where nothing was given: two buckets, early chunks, its own folder, free ports."""
    values = {name: value for name, value in DEMO.items() if origin[name] == "default"}
    for name in PORTS:
        section, field = name.split(".")
        if origin[name] == "default" and not is_free(getattr(getattr(settings, section), field)):
            values[name] = 0
    values["stack.data_dir"] = settings.stack.data_dir / "demo"
    for name, value in values.items():
        section, field = name.split(".")
        part = getattr(settings, section).model_copy(update={field: value})
        settings = settings.model_copy(update={section: part})
    return settings


class Story:
    """The steps. Each shows what it sees and raises NotFoundError where it does not see it in time."""

    def __init__(self, run: LocalRun, querier: Querier) -> None:
        self._run = run
        self._querier = querier
        self._steps = 0

    def tell(self, spans: int, rate: float) -> bool:
        """All steps. False, and a red sentence, at the first that fails."""
        try:
            trace_id = self.send()
            live = self.show_live(trace_id)
            self.show_stored(trace_id, live)
            return self.kill_under_load(spans, rate)
        except (NotFoundError, QuerierUnavailableError, StackError) as exc:
            say_error(str(exc))
            return False

    def title(self, text: str) -> None:
        """Begin a step."""
        self._steps += 1
        screen().print(Text(f"\n{self._steps}. {text}", "bold"))

    def send(self) -> str:
        """Run the stock program; gives its trace ID."""
        addresses = self._run.addresses
        self.title("A stock OpenTelemetry program sends an order, over HTTP and over gRPC")
        command = [sys.executable, "-m", "agents.demo.shop", addresses.otlp_http, addresses.otlp_grpc]
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise StackError(f"the program failed:\n{done.stderr[-2000:]}")
        trace_id = done.stdout.strip()
        screen().print(f"  python -m agents.demo.shop {addresses.otlp_http} {addresses.otlp_grpc}")
        screen().print(f"  trace {trace_id}")
        return trace_id

    def show_live(self, trace_id: str) -> dict[bytes, bytes]:
        """The trace from live segments: waterfall, place, page. Gives each span's bytes."""
        began = time.monotonic()
        document = self._until(lambda: self._placed(trace_id, ("live",)), f"trace {trace_id} in live segments")
        self.title(f"Found in the worker's live segments {time.monotonic() - began:.2f} s after it was acknowledged")
        answer = self._querier.trace(trace_id)
        show_trace(answer)
        show_where(document)
        url = f"{self._run.addresses.querier}/trace/{trace_id}"
        page = httpx.get(f"{self._run.addresses.querier}/plain/trace/{trace_id}", timeout=STEP_TIMEOUT_S)
        if page.status_code != 200 or "charge card" not in page.text:
            raise NotFoundError(f"the page {url} does not show the trace (status {page.status_code})")
        screen().print(Text.assemble("  as a page: ", (url, "underline")))
        return _spans(answer.traces_data)

    def show_stored(self, trace_id: str, live: dict[bytes, bytes]) -> None:
        """The same trace from its chunk."""
        document = self._until(lambda: self._placed(trace_id, ("store",)), f"a chunk of trace {trace_id}")
        self.title("Stored: the same trace from its chunk")
        answer = self._querier.trace(trace_id)
        show_trace(answer)
        show_where(document)
        if _spans(answer.traces_data) != live:
            raise NotFoundError("the stored trace differs from the live one")
        screen().print(Text("  every span is the same as before it was stored", "green"))

    def kill_under_load(self, spans: int, rate: float) -> bool:
        """Send a load, kill a worker in the middle of it, count. True if every span is stored once."""
        self.title(f"About {spans:,} spans at {rate:,.0f}/s, and kill -9 for the worker in the middle of it")
        command = [sys.executable, "-m", "agents.cli", "load", "--spans", str(spans), "--rate", str(rate), "--json"]
        command += ["--check", "--check-store", "--settle-s", str(STEP_TIMEOUT_S)]
        environment, before = variables_of(self._run.settings), self._received()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        ) as load:
            killed = False
            while load.poll() is None:
                if not killed and self._received() - before > KILL_AFTER * spans:
                    killed = self._kill_worker()
                self._watch()
            output, errors = load.communicate()
        try:
            document = json.loads(output)
        except ValueError:
            raise StackError(f"the load failed: {errors[-2000:]}") from None
        return self._show_count(document) and killed

    def _received(self) -> float:
        """Spans that the receiver has acknowledged, from its metrics."""
        page = httpx.get(f"{self._run.addresses.otlp_http}/metrics", timeout=STEP_TIMEOUT_S).text
        found = re.search(r"^spanstream_receiver_spans_total (\S+)", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _kill_worker(self) -> bool:
        child = self._run.roles["worker 1"].child
        screen().print(Text(f"  kill -9 {child.pid}  (worker 1)", "bold red"))
        child.kill()
        return True

    def _show_count(self, document: dict[str, Any]) -> bool:
        sent, found, stored = document["sent"], document["check"], document["check_store"]
        good = not document["failed"]
        rows = {
            "sent": f"{sent['spans_acknowledged']:,} spans acknowledged of {sent['spans']:,}",
            "found": f"{found['spans']:,} by trace ID: {found['missing']:,} missing, {found['doubled']:,} doubled",
            "stored": f"{stored['spans']:,} in chunks: {stored['missing']:,} missing",
            "doubled": f"{stored['doubled']:,} in chunks",
        }
        for name, text in rows.items():
            screen().print(Text.assemble(f"  {name:8}", (text, "green" if good else "red")))
        return good

    def _placed(self, trace_id: str, kinds: tuple[str, ...]) -> dict[str, Any] | None:
        """Where the trace stands, if all its spans stand in these kinds of places."""
        document: dict[str, Any] = self._querier.ask(f"/api/where/{trace_id}")
        whole = document["spans"] == SHOP_SPANS and all(place["kind"] in kinds for place in document["places"])
        return document if whole else None

    def _until(self, condition: Callable[[], Answer | None], what: str) -> Answer:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        with notes().status(f"waiting for {what}"):
            while (answer := condition()) is None:
                if time.monotonic() > deadline:
                    raise NotFoundError(f"not seen within {STEP_TIMEOUT_S:g} s: {what}")
                self._watch()
        return answer

    def _watch(self) -> None:
        self._run.supervisor.watch_once()
        time.sleep(POLL_S)


def _spans(traces_data: Any) -> dict[bytes, bytes]:
    """Span ID -> the span's bytes."""
    return {
        span.span_id: span.SerializeToString(deterministic=True)
        for resource in traces_data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }

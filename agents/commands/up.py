"""`spanstream up`: everything on this machine until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import rich_click as click
from rich.text import Text

from agents.commands.local_run import LocalRun
from agents.commands.options import ALL, with_settings
from agents.commands.terminal import say, screen, write_json
from infra.supervisor import Supervisor
from topics.settings import Settings


@click.command()
@with_settings(*ALL, stays=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document when all is ready: URLs, variables, run.json")
def up(settings: Settings, *, as_json: bool) -> None:
    """Start everything on this machine: Kafka, an object store, receiver, workers and querier. Ctrl-C stops all.

    Needs no Docker, Java or Go. All data stands in one folder (--stack-data-dir) and is kept. A process that dies is
    started again. `run.json` in that folder tells role, pid and URLs of each process.
    """
    interrupt_on_sigterm()
    started = time.monotonic()
    with LocalRun(settings, say) as run:
        if as_json:
            write_json(as_document(run))
        else:
            show(run, time.monotonic() - started)
        until_interrupted(run.supervisor, "Stopping; the data stays.")


def until_interrupted(supervisor: Supervisor, last_words: str) -> None:
    """Start again what dies, until Ctrl-C or SIGTERM."""
    try:
        supervisor.run(threading.Event())
    except KeyboardInterrupt:
        say(last_words)


def interrupt_on_sigterm() -> None:
    """SIGTERM ends as Ctrl-C does: processes are stopped in reverse order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def as_document(run: LocalRun) -> dict[str, object]:
    """What a script wants to know of a run."""
    addresses = run.addresses
    return {
        "urls": {name: getattr(addresses, name) for name in type(addresses).__slots__},
        "env": addresses.env(),
        "store": run.store_kind,
        "run_json": str(run.run_path),
        "pids": {name: role.child.pid for name, role in run.roles.items()},
    }


def show(run: LocalRun, took_s: float) -> None:
    """URLs, and the variables to paste."""
    addresses, out = run.addresses, screen()
    out.print(Text.assemble(("spanstream is up", "bold green"), f" after {took_s:.1f} s."))
    rows = {
        "Send spans": f"{addresses.otlp_http}/v1/traces (OTLP/HTTP), {addresses.otlp_grpc} (OTLP/gRPC)",
        "Look at them": addresses.querier,
        "Tables": ", ".join(f"{url}/tables" for url in addresses.workers),
        "Kafka": addresses.kafka,
        "Object store": f"{addresses.store} ({run.store_kind})",
        "Data, logs": str(run.run_path.parent),
    }
    for title, value in rows.items():
        out.print(Text.assemble(("  " + title.ljust(14), "bold"), value))
    out.print(Text("Paste this where your program runs:", "bold"))
    for name, value in addresses.env().items():
        out.print(Text(f"  export {name}={value}"))
    out.print(Text("Ctrl-C stops everything.", "dim"))

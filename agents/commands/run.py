"""`spanstream receive|worker|serve`: one process of each kind, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import rich_click as click

from agents.commands.options import with_settings
from topics.settings import Settings

Serving = Callable[[Settings, asyncio.Event], Awaitable[None]]


SWITCH_INTERVAL_S = 0.0005  # a thread that decodes lets the event loop in after this, not after 5 ms a step


@click.command()
@with_settings("kafka", "receiver", "limits", "doors", "log", stays=True)
def receive(settings: Settings) -> None:
    """Take spans by OTLP/gRPC and OTLP/HTTP, write them to Kafka, answer when Kafka has them.

    A stop refuses further requests, gives those under way their answer, and loses nothing that was acknowledged.
    """
    from pipeline.receive.main import run

    until_stopped(run, settings)


@click.command()
@with_settings(
    *("kafka", "store", "receiver.record_bytes_max", "receiver.multitenancy", "limits", "worker", "chunk"),
    *("doors", "log"),
    stays=True,
)
def worker(settings: Settings) -> None:
    """Read the partitions that Kafka gives this worker: deduplicate, index, answer queriers, store chunks.

    It may be killed at any time: what it had not stored is read from Kafka again.
    """
    from agents.main import run_worker

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run_worker(settings)


@click.command()
@with_settings(
    *("kafka", "store", "querier", "receiver.multitenancy", "limits.overrides_path", "doors", "log"), stays=True
)
def serve(settings: Settings) -> None:
    """Answer queries over HTTP: what the workers hold and what is stored, as one."""
    from pipeline.serve.main import run

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    until_stopped(run, settings)


def until_stopped(serving: Serving, settings: Settings) -> None:
    """Run on uvloop until SIGTERM or SIGINT; a second signal ends it at once."""
    import uvloop

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        await serving(settings, stop)

    uvloop.run(run())

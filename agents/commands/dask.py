"""`spanstream dask up`: a Dask cluster on this machine, for queriers to hand work to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import rich_click as click
from rich.text import Text

from agents.commands.local_run import RUN_FILE, variables_of
from agents.commands.options import with_settings
from agents.commands.terminal import say, screen, write_json
from agents.commands.up import interrupt_on_sigterm, until_interrupted
from infra.ports import choose_port, is_open
from infra.process import ChildProcess, Program
from infra.supervisor import Role, Supervisor
from pipeline.doors.listening import is_loopback
from topics.errors import SettingsError
from topics.settings import Settings

PORT = 8786
WORKERS_MAX = 64
PRELOADED = "pipeline.query.dask_cluster"  # what runs on a worker: its first task waits for no import
REGISTERED = b"Registered to"  # in a worker's log, when its scheduler knows it


@click.group()
def dask() -> None:
    """Queries on more processes and machines: a querier with querier.executor = dask://host:port hands them work."""


@dask.command()
@with_settings("store", "querier.threads", "querier.memory_bytes_max", "querier.copies_bytes_max", "stack", "doors")
@click.option("--workers", type=click.IntRange(1, WORKERS_MAX), default=2, help="Worker processes (2)")
@click.option("--host", default="127.0.0.1", help="Address that all listen on; whoever reaches it can run code here")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, help=f"The scheduler's ({PORT}); 0: any free one")
@click.option("--json", "as_json", is_flag=True, help="One JSON document when all is ready: address, variables, pids")
def up(settings: Settings, *, workers: int, host: str, port: int, as_json: bool) -> None:
    """Start a Dask scheduler and workers on this machine. Ctrl-C stops all.

    For trying, and as a pattern: on several machines start `dask scheduler` and `dask worker` as your cluster does,
    each worker with this store's settings. A worker that dies is started again.
    """
    interrupt_on_sigterm()
    began_s = time.monotonic()
    say(f"Starting a scheduler and {workers} workers")
    with DaskRun(settings, say, workers=workers, host=host, port=port) as run:
        if as_json:
            write_json({"url": run.url, "env": run.env(), "pids": run.pids(), "run_json": str(run.run_path)})
        else:
            _show(run, time.monotonic() - began_s)
        until_interrupted(run.supervisor, "Stopping.")


class DaskRun:
    """`with DaskRun(...) as run:` scheduler and workers run and know each other; stopped in reverse at the end.

    Start and stop in one thread, which lives as long as the run.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], *, workers: int, host: str, port: int) -> None:
        """say: gets lines for the user. Raises SettingsError for an address beyond this machine, or without Dask."""
        if find_spec("distributed") is None:
            raise SettingsError("there is no package distributed: pip install 'spanstream[dask]'")
        if not is_loopback(host) and not settings.doors.insecure_listen:
            raise SettingsError(
                f"--host is {host!r}: whoever reaches a port of Dask can run code here, and no token guards it. Where"
                " only you reach it, doors.insecure_listen allows it (--doors-insecure-listen)"
            )
        folder = settings.stack.data_dir.expanduser().resolve() / "dask"
        self.run_path = folder / RUN_FILE
        self._port = choose_port(port, "port")
        self.host = host
        self.url = f"dask://{host}:{self._port}"
        """What querier.executor is set to."""
        self.roles = [self._scheduler(folder)]
        self.roles += [self._worker(settings, folder, number, workers) for number in range(1, workers + 1)]
        self.supervisor = Supervisor(self.run_path, settings.stack, say, {"url": self.url, "env": self.env()})

    def __enter__(self) -> DaskRun:
        try:
            for role in self.roles:
                role.child.program.log_path.unlink(missing_ok=True)
            self.supervisor.start(self.roles)
        except BaseException:
            self.supervisor.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()

    def env(self) -> dict[str, str]:
        """What a querier wants in its environment."""
        return {"SPANSTREAM_QUERIER_EXECUTOR": self.url}

    def pids(self) -> dict[str, int | None]:
        """Of each process by name."""
        return {role.name: role.child.pid for role in self.roles}

    def _scheduler(self, folder: Path) -> Role:
        own = ["--host", self.host, "--port", str(self._port)]
        program = self._program("scheduler", folder, own)
        return Role(name=program.name, child=ChildProcess(program), ready=partial(is_open, self._port, self.host))

    def _worker(self, settings: Settings, folder: Path, number: int, workers: int) -> Role:
        # Each runs one task at a time, on its share of the cores; the query engine bounds its memory itself
        threads = settings.querier.threads or max(1, (os.cpu_count() or 1) // workers)
        shared = settings.model_copy(update={"querier": settings.querier.model_copy(update={"threads": threads})})
        own = [f"tcp://{self.host}:{self._port}", "--host", self.host, "--nthreads", "1", "--no-nanny"]
        own += ["--memory-limit", "0", "--local-directory", str(folder), "--death-timeout", "60"]
        program = self._program("worker", folder, own, number, variables_of(shared))
        ready = partial(_says, program.log_path, REGISTERED)
        return Role(name=program.name, child=ChildProcess(program), ready=ready)

    def _program(
        self, kind: str, folder: Path, own: list[str], number: int = 0, env: dict[str, str] | None = None
    ) -> Program:
        # Orphans are killed: a worker that is ended together with its scheduler may wait for it for ever
        # Without a web page; what is left of its server listens on this machine alone
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *own]
        command += ["--preload", PRELOADED, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        name = f"dask {kind}" + (f" {number}" if number else "")
        log_path = folder / "log" / f"{name.replace(' ', '-')}.log"
        return Program(name=name, command=command, log_path=log_path, env=env or {}, orphaned=signal.SIGKILL)


def _says(log_path: Path, words: bytes) -> bool:
    try:
        return words in log_path.read_bytes()
    except OSError:
        return False


def _show(run: DaskRun, took_s: float) -> None:
    """Where it is, and what to paste."""
    out = screen()
    out.print(Text.assemble(("dask is up", "bold green"), f" after {took_s:.1f} s: {len(run.roles) - 1} workers."))
    out.print(Text.assemble(("  Scheduler     ", "bold"), run.url))
    out.print(Text.assemble(("  Logs          ", "bold"), str(run.run_path.parent / "log")))
    out.print(Text("Paste this where a querier starts:", "bold"))
    for name, value in run.env().items():
        out.print(Text(f"  export {name}={value}"))
    out.print(Text("Ctrl-C stops everything.", "dim"))

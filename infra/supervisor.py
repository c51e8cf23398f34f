"""Keeps a list of processes running: starts them, writes run.json, restarts what dies, stops all in reverse order."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.process import ChildProcess
from topics.errors import StackError
from topics.settings import StackSettings

RUN_FORMAT = 1
RESTART_WAIT_FIRST_S = 0.5
WATCH_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One process of a run, such as `worker 1`: the child, the URLs it answers at, and when it is ready."""

    name: str
    child: ChildProcess
    urls: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class _Watched:
    role: Role
    started: float
    wait_s: float
    restarts: int = 0
    due: float | None = None  # when it is started again; None while it runs


class Supervisor:
    """Runs roles until it is stopped. Not thread-safe; the thread that uses it must live as long as the processes.

    A role that dies is started again after 0.5 s; the wait doubles up to stack.restart_wait_max_s, and begins anew when
    the role has lived longer than that.
    """

    def __init__(
        self, run_path: Path, stack: StackSettings, say: Callable[[str], None], facts: Mapping[str, Any] | None = None
    ) -> None:
        """run_path: of run.json. say: gets a sentence for every death and restart. facts: put into run.json as well."""
        self._run_path = run_path
        self._stack = stack
        self._say = say
        self._facts = dict(facts or {})
        self._watched: list[_Watched] = []

    def adopt(self, roles: Sequence[Role]) -> None:
        """Watch processes that run already, as those of a LocalStack; they are restarted and stopped as all others."""
        now = time.monotonic()
        self._watched += [_Watched(role, now, self._first_wait_s) for role in roles]
        self._write_run()

    def start(self, roles: Sequence[Role]) -> None:
        """Start all at once, return when all are ready. Raises StackError, with the log's end; `stop` is still due."""
        for role in roles:
            self._watched.append(_Watched(role, time.monotonic(), self._first_wait_s))
            role.child.start()
        self._write_run()
        for role in roles:
            role.child.wait_ready(role.ready, self._stack.start_timeout_s)

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set. It does not stop the processes: call `stop` for that, whatever happens here."""
        while not stop.wait(WATCH_S):
            self.watch_once()

    def watch_once(self) -> None:
        """See who has died, start again whose wait is over. Never raises because of a role."""
        changed = False
        for watched in self._watched:
            if watched.due is None:
                changed |= self._see(watched)
            elif time.monotonic() >= watched.due:
                self._restart(watched)
                changed = True
        if changed:
            try:
                self._write_run()
            except OSError as exc:  # a full disk; it is what killed the others, perhaps
                self._say(f"{self._run_path} cannot be written: {exc.strerror}")

    def stop(self) -> None:
        """Stop all in reverse order, each killed after stack.stop_timeout_s; run.json goes. Can be called twice."""
        while self._watched:
            role = self._watched.pop().role
            if not role.child.stop(self._stack.stop_timeout_s):
                self._say(f"{role.name} did not stop within {self._stack.stop_timeout_s:g} s and was killed.")
        self._run_path.unlink(missing_ok=True)

    @property
    def _first_wait_s(self) -> float:
        return min(RESTART_WAIT_FIRST_S, self._stack.restart_wait_max_s)

    def _see(self, watched: _Watched) -> bool:
        """True if it has died; then its restart is due after a wait."""
        if watched.role.child.alive:
            return False
        now = time.monotonic()
        if now - watched.started > self._stack.restart_wait_max_s:
            watched.wait_s = self._first_wait_s
        watched.due = now + watched.wait_s
        self._say(
            f"{watched.role.name} has died ({watched.role.child.end()}); it is started again in {watched.wait_s:g} s."
            f"{watched.role.child.said()}"
        )
        watched.wait_s = min(2 * watched.wait_s, self._stack.restart_wait_max_s)
        return True

    def _restart(self, watched: _Watched) -> None:
        watched.restarts += 1
        watched.started = time.monotonic()
        watched.due = None  # if it cannot be started, it counts as dead at once and waits longer
        try:
            watched.role.child.start()
        except StackError as exc:
            self._say(str(exc))
        else:
            self._say(f"{watched.role.name} was started again (pid {watched.role.child.pid}).")

    def _write_run(self) -> None:
        processes = [
            {
                "role": watched.role.name,
                "pid": watched.role.child.pid if watched.due is None else None,
                "urls": dict(watched.role.urls),
                "log": str(watched.role.child.program.log_path),
                "restarts": watched.restarts,
            }
            for watched in self._watched
        ]
        me = psutil.Process()
        run = {"format": RUN_FORMAT, "pid": me.pid, "started_unix_s": me.create_time(), **self._facts}
        self._run_path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._run_path.with_name(f"{self._run_path.name}.partial")
        partial.write_text(json.dumps({**run, "processes": processes}, indent=2) + "\n")
        os.replace(partial, self._run_path)


def read_run(run_path: Path) -> dict[str, Any] | None:
    """run.json of a run that is under way: {format, pid, started_unix_s, processes: [{role, pid, urls, log,
    restarts}], ...facts}. None where there is none or its supervisor is dead; a role's pid is null while it is down.
    """
    try:
        run: dict[str, Any] = json.loads(run_path.read_text())
    except (OSError, ValueError):
        return None
    with suppress(psutil.Error):
        if abs(psutil.Process(run["pid"]).create_time() - run["started_unix_s"]) < 1:  # a pid is used again
            return run
    return None

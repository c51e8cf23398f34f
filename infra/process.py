"""A child process with a log file, a ready condition and an end: it never outlives us, nor hangs us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from topics.errors import StackError

LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16_384
POLL_S = 0.02

# Runs between fork and exec, in a fresh interpreter: Python code in a forked child of a threaded parent may deadlock.
# 1 is PR_SET_PDEATHSIG, Linux only: the kernel sends that signal when the parent's thread ends. A parent that died
# before is seen by its changed pid.
_LAUNCHER = """
import os, sys
parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, number)
    if os.getppid() != parent:
        sys.exit("its parent has died")
try:
    os.execvp(command[0], command)
except OSError as exc:
    sys.exit(f"cannot run {command[0]}: {exc.strerror}")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: command and its arguments, never through a shell; env is added to ours.

    orphaned: the signal that it gets when we die.
    """

    name: str
    command: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    orphaned: signal.Signals = signal.SIGTERM


class ChildProcess:
    """One run of a program, in a process group of its own so that Ctrl-C reaches only us.

    Output goes to the log file; the log of the run before is kept beside it as `<log>.1`. On Linux it gets a
    signal when the thread that called `start` ends, also by `kill -9`: start children from a thread that lives as long
    as they.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int | None:
        """None before the start; kept after the end."""
        return self._popen.pid if self._popen else None

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll() if self._popen else None

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; returns at once. Raises StackError where the program or the log file cannot be opened."""
        if self.alive:
            return
        program = self.program
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(program.orphaned))]
        launch += program.command
        try:
            program.log_path.parent.mkdir(parents=True, exist_ok=True)
            if program.log_path.exists():
                program.log_path.replace(f"{program.log_path}.1")
            with program.log_path.open("wb") as log:
                self._popen = subprocess.Popen(
                    launch,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **program.env},
                    cwd=program.cwd,
                    process_group=0,
                )
        except OSError as exc:
            raise StackError(f"{program.name} cannot be started: {exc}") from exc

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Ask `ready` every 20 ms until it is true. Raises StackError, with the log's end, on death or time-out."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise StackError(f"{self.name} has ended ({self.end()}) before it was ready.{self.said()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready within {timeout_s:g} s.{self.said()}")
            time.sleep(POLL_S)

    def stop(self, timeout_s: float) -> bool:
        """SIGTERM to its group, SIGKILL after timeout_s. True if it went by itself. Does nothing when it has ended."""
        self.terminate()
        return self.wait_stopped(timeout_s)

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._signal_group(signal.SIGTERM)

    def wait_stopped(self, timeout_s: float) -> bool:
        """Wait for the end, SIGKILL to the group after timeout_s. True if it went by itself."""
        if self._popen is None:
            return True
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            self._popen.wait()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to its group and wait for the end: what `kill -9` does."""
        self._signal_group(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()

    def end(self) -> str:
        """How it ended, for a sentence: `exit code 1`, `signal SIGKILL`, `still running`."""
        code = self.returncode
        if code is None:
            return "still running" if self.alive else "not started"
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def said(self) -> str:
        """Where its log is and what stands at its end, to be put after a sentence."""
        tail = log_tail(self.program.log_path)
        return f" Its log is {self.program.log_path}" + (f" and ends with:\n{tail}" if tail else ", and is empty.")

    def _signal_group(self, number: signal.Signals) -> None:
        if self._popen is not None and self._popen.poll() is None:
            os.killpg(self._popen.pid, number)


def log_tail(path: Path) -> str:
    """The last lines of a log, at most 16 kB; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_TAIL_LINES:])

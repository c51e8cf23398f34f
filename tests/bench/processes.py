"""The processes that are measured: real ones, on a real Kafka and a real MinIO."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agents.commands.local_run import is_ready, variables_of
from tests.metrics import metric, peak_bytes
from topics.settings import Settings

TICKS = os.sysconf("SC_CLK_TCK")
READY_S = 60.0
SENDERS = 32  # requests under way at a time: a load comes from many SDKs


class Measured:
    """One `spanstream` process. A context: started, ready, ended with SIGTERM."""

    def __init__(self, command: str, settings: Settings, url: str, log: Path) -> None:
        self._command, self._settings, self.url, self._log = command, settings, url, log
        self.started_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, without waiting."""
        self.started_s = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agents.cli", self._command],
                env=os.environ | variables_of(self._settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> float:
        """Seconds from the start until /ready answers 200."""
        until(lambda: is_ready(self.url), READY_S, f"{self._command} ready, see {self._log}")
        return time.monotonic() - self.started_s

    def __enter__(self) -> Measured:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        """Stop it, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)

    def cpu_s(self) -> float:
        """User and system time so far, ended children included."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICKS

    def peak_mb(self) -> float:
        """Largest resident set so far, in MB of 10^6 bytes."""
        assert self._process is not None
        return peak_bytes(self._process.pid) / 1e6

    def metric(self, name: str) -> float:
        """A metric, its labels summed."""
        return metric(self.url, name)


def until(condition: object, timeout_s: float, what: str, *, poll_s: float = 0.05) -> None:
    """Wait for a condition; TimeoutError says for what."""
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(poll_s)


def send_load(url: str, spans: int, seed: int, rate: float = 0.0, *more: str) -> dict[str, Any]:
    """Send a load with `spanstream load` in a process of its own; returns what it tells. more: its options."""
    command = [*load_command(url, spans, seed, rate), *more]
    done = subprocess.run(command, check=True, capture_output=True, timeout=1200)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def load_command(url: str, spans: int, seed: int, rate: float = 0.0) -> list[str]:
    """The command that sends a load."""
    options = ["--spans", str(spans), "--seed", str(seed), "--rate", str(rate), "--otlp-url", url, "--json"]
    options += ["--connections", str(SENDERS)]
    return [sys.executable, "-m", "agents.cli", "load", *options]

"""`python -m tests.shifted_clock SECONDS COMMAND ...`: spanstream with a clock that is wrong, until SIGALRM comes."""

from __future__ import annotations

import runpy
import signal
import sys
import time
from datetime import datetime, timedelta

import minio.time


class Clock:
    """Stands in the place of what tells the wall clock's time to us and to who signs requests."""

    def __init__(self, wrong_s: float) -> None:
        self._wrong_s = wrong_s
        self._time_ns, self._utcnow = time.time_ns, minio.time.utcnow

    def time_ns(self) -> int:
        return self._time_ns() + int(self._wrong_s * 1e9)

    def time(self) -> float:
        return self.time_ns() / 1e9

    def utcnow(self) -> datetime:
        return self._utcnow() + timedelta(seconds=self._wrong_s)

    def set_right(self, *_: object) -> None:
        self._wrong_s = 0.0


if __name__ == "__main__":
    clock = Clock(float(sys.argv.pop(1)))
    time.time, time.time_ns, minio.time.utcnow = clock.time, clock.time_ns, clock.utcnow
    signal.signal(signal.SIGALRM, clock.set_right)
    runpy.run_module("agents.cli", run_name="__main__")

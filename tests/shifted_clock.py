"""`python -m tests.shifted_clock BEFORE AFTER SIGNS COMMAND ...`: spanstream with a clock that is so many s wrong.

AFTER counts from SIGALRM on. SIGNS: `wrong`, or `right` where the store's clock is wrong by as much, so that it takes
what is signed with it.
"""

from __future__ import annotations

import runpy
import signal
import sys
import time
from datetime import datetime, timedelta

import minio.time


class Clock:
    """Stands in the place of what tells the wall clock's time to us and to who signs requests."""

    def __init__(self, before_s: float, after_s: float) -> None:
        self._wrong_s, self._after_s = before_s, after_s
        self._time_ns, self._utcnow = time.time_ns, minio.time.utcnow

    def time_ns(self) -> int:
        return self._time_ns() + int(self._wrong_s * 1e9)

    def time(self) -> float:
        return self.time_ns() / 1e9

    def utcnow(self) -> datetime:
        return self._utcnow() + timedelta(seconds=self._wrong_s)

    def set(self, *_: object) -> None:
        self._wrong_s = self._after_s


if __name__ == "__main__":
    before_s, after_s, signs = (sys.argv.pop(1) for _ in range(3))
    clock = Clock(float(before_s), float(after_s))
    time.time, time.time_ns = clock.time, clock.time_ns
    if signs == "wrong":
        minio.time.utcnow = clock.utcnow
    signal.signal(signal.SIGALRM, clock.set)
    runpy.run_module("agents.cli", run_name="__main__")

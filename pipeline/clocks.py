"""The two clocks of a process: what is stored tells the time of one, how long something has lasted the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Clocks(NamedTuple):
    """unix_ns: the wall clock, which somebody may set. steady_ns: ns since any moment, never set back or forward.

    Nothing of steady_ns leaves the process: another one counts from another moment.
    """

    unix_ns: Callable[[], int]
    steady_ns: Callable[[], int]

    def has_passed(self, since_ns: int | None, every_ns: float) -> bool:
        """Whether it is so long since, by the steady clock; since_ns None: it was never done."""
        return since_ns is None or self.steady_ns() - since_ns >= every_ns


def own_clocks() -> Clocks:
    """This process's."""
    return Clocks(time.time_ns, time.monotonic_ns)

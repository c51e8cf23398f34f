"""How actors come back that a rebalance cancelled."""

from __future__ import annotations

from typing import Any

from mode import OneForOneSupervisor
from mode.utils.times import rate_limit

RESTARTS_PER_S = 100.0


class PatientSupervisor(OneForOneSupervisor):
    """Restarts what has crashed, one after the other; above RESTARTS_PER_S they wait.

    Faust's own ends the process at the second restart within 10 ms (100 a second, of a bucket that holds one). A
    rebalance cancels the actors of all revoked partitions together, so it would end workers, each of which is the next
    rebalance.
    """

    def __init__(self, *services: Any, **given: Any) -> None:
        super().__init__(*services, **given)
        self._bucket = rate_limit(RESTARTS_PER_S)  # who raises nothing sleeps

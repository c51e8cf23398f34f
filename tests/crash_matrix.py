"""Every step of a worker's way, killed with -9 there, taken over in four ways: what is stored is what was sent, once.

The cells run after each other on one deployment: the worker that takes over from one death dies at the next cell's
step, so that each cell costs one start.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

from pipeline.store.objects import ObjectStore
from tests.crashing import STEPS
from tests.test_kill_and_rebalance import Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin
from topics.settings import Settings

RECORDS = 48  # a cell: enough for every partition to be sealed by size
DIES_WITHIN_S = 60
RECOVERS_WITHIN_S = 90
COMMAND = ("-m", "tests.crashing", "worker")


class Cell(NamedTuple):
    """A death, and who comes after it: the same worker or another, with the dead one's disk or without."""

    step: str
    same: bool
    disk: bool

    def __str__(self) -> str:
        who = "same worker" if self.same else "another worker"
        return f"{self.step}, {who} {'with' if self.disk else 'without'} its disk"


CELLS = [Cell(step, same, disk) for step, same, disk in product(STEPS, (True, False), (True, False))]


@dataclass
class Outcome:
    """What a run of cells left."""

    cells: int = 0
    lost: int = 0
    doubled: int = 0
    survived: list[str] = field(default_factory=list)
    """Cells whose worker did not die: their step was not met."""
    recovery_s_max: float = 0.0


class Line:
    """The workers one after the other: their names, and the folder that goes from one to the next."""

    def __init__(self, settings: Settings, folder: Path, without: str) -> None:
        more = {"SPANSTREAM_WORKER_DROP_GRACE_S": "0.2", "WITHOUT": without}
        self.workers = Workers(settings, folder, command=COMMAND, variables=more)
        self._folder = folder
        self._number = 0

    @property
    def name(self) -> str:
        """Of the worker that runs now."""
        return f"worker-{self._number}"

    def start(self, step: str = "") -> None:
        """Start it, to die at this step."""
        self.workers.start(self.name, static_member=self.name, variables={"CRASH_AT": step})

    def take_over(self, cell: Cell) -> None:
        """What is left of the dead one, and the name of who comes after it."""
        dead = self._folder / self.name
        if not cell.disk:
            shutil.rmtree(dead, ignore_errors=True)
        if not cell.same:
            self._number += 1
            if cell.disk and dead.exists():
                dead.rename(self._folder / self.name)


def run(settings: Settings, folder: Path, cells: Iterable[Cell], *, without: str = "") -> Outcome:
    """Run the cells; without: a protection that is taken out of every worker."""
    admin.ensure(settings)
    store, load, outcome = ObjectStore(settings.store), Load(settings), Outcome()
    line = Line(settings, folder, without)
    with line.workers:
        for cell in cells:
            outcome.cells += 1
            line.start(cell.step)
            load.send(RECORDS)
            load.send_again(RECORDS // 4)
            process = line.workers.running[line.name]
            try:
                wait_until(lambda process=process: process.poll() is not None, DIES_WITHIN_S, str(cell))
            except AssertionError:
                outcome.survived.append(str(cell))
            line.workers.kill(line.name)
            line.take_over(cell)
        load.send_again(RECORDS)  # who forgets its window stores them twice
        line.start()
        began = time.monotonic()
        wait_until(lambda: everything_is_stored(store, settings), RECOVERS_WITHIN_S, "everything is stored")
        outcome.recovery_s_max = time.monotonic() - began
    stored = stored_span_ids(store, settings)
    outcome.lost = sum((Counter(load.sent) - stored).values())
    outcome.doubled = sum((stored - Counter(load.sent)).values())
    store.close()
    return outcome

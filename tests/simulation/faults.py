"""What goes wrong, and when: chosen by a seed, bounded in number, counted by the commit step it met."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.store import MANIFEST_FAULTS, PUT_FAULTS, READ_FAULTS

if TYPE_CHECKING:
    from tests.simulation.workers import SimulatedWorker
    from tests.simulation.world import World

# The way of a partition: being loaded, reading again; records in; a range out.
IN_STEPS = ("load", "replay", "take", "decode", "live")
OUT_STEPS = ("seal", "chunk", "side", "manifest", "settle", "entry", "ack", "commit", "drop")
STEPS = IN_STEPS + OUT_STEPS
PROCESS_FAULTS = ("crash", "stop", "expel", "rebalance", "retention", "ahead", "clock set")
STORE_STEPS = {
    "load": READ_FAULTS,
    "chunk": PUT_FAULTS,
    "side": PUT_FAULTS,
    "manifest": MANIFEST_FAULTS,
    "settle": READ_FAULTS[:2],
    "query": READ_FAULTS,
}
KAFKA_STEPS = {
    "kafka away": ("load", "replay", "take", "entry", "dead", "query"),
    "answer lost": ("entry", "dead"),
    "fetch dropped": ("take",),
    "seek lost": ("replay",),
}
CELLS = frozenset(
    [(fault, step) for fault in PROCESS_FAULTS for step in STEPS]
    + [(fault, step) for step, faults in STORE_STEPS.items() for fault in faults]
    + [(fault, step) for fault, steps in KAFKA_STEPS.items() for step in steps]
)
COLUMNS = (*STEPS, "dead", "query")
ROWS = (*PROCESS_FAULTS, *MANIFEST_FAULTS, "slow", "kafka away", "fetch dropped", "seek lost")
STORE_OPS = {"list": "slow"}


class Faults:
    """The faults of one seed. without: numbers of faults that are left out, to find out which ones matter."""

    def __init__(self, seed: int, without: frozenset[int]) -> None:
        self.rng = random.Random(f"faults {seed}")
        self.without = without
        self.active = True
        self.left = self.rng.choice([0, 2, 4, 8, 12, 20]) if seed % 10 else 4
        self.rate = self.rng.choice([0.005, 0.02, 0.05])
        cells = sorted(CELLS)
        self.focus = {cells[seed * 7 % len(cells)], self.rng.choice(cells)}
        self.met: Counter[tuple[str, str]] = Counter()
        self.struck: list[str] = []
        self.note: Callable[[str], None] = lambda text: None

    def strikes(self, fault: str, step: str) -> bool:
        """Whether this fault happens at this step."""
        rate = 0.4 if (fault, step) in self.focus else self.rate / 4 if fault in PROCESS_FAULTS else self.rate
        if not self.active or self.left <= 0 or self.rng.random() >= rate:
            return False
        self.left -= 1
        self.struck.append(f"{fault} at {step}")
        if len(self.struck) - 1 in self.without:
            return False
        if fault not in PROCESS_FAULTS:
            self.met[fault, step] += 1
            self.note(f"{fault} at {step}")
        return True

    def of_store(self, what: str, step: str) -> str:
        """The fault of a request to the store, or an empty string."""
        for fault in STORE_STEPS.get(step, READ_FAULTS[:1]):
            if (fault == "slow") <= (what == "list") and self.strikes(fault, step):
                return fault
        return ""

    def at_step(self, world: World, worker: SimulatedWorker, partition: int, step: str) -> None:
        """A worker has come to a step: what may happen to processes happens now, or a little later."""
        for fault in PROCESS_FAULTS:
            if (fault, step) in CELLS and self.strikes(fault, step):
                call = partial(self._happen, world, worker, partition, fault)
                world.scheduler.after(self.rng.choice([0.0, 0.0, self.rng.random() * 0.05]), call)

    def _happen(self, world: World, worker: SimulatedWorker, partition: int, fault: str) -> None:
        if not worker.process.alive or not self.active:
            return
        every = fault in ("crash", "stop", "clock set")  # what happens to a process happens to all its partitions
        hit = {step for (number, _), step in worker.steps.items() if every or number == partition}
        self.met.update({(fault, step) for step in hit if (fault, step) in CELLS})
        world.note(f"{fault} {worker.name} partition {partition} at {sorted(worker.steps.items())}")
        getattr(world, fault.replace(" ", "_"))(worker, partition)


def table(met: Counter[tuple[str, str]]) -> str:
    """How often each fault met each step; `-` where it cannot."""
    lines = [f"{'':14}" + "".join(f"{step:>9}" for step in COLUMNS)]
    for fault in ROWS:
        cells = (str(met[fault, step]) if (fault, step) in CELLS else "-" for step in COLUMNS)
        lines.append(f"{fault:14}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def empty_cells(met: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """What was never met."""
    return sorted(cell for cell in CELLS if not met[cell])

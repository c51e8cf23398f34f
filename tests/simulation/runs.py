"""Seeds run, one or many; a failing one is made shorter."""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.invariants import Violation
from tests.simulation.patched import patched
from tests.simulation.world import World

RECORDS_MAX = 10_000


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one seed. violation: the promise that was broken, or empty."""

    seed: int
    violation: str = ""
    steps: int = 0
    faults: list[str] = field(default_factory=list)
    records: int = 0
    without: frozenset[int] = frozenset()
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """How to see it again."""
        without = ",".join(map(str, sorted(self.without)))
        left_out = f" --without {without}" if without else ""
        return f"python -m tests.simulation --seed {self.seed}{left_out} --records {self.records}"


def run_seed(seed: int, *, without: frozenset[int] = frozenset(), records_max: int = RECORDS_MAX) -> Outcome:
    """Run one seed. An error of the code under test that nobody expected counts as a broken promise."""
    world = World(seed, without=without, records_max=records_max)
    outcome = Outcome(seed=seed, without=without)
    with patched(world):
        try:
            world.run()
        except Exception as error:
            outcome.violation = str(error) if isinstance(error, Violation) else repr(error)
        finally:
            outcome.history = world.history if outcome.violation or seed < 0 else []
            world.close()
    outcome.history = world.history
    outcome.steps, outcome.met = world.scheduler.steps, world.faults.met
    outcome.faults, outcome.answers = world.faults.struck, world.invariants.answers
    outcome.records = sum(log.end for log in world.kafka.logs)
    return outcome


def run_seeds(seeds: Iterable[int], processes: int = 1) -> list[Outcome]:
    """Run seeds; histories of those that broke nothing are left out."""
    if processes == 1:
        return [_quiet(seed) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(_quiet, seeds, chunksize=20)


def _quiet(seed: int) -> Outcome:
    outcome = run_seed(seed)
    if not outcome.violation:
        outcome.history = []
    gc.collect(0)
    return outcome


def shortened(failed: Outcome) -> Outcome:
    """The same seed with as few records and faults as still break a promise."""
    best, records_max, fewer = failed, RECORDS_MAX, failed.records
    while fewer and (shorter := run_seed(best.seed, records_max=fewer)).violation:
        best, records_max, fewer = shorter, fewer, fewer // 2
    for number in range(len(best.faults)):
        shorter = run_seed(best.seed, without=best.without | {number}, records_max=records_max)
        if shorter.violation:
            best = shorter
    best.records = records_max
    return best

"""`python -m tests.simulation --seed N`: replay a seed; without --seed many of them."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.faults import empty_cells, table
from tests.simulation.runs import Outcome, run_seed, run_seeds, shortened

SEEDS = 5000  # that so many meet every fault at every step is a part of what is tested


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="run this one and print its history")
    parser.add_argument("--without", default="", help="numbers of faults that are left out, with commas")
    parser.add_argument("--records", type=int, default=10_000, help="at most so many records are sent")
    parser.add_argument("--first", type=int, default=0, help="first of the seeds")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    if given.seed is not None:
        without = frozenset(map(int, filter(None, given.without.split(","))))
        outcome = run_seed(given.seed, without=without, records_max=given.records)
        print("\n".join(outcome.history))  # noqa: T201
        print(outcome.violation or "no promise was broken", f"({outcome.steps} steps)")  # noqa: T201
        return bool(outcome.violation)
    return report(run_many(given.first, given.seeds, given.processes))


def run_many(first: int, seeds: int, processes: int) -> list[Outcome]:
    """Run seeds, and say how fast."""
    began_s = time.perf_counter()
    found = run_seeds(range(first, first + seeds), processes)
    took_s = time.perf_counter() - began_s
    steps = sum(one.steps for one in found)
    print(f"{len(found)} seeds, {steps} steps, {took_s:.1f} s, {steps / took_s:.0f} steps/s")  # noqa: T201
    return found


def report(found: list[Outcome]) -> int:
    """Print the table of faults, and of the first failing seed how to see it again."""
    met = sum((one.met for one in found), start=type(found[0].met)())
    print(table(met))  # noqa: T201
    print("answers:", dict(sum((one.answers for one in found), start=type(found[0].answers)())))  # noqa: T201
    unmet = empty_cells(met)
    print("never met:", unmet or "none")  # noqa: T201
    failed = [one for one in found if one.violation]
    for one in failed[:1]:
        short = shortened(one)
        print("\n".join(short.history), short.violation, short.command, sep="\n")  # noqa: T201
    print(f"{len(failed)} seeds broke a promise: {[(one.seed, one.violation) for one in failed][:5]}")  # noqa: T201
    return bool(failed) or (bool(unmet) and len(found) >= SEEDS)


if __name__ == "__main__":
    sys.exit(main())

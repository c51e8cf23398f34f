"""The simulated worker keeps its promises whatever goes wrong; and a rule that is broken on purpose is found."""

from __future__ import annotations

from itertools import count

import pytest

from tests.simulation.faults import empty_cells, table
from tests.simulation.planted import PLANTED
from tests.simulation.runs import Outcome, run_seed, shortened

SEEDS = range(1000, 1150)
STEPS_UNTIL_FOUND = 400_000


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [run_seed(seed) for seed in SEEDS]


@pytest.mark.timeout(600)
def test_no_promise_is_broken_whatever_goes_wrong(outcomes: list[Outcome]) -> None:
    for failed in (one for one in outcomes if one.violation):
        short = shortened(failed)
        pytest.fail("\n".join([*short.history, short.violation, f"seen again by: {short.command}"]))


def test_most_faults_meet_most_steps_of_the_commit(outcomes: list[Outcome]) -> None:
    met = sum((one.met for one in outcomes), start=type(outcomes[0].met)())

    assert len(empty_cells(met)) < 25, table(met)


def test_most_answers_are_exact_though_things_go_wrong(outcomes: list[Outcome]) -> None:
    answers = sum((one.answers for one in outcomes), start=type(outcomes[0].answers)())

    assert answers["exact"] > 10 * (answers["PARTIAL"] + answers["refused"])


def test_a_seed_gives_the_same_history_each_time() -> None:
    assert run_seed(1001).history == run_seed(1001).history


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rule", PLANTED)
def test_a_rule_that_is_broken_on_purpose_is_found(rule: str) -> None:
    steps, seeds = 0, count()
    while steps < STEPS_UNTIL_FOUND:
        with PLANTED[rule]():
            outcome = run_seed(next(seeds))
        if outcome.violation:
            return
        steps += outcome.steps
    pytest.fail(f"not found within {steps} steps")

"""The simulated worker keeps its promises whatever goes wrong; and a rule that is broken on purpose is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from unittest import mock

import numpy as np
import pytest

from agents.owned import Ack, Owned
from agents.worker import Worker
from pipeline.partition.batch import SourceRecord
from pipeline.partition.state import Partition
from pipeline.partition.window import Keys, Window
from pipeline.store.catalog import Catalog
from tests.simulation.faults import empty_cells, table
from tests.simulation.runs import Outcome, run_seed, shortened
from tests.simulation.store import Buckets

SEEDS = range(1000, 1150)
SEEDS_UNTIL_FOUND = 300


async def as_they_come(
    _worker: Worker, _owned: Owned, state: Partition, records: Sequence[SourceRecord]
) -> Sequence[SourceRecord]:
    return [record for record in records if record.offset >= state.next]


async def acknowledged_at_once(
    _worker: Worker, _owned: Owned, _state: Partition, _records: Sequence[SourceRecord], acks: Sequence[Ack]
) -> None:
    for ack in acks:
        await ack()


def nothing_held(_window: Window, keys: Keys) -> np.ndarray:
    return np.zeros(len(keys), dtype=bool)


def last_wins(buckets: Buckets, bucket: str, name: str, data: bytes) -> bool:
    buckets.put(bucket, name, data)
    return True


def newest_known(catalog: Catalog, real: Callable[[Catalog], dict[int, int]] = Catalog.horizons) -> dict[int, int]:
    return {partition: horizon + 1 for partition, horizon in real(catalog).items()}


BROKEN_RULES = {
    "a gap is read again": mock.patch.object(Worker, "_in_order", as_they_come),
    "a record is acknowledged when a manifest names it": mock.patch.object(Worker, "_keep_acks", acknowledged_at_once),
    "a copy within the window is none": mock.patch.object(Window, "holds", nothing_held),
    "of two owners' manifests one counts": mock.patch.object(Buckets, "put_if_absent", last_wins),
    "the horizon is where manifests end": mock.patch.object(Catalog, "horizons", newest_known),
    "rows are held until they are stored": mock.patch.object(Partition, "drop", lambda state, *_, **__: state.segments),
}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [run_seed(seed) for seed in SEEDS]


@pytest.mark.timeout(300)
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


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_rule_that_is_broken_on_purpose_is_found(rule: str) -> None:
    broken: AbstractContextManager[object] = BROKEN_RULES[rule]
    with broken:
        assert any(run_seed(seed).violation for seed in range(SEEDS_UNTIL_FOUND)), "no seed found it"

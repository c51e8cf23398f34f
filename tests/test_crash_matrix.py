"""Some cells of the crash matrix; `make test-long` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash_matrix import CELLS, Cell, run
from tests.crashing import STEPS
from topics.settings import KafkaSettings, Settings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
SHORT = [
    Cell("manifest put", same=True, disk=False),
    Cell("ack", same=False, disk=True),
]


def test_workers_killed_at_steps_of_the_commit_store_every_span_once(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    outcome = run(Settings(kafka=kafka_settings, store=store_settings), tmp_path, SHORT)

    assert (outcome.cells, outcome.lost, outcome.doubled, outcome.survived) == (len(SHORT), 0, 0, [])


def test_the_matrix_has_every_step_four_ways() -> None:
    assert len(set(CELLS)) == 4 * len(STEPS)
    assert {"read", "decode", "dedup", "live write", "chunk put", "manifest put", "catalog send", "ack"} <= set(STEPS)

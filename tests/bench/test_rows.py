"""The bench on a small load: every row of what a span costs is measured, on real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.report import UNMEASURED, Report
from tests.bench.rows import Bench

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
SPANS = 100_000  # a worker's time over fewer is less than its start's differs from start to start
COST = (
    "receiver CPU",
    "worker CPU, fetch to stored",
    "stored, all objects",
    "trace by ID from the store, warm p50",
    "peak memory, receiver",
    "peak memory, worker",
    "peak memory, querier",
)


def test_every_row_of_what_a_span_costs_is_measured(tmp_path: Path) -> None:
    report = Report()

    with Bench(tmp_path) as bench:
        bench.cost(report, SPANS, seal_age_s=2.0)

    values = {str(row["name"]): float(str(row["value"])) for row in report.rows()}
    assert [name for name in COST if not 0 < values[name] < UNMEASURED] == []
    assert report.finish(tmp_path / "bench.json") == 1  # the other rows were not measured, and that is no success

"""A worker that hangs: who looks is told so within seconds, long before Kafka gives its partitions to others."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.commands.doctor import Finding, check_kafka
from tests.queriers import querier
from tests.test_kill_and_rebalance import running
from tests.waiting import wait_until
from tests.workers import everything_is_stored
from topics.settings import KafkaSettings, Settings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
TOLD_WITHIN_S = 4.0
SESSION_S = "30"


def told_by(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the System view shows of workers and partitions, and of drops."""
    system, drops = (httpx.get(f"{url}/api/status/{name}", timeout=30) for name in ("system", "drops"))
    assert (system.status_code, drops.status_code) == (200, 200)
    return system.json(), drops.json()


def test_a_hung_worker_is_named_at_once_and_no_more_when_it_goes_on(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    patient = {"SPANSTREAM_KAFKA_SESSION_TIMEOUT_S": SESSION_S}
    with running(settings, tmp_path, variables=patient) as (load, workers, store), querier(settings, tmp_path) as url:
        worker = workers.start("one")
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        system, _ = told_by(url)
        assert system["workers"] == [{"url": worker, "reached": True, "lacks": ""}]
        assert all(row["told"]["lag_records"] == 0 for row in system["partitions"])

        workers.running["one"].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        system, drops = told_by(url)
        took_s = time.monotonic() - began
        (found,) = told_by_doctor(settings)
        assert system["workers"] == [{"url": worker, "reached": False, "lacks": ""}]
        assert {row["owner"] for row in system["partitions"]} == {worker}
        assert {row["told"] for row in system["partitions"]} == {None}
        assert f"worker {worker} does not tell its numbers" in drops["reasons"]
        assert took_s < 2 * TOLD_WITHIN_S
        assert found.found.startswith(f"{worker} owns partitions 0, ")
        assert "does not answer" in found.found

        workers.running["one"].send_signal(signal.SIGCONT)
        wait_until(lambda: told_by(url)[0]["workers"] == [{"url": worker, "reached": True, "lacks": ""}], 30)
        assert told_by_doctor(settings) == []


def told_by_doctor(settings: Settings) -> list[Finding]:
    """What it finds wrong with workers."""
    return [one for one in check_kafka(settings) if one.part == "workers" and one.verdict != "ok"]

"""A worker whose clock is wrong, on real Kafka and MinIO: what is stored is what was sent, each span once."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from pipeline.store.objects import ObjectStore
from tests.metrics import metric
from tests.queriers import asking, querier
from tests.test_kill_and_rebalance import Load, running
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics.settings import KafkaSettings, Settings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
SOON = {"SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "2"}
SEAL_AGE_S = 5
OLDEST = "spanstream_worker_oldest_unsealed_seconds"


def running_wrong(
    settings: Settings, folder: Path, before_s: int, after_s: int = 0, *, signs: str = "wrong", seal_age_s: float = 1
) -> AbstractContextManager[tuple[Load, Workers, ObjectStore]]:
    command = ("-m", "tests.shifted_clock", str(before_s), str(after_s), signs, "worker")
    return running(settings, folder, seal_age_s=seal_age_s, seal_spans=10**9, command=command, variables=SOON)


@pytest.mark.parametrize("wrong_s", [3600, -3600])
def test_an_hour_off_it_waits_and_names_the_clock_and_goes_on_when_that_is_right(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path, wrong_s: int
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    with running_wrong(settings, tmp_path, wrong_s) as (load, workers, store), querier(settings, tmp_path) as url:
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: 'fault="clock"' in metrics_of(worker), 60, "the store refuses what is signed with that time")
        with asking(url, lambda: load.traces) as asker:
            wait_until(lambda: asker.complete + asker.partial + len(asker.wrong) >= 20, 60)
        assert (asker.wrong, asker.partial) == ([], 0)  # Kafka has it all

        workers.running["one"].send_signal(signal.SIGALRM)
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        assert stored_span_ids(store, settings) == Counter(load.sent)


@pytest.mark.parametrize("wrong_s", [600, -30])  # behind, a signed PUT has expired after store.put_timeout_s
def test_less_than_the_store_bears_changes_nothing(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path, wrong_s: int
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    with running_wrong(settings, tmp_path, wrong_s) as (load, workers, store):
        worker = workers.start("one")
        for _ in range(3):
            load.send(40)
            load.send_again(20)  # the window goes by Kafka's times
            wait_until(lambda: everything_is_stored(store, settings), 60)

        assert "spanstream_store_faults_total{" not in metrics_of(worker)
        assert stored_span_ids(store, settings) == Counter(load.sent)


@pytest.mark.parametrize("set_by_s", [3000, -3000])
def test_a_clock_set_in_mid_run_changes_neither_when_ranges_are_stored_nor_what_is_a_copy(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path, set_by_s: int
) -> None:
    """Of the worker, of the store and of who writes to Kafka: all on one machine."""
    settings = Settings(kafka=kafka_settings, store=store_settings)
    jumps = running_wrong(settings, tmp_path, 0, set_by_s, signs="right", seal_age_s=SEAL_AGE_S)
    with jumps as (load, workers, store), querier(settings, tmp_path) as url:
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        load.send(40)
        wait_until(
            lambda: metric(worker, "spanstream_worker_spans_total") >= len(load.sent), SEAL_AGE_S, "all is taken"
        )
        assert not everything_is_stored(store, settings)

        workers.running["one"].send_signal(signal.SIGALRM)
        load.clock_wrong_s = set_by_s
        for _ in range(2):  # what is open, and what comes then
            wait_until(lambda: everything_is_stored(store, settings), SEAL_AGE_S + 10)
            load.send(40)
            load.send_again(80)
            wait_until(lambda: 0 < metric(worker, OLDEST) < SEAL_AGE_S + 10, 5, "its age is that of before")
        with asking(url, lambda: load.traces) as asker:
            wait_until(lambda: asker.complete + asker.partial + len(asker.wrong) >= 40, 60)
        assert (asker.wrong, asker.partial) == ([], 0)
        wait_until(lambda: everything_is_stored(store, settings), SEAL_AGE_S + 10)

        assert stored_span_ids(store, settings) == Counter(load.sent)


def metrics_of(url: str) -> str:
    """As text; nothing while nobody answers."""
    try:
        return httpx.get(f"{url}/metrics").text
    except httpx.TransportError:
        return ""

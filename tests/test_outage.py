"""The store, then Kafka, stopped under a worker and started again: it waits, goes on by itself, loses nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from infra.stack import LocalStack
from pipeline.store.objects import ObjectStore
from tests.metrics import metric
from tests.test_kill_and_rebalance import Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin, spans_by_trace
from topics.errors import KafkaUnavailableError, StoreUnavailableError
from topics.settings import Settings, StackSettings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
STOP_S = 30.0


def kafka_answers(settings: Settings) -> bool:
    try:
        return bool(admin.watermarks(settings, spans_by_trace.TOPIC))
    except KafkaUnavailableError:
        return False


def store_answers(store: ObjectStore) -> bool:
    try:
        store.ensure_buckets()
    except StoreUnavailableError:
        return False
    return True


def test_a_worker_outlives_the_store_and_kafka(tmp_path: Path) -> None:
    stack = StackSettings(
        data_dir=tmp_path / "stack", kafka_port=0, kafka_controller_port=0, store_port=0, store="minio"
    )
    wanted = Settings(stack=stack, store=StoreSettings(buckets=("outage-a", "outage-b")))
    with LocalStack(wanted, print) as running:
        kafka, minio = (next(role.child for role in running.roles if role.name == name) for name in ("kafka", "store"))
        settings, store = running.settings, ObjectStore(running.settings.store)
        admin.ensure(settings)
        store.ensure_buckets()
        load, workers = Load(settings), Workers(settings, tmp_path)
        try:
            url = workers.start("one")
            load.send(20)
            wait_until(lambda: everything_is_stored(store, settings), 60, "all is stored")

            assert minio.stop(STOP_S)
            waits = metric(url, "spanstream_worker_waits_total")
            load.send(20)
            wait_until(lambda: metric(url, "spanstream_worker_spans_total") >= len(load.sent), 60, "all is taken")
            wait_until(lambda: metric(url, "spanstream_worker_waits_total") > waits, 60, "the worker waits")
            minio.start()
            wait_until(lambda: store_answers(store), 60, "the store answers again")
            wait_until(lambda: everything_is_stored(store, settings), 60, "what waited is stored")

            assert kafka.stop(STOP_S)
            kafka.start()
            wait_until(lambda: kafka_answers(settings), 60, "Kafka answers again")
            load.send(20)
            wait_until(lambda: everything_is_stored(store, settings), 90, "the worker reads on")

            assert workers.running["one"].poll() is None  # the same process all the time
            assert stored_span_ids(store, settings) == Counter(load.sent)
        finally:
            workers.end_all()

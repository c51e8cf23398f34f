"""The store, then Kafka, stopped under a worker and started again: it waits, goes on by itself, loses nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.commands.local_run import is_ready
from infra.stack import LocalStack
from pipeline.store.objects import ObjectStore
from tests.metrics import metric
from tests.queriers import receiver
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


def post(url: str, span: int, status: int) -> httpx.Response:
    """Send one span, whose ID is `span`; the receiver must answer with this status."""
    data = TracesData()
    one = data.resource_spans.add().scope_spans.add().spans.add(name="s", kind=1)
    one.trace_id, one.span_id = span.to_bytes(16, "big"), span.to_bytes(8, "big")
    one.start_time_unix_nano = one.end_time_unix_nano = 1_700_000_000_000_000_000
    headers = {"Content-Type": "application/x-protobuf"}
    answer = httpx.post(f"{url}/v1/traces", content=data.SerializeToString(), headers=headers, timeout=120)
    assert answer.status_code == status, answer.text
    return answer


def test_receiver_and_worker_outlive_the_store_and_kafka(tmp_path: Path) -> None:
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
        with receiver(settings, tmp_path) as otlp, workers:
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

            post(otlp, 1, 200)
            assert kafka.stop(STOP_S)
            refused = post(otlp, 2, 503)
            assert int(refused.headers["Retry-After"]) >= 1
            wait_until(lambda: not is_ready(otlp), 60, "the receiver says that it is not ready")
            assert is_ready(url)  # the worker still answers what it holds
            tables = httpx.get(f"{url}/tables/partitions", timeout=60)
            assert tables.status_code == 503, tables.text
            assert "Kafka" in tables.json()["error"]
            kafka.start()
            wait_until(lambda: kafka_answers(settings), 60, "Kafka answers again")
            wait_until(lambda: is_ready(otlp), 60, "the receiver is ready again")
            post(otlp, 3, 200)
            load.send(20)
            wait_until(lambda: everything_is_stored(store, settings), 90, "the worker reads on")

            assert workers.running["one"].poll() is None  # the same process all the time
            stored = stored_span_ids(store, settings)
            unanswered = (2).to_bytes(8, "big")  # was refused, and may have reached Kafka all the same
            assert stored - Counter({unanswered: 1}) == Counter([*load.sent, *(n.to_bytes(8, "big") for n in (1, 3))])

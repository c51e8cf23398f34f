"""What Kafka may hold or do besides: each works, or is said in a sentence."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from infra.ports import free_port
from pipeline.store import commit
from pipeline.store.objects import ObjectStore
from tests.queriers import querier
from tests.test_damaged_manifest import ready_of
from tests.test_kill_and_rebalance import Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin, spans_by_trace
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PARTITION = 1


@pytest.fixture
def settings(kafka_settings: KafkaSettings, store_settings: StoreSettings) -> Settings:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    return settings


def large_trace(partition: int, partitions: int, span_bytes: int) -> tuple[bytes, list[bytes]]:
    """A record of about 1 MB on this partition; its span IDs."""
    trace_id = next(
        one for one in (uuid.uuid4().bytes for _ in range(1000)) if partition_of(one, partitions) == partition
    )
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for _ in range(1_000_000 // span_bytes):
        span = scope.spans.add(trace_id=trace_id, span_id=uuid.uuid4().bytes[:8], name="x" * span_bytes, kind=1)
        span.start_time_unix_nano = span.end_time_unix_nano = 1_700_000_000_000_000_000
    return data.SerializeToString(), [span.span_id for span in scope.spans]


def send_in_transactions(settings: Settings, value: bytes, *, commits: bool) -> None:
    """One record within a transaction: a control record stands behind it."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "transactional.id": uuid.uuid4().hex,
            "message.max.bytes": 4 << 20,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(full_name(spans_by_trace.TOPIC, settings.kafka), value, partition=PARTITION)
    if commits:
        producer.commit_transaction(30)
    else:
        producer.flush(30)
        producer.abort_transaction(30)


def test_large_records_control_records_and_a_log_that_was_cut_are_passed(settings: Settings, tmp_path: Path) -> None:
    topic, store = full_name(spans_by_trace.TOPIC, settings.kafka), ObjectStore(settings.store)
    load = Load(settings)
    with Workers(settings, tmp_path) as workers:
        load.send(20)
        large, ids = large_trace(PARTITION, settings.kafka.partitions, 10_000)
        send_in_transactions(settings, large, commits=True)
        load.send(20)
        last, last_ids = large_trace(PARTITION, settings.kafka.partitions, 500_000)
        send_in_transactions(settings, last, commits=True)  # its control record is the log's last
        workers.start("one")
        expected = Counter([*load.sent, *ids, *last_ids])
        wait_until(lambda: _spans_stored(store, settings) >= expected.total(), 90, "all is stored")
        assert stored_span_ids(store, settings) == expected

        # the log's start moves beyond the committed offset and the mark while no worker runs
        workers.kill("one")
        load.send(20)
        end = admin.watermarks(settings, spans_by_trace.TOPIC)[PARTITION][1]
        mark = commit.read_mark(store, topic, PARTITION).mark
        client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
        for future in client.delete_records([TopicPartition(topic, PARTITION, end)]).values():
            future.result()
        load.send(20)
        workers.start("two")
        wait_until(lambda: everything_is_stored(store, settings), 90, "all that is left is stored")
    manifests = [commit.read_manifest(store, name) for name in commit.read_mark(store, topic, PARTITION).names]
    losses = [loss for manifest in manifests if manifest is not None for loss in manifest.losses]
    assert losses == [(mark, end - 1)]
    assert "records_lost" in (tmp_path / "two.log").read_text()
    store.close()


def test_a_worker_whose_group_others_use_or_whose_broker_is_away_says_so(settings: Settings, tmp_path: Path) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})
    (tmp_path / "away").mkdir()
    other = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": settings.kafka.group,
            "auto.offset.reset": "earliest",
        }
    )
    other.subscribe([full_name(spans_by_trace.TOPIC, settings.kafka)])
    wait_until(lambda: other.poll(0.1) is not None or other.assignment(), 60, "another program joined the group")
    with (
        Workers(settings.model_copy(update={"kafka": nowhere}), tmp_path / "away") as alone,
        Workers(settings, tmp_path) as workers,
    ):
        alone.start("one")
        workers.start("one")
        log, log_alone = tmp_path / "one.log", tmp_path / "away" / "one.log"
        wait_until(lambda: "waiting_for_kafka" in log_alone.read_text(), 60, "it says that it waits")
        wait_until(lambda: other.poll(0.1) is None and workers.running["one"].poll() is not None, 60, "it ends")
        assert workers.running["one"].returncode == 1
        assert "has members that are no workers" in log.read_text()
        assert alone.running["one"].poll() is None
        other.close()
        workers.start("two")
        load, store = Load(settings), ObjectStore(settings.store)
        load.send(20)
        wait_until(lambda: everything_is_stored(store, settings), 90, "once the other is gone it works")
        store.close()


def test_a_topic_that_was_given_more_partitions_is_said_by_worker_and_querier(
    settings: Settings, tmp_path: Path
) -> None:
    """Whoever starts then would look for a trace on another partition than the one that it stands on."""
    store, load = ObjectStore(settings.store), Load(settings)
    with Workers(settings, tmp_path) as workers:
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 90, "all is stored")
        workers.kill("one")
        client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
        more = NewPartitions(full_name(spans_by_trace.TOPIC, settings.kafka), settings.kafka.partitions + 3)
        for future in client.create_partitions([more]).values():
            future.result()
        workers.start("one")
        with querier(settings, tmp_path) as url:
            told = [httpx.get(f"{url}/api/v2/traces/{one.hex()}", timeout=30).json() for one, _ in load.traces]
            system = httpx.get(f"{url}/api/status/system", timeout=30).json()
            wait_until(lambda: "More partitions" in ready_of(worker), 60, "the worker says so")
        assert {one["status"] for one in told} == {"PARTIAL"}
        assert all("More partitions" in one["message"] for one in told)
        assert "More partitions" in system["missing"]
    store.close()


def _spans_stored(store: ObjectStore, settings: Settings) -> int:
    topic, found = full_name(spans_by_trace.TOPIC, settings.kafka), 0
    for partition in range(settings.kafka.partitions):
        for name in commit.read_mark(store, topic, partition).names:
            manifest = commit.read_manifest(store, name)
            found += sum(one.spans for one in manifest.chunks) if manifest else 0
    return found

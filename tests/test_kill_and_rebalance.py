"""Workers on real Kafka and MinIO, killed with -9 and moved about under load: every span is stored exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from infra.ports import free_port
from pipeline.spans import schema
from pipeline.store import chunk, commit
from pipeline.store.objects import ObjectStore
from tests.waiting import wait_until
from topics import admin, spans_by_trace
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
SPANS_A_RECORD = 50


class Load:
    """Spans on the keyed topic, some of them twice; knows what was sent."""

    def __init__(self, settings: Settings) -> None:
        self._topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        self._partitions = settings.kafka.partitions
        self._producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "compression.type": "zstd"})
        self._random = np.random.default_rng(7)
        self.sent: set[bytes] = set()

    def send(self, records: int) -> None:
        for number in range(records):
            trace_id = self._random.bytes(16)
            data = TracesData()
            scope = data.resource_spans.add().scope_spans.add()
            for _ in range(SPANS_A_RECORD):
                span = scope.spans.add(trace_id=trace_id, span_id=self._random.bytes(8), name="s", kind=1)
                span.start_time_unix_nano = 1_700_000_000_000_000_000 + len(self.sent)
                span.end_time_unix_nano = span.start_time_unix_nano + 1000
                self.sent.add(span.span_id)
            for _ in range(2 if number % 10 == 0 else 1):  # every tenth record twice, as a sender that tries again
                self._producer.produce(
                    self._topic, data.SerializeToString(), partition=partition_of(trace_id, self._partitions)
                )
        self._producer.flush()


class Workers:
    """Real worker processes on one consumer group."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        kafka, store = self._settings.kafka, self._settings.store
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "KAFKA_GROUP": kafka.group,
            "KAFKA_SESSION_TIMEOUT_S": "6",
            "STORE_ENDPOINT": store.endpoint,
            "STORE_ACCESS_KEY": store.access_key,
            "STORE_SECRET_KEY": store.secret_key.get_secret_value(),
            "STORE_BUCKETS": ",".join(store.buckets),
            "WORKER_PORT": str(free_port()),
            "WORKER_DATA_DIR": str(self._folder / name),
            "WORKER_SEAL_SPANS": "400",
            "WORKER_SEAL_AGE_S": "2",
        }
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "agents.cli", "worker"],
                env=os.environ | {f"SPANSTREAM_{key}": value for key, value in variables.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self, name: str, number: signal.Signals) -> None:
        worker = self.running.pop(name)
        worker.send_signal(number)
        worker.wait(30)

    def end_all(self) -> None:
        for name in list(self.running):
            self.end(name, signal.SIGKILL)


@contextmanager
def running(settings: Settings, folder: Path) -> Iterator[tuple[Load, Workers, ObjectStore]]:
    admin.ensure(settings)
    workers, store = Workers(settings, folder), ObjectStore(settings.store)
    try:
        yield Load(settings), workers, store
    finally:
        workers.end_all()
        store.close()


def marks(store: ObjectStore, settings: Settings) -> list[int]:
    topic = full_name(spans_by_trace.TOPIC, settings.kafka)
    return [commit.read_mark(store, topic, partition).mark for partition in range(settings.kafka.partitions)]


def everything_is_stored(store: ObjectStore, settings: Settings) -> bool:
    ends = admin.watermarks(settings, spans_by_trace.TOPIC)
    return marks(store, settings) == [ends[partition][1] for partition in sorted(ends)]


def stored_span_ids(store: ObjectStore, settings: Settings) -> Counter[bytes]:
    """Every span in every chunk that a manifest names; the ranges must follow each other without gap or overlap."""
    topic, found = full_name(spans_by_trace.TOPIC, settings.kafka), Counter[bytes]()
    for partition in range(settings.kafka.partitions):
        expected = 0
        for name in commit.read_mark(store, topic, partition).names:
            manifest = commit.read_manifest(store, name)
            assert manifest is not None
            assert manifest.first == expected
            assert not manifest.losses
            expected = manifest.last + 1
            for entry in manifest.chunks:
                content = store.get(entry.bucket, entry.name)
                assert content is not None
                spans = chunk.read_chunk(content, columns=["span_id"])
                found.update(row.tobytes() for row in schema.fixed_bytes(spans, "span_id", 8))
    return found


@pytest.fixture
def settings(kafka_settings: KafkaSettings, store_settings: StoreSettings) -> Settings:
    return Settings(kafka=kafka_settings, store=store_settings)


def test_a_worker_killed_again_and_again_stores_every_span_once(settings: Settings, tmp_path: Path) -> None:
    with running(settings, tmp_path) as (load, workers, store):
        for _ in range(4):
            before = marks(store, settings)
            workers.start("one")
            load.send(60)
            wait_until(lambda before=before: marks(store, settings) != before, timeout_s=40)  # a commit was under way
            load.send(20)
            workers.end("one", signal.SIGKILL)
        workers.start("one")
        wait_until(lambda: everything_is_stored(store, settings), timeout_s=60)

        assert stored_span_ids(store, settings) == Counter(load.sent)


def test_workers_that_join_leave_and_die_store_every_span_once(settings: Settings, tmp_path: Path) -> None:
    with running(settings, tmp_path) as (load, workers, store):
        workers.start("one")
        load.send(80)
        wait_until(lambda: any(marks(store, settings)), timeout_s=40)
        workers.start("two")
        load.send(80)
        wait_until(lambda: len(set(admin.group_owners(settings).values())) == 2, timeout_s=40)
        load.send(80)
        workers.end("one", signal.SIGKILL)
        load.send(80)
        workers.start("three")
        wait_until(lambda: everything_is_stored(store, settings), timeout_s=60)
        load.send(80)
        workers.end("two", signal.SIGTERM)
        wait_until(lambda: everything_is_stored(store, settings), timeout_s=60)

        assert stored_span_ids(store, settings) == Counter(load.sent)

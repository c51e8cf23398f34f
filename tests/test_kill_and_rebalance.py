"""Workers on real Kafka and MinIO, killed with -9 and moved about under load: every span is stored exactly once."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.store.buckets import bucket_of_partition
from pipeline.store.objects import ObjectStore
from tests.queriers import Trace, asking, querier
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_committed, everything_is_stored, marks, stored_span_ids
from topics import admin, spans_by_trace
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
SPANS_A_RECORD = 50


class Load:
    """Spans on the keyed topic, some of them twice; knows what was sent and which traces Kafka has acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        self._partitions = settings.kafka.partitions
        self._producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "compression.type": "zstd"})
        self._random = np.random.default_rng()
        self._records: list[tuple[int, bytes]] = []
        self.sent: set[bytes] = set()
        self.traces: list[Trace] = []
        self.clock_wrong_s = 0.0
        self.text_bytes = 0  # of each span

    def send(self, records: int) -> None:
        traces = []
        for number in range(records):
            trace_id = self._random.bytes(16)
            data = TracesData()
            scope = data.resource_spans.add().scope_spans.add()
            for _ in range(SPANS_A_RECORD):
                span = scope.spans.add(trace_id=trace_id, span_id=self._random.bytes(8), name="s", kind=1)
                span.start_time_unix_nano = 1_700_000_000_000_000_000 + len(self.sent)
                span.end_time_unix_nano = span.start_time_unix_nano + 1000
                self.sent.add(span.span_id)
                if self.text_bytes:
                    text = (span.span_id.hex() * self.text_bytes)[: self.text_bytes]
                    span.attributes.add(key="text").value.string_value = text
            traces.append((trace_id, frozenset(span.span_id for span in scope.spans)))
            partition, value = partition_of(trace_id, self._partitions), data.SerializeToString()
            self._records.append((partition, value))
            for _ in range(2 if number % 10 == 0 else 1):  # every tenth record twice, as a sender that tries again
                self._produce(partition, value)
        self._producer.flush()
        self.traces += traces

    def send_again(self, records: int) -> None:
        """Copies of records that were sent before, any of them."""
        for at in self._random.integers(0, len(self._records), records):
            partition, value = self._records[at]
            self._produce(partition, value)
        self._producer.flush()

    def _produce(self, partition: int, value: bytes) -> None:
        written_ms = int((time.time() + self.clock_wrong_s) * 1000)
        self._producer.produce(self._topic, value, partition=partition, timestamp=written_ms)


@contextmanager
def running(settings: Settings, folder: Path, **of_workers: Any) -> Iterator[tuple[Load, Workers, ObjectStore]]:
    admin.ensure(settings)
    workers, store = Workers(settings, folder, **of_workers), ObjectStore(settings.store)
    try:
        yield Load(settings), workers, store
    finally:
        workers.end_all()
        store.close()


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


def test_workers_that_join_leave_and_die_change_no_answer_and_store_every_span_once(
    settings: Settings, tmp_path: Path
) -> None:
    with running(settings, tmp_path) as (load, workers, store), querier(settings, tmp_path) as url:
        workers.start("one")
        with asking(url, lambda: load.traces) as asker:
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

        assert workers.ended_by_themselves() == []
        wait_until(lambda: everything_is_committed(settings), 30, "commits do not stand still after rebalances")
        assert asker.wrong == []
        assert asker.complete > asker.partial
        assert stored_span_ids(store, settings) == Counter(load.sent)
    assert list(errors_told(tmp_path)) == []  # joining, leaving and dying is no error


def test_a_worker_whose_rebalance_fails_ends_instead_of_going_on_with_half_of_it(
    settings: Settings, tmp_path: Path
) -> None:
    command = ("-m", "tests.crashing", "worker")
    with running(settings, tmp_path, command=command) as (load, workers, store):
        workers.start("one", variables={"REBALANCE_FAILS": "2"})
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        workers.start("two")
        load.send(40)
        wait_until(lambda: workers.ended_by_themselves() == ["one"], 60, "it ends")
        wait_until(lambda: everything_is_stored(store, settings), 60, "the other one has all partitions")

        assert workers.running["one"].returncode != 0
        assert stored_span_ids(store, settings) == Counter(load.sent)


def errors_told(folder: Path) -> Iterator[str]:
    """Lines of the workers' logs that tell of an error, or are no JSON."""
    for log in ("one", "two", "three"):
        for line in (folder / f"{log}.log").read_text().splitlines():
            try:
                if json.loads(line)["level"] == "error":
                    yield line
            except ValueError:
                yield line


def with_one_more(buckets: tuple[str, ...], partitions: int) -> tuple[str, ...]:
    """The buckets and one that gets a partition: of few partitions, not each new bucket does."""
    wider = ((*buckets, f"{buckets[0]}-new-{number}") for number in count())
    return next(one for one in wider if one[-1] in {bucket_of_partition(n, partitions, one) for n in range(partitions)})


def test_chunks_of_before_a_bucket_was_added_are_still_read(settings: Settings, tmp_path: Path) -> None:
    with running(settings, tmp_path) as (load, workers, store):
        workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), timeout_s=60)
        workers.end("one", signal.SIGTERM)
    buckets = with_one_more(settings.store.buckets, settings.kafka.partitions)
    before, wider = (
        load.traces,
        settings.model_copy(update={"store": settings.store.model_copy(update={"buckets": buckets})}),
    )
    with running(wider, tmp_path) as (load, workers, store):
        store.ensure_buckets()
        workers.start("two")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, wider), timeout_s=60)
        with querier(wider, tmp_path) as url, asking(url, lambda: [*before, *load.traces]) as asker:
            wait_until(lambda: asker.complete + asker.partial + len(asker.wrong) >= 60, timeout_s=60)

        assert list(store.list(buckets[-1], "chunks/"))
        assert (asker.wrong, asker.partial) == ([], 0)

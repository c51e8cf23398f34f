"""A trace that never ends: spans come to it seal after seal, and it is found whole all the time."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import pytest
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.trace_answer import read_answer
from pipeline.store import edit_log
from pipeline.store.objects import ObjectStore
from tests.metrics import peak_bytes
from tests.queriers import querier
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored
from topics import admin, spans_by_trace
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings, WorkerSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
ROUNDS, SPANS = 12, 2_000  # a round is stored before the next begins
OTHERS, OTHER_SPANS = 30, 20
TIMES_MAX, USUAL_MS = 2.0, 20.0


class Sender:
    """One trace that grows, and others, all of one partition. sent: trace ID -> IDs of its spans."""

    def __init__(self, settings: Settings) -> None:
        self._topic, self._partitions = full_name(spans_by_trace.TOPIC, settings.kafka), settings.kafka.partitions
        self._producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "compression.type": "zstd"})
        self._random = np.random.default_rng(7)
        self.endless = self._random.bytes(16)
        self.partition = partition_of(self.endless, self._partitions)
        self.sent: dict[bytes, Counter[bytes]] = {}

    def grow(self, spans: int) -> None:
        """More spans of the endless one, acknowledged."""
        self._send(self.endless, spans)

    def send_others(self) -> list[bytes]:
        """Other traces; their IDs."""
        ids = [one for one in (self._random.bytes(16) for _ in range(20 * OTHERS)) if self._is_beside(one)][:OTHERS]
        for one in ids:
            self._send(one, OTHER_SPANS)
        return ids

    def _is_beside(self, trace_id: bytes) -> bool:
        return partition_of(trace_id, self._partitions) == self.partition

    def _send(self, trace_id: bytes, spans: int) -> None:
        data, sent = TracesData(), self.sent.setdefault(trace_id, Counter())
        scope = data.resource_spans.add().scope_spans.add()
        for _ in range(spans):
            span = scope.spans.add(trace_id=trace_id, span_id=self._random.bytes(8), name="step", kind=1)
            span.start_time_unix_nano = time.time_ns()
            span.end_time_unix_nano = span.start_time_unix_nano + 1000
            sent[span.span_id] += 1
        self._producer.produce(self._topic, data.SerializeToString(), partition=self.partition)
        self._producer.flush()


def test_a_trace_that_never_ends_is_found_whole_all_the_time_and_slows_no_other(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    store, sender = ObjectStore(settings.store), Sender(settings)
    with (
        Workers(settings, tmp_path, seal_age_s=1) as workers,
        querier(settings, tmp_path) as url,
        httpx.Client(base_url=url, headers={"Accept": "application/protobuf"}, timeout=60) as client,
    ):
        workers.start("one")

        def found(trace_id: bytes) -> Counter[bytes]:
            answer = read_answer(client.get(f"/api/v2/traces/{trace_id.hex()}").raise_for_status().content)
            assert not answer.partial, answer.message
            return Counter(answer.span_ids())

        def took_ms(trace_id: bytes) -> float:
            began = time.perf_counter()
            assert found(trace_id) == sender.sent[trace_id]
            return (time.perf_counter() - began) * 1000

        def store_all() -> None:
            wait_until(lambda: everything_is_stored(store, settings), 60)

        others = sender.send_others()
        store_all()
        [took_ms(one) for one in others]
        alone_ms = median(took_ms(one) for one in others)
        for _ in range(ROUNDS):
            sender.grow(SPANS)
            assert found(sender.endless) == sender.sent[sender.endless]  # from Kafka and live segments
            store_all()
            assert found(sender.endless) == sender.sent[sender.endless]  # from chunks

        folded = edit_log.read_folded(store, full_name(spans_by_trace.TOPIC, settings.kafka), sender.partition)
        assert sum(len(manifest.chunks) for manifest in folded) > ROUNDS
        beside_ms = median(took_ms(one) for one in others)
        assert beside_ms < TIMES_MAX * max(alone_ms, USUAL_MS)
        assert peak_bytes(workers.running["one"].pid) < WorkerSettings().resident_bytes_max
    store.close()

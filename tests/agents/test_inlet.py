"""What others write to Kafka: a Collector's records on the inlet, and what does not belong on the keyed topic."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents import dead_letters as letters_of
from agents.rekey import rekeyed
from pipeline.partition.batch import SourceRecord
from pipeline.spans.wire import CutLimits
from pipeline.store.objects import ObjectStore
from tests.damaged_batches import DAMAGES, write_damaged
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin, otlp_spans, spans_by_trace, spans_dead
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings
from topics.topic import full_name

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LIMITS = CutLimits(record_bytes_max=900_000, attribute_bytes_max=65_536, output_bytes_max=1 << 26)


def otlp(*ids: tuple[int, int]) -> bytes:
    """One export of spans (trace, span)."""
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for trace, span in ids:
        one = scope.spans.add(trace_id=trace.to_bytes(16, "big"), span_id=span.to_bytes(8, "big"), name="s")
        one.start_time_unix_nano = one.end_time_unix_nano = 1_700_000_000_000_000_000
    return data.SerializeToString()


def record(value: bytes, offset: int = 0, tenant: str = "t") -> SourceRecord:
    return SourceRecord(offset, tenant, value, 0)


def test_records_of_a_tenant_are_joined_by_partition() -> None:
    keyed, dead = rekeyed([record(otlp((1, 1), (2, 2))), record(otlp((1, 3)), 1)], 4, LIMITS)

    assert dead == []
    placed = {one.partition: TracesData.FromString(one.value) for one in keyed}
    spans = {
        (partition, span.span_id[-1])
        for partition, data in placed.items()
        for resource in data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert spans == {(partition_of(trace.to_bytes(16, "big"), 4), span) for trace, span in ((1, 1), (2, 2), (1, 3))}


def test_tenants_are_not_joined() -> None:
    keyed, _ = rekeyed([record(otlp((1, 1)), 0, "a"), record(otlp((1, 2)), 1, "b")], 4, LIMITS)

    assert sorted(one.tenant for one in keyed) == ["a", "b"]


def test_a_record_that_does_not_parse_is_set_aside_alone() -> None:
    broken = otlp((1, 1)) + b"\x0a\x7f"  # a field that ends early

    keyed, dead = rekeyed([record(otlp((1, 1))), record(broken, 1), record(b"", 2), record(b"{}", 3)], 4, LIMITS)

    assert len(keyed) == 1
    assert [one.offset for one, _ in dead] == [1, 2, 3]


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_a_collectors_records_are_stored_once_and_strangers_are_set_aside(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, real_parts_dir: Path, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    sent: set[int] = set()
    for number, codec in enumerate(CODECS):  # kafkaexporter: nil keys and many traces, or a hex key a trace
        base = 100 * number
        producer = Producer({"bootstrap.servers": kafka_settings.bootstrap_servers, "compression.type": codec})
        inlet = full_name(otlp_spans.TOPIC, kafka_settings)
        producer.produce(inlet, otlp(*((base + trace, base + trace) for trace in range(1, 9))))
        producer.produce(inlet, otlp((base + 50, base + 50)), key=(base + 50).to_bytes(16, "big").hex())
        key = (base + 60).to_bytes(16, "big").hex()
        producer.produce(inlet, otlp((base + 60, base + 60)), key=key, partition=sarama_partition(key, 4))
        producer.flush()
        own = Producer(
            {"bootstrap.servers": kafka_settings.bootstrap_servers, "compression.type": codec, "partitioner": "murmur2"}
        )
        key = (base + 70).to_bytes(16, "big").hex()
        own.produce(full_name(spans_by_trace.TOPIC, kafka_settings), otlp((base + 70, base + 70)), key=key)
        own.flush()
        sent |= {base + trace for trace in (*range(1, 9), 50, 60, 70)}
    strangers = foreign_records(kafka_settings) | damaged_batches(kafka_settings, real_parts_dir / "kafka" / "logs")

    workers, store = Workers(settings, tmp_path), ObjectStore(store_settings)
    try:
        workers.start("one")
        wait_until(lambda: len(dead_letters(kafka_settings)) == len(strangers), timeout_s=60)
        wait_until(lambda: everything_is_stored(store, settings), timeout_s=40)
        wait_until(lambda: stored_span_ids(store, settings).total() == len(sent), timeout_s=20)

        assert stored_span_ids(store, settings) == Counter(span.to_bytes(8, "big") for span in sent)
    finally:
        workers.end_all()
        store.close()
    assert dead_letters(kafka_settings) == strangers


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_a_batch_that_unpacks_to_more_than_a_worker_may_hold_holds_up_nobody(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings, topic = (
        Settings(kafka=kafka_settings, store=store_settings),
        full_name(spans_by_trace.TOPIC, kafka_settings),
    )
    admin.ensure(settings)
    for partition, codec in enumerate(packed := [one for one in CODECS if one != "none"]):
        trace = next(n for n in range(1, 99) if stands_on(n, kafka_settings) == partition)
        bootstrap = {"bootstrap.servers": kafka_settings.bootstrap_servers}
        producer = Producer(bootstrap | {"compression.type": codec, "message.max.bytes": 1 << 24})
        for value in (otlp((trace, 2 * partition + 1)), bytes(3 << 20), otlp((trace, 2 * partition + 2))):
            producer.produce(topic, value, partition=partition)
            assert producer.flush(10) == 0

    store = ObjectStore(store_settings)
    with Workers(settings, tmp_path, variables={"SPANSTREAM_WORKER_BATCH_BYTES_MAX": str(2 << 20)}) as workers:
        workers.start("one")
        wait_until(lambda: stored_span_ids(store, settings).total() == 2 * len(packed), timeout_s=60)
    store.close()

    assert dead_letters(kafka_settings) == {(partition, 1): "unreadable" for partition in range(len(packed))}


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_a_stranger_that_unpacks_to_more_than_a_letter_holds_up_nobody(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    stranger, trace = b"no OTLP " * 1_000_000, next(n for n in range(1, 99) if stands_on(n, kafka_settings) == 0)
    producer = Producer(
        {
            "bootstrap.servers": kafka_settings.bootstrap_servers,
            "compression.type": "zstd",
            "message.max.bytes": 1 << 24,
        }
    )
    names = [full_name(topic, kafka_settings) for topic in (otlp_spans.TOPIC, spans_by_trace.TOPIC)]
    for number, name in enumerate(names, start=1):
        producer.produce(name, stranger, partition=0, headers=[("own", b"1")])
        producer.produce(name, otlp((trace, number)), partition=0)
    assert producer.flush(10) == 0

    store = ObjectStore(store_settings)
    with Workers(settings, tmp_path) as workers:
        workers.start("one")
        wait_until(lambda: stored_span_ids(store, settings).total() == len(names), timeout_s=60)
    store.close()

    letters = list(letters_of.read(kafka_settings, 0, admin.watermarks(settings, spans_dead.TOPIC)[0][1]))
    told = [letters_of.headers(letter) for letter in letters]
    assert {one["dead_topic"] for one in told} == set(names)  # read again after a rebalance, a record has two letters
    assert {(one["dead_offset"], one["dead_cut"]) for one in told} == {("0", "8000014 bytes in all")}
    assert {letter.value() for letter in letters} == {stranger[: 1 << 20]}


def stands_on(trace: int, kafka: KafkaSettings) -> int:
    return partition_of(trace.to_bytes(16, "big"), kafka.partitions)


def sarama_partition(key: str, partitions: int) -> int:
    """Where sarama's hash partitioner, a Collector's default, puts a key: FNV-1a of 32 bits as a signed number."""
    value = 0x811C9DC5
    for byte in key.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    signed = value - (1 << 32) if value >> 31 else value
    return abs(signed) % partitions


def foreign_records(kafka: KafkaSettings) -> dict[tuple[int, int], str]:
    """Write what is no record of ours to the keyed topic; (partition, offset) -> how its reason begins."""
    topic, wanted = full_name(spans_by_trace.TOPIC, kafka), {}
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    elsewhere = (partition_of((9).to_bytes(16, "big"), kafka.partitions) + 1) % kafka.partitions
    values = [
        (elsewhere, otlp((9, 9)), [], "wrong_partition"),
        (0, b'{"resourceSpans": []}', [], "no_otlp"),
        (0, b"\xff" * 40, [], "no_otlp"),
        (1, b"", [], "empty"),
        (1, otlp((9, 9)), [("X-Scope-OrgID", b"no/tenant")], "tenant"),
    ]
    for partition, value, headers, reason in values:
        told: list[int] = []
        producer.produce(
            topic,
            value,
            partition=partition,
            headers=headers,
            on_delivery=lambda _error, message, told=told: told.append(message.offset()),
        )
        producer.flush()
        wanted[partition, told[0]] = reason
    return wanted


def damaged_batches(kafka: KafkaSettings, logs: Path) -> dict[tuple[int, int], str]:
    """One batch of each damage; (partition, offset) -> how its reason begins."""
    wanted, value = {}, otlp(*((number, number) for number in range(1, 20)))
    for at, damage in enumerate(DAMAGES):
        partition = at % kafka.partitions
        wanted[partition, write_damaged(kafka, logs, partition, damage, value)] = "unreadable"
    return wanted


def dead_letters(kafka: KafkaSettings) -> dict[tuple[int, int], str]:
    """(partition, offset) -> the first word of the reason, of every dead letter."""
    topic = full_name(spans_dead.TOPIC, kafka)
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "t", "auto.offset.reset": "earliest"}
    )
    try:
        end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: dict[tuple[int, int], str] = {}
        for message in consumer.consume(end, timeout=10) if end else ():
            headers = {key: (value or b"").decode() for key, value in message.headers() or ()}
            place = int(headers["dead_partition"]), int(headers["dead_offset"])
            found[place] = headers["dead_reason"].split(":")[0]
        return found
    finally:
        consumer.close()

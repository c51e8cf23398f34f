"""Which record comes next, asked of a real log: with control records, with what was deleted, at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from topics import spans_by_trace
from topics.admin import client_config, ensure
from topics.errors import KafkaUnavailableError
from topics.next_record import NextRecord
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(kafka_settings: KafkaSettings) -> str:
    ensure(Settings(kafka=kafka_settings))
    return full_name(spans_by_trace.TOPIC, kafka_settings)


@pytest.fixture
def asked(kafka_settings: KafkaSettings, topic: str) -> Iterator[NextRecord]:
    found = NextRecord(kafka_settings, topic)
    yield found
    found.close()


def send_in_transactions(kafka: KafkaSettings, topic: str, ends: str) -> None:
    """A record and its transaction's end, one after the other. ends: a letter a transaction, c(ommit) or a(bort)."""
    producer = Producer(client_config(kafka) | {"transactional.id": topic})
    producer.init_transactions(30)
    for end in ends:
        producer.begin_transaction()
        producer.produce(topic, b"value", partition=0)
        producer.flush(30)
        (producer.commit_transaction if end == "c" else producer.abort_transaction)(30)


def test_control_records_are_no_records(kafka_settings: KafkaSettings, topic: str, asked: NextRecord) -> None:
    send_in_transactions(kafka_settings, topic, "ccac")

    found = [asked.offset(0, start) for start in range(9)]

    assert found == [0, 2, 2, 4, 4, 6, 6, 8, 8]


def test_what_was_deleted_is_no_record(kafka_settings: KafkaSettings, topic: str, asked: NextRecord) -> None:
    producer = Producer(client_config(kafka_settings))
    for _ in range(5):
        producer.produce(topic, b"value", partition=0)
    producer.flush(30)
    admin = AdminClient(client_config(kafka_settings))
    deleted = admin.delete_records([TopicPartition(topic, 0, 3)])
    assert [future.result().low_watermark for future in deleted.values()] == [3]

    assert [asked.offset(0, start) for start in (0, 2, 3, 4, 5)] == [3, 3, 3, 4, 5]


def test_an_empty_partition_has_none_before_its_end(topic: str, asked: NextRecord) -> None:
    assert topic
    assert asked.offset(0, 0) == 0


def test_a_cluster_that_is_away_is_told() -> None:
    away = NextRecord(KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=1), "spans_by_trace")

    with pytest.raises(KafkaUnavailableError, match="spans_by_trace 0"):
        away.offset(0, 0)
    away.close()

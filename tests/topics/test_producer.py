"""The record producer on a real Kafka."""

from __future__ import annotations

import asyncio
import socket

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from topics import spans_by_trace, spans_dead
from topics.admin import client_config, ensure
from topics.errors import KafkaUnavailableError
from topics.producer import RecordProducer
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name


@pytest.mark.integration
@pytest.mark.anyio
async def test_records_are_confirmed_with_their_offsets_and_read_back_as_sent(kafka_settings: KafkaSettings) -> None:
    await asyncio.to_thread(ensure, Settings(kafka=kafka_settings))
    producer = RecordProducer(kafka_settings)
    headers = spans_by_trace.headers_of("team-a", 17)

    futures = [producer.send(spans_by_trace.TOPIC, 3, b"key", b"value %d" % i, headers) for i in range(50)]
    offsets = await asyncio.wait_for(asyncio.gather(*futures), 20)

    assert offsets == list(range(50))
    assert await producer.flush(5) == 0
    consumer = Consumer(client_config(kafka_settings) | {"group.id": "read-back", "enable.auto.commit": False})
    consumer.assign([TopicPartition(full_name(spans_by_trace.TOPIC, kafka_settings), 3, 0)])
    messages = await asyncio.to_thread(consumer.consume, 50, 20)
    assert [message.value() for message in messages] == [b"value %d" % i for i in range(50)]
    assert messages[0].headers() == headers
    assert spans_by_trace.tenant_of(messages[0].headers()) == "team-a"
    consumer.close()
    producer.close()


@pytest.mark.integration
@pytest.mark.anyio
async def test_a_topic_that_does_not_exist_fails_the_record_and_not_the_producer(
    kafka_settings: KafkaSettings,
) -> None:
    producer = RecordProducer(kafka_settings, ack_timeout_s=1.0)

    with pytest.raises(KafkaUnavailableError):
        await asyncio.wait_for(producer.send(spans_dead.TOPIC, 0, None, b"x", []), 20)

    producer.close()


@pytest.mark.anyio
async def test_without_kafka_a_record_fails_within_the_timeout_and_the_queue_is_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # a port on which no Kafka answers
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{taken.getsockname()[1]}")
        producer = RecordProducer(kafka, ack_timeout_s=0.1, queue_bytes_max=1 << 20)

        futures = [producer.send(spans_dead.TOPIC, 0, None, bytes(400_000), []) for _ in range(5)]
        outcomes = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 20)

        assert all(isinstance(outcome, KafkaUnavailableError) for outcome in outcomes)
        assert "queue to Kafka is full" in str(outcomes[-1])
        producer.close()


@pytest.mark.integration
@pytest.mark.anyio
async def test_a_record_that_kafka_refuses_for_its_time_is_told_so(kafka_settings: KafkaSettings) -> None:
    await asyncio.to_thread(ensure, Settings(kafka=kafka_settings))
    name = full_name(spans_dead.TOPIC, kafka_settings)
    none_is_young_enough = ConfigEntry(
        "message.timestamp.before.max.ms", "0", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[none_is_young_enough])
    client = AdminClient(client_config(kafka_settings))
    client.incremental_alter_configs([resource])[resource].result()
    producer = RecordProducer(kafka_settings, linger_s=0.1)

    with pytest.raises(KafkaUnavailableError, match="set this machine's clock"):
        await asyncio.wait_for(producer.send(spans_dead.TOPIC, 0, b"key", b"value", []), 20)
    producer.close()

"""A real receiver on free ports before a real Kafka, and what stands on its topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from confluent_kafka import Consumer, Message, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.receive.main import Receiver
from topics import spans_by_trace
from topics.admin import client_config, ensure, watermarks
from topics.settings import KafkaSettings, ReceiverSettings, Settings
from topics.topic import full_name


def receiver_settings(kafka: KafkaSettings, **changes: object) -> Settings:
    """Free ports."""
    receiver = ReceiverSettings(**({"http_port": 0, "grpc_port": 0} | changes))  # type: ignore[arg-type]
    return Settings(kafka=kafka, receiver=receiver)


@asynccontextmanager
async def running_receiver(settings: Settings) -> AsyncIterator[Receiver]:
    """A receiver that takes spans; stopped at the end."""
    await asyncio.to_thread(ensure, settings)
    receiver = Receiver(settings)
    await receiver.start()
    await asyncio.wait_for(receiver.opened.wait(), 20)
    yield receiver
    await receiver.stop()


def records_of(settings: Settings) -> list[Message]:
    """Every record on spans_by_trace, partition by partition."""
    name = full_name(spans_by_trace.TOPIC, settings.kafka)
    marks = watermarks(settings, spans_by_trace.TOPIC)
    consumer = Consumer(client_config(settings.kafka) | {"group.id": "read-back", "enable.auto.commit": False})
    consumer.assign([TopicPartition(name, partition, low) for partition, (low, _) in marks.items()])
    records: list[Message] = []
    wanted = sum(high - low for low, high in marks.values())
    while len(records) < wanted:
        records += consumer.consume(wanted - len(records), 20)
    consumer.close()
    return sorted(records, key=lambda record: (record.partition() or 0, record.offset() or 0))


def data_of(records: list[Message]) -> TracesData:
    """All their spans."""
    return TracesData.FromString(b"".join(record.value() or b"" for record in records))

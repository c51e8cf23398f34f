"""Which partition a trace stands on, against stock clients."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from topics.admin import client_config, ensure
from topics.partitioner import partition_of, partitions_of
from topics.settings import KafkaSettings, Settings
from topics.spans_by_trace import TOPIC
from topics.topic import full_name


def java_murmur2(key: bytes) -> int:
    """Kafka's org.apache.kafka.common.utils.Utils.murmur2, from its published description, in plain Python."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(key)) & mask
    for start in range(0, len(key) & ~3, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    h = (h ^ h >> 13) * m & mask  # a hex key has no tail: its length is a multiple of 4
    return h ^ h >> 15


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(1, 1000))
def test_partitions_agree_with_javas_partitioner_over_the_hex_digits(trace_ids: list[bytes], partitions: int) -> None:
    ids = np.frombuffer(b"".join(trace_ids), dtype=np.uint8).reshape(-1, 16)

    found = partitions_of(ids, partitions)

    expected = [(java_murmur2(trace_id.hex().encode()) & 0x7FFFFFFF) % partitions for trace_id in trace_ids]
    assert found.tolist() == expected
    assert [partition_of(trace_id, partitions) for trace_id in trace_ids] == expected


def test_aiokafkas_default_partitioner_puts_a_hex_key_on_the_same_partition() -> None:
    partitioner, rng = DefaultPartitioner(), random.Random(7)
    for partitions in (1, 3, 8, 64):
        for trace_id in (rng.randbytes(16) for _ in range(200)):
            chosen = partitioner(trace_id.hex().encode(), list(range(partitions)), list(range(partitions)))
            assert chosen == partition_of(trace_id, partitions)


@pytest.mark.integration
@pytest.mark.anyio
async def test_stock_producers_put_the_same_keys_on_the_same_partitions(kafka_settings: KafkaSettings) -> None:
    await asyncio.to_thread(ensure, Settings(kafka=kafka_settings))
    name, rng = full_name(TOPIC, kafka_settings), random.Random(8)
    trace_ids = [rng.randbytes(16) for _ in range(100)]
    landed: dict[bytes, int] = {}
    confluent = Producer(client_config(kafka_settings) | {"partitioner": "murmur2"})
    for trace_id in trace_ids:
        confluent.produce(
            name,
            value=b"x",
            key=trace_id.hex(),
            on_delivery=lambda _error, message: landed.__setitem__(message.key(), message.partition()),
        )
    assert await asyncio.to_thread(confluent.flush, 20) == 0

    async with AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap_servers) as aio:
        records = [await aio.send_and_wait(name, b"x", key=trace_id.hex().encode()) for trace_id in trace_ids]

    ours = [partition_of(trace_id, kafka_settings.partitions) for trace_id in trace_ids]
    assert [record.partition for record in records] == ours
    assert [landed[trace_id.hex().encode()] for trace_id in trace_ids] == ours

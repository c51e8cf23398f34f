"""A store that takes a second writer is found out at a worker's start, and used all the same by one worker."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from agents.app import make_app
from agents.source import KafkaOffsets, KafkaSource, StoreRanges
from infra.ports import free_port
from pipeline.partition.sealed import SealedRange
from pipeline.spans import schema
from pipeline.store.objects import ObjectStore
from topics import admin, spans_by_trace
from topics.errors import PartitionsChangedError
from topics.settings import KafkaSettings, Settings, StoreSettings, WorkerSettings
from topics.topic import full_name

pytestmark = pytest.mark.integration
TOPIC = "spans_by_trace"


def sealed(first: int, last: int) -> SealedRange:
    return SealedRange(
        topic=TOPIC,
        partition=0,
        partitions=4,
        first=first,
        last=last,
        spans=schema.empty_table(),
        record_time_min_unix_ns=0,
        record_time_max_unix_ns=0,
    )


def ranges_of(settings: Settings, store: ObjectStore, partitions: int) -> StoreRanges:
    return StoreRanges(
        settings,
        store,
        topic=TOPIC,
        partitions=partitions,
        worker_url="http://w",
        offsets=KafkaOffsets(settings),
        clock_ns=time.time_ns,
    )


def test_a_partition_that_was_taken_away_has_no_end_that_is_known() -> None:
    async def end() -> int | None:
        consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")  # of no group: nothing is assigned
        app: Any = SimpleNamespace(consumer=consumer)
        try:
            return KafkaSource(app, Settings(), TOPIC).end(0)
        finally:
            await consumer.stop()

    assert asyncio.run(end()) is None


async def read_again(source: KafkaSource, offsets: asyncio.Queue[int], start: int) -> int:
    """`start`, once its record has come again.

    Faust may drop what was fetched after a seek (decision 0003): asked again after a while, as the worker does.
    """
    while True:
        await source.seek(0, start)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while await offsets.get() != start:
                    pass  # the rest of what was read before
                return start


def test_a_reading_position_is_set_in_the_thread_that_fetches(
    kafka_settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set by another one while a batch is unpacked, it ended the worker (a KeyError), or was written over."""
    settings = Settings(kafka=kafka_settings, worker=WorkerSettings(port=free_port(), data_dir=tmp_path))
    admin.ensure(settings)
    threads: list[threading.Thread] = []
    seek = AIOKafkaConsumer.seek

    def watched(*given: Any) -> None:
        threads.append(threading.current_thread())
        seek(*given)

    monkeypatch.setattr(AIOKafkaConsumer, "seek", watched)

    async def heard() -> list[int]:
        app = make_app(settings)
        topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        offsets: asyncio.Queue[int] = asyncio.Queue()

        @app.agent(app.topic(topic, value_serializer="raw"))
        async def read(stream: Any) -> None:
            async for event in stream.noack().events():
                await offsets.put(event.message.offset)

        source = KafkaSource(app, settings, topic)
        await app.start()
        try:
            for value in (b"0", b"1", b"2"):
                await source.producer.send(spans_by_trace.TOPIC, 0, None, value, [])
            async with asyncio.timeout(60):
                found = [await offsets.get() for _ in range(3)]
                for start in (1, 0):
                    found.append(await read_again(source, offsets, start))
                return found
        finally:
            await source.close()
            await app.stop()

    assert asyncio.run(heard()) == [0, 1, 2, 1, 0]
    assert threads
    assert threading.main_thread() not in threads


def test_a_topic_with_more_partitions_than_before_is_refused_with_what_to_read(
    kafka_settings: KafkaSettings, store_settings: StoreSettings
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    store = ObjectStore(store_settings)
    before, after = ranges_of(settings, store, 4), ranges_of(settings, store, 8)
    before.store(sealed(0, 4), threading.Event())

    with pytest.raises(PartitionsChangedError, match="More partitions"):
        after.assignment(0, b"s" * 32, 1000)  # a worker started after the change, a partition with chunks
    with pytest.raises(PartitionsChangedError, match="this is partition 5"):
        before.assignment(5, b"s" * 32, 1000)  # one that runs on
    store.close()


def test_rclone_is_found_out_and_a_range_is_still_stored_once(
    rclone: StoreSettings, kafka_settings: KafkaSettings
) -> None:
    settings = Settings(kafka=kafka_settings, store=rclone)
    admin.ensure(settings)
    store = ObjectStore(rclone)
    store.ensure_buckets()
    ranges = ranges_of(settings, store, 4)

    assert ranges.assignment(0, b"s" * 32, 1000).mark == 0
    stored = ranges.store(sealed(0, 4), threading.Event())
    again = ranges.store(sealed(0, 9), threading.Event())

    assert not store.conditional_put_works()
    assert stored is not None
    assert again is None  # the manifest is read before it would be written over
    assert ranges.assignment(0, b"s" * 32, 1000).mark == 5
    store.close()

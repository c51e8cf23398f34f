"""The feed on a real Kafka and MinIO: entries arrive at once, and what the topic misses comes from the bucket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.catalog import Catalog
from pipeline.store.catalog_feed import CatalogFeed
from pipeline.store.commit import store_range
from pipeline.store.manifest import Manifest
from pipeline.store.objects import ObjectStore
from tests.pipeline.store.test_commit import NOW, sealed
from tests.waiting import wait_until
from topics import admin, span_chunks, spans_by_trace
from topics.producer import RecordProducer
from topics.settings import KafkaSettings, QuerierSettings, Settings, StoreSettings
from topics.topic import full_name

pytestmark = pytest.mark.integration
PARTITION = 3  # that of test_commit's ranges


@pytest.fixture
def real(kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path) -> Settings:
    querier = QuerierSettings(data_dir=tmp_path, catalog_refresh_s=0.2)
    settings = Settings(kafka=kafka_settings, store=store_settings, querier=querier)
    admin.ensure(settings)
    return settings


@pytest.fixture
def store(real: Settings) -> Iterator[ObjectStore]:
    opened = ObjectStore(real.store)
    yield opened
    opened.close()


class Following:
    """A catalog and its feed, as a querier has them."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.catalog = Catalog(settings.querier.data_dir, full_name(spans_by_trace.TOPIC, settings.kafka), store)
        self.feed = CatalogFeed(settings, self.catalog)

    def __enter__(self) -> Following:
        self.feed.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.feed.close()
        self.catalog.close()


def stored(settings: Settings, store: ObjectStore, first: int) -> Manifest:
    one = sealed(first, first + 9, topic=full_name(spans_by_trace.TOPIC, settings.kafka))
    manifest = store_range(store, settings, one, worker="w", now_unix_ns=NOW, stop=threading.Event())
    assert manifest is not None
    return manifest


def send(settings: Settings, *entries: tuple[int, bytes | None]) -> None:
    async def all_of_them() -> None:
        producer = RecordProducer(settings.kafka)
        for first, entry in entries:
            await producer.send(span_chunks.TOPIC, None, span_chunks.key_of(PARTITION, first), entry, [])
        producer.close()

    asyncio.run(all_of_them())


def test_an_entry_arrives_by_the_topic_and_its_filter_from_the_bucket(real: Settings, store: ObjectStore) -> None:
    slow = real.model_copy(update={"querier": real.querier.model_copy(update={"catalog_refresh_s": 300.0})})
    with Following(slow, store) as following:
        wait_until(lambda: not following.feed.missing(), timeout_s=20)
        manifests = [stored(slow, store, first) for first in (0, 10)]
        send(slow, (0, manifests[0].to_entry()), (5, None), (6, b"garbage"), (10, manifests[1].to_entry(bytes_max=9)))
        wait_until(lambda: following.catalog.horizons() == {PARTITION: 20}, timeout_s=20)
        wait_until(lambda: not following.catalog.chunks_for_trace("shop", PARTITION, b"x" * 16), timeout_s=20)

        assert len(following.catalog.chunks_for_trace("shop", PARTITION, b"t" * 16)) == 2
        assert following.catalog.feed_offset() >= 4


def test_what_the_topic_does_not_tell_is_listed_in_the_bucket(real: Settings, store: ObjectStore) -> None:
    stored(real, store, 0)
    with Following(real, store) as following:
        wait_until(lambda: following.catalog.horizons() == {PARTITION: 10}, timeout_s=20)
        stored(real, store, 10)
        wait_until(lambda: following.catalog.horizons() == {PARTITION: 20}, timeout_s=20)

        assert following.feed.missing() == ""


def test_a_garbage_manifest_holds_up_no_other_partition(real: Settings, store: ObjectStore) -> None:
    topic = full_name(spans_by_trace.TOPIC, real.kafka)
    store.put(store.buckets[0], f"manifests/{topic}/0/{0:020d}.json", b"garbage", "application/json")
    stored(real, store, 0)
    with Following(real, store) as following:
        wait_until(lambda: following.catalog.horizons() == {PARTITION: 10}, timeout_s=20)


def test_while_the_store_is_away_the_feed_says_so_and_waits(real: Settings) -> None:
    away = ObjectStore(real.store.model_copy(update={"endpoint": "http://127.0.0.1:9"}))
    with Following(real, away) as following:
        wait_until(lambda: "does not answer" in following.feed.missing(), timeout_s=30)

        assert following.catalog.horizons() == {}
    away.close()

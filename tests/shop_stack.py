"""Receiver, worker and querier as real processes on real Kafka and MinIO, with the shop's spans in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from agents.commands.local_run import prepare
from infra.minio import StorePlan
from tests.browser.shop import ShopData, send_shop
from tests.queriers import querier, receiver
from tests.waiting import wait_until
from tests.workers import Workers
from topics.settings import KafkaSettings, Settings, StoreSettings


@dataclass(frozen=True, slots=True)
class ShopStack:
    """What tests share. url: the querier's, otlp_url: the receiver's."""

    url: str
    otlp_url: str
    worker_url: str
    settings: Settings
    shop: ShopData


@contextmanager
def running_shop(
    name: str, kafka_broker: str, minio: StorePlan, folder: Path, *, odd_names: bool = True
) -> Iterator[ShopStack]:
    """It runs as long as the block lasts. name: of its topics, group and bucket."""
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka_broker, topic_prefix=f"{name}-", group=name, partitions=4),
        store=StoreSettings(
            endpoint=minio.endpoint,
            access_key=minio.access_key,
            secret_key=SecretStr(minio.secret_key),
            buckets=(f"{name}-a",),
        ),
    )
    prepare(settings)
    with Workers(settings, folder) as workers, receiver(settings, folder) as otlp_url:
        worker_url = workers.start("worker")
        shop = send_shop(otlp_url, odd_names=odd_names)
        with querier(settings, folder) as url:
            wait_until(lambda: _knows(url, shop), 60, "the querier knows the shop's traces")
            yield ShopStack(url, otlp_url, worker_url, settings, shop)


def _knows(url: str, shop: ShopData) -> bool:
    found = httpx.get(f"{url}/api/services", params={"since": "1h"}, timeout=30).json()
    counted = sum(sum(operations.values()) for operations in found.get("services", {}).values())
    return bool(found.get("complete") and counted == shop.spans)

"""Fixtures of the real parts: one Kafka and one MinIO a process of tests, fresh topics and buckets a test."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from confluent_kafka.admin import AdminClient
from minio import Minio
from pydantic import SecretStr

from infra.minio import StorePlan
from infra.ports import free_port
from infra.rclone import start_rclone
from infra.stack import store_ready
from tests.kafka_run import running_kafka
from tests.minio_run import running_minio
from tests.shop_stack import ShopStack, running_shop
from topics.logs import QUIET_LOGGERS
from topics.settings import KafkaSettings, StoreSettings

TESTS = Path(__file__).parent
# Files that take over a minute, and those of the whole stack, which stand in `tests/` itself
LONGEST = ("test_rows", "test_simulation", "test_traceql_reference", "test_tags_reference", "test_local_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that processes that run files side by side end together."""

    def order(item: pytest.Item) -> int:
        return 0 if item.path.stem in LONGEST else 1 if item.path.parent == TESTS else 2

    items.sort(key=order)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes give a test no name: gzip writes the second into its own, and processes must agree on every name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def real_parts_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data of the session's Kafka and MinIO; removed at the end, since pytest keeps three runs."""
    folder = tmp_path_factory.mktemp("parts")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka_broker(real_parts_dir: Path) -> Iterator[str]:
    """host:port of a real Kafka for the whole run."""
    with running_kafka(real_parts_dir / "kafka", real_parts_dir / "kafka.log") as (bootstrap_servers, _):
        yield bootstrap_servers


@pytest.fixture(scope="session")
def minio_server(real_parts_dir: Path) -> Iterator[StorePlan]:
    """A real MinIO for the whole run."""
    with running_minio(real_parts_dir / "minio", real_parts_dir / "minio.log") as plan:
        yield plan


@pytest.fixture
def kafka_settings(kafka_broker: str) -> Iterator[KafkaSettings]:
    """A real Kafka with a topic prefix and a consumer group of this test alone; its topics are deleted after it."""
    unique = uuid.uuid4().hex[:8]
    prefix = f"t{unique}-"
    yield KafkaSettings(bootstrap_servers=kafka_broker, topic_prefix=prefix, group=f"g{unique}", partitions=4)
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith((prefix, f"g{unique}"))]
    if names:
        for deleted in admin.delete_topics(names, request_timeout=10).values():
            deleted.exception(timeout=10)


@pytest.fixture
def store_settings(minio_server: StorePlan) -> StoreSettings:
    """A real MinIO with two buckets of this test alone; they exist and are empty."""
    unique = uuid.uuid4().hex[:8]
    store = StoreSettings(
        endpoint=minio_server.endpoint,
        access_key=minio_server.access_key,
        secret_key=SecretStr(minio_server.secret_key),
        buckets=(f"t{unique}-a", f"t{unique}-b"),
    )
    address = minio_server.endpoint.removeprefix("http://")
    client = Minio(
        endpoint=address,
        access_key=minio_server.access_key,
        secret_key=minio_server.secret_key,
        secure=False,
        region=store.region,
    )
    for bucket in store.buckets:
        client.make_bucket(bucket_name=bucket)
    return store


@pytest.fixture(scope="module")
def shop(kafka_broker: str, minio_server: StorePlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopStack]:
    """A running querier that knows the shop's traces, for all tests of a file."""
    folder = tmp_path_factory.mktemp("shop")
    with running_shop(f"shop{uuid.uuid4().hex[:8]}", kafka_broker, minio_server, folder) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[StoreSettings]:
    """A store that takes a second put with If-None-Match."""
    plan = StorePlan(
        data_dir=tmp_path / "rclone",
        port=free_port(),
        access_key="spanstream",
        secret_key="spanstream-local",
        log_path=tmp_path / "rclone.log",
    )
    server = start_rclone(plan)
    try:
        server.wait_ready(lambda: store_ready(plan), 30)
        yield StoreSettings(
            endpoint=f"http://127.0.0.1:{plan.port}",
            access_key=plan.access_key,
            secret_key=SecretStr(plan.secret_key),
            buckets=("spans-a",),
        )
    finally:
        server.stop(10)


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """For tests that set up logging in this process: handlers and levels are as they were after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)

"""A real Kafka of a test's own, or of a whole process of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.kafka import KafkaPlan, kafka_ready, start_kafka
from infra.ports import free_port
from infra.process import ChildProcess
from tests.minio_run import START_TIMEOUT_S, STOP_TIMEOUT_S


@contextmanager
def running_kafka(data_dir: Path, log_path: Path, *, heap_mb: int = 512) -> Iterator[tuple[str, ChildProcess]]:
    """Its host:port and its process; stopped at the end."""
    plan = KafkaPlan(
        data_dir=data_dir,
        port=free_port(),
        controller_port=free_port(),
        heap_mb=heap_mb,
        log_path=log_path,
    )
    broker = start_kafka(plan, print)
    try:
        broker.wait_ready(lambda: kafka_ready(plan), START_TIMEOUT_S)
        yield plan.bootstrap_servers, broker
    finally:
        broker.stop(STOP_TIMEOUT_S)

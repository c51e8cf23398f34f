"""A real MinIO of a test's own, or of a whole process of tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.minio import BUILD_COMMAND, StorePlan, find_minio, start_minio
from infra.ports import free_port
from infra.stack import store_ready

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@contextmanager
def running_minio(data_dir: Path, log_path: Path) -> Iterator[StorePlan]:
    """Where it is and its keys; stopped at the end. The test fails where there is none."""
    binary = find_minio()
    if binary is None:
        pytest.fail(f"these tests need MinIO: `{BUILD_COMMAND}` builds it, once", pytrace=False)
    plan = StorePlan(
        data_dir=data_dir,
        port=free_port(),
        access_key="spanstream",
        secret_key="spanstream-local",
        log_path=log_path,
    )
    server = start_minio(plan, binary)
    try:
        server.wait_ready(lambda: store_ready(plan), START_TIMEOUT_S)
        yield plan
    finally:
        server.stop(STOP_TIMEOUT_S)

"""A disk that fills up under a worker on real Kafka and MinIO: it waits, says so, and goes on when there is room."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.metrics import metric
from tests.queriers import asking, querier
from tests.test_kill_and_rebalance import running
from tests.waiting import wait_until
from tests.workers import everything_is_stored, stored_span_ids
from topics.settings import KafkaSettings, Settings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
SMALL = {  # so that rows go to the disk soon
    "SPANSTREAM_WORKER_LIVE_BYTES_MAX": str(4 << 20),
    "SPANSTREAM_WORKER_ROCKSDB_BYTES": str(4 << 20),
    "SPANSTREAM_WORKER_OPEN_BYTES_MAX": str(1 << 40),
    "SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "2",
}
DISK_MB, PIECE = 24, bytes(64 << 10)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own at `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Until nothing fits any more."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(PIECE)


def test_a_worker_whose_disk_is_full_waits_says_so_and_goes_on_when_there_is_room(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    seldom = {"seal_age_s": 20, "seal_spans": 10**9}
    with (
        small_disk(tmp_path / "one"),
        running(settings, tmp_path, **seldom, variables=SMALL) as (load, workers, store),
        querier(settings, tmp_path) as url,
    ):
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        fill(tmp_path / "one" / "filler")

        def waits() -> bool:
            load.send(400)
            return "worker.data_dir" in httpx.get(f"{worker}/ready").text

        wait_until(waits, 60, "the worker says that its disk is full")
        assert httpx.get(f"{worker}/ready").status_code == 503
        assert metric(worker, "spanstream_worker_waits_total") > 0
        with asking(url, lambda: load.traces) as asker:
            wait_until(lambda: asker.complete + asker.partial + len(asker.wrong) >= 20, 60)
        assert asker.wrong == []

        (tmp_path / "one" / "filler").unlink()
        wait_until(lambda: httpx.get(f"{worker}/ready").status_code == 200, 60, "it is ready again")
        wait_until(lambda: everything_is_stored(store, settings), 60)

        assert stored_span_ids(store, settings) == Counter(load.sent)

"""A disk that fills up under a worker, MinIO or Kafka: who needs it waits, says so, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.commands.local_run import is_ready
from infra.stack import LocalStack
from pipeline.store.objects import ObjectStore
from tests.metrics import metric, peak_bytes
from tests.minio_run import running_minio
from tests.queriers import asking, querier, receiver
from tests.test_kill_and_rebalance import SPANS_A_RECORD, running
from tests.waiting import wait_until
from tests.workers import everything_is_stored, stored_span_ids
from topics.settings import KafkaSettings, ReceiverSettings, Settings, StackSettings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(170)]
SMALL = {  # so that rows go to the disk soon
    "SPANSTREAM_WORKER_LIVE_BYTES_MAX": str(4 << 20),
    "SPANSTREAM_WORKER_ROCKSDB_BYTES": str(4 << 20),
    "SPANSTREAM_WORKER_OPEN_BYTES_MAX": str(1 << 40),
    "SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "2",
}
PIECE = bytes(64 << 10)
MIB = 1 << 20
UNSEALED_BYTES_MAX = 64 * MIB
READY_S = 20  # for the answer of a worker that decodes all the while


@contextmanager
def small_disk(folder: Path, mb: int) -> Iterator[None]:
    """A disk of its own at `folder`."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", folder]
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


@contextmanager
def own_store(folder: Path) -> Iterator[StoreSettings]:
    """A MinIO whose data stand in `folder`, with its buckets."""
    with running_minio(folder / "data", folder.with_name("store.log")) as plan:
        keys = {"access_key": plan.access_key, "secret_key": plan.secret_key}
        settings = StoreSettings(endpoint=plan.endpoint, **keys, buckets=("full-a", "full-b"))
        ObjectStore(settings).ensure_buckets()
        yield settings


def test_a_worker_whose_disk_is_full_waits_says_so_and_goes_on_when_there_is_room(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    seldom = {"seal_age_s": 20, "seal_spans": 10**9}
    with (
        small_disk(tmp_path / "one", mb=24),
        running(settings, tmp_path, **seldom, variables=SMALL) as (load, workers, store),
        querier(settings, tmp_path) as url,
    ):
        worker = workers.start("one")
        load.send(40)
        wait_until(lambda: everything_is_stored(store, settings), 60)
        fill(tmp_path / "one" / "filler")

        def waits() -> bool:
            load.send(400)
            with suppress(httpx.ReadTimeout):  # what it took since the last time may keep it busy
                return "worker.data_dir" in httpx.get(f"{worker}/ready", timeout=READY_S).text
            return False

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


def test_a_store_whose_disk_is_full_is_waited_for_in_bounded_memory(
    kafka_settings: KafkaSettings, tmp_path: Path
) -> None:
    often = {
        "SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "2",
        "SPANSTREAM_WORKER_UNSEALED_BYTES_MAX": str(UNSEALED_BYTES_MAX),
        "SPANSTREAM_WORKER_GATHER_BYTES_MAX": str(MIB),
    }
    with small_disk(tmp_path / "store", mb=64), own_store(tmp_path / "store") as store_settings:
        settings = Settings(kafka=kafka_settings, store=store_settings)
        with (
            running(settings, tmp_path, variables=often) as (load, workers, store),
            querier(settings, tmp_path) as url,
        ):
            worker = workers.start("one")
            load.send(40)
            wait_until(lambda: everything_is_stored(store, settings), 60)
            load.text_bytes = 10_000
            fill(tmp_path / "store" / "filler")

            load.send(40)
            wait_until(lambda: metric(worker, "spanstream_worker_waits_total") > 0, 30, "the worker waits")
            load.send(2 * UNSEALED_BYTES_MAX // load.text_bytes // SPANS_A_RECORD)
            wait_until(lambda: metric(worker, "spanstream_worker_open_bytes") > UNSEALED_BYTES_MAX, 30, "it holds much")
            with asking(url, lambda: load.traces) as asker:
                wait_until(lambda: asker.complete + asker.partial + len(asker.wrong) >= 20, 60)
            assert asker.wrong == []
            assert metric(worker, "spanstream_worker_open_bytes") < UNSEALED_BYTES_MAX + 16 * MIB
            assert metric(worker, "spanstream_worker_lag_records") > 0  # the rest waits in Kafka
            assert 'fault="full",operation="put"' in httpx.get(f"{worker}/metrics").text

            (tmp_path / "store" / "filler").unlink()
            wait_until(lambda: everything_is_stored(store, settings), 60)
            assert peak_bytes(workers.running["one"].pid) < 700 * MIB
            assert stored_span_ids(store, settings) == Counter(load.sent)


class Sender:
    """Sends a receiver large spans, each once; knows which of them were acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.sent: set[bytes] = set()
        self.acknowledged: set[bytes] = set()

    def send(self) -> httpx.Response:
        span_id = os.urandom(8)
        data = TracesData()
        span = data.resource_spans.add().scope_spans.add().spans.add(trace_id=os.urandom(16), span_id=span_id, name="s")
        span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
        span.attributes.add(key="noise").value.bytes_value = os.urandom(20_000)
        headers = {"Content-Type": "application/x-protobuf"}
        self.sent.add(span_id)
        answer = httpx.post(f"{self._url}/v1/traces", content=data.SerializeToString(), headers=headers, timeout=60)
        if answer.status_code == 200:
            self.acknowledged.add(span_id)
        return answer


def test_a_broker_whose_disk_is_full_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    stack = StackSettings(
        data_dir=tmp_path / "stack", kafka_port=0, kafka_controller_port=0, store_port=0, store="minio"
    )
    wanted = Settings(
        kafka=KafkaSettings(partitions=4),
        stack=stack,
        store=StoreSettings(buckets=("full-a", "full-b")),
        receiver=ReceiverSettings(ack_timeout_s=3),
    )
    disk = tmp_path / "stack" / "kafka"
    with small_disk(disk, mb=128), LocalStack(wanted, print) as running_stack:
        kafka = next(role.child for role in running_stack.roles if role.name == "kafka")
        settings = running_stack.settings
        ObjectStore(settings.store).ensure_buckets()
        often = {"SPANSTREAM_STORE_RETRY_WAIT_MAX_S": "2"}
        with running(settings, tmp_path, variables=often) as (_, workers, store), receiver(settings, tmp_path) as otlp:
            worker = workers.start("one")
            sender = Sender(otlp)
            for _ in range(20):
                assert sender.send().status_code == 200
            wait_until(lambda: everything_is_stored(store, settings), 60)
            fill(disk / "filler")

            refused = wait_until(lambda: (answer := sender.send()).status_code != 200 and answer, 30, "it is refused")
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            wait_until(lambda: not kafka.alive, 30, "a broker without room ends")
            assert sender.send().status_code == 503
            wait_until(lambda: not is_ready(otlp), 30, "the receiver is not ready")
            assert is_ready(worker)  # it answers what it holds

            (disk / "filler").unlink()
            kafka.start()
            wait_until(lambda: is_ready(otlp), 60, "the receiver is ready again")
            assert wait_until(lambda: sender.send().status_code == 200, 30)
            wait_until(lambda: everything_is_stored(store, settings), 60)

            stored = stored_span_ids(store, settings)
            assert set(stored.values()) == {1}
            assert sender.acknowledged <= stored.keys() <= sender.sent  # what was refused may have reached Kafka

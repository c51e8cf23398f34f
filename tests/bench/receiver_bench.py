"""CPU a span and peak memory of a receiver: `python -m tests.bench.receiver_bench BOOTSTRAP_SERVERS`, a real Kafka.

The receiver is a process of its own, as `spanstream receive` starts it. The load comes over OTLP/HTTP on several
connections, as fast as it is taken or at a rate. CPU is user and system time of the whole process, librdkafka's threads
included, from the first request to the last answer.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from agents.load.blocks import Load
from agents.load.send import Target, send
from infra.ports import free_port
from topics.admin import ensure
from topics.settings import KafkaSettings, Settings

START_TIMEOUT_S = 30.0
RECEIVE = "from agents.cli import main; main()"


@dataclass(frozen=True, slots=True)
class ReceiverFigures:
    """One run: us of CPU a span, highest resident memory in MB, spans a second that were acknowledged."""

    cpu_us_per_span: float
    peak_mb: float
    spans_per_s: float


def measure(kafka: KafkaSettings, *, spans: int, connections: int = 16, spans_per_s: float = 0.0) -> ReceiverFigures:
    """Send `spans` spans through a fresh receiver. Every one is acknowledged, or this is an AssertionError."""
    ensure(Settings(kafka=kafka))
    http_port, grpc_port = free_port(), free_port()
    environment = os.environ | {
        "SPANSTREAM_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SPANSTREAM_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "SPANSTREAM_RECEIVER_HTTP_PORT": str(http_port),
        "SPANSTREAM_RECEIVER_GRPC_PORT": str(grpc_port),
        "SPANSTREAM_LOG_LEVEL": "warning",
    }
    url = f"http://127.0.0.1:{http_port}"
    with subprocess.Popen([sys.executable, "-c", RECEIVE, "receive"], env=environment) as receiver:
        try:
            _wait_ready(url)
            load, process = Load(spans, seed=1), psutil.Process(receiver.pid)
            target = Target(url=url, connections=connections, spans_per_s=spans_per_s)
            before = process.cpu_times()
            sent = asyncio.run(send(load, target))
            after = process.cpu_times()
            assert sent.spans_acknowledged == sent.spans == load.spans, sent.problem
            cpu_s = after.user + after.system - before.user - before.system
            peak_mb = _peak_bytes(receiver.pid) / 1e6
        finally:
            receiver.terminate()
    return ReceiverFigures(cpu_s / sent.spans * 1e6, peak_mb, sent.spans / sent.seconds)


def _wait_ready(url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no receiver at {url} within {START_TIMEOUT_S} s")


def _peak_bytes(pid: int) -> int:
    """The highest resident memory since the process began: VmHWM, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    prefix = f"bench-{uuid.uuid4().hex[:6]}-"
    for rate in (0.0, 40_000.0):
        figures = measure(
            KafkaSettings(bootstrap_servers=sys.argv[1], topic_prefix=prefix), spans=600_000, spans_per_s=rate
        )
        print(figures)  # noqa: T201 - its output

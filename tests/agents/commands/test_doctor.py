"""What the doctor says of parts that are not there."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.commands.doctor import (
    STORE_S_MAX,
    Finding,
    check_clock,
    check_disk,
    check_ports,
    check_store,
    doctor,
    tried,
)
from tests.waiting import wait_until
from topics.settings import QuerierSettings, ReceiverSettings, Settings, StackSettings, StoreSettings, WorkerSettings

AWAY = (
    "--kafka-bootstrap-servers",
    "127.0.0.1:1",
    "--kafka-request-timeout-s",
    "1",
    "--store-endpoint",
    "http://127.0.0.1:1",
)
NO_OTHER_PORTS = {"worker": WorkerSettings(port=0), "querier": QuerierSettings(http_port=0, grpc_port=0)}
PORTS = ("--receiver-grpc-port", "0", "--worker-port", "0", "--querier-http-port", "0")


def test_every_part_that_fails_is_told_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = CliRunner().invoke(
            doctor, [*AWAY, *PORTS, "--receiver-http-port", port, "--stack-data-dir", str(tmp_path), "--json"]
        )

    findings = json.loads(answer.stdout)
    failed = {one["part"]: one for one in findings if one["verdict"] == "failed"}
    assert answer.exit_code == 1
    assert {"kafka", "store", "ports"} <= set(failed)
    assert all(one["advice"] for one in failed.values())
    assert any(one["part"] == "disk" and str(tmp_path) in one["found"] for one in findings)


class HourBehind(BaseHTTPRequestHandler):
    """Answers with the time of an hour ago."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) - 3600)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def late_store() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), HourBehind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def failed(findings: Iterator[Finding]) -> list[Finding]:
    return [one for one in findings if one.verdict == "failed"]


def test_a_clock_that_is_an_hour_off_fails_with_advice(late_store: str) -> None:
    (found,) = failed(check_clock(Settings(store=StoreSettings(endpoint=late_store))))

    assert re.fullmatch(r"3(599|600|601) s apart from the store's", found.found)
    assert "NTP" in found.advice


def test_too_little_room_on_the_disk_fails_with_the_flag_to_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agents.commands.doctor.FREE_BYTES_MIN", 1 << 60)

    found = failed(check_disk(Settings(stack=StackSettings(data_dir=tmp_path / "not" / "yet"))))

    assert [one.advice for one in found if str(tmp_path) in one.found] == [
        "make room, or choose another folder: --stack-data-dir"
    ]


def test_a_store_that_hangs_is_told_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # its kernel takes connections
        settings = Settings(store=StoreSettings(endpoint=f"http://127.0.0.1:{hung.getsockname()[1]}"))
        began = time.monotonic()
        (found,) = tried(check_store, settings)

    assert time.monotonic() - began < 2 * STORE_S_MAX
    assert found.verdict == "failed"
    assert "does the store hang?" in found.found
    assert found.advice


@pytest.mark.integration
def test_a_store_that_takes_a_second_put_is_a_warning(rclone: StoreSettings) -> None:
    found = list(check_store(Settings(store=rclone)))

    assert [one.verdict for one in found] == ["ok", "warning"]
    assert "one worker only" in found[1].advice


def test_one_of_ours_that_is_not_ready_is_told_with_its_reason_and_not_to_be_stopped(tmp_path: Path) -> None:
    away = ["--kafka-bootstrap-servers", "127.0.0.1:1", "--receiver-http-port", "0", "--receiver-grpc-port", "0"]
    command = [sys.executable, "-m", "agents.cli", "receive", *away]
    with (tmp_path / "log").open("wb") as log:
        receiver = subprocess.Popen(command, stderr=log)
    try:
        wait_until(lambda: "http_port" in (tmp_path / "log").read_text(), 30)
        line = next(line for line in (tmp_path / "log").read_text().splitlines() if "http_port" in line)
        settings = Settings(receiver=ReceiverSettings(http_port=json.loads(line)["http_port"], grpc_port=0))
        (found,) = failed(check_ports(settings.model_copy(update=NO_OTHER_PORTS)))
    finally:
        receiver.terminate()
        receiver.wait(20)

    assert "is not ready: " in found.found
    assert "Kafka" in found.found
    assert "stop" not in found.advice

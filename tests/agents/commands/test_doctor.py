"""What the doctor says of parts that are not there."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from click.testing import CliRunner

from agents.commands.doctor import doctor

AWAY = (
    "--kafka-bootstrap-servers",
    "127.0.0.1:1",
    "--kafka-request-timeout-s",
    "1",
    "--store-endpoint",
    "http://127.0.0.1:1",
)
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

"""`spanstream dask up`: an address to paste, workers that come back, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.supervisor import read_run
from tests.pages import ROOT
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "agents.cli", "dask", "up"]


class Up:
    """A run of it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--workers", "1", "--port", "0", "--json", "--stack-data-dir", str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        told = "".join(iter(self.process.stdout.readline, "}\n")) + "}"
        self.document: dict[str, Any] = json.loads(told)

    def pids(self) -> dict[str, int]:
        run = read_run(Path(self.document["run_json"]))
        assert run is not None
        return {one["role"]: one["pid"] for one in run["processes"] if one["pid"]}

    def gone(self) -> bool:
        return not any(map(_lives, self.document["pids"].values()))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # which nobody here has to wait for
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path)
    yield running
    running.process.kill()
    running.process.wait(30)
    running.process.stdout.close()


@pytest.mark.integration
def test_it_tells_the_address_and_a_worker_that_dies_comes_back(up: Up) -> None:
    url = up.document["url"]
    assert url.startswith("dask://127.0.0.1:")
    assert up.document["env"] == {"SPANSTREAM_QUERIER_EXECUTOR": url}
    before = up.document["pids"]
    assert before.keys() == {"dask scheduler", "dask worker 1"}
    listening = [
        one.laddr.ip
        for pid in before.values()
        for one in psutil.Process(pid).net_connections("tcp")
        if one.status == "LISTEN"
    ]
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}

    os.kill(before["dask worker 1"], signal.SIGKILL)
    wait_until(lambda: up.pids().get("dask worker 1", before["dask worker 1"]) != before["dask worker 1"], 20)

    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0
    assert up.gone()


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_its_processes_die_with_it_however_it_dies(up: Up) -> None:
    up.process.kill()

    wait_until(up.gone, 20)


def test_it_listens_on_this_machine_only_unless_told_otherwise(tmp_path: Path) -> None:
    command = [*COMMAND, "--host", "0.0.0.0", "--port", "0", "--stack-data-dir", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "can run code here" in done.stderr
    assert "--doors-insecure-listen" in done.stderr

"""Everything on this machine, as a user starts it: `spanstream up` and `spanstream demo`."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.commands.demo import demo_settings
from agents.commands.local_run import variables_of, with_ports
from infra.supervisor import read_run
from tests.pages import ROOT, commands_of, pages
from tests.waiting import wait_until
from topics.settings import KafkaSettings, ReceiverSettings, Settings, StoreSettings, load, load_settings

README_TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
README_OTHER_ID = "a3ce929d0e0e47364bf92f3577b34da6"
UNTIL_STOPPED = ("up", "dask", "receive", "worker", "serve", "tail", "tui")
PORTS = [
    *("receiver.grpc_port", "receiver.http_port", "querier.http_port", "querier.grpc_port", "worker.port"),
    *("stack.kafka_port", "stack.kafka_controller_port", "stack.store_port"),
]


def environment(data_dir: Path) -> dict[str, str]:
    """Any ports, two buckets, early chunks."""
    ports = {f"SPANSTREAM_{name.replace('.', '_').upper()}": "0" for name in PORTS}
    own = {
        "SPANSTREAM_STACK_DATA_DIR": str(data_dir),
        "SPANSTREAM_STORE_BUCKETS": "spans-a,spans-b",
        "SPANSTREAM_WORKER_SEAL_AGE_S": "3",
        "PYTHONPATH": str(ROOT),
    }
    return {**os.environ, **ports, **own}


def spanstream(*words: str, env: dict[str, str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agents.cli", *words]
    away = env["SPANSTREAM_STACK_DATA_DIR"]  # commands work from any folder
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=away)


class Run:
    """A run of `spanstream up --json`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.env = environment(data_dir)
        command = [sys.executable, "-m", "agents.cli", "up", "--json"]
        self.process = subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True, cwd=data_dir)
        assert self.process.stdout is not None
        text = ""
        for line in self.process.stdout:
            text += line
            if line == "}\n":
                break
        self.document: dict[str, Any] = json.loads(text)
        self.urls: dict[str, Any] = self.document["urls"]

    def ask(
        self, *words: str, timeout_s: float = 120, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return spanstream(*words, env=env or self.env, timeout_s=timeout_s)

    def variables(self) -> dict[str, str]:
        """An environment in which commands find this run without flags, as with the ports of the pages."""
        urls = self.urls
        found = {
            "RECEIVER_HTTP_PORT": urls["otlp_http"].rpartition(":")[2],
            "RECEIVER_GRPC_PORT": urls["otlp_grpc"].rpartition(":")[2],
            "QUERIER_HTTP_PORT": urls["querier"].rpartition(":")[2],
            "WORKER_PORT": urls["workers"][0].rpartition(":")[2],
            "KAFKA_BOOTSTRAP_SERVERS": urls["kafka"],
            "STORE_ENDPOINT": urls["store"],
        }
        return self.env | {f"SPANSTREAM_{name}": value for name, value in found.items()}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for the tests of this module; it must end by SIGTERM with exit code 0 and leave nothing behind."""
    data_dir = tmp_path_factory.mktemp("up")
    started = Run(data_dir)
    pids = started.document["pids"].values()
    try:
        yield started
    finally:
        code = started.stop()
    assert code == 0
    assert read_run(data_dir / "run.json") is None
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.integration
def test_a_load_is_found_and_stored_every_span_once(run: Run) -> None:
    urls = ["--otlp-url", run.urls["otlp_http"], "--querier-url", run.urls["querier"]]

    done = run.ask(
        *("load", "--spans", "3000", "--check", "--check-store", "--settle-s", "60", "--json", *urls),
        *("--store-endpoint", run.urls["store"]),
    )

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    sent = document["sent"]["spans_acknowledged"]
    assert sent == document["check"]["spans"] == document["check_store"]["spans"] == document["spans"]


@pytest.mark.integration
def test_run_json_names_every_process_with_its_urls(run: Run) -> None:
    document = read_run(Path(run.document["run_json"]))

    assert document is not None
    roles = {one["role"]: one for one in document["processes"]}
    assert set(roles) == {"kafka", "store", "receiver", "worker 1", "querier"}
    assert roles["querier"]["urls"] == {"http": run.urls["querier"]}
    assert all(Path(f"/proc/{one['pid']}").exists() for one in roles.values())


@pytest.mark.integration
def test_the_readmes_ten_lines_of_confluent_kafka_bring_a_span(run: Run) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    trace_id = secrets.token_hex(16)
    program = block.replace("127.0.0.1:9092", run.urls["kafka"])
    program = program.replace("secrets.token_bytes(16)", f'bytes.fromhex("{trace_id}")')

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    found = wait_until(
        lambda: (got := run.ask("trace", trace_id, "--url", run.urls["querier"])).returncode == 0 and got
    )
    assert "hello" in found.stdout
    where = json.loads(run.ask("where", trace_id, "--json", "--url", run.urls["querier"]).stdout)
    assert [place["spans"] for place in where["places"]] == [1]


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_every_command_of_the_pages_that_ends_by_itself_ends_well(run: Run) -> None:
    loaded = run.ask("load", "--spans", "3000", "--json", env=run.variables())
    assert loaded.returncode == 0, loaded.stderr
    found = run.ask("search", "{}", "--json", env=run.variables())
    first, second = (one["traceID"] for one in json.loads(found.stdout)["traces"][:2])
    shown = {README_TRACE_ID: first, README_OTHER_ID: second, "100000": "3000"}
    written = {tuple(words) for page in pages() for program, *words in commands_of(page) if program == "spanstream"}

    for words in sorted(words for words in written if words[0] not in UNTIL_STOPPED):
        done = run.ask(*(shown.get(word, word) for word in words), env=run.variables())
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_the_operators_commands_answer(run: Run) -> None:
    kafka = ("--kafka-bootstrap-servers", run.urls["kafka"])
    store = ("--store-endpoint", run.urls["store"])

    topics = run.ask("topics", "show", "--json", *kafka)
    doctor = run.ask("doctor", "--json", *kafka, *store)
    dead = run.ask("dead", "list", "--json", *kafka)
    chunks = run.ask("chunks", "--json", *store)

    assert all(state["exists"] for state in json.loads(topics.stdout))
    assert {one["verdict"] for one in json.loads(doctor.stdout)} <= {"ok", "warning"}, doctor.stdout
    assert json.loads(dead.stdout) == []
    assert {"bucket", "chunk", "manifest", "spans"} <= set(json.loads(chunks.stdout)[0])


@pytest.mark.integration
def test_a_second_run_in_the_same_folder_is_refused_with_a_sentence(run: Run) -> None:
    refused = spanstream("up", env=run.env)

    assert refused.returncode == 1
    assert "Another local stack runs" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.integration
def test_a_worker_that_is_killed_is_started_again_under_its_name(run: Run) -> None:
    def worker() -> dict[str, Any]:
        document = read_run(Path(run.document["run_json"])) or {}
        return next(one for one in document["processes"] if one["role"] == "worker 1")

    before = worker()["pid"]
    os.kill(before, signal.SIGKILL)

    after = wait_until(lambda: (now := worker())["pid"] not in (None, before) and now, timeout_s=30)
    assert after["restarts"] == 1


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_the_demo_sees_all_of_it_and_ends_with_exit_code_0(tmp_path: Path) -> None:
    started = time.monotonic()

    done = spanstream("demo", "--once", "--spans", "5000", env=environment(tmp_path), timeout_s=230)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.splitlines()[0] == "Starting Kafka and the object store"  # nobody sits before an empty screen
    for text in ("live segment", "chunk     chunks/", "manifests/", "kill -9", "0 missing, 0 doubled", "/trace/"):
        assert text in done.stdout
    assert time.monotonic() - started < 240


def test_a_child_process_gets_every_setting_as_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(
        kafka=KafkaSettings(group="mine"),
        store=StoreSettings(buckets=("own-a", "own-b")),
        receiver=ReceiverSettings(multitenancy=True),
    )
    monkeypatch.chdir(tmp_path)
    for name, value in variables_of(settings).items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings


def test_a_port_of_0_becomes_a_free_one_and_data_stands_in_one_folder(tmp_path: Path) -> None:
    given = load(dict.fromkeys(PORTS, 0) | {"stack.data_dir": tmp_path}).settings

    chosen = with_ports(given)

    assert chosen.receiver.http_port > 0
    assert chosen.querier.http_port > 0
    assert chosen.querier.data_dir == tmp_path / "querier"


def test_the_demo_changes_only_what_was_not_asked_for() -> None:
    loaded = load({"worker.seal_age_s": 60, "querier.http_port": 3999})

    chosen = demo_settings(loaded.settings, loaded.origins)

    assert chosen.worker.seal_age_s == 60
    assert chosen.querier.http_port == 3999
    assert chosen.store.buckets == ("spans-a", "spans-b")
    assert chosen.stack.data_dir == loaded.settings.stack.data_dir / "demo"

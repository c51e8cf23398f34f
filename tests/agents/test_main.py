"""How a worker starts: with a port or a sentence, patient with Kafka, its log JSON from the first line on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.commands.local_run import is_ready
from tests.waiting import wait_until
from tests.workers import COMMAND, Workers
from topics import admin
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings, Settings, StoreSettings


def test_a_port_that_is_taken_is_a_sentence_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, *COMMAND, "--worker-port", port, "--kafka-bootstrap-servers", "127.0.0.1:1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    said = f"worker.port {port} on 127.0.0.1 is taken or not ours: Address already in use\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_a_worker_waits_for_its_topic_and_is_found_under_the_free_port_that_it_took(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    log = tmp_path / "one.log"
    with Workers(settings, tmp_path, variables={"SPANSTREAM_WORKER_PORT": "0"}) as workers:
        workers.start("one")
        wait_until(lambda: "does not exist" in log.read_text(), 60, "it says what it waits for")
        admin.ensure(settings)

        def is_found() -> bool:
            try:
                owners = admin.group_owners(settings)
            except KafkaUnavailableError:  # the group's coordinator is being elected
                return False
            return len(owners) == settings.kafka.partitions and all(map(is_ready, set(owners.values())))

        wait_until(is_found, 90, "it owns all partitions and answers")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[0] == "waiting_for_kafka"
    assert "partition_loaded" in events

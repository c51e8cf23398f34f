"""The local stack comes up on real programs, keeps its data, and says clearly why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from minio import Minio

from infra.ports import free_port, is_free, is_open
from infra.process import ChildProcess
from infra.stack import LocalStack, RunningStack
from infra.supervisor import Supervisor
from tests.waiting import wait_until
from topics.errors import StackError
from topics.settings import Settings, StackSettings


def stack_settings(data_dir: Path, **values: Any) -> Settings:
    ports: dict[str, Any] = {"kafka_port": 0, "kafka_controller_port": 0, "store_port": 0}
    return Settings(stack=StackSettings(data_dir=data_dir, **{**ports, **values}))


def minio_client(running: RunningStack) -> Minio:
    store = running.store
    return Minio(
        endpoint=store.endpoint.removeprefix("http://"),
        access_key=store.access_key,
        secret_key=store.secret_key.get_secret_value(),
        secure=False,
        region=store.region,
    )


def topics_of(running: RunningStack) -> set[str]:
    return set(AdminClient({"bootstrap.servers": running.kafka.bootstrap_servers}).list_topics(timeout=10).topics)


def child_of(running: RunningStack, name: str) -> ChildProcess:
    return next(role.child for role in running.roles if role.name == name)


@pytest.mark.integration
def test_a_second_run_has_the_cluster_the_topics_and_the_objects_of_the_first(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path, store="minio")
    with LocalStack(settings, print) as first:
        admin = AdminClient({"bootstrap.servers": first.kafka.bootstrap_servers})
        admin.create_topics([NewTopic("kept", 2, 1)])["kept"].result(timeout=10)
        minio_client(first).make_bucket(bucket_name="kept")

    with LocalStack(settings, print) as second:
        assert second.cluster_id == first.cluster_id
        assert "kept" in topics_of(second)
        assert minio_client(second).bucket_exists(bucket_name="kept")
        assert second.store_kind == "minio"


@pytest.mark.integration
def test_a_stack_that_was_killed_comes_up_again_with_its_topics(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path, store="rclone")
    with LocalStack(settings, print) as first:
        admin = AdminClient({"bootstrap.servers": first.kafka.bootstrap_servers})
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(timeout=10)
        for role in first.roles:
            role.child.kill()

    with LocalStack(settings, print) as second:
        assert second.cluster_id == first.cluster_id
        assert "kept" in topics_of(second)


@dataclass(frozen=True)
class Started:
    """A stack that runs without MinIO, shared by the tests that leave it as it was."""

    stack: LocalStack
    running: RunningStack
    said: list[str]


@pytest.fixture(scope="module")
def without_minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    said: list[str] = []
    stack = LocalStack(stack_settings(tmp_path_factory.mktemp("stack")), said.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.stack.find_minio", lambda path: None)
        running = stack.start()
    yield Started(stack, running, said)
    stack.stop()


@pytest.mark.integration
def test_without_minio_rclone_serves_and_says_so_with_the_command_that_builds_it(without_minio: Started) -> None:
    client = minio_client(without_minio.running)
    client.make_bucket(bucket_name="spans-a")

    assert client.bucket_exists(bucket_name="spans-a")
    assert without_minio.running.store_kind == "rclone"
    assert [line for line in without_minio.said if "make minio" in line and "one worker" in line]


@pytest.mark.integration
def test_a_data_folder_has_one_stack_at_a_time(without_minio: Started) -> None:
    second = LocalStack(without_minio.running.settings, print)

    with pytest.raises(StackError, match=r"Another local stack runs in .*stack\.data_dir.*--stack-data-dir"):
        second.start()


@pytest.mark.integration
def test_a_dead_part_is_named_with_its_log(without_minio: Started) -> None:
    store = child_of(without_minio.running, "store")
    without_minio.stack.check()

    store.kill()

    with pytest.raises(StackError, match=r"rclone has died \(signal SIGKILL\)\. Its log is .*store\.log"):
        without_minio.stack.check()
    store.start()


@pytest.mark.integration
def test_everything_is_gone_after_the_stop_which_may_come_twice(without_minio: Started) -> None:
    kafka_port = int(without_minio.running.kafka.bootstrap_servers.split(":")[1])
    assert is_open(kafka_port)

    without_minio.stack.stop()
    without_minio.stack.stop()

    assert is_free(kafka_port)
    assert [role.child.end() for role in without_minio.running.roles if role.child.alive] == []


@pytest.mark.integration
def test_the_supervisor_starts_a_killed_kafka_again_under_the_same_address(tmp_path: Path) -> None:
    settings = stack_settings(tmp_path, store="rclone", restart_wait_max_s=0.1)
    with LocalStack(settings, print) as running:
        supervisor = Supervisor(tmp_path / "run.json", settings.stack, print)
        supervisor.adopt(running.roles)
        before = topics_of(running)
        kafka = child_of(running, "kafka")
        killed, port = kafka.pid, int(running.kafka.bootstrap_servers.split(":")[1])

        def is_back() -> bool:
            supervisor.watch_once()
            return kafka.pid != killed and is_open(port)

        os.kill(killed or 0, signal.SIGKILL)
        wait_until(is_back, timeout_s=30)

        assert topics_of(running) == before
        supervisor.stop()


@pytest.mark.parametrize("field", ["kafka_port", "kafka_controller_port", "store_port"])
def test_a_port_in_use_names_its_setting_and_nothing_is_left_running(tmp_path: Path, field: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        stack = LocalStack(stack_settings(tmp_path, **{field: server.getsockname()[1]}), print)

        with pytest.raises(StackError, match=rf"\(stack\.{field}\) is in use"):
            stack.start()

    assert not (tmp_path / "log").exists()


def test_minio_asked_for_and_not_there_names_the_command_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.stack.find_minio", lambda path: None)

    with pytest.raises(StackError, match="`make minio` builds one"):
        LocalStack(stack_settings(tmp_path, store="minio"), print).start()

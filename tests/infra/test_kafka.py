"""Kafka's jars are fetched once, completely or not at all, and its configuration says what we rely on."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from infra import kafka
from infra.kafka import KafkaPlan, cluster_id, resolve_jars, server_properties
from topics.errors import StackError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "spanstream"


def test_without_a_network_the_message_says_what_to_do_and_leaves_no_half_of_it(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("Network is unreachable")

    monkeypatch.setattr(requests.Session, "request", refuse)

    with pytest.raises(StackError, match=r"Maven Central .*Network is unreachable.*HTTPS_PROXY"):
        resolve_jars(print)

    assert [path.name for path in empty_cache.iterdir()] == ["kafka.lock"]


def test_jars_that_are_there_need_no_network_and_no_word(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_fetch_jars", lambda folder: pytest.fail("fetched again"))
    said: list[str] = []
    kafka.jars_dir().mkdir(parents=True)

    assert resolve_jars(said.append) == empty_cache / "kafka-4.1.0"
    assert said == []


def test_topics_are_never_made_by_accident(tmp_path: Path) -> None:
    plan = KafkaPlan(data_dir=tmp_path, port=19092, controller_port=19093, heap_mb=512, log_path=tmp_path / "kafka.log")

    lines = server_properties(plan).splitlines()

    assert "auto.create.topics.enable=false" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:19092" in lines
    assert "controller.quorum.voters=1@127.0.0.1:19093" in lines


def test_a_folder_without_kafka_has_no_cluster_id(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="holds no formatted Kafka storage"):
        cluster_id(tmp_path)

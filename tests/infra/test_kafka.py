"""Kafka's configuration says what we rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import kafka
from infra.kafka import KafkaPlan, cluster_id, server_properties, startup_cache
from topics.errors import StackError


def test_topics_are_never_made_by_accident(tmp_path: Path) -> None:
    plan = KafkaPlan(data_dir=tmp_path, port=19092, controller_port=19093, heap_mb=512, log_path=tmp_path / "kafka.log")

    lines = server_properties(plan).splitlines()

    assert "auto.create.topics.enable=false" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:19092" in lines
    assert "controller.quorum.voters=1@127.0.0.1:19093" in lines


def test_a_folder_without_kafka_has_no_cluster_id(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="holds no formatted Kafka storage"):
        cluster_id(tmp_path)


def test_a_java_that_can_make_no_startup_cache_is_asked_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []

    def fail(*_: object) -> None:
        raise StackError("kafka has ended (exit code 1) before it was ready")

    monkeypatch.setattr(kafka, "_trial_run", fail)

    assert startup_cache(tmp_path / "kafka-4.1.0", said.append) is None
    assert startup_cache(tmp_path / "kafka-4.1.0", said.append) is None
    assert said == ["Preparing Kafka for quick starts, once: 10 s"]

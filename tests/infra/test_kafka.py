"""Kafka's configuration says what we rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.kafka import KafkaPlan, cluster_id, server_properties
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

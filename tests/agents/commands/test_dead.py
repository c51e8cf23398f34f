"""Dead letters from the command line, on a real Kafka."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from agents.commands.dead import dead
from agents.commands.topics import topics
from topics import spans_dead
from topics.admin import ensure
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

pytestmark = pytest.mark.integration


def called(command: Any, kafka: KafkaSettings, *words: str) -> Result:
    flags = ("--kafka-bootstrap-servers", kafka.bootstrap_servers, "--kafka-topic-prefix", kafka.topic_prefix)
    return CliRunner().invoke(command, [*words, *flags, "--kafka-partitions", "4"])


@pytest.fixture
def kafka(kafka_settings: KafkaSettings) -> KafkaSettings:
    """A Kafka with three dead letters."""
    ensure(Settings(kafka=kafka_settings))
    producer = Producer({"bootstrap.servers": kafka_settings.bootstrap_servers})
    for offset in range(3):
        headers: Any = spans_dead.headers_of("spans_by_trace", 2, 70 + offset, "no OTLP", [("own", b"1")])
        producer.produce(full_name(spans_dead.TOPIC, kafka_settings), b"\x00garbage %d" % offset, headers=headers)
    assert producer.flush(10) == 0
    return kafka_settings


def test_the_newest_letters_are_listed_with_place_and_reason(kafka: KafkaSettings) -> None:
    rows = json.loads(called(dead, kafka, "list", "--json", "--limit", "2").stdout)

    assert [(row["letter"], row["dead_offset"], row["dead_reason"]) for row in rows] == [
        (1, "71", "no OTLP"),
        (2, "72", "no OTLP"),
    ]


def test_one_letter_is_shown_with_its_headers_and_bytes(kafka: KafkaSettings) -> None:
    shown = called(dead, kafka, "show", "1")
    raw = called(dead, kafka, "show", "1", "--raw")

    assert shown.exit_code == 0, shown.stderr
    assert "own" in shown.stdout
    assert ".garbage 1" in shown.stdout
    assert raw.stdout_bytes == b"\x00garbage 1"


def test_a_letter_that_is_not_there_is_a_sentence(kafka: KafkaSettings) -> None:
    answer = called(dead, kafka, "show", "9")

    assert answer.exit_code == 1
    assert "there are 0 to 2" in answer.stderr


def test_missing_topics_are_named_and_created(kafka_settings: KafkaSettings) -> None:
    before = called(topics, kafka_settings, "show")
    made = called(topics, kafka_settings, "ensure", "--json")
    after = called(topics, kafka_settings, "show")

    assert before.exit_code == 1
    assert "spanstream topics ensure" in before.stderr
    assert all(state["created"] for state in json.loads(made.stdout))
    assert after.exit_code == 0
    assert "could lose acknowledged spans" in after.stdout

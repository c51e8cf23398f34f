"""Dead letters sent once more, and deleted, on a real Kafka."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from agents import dead_letters
from agents.commands.dead import dead
from agents.dead_letters import Noted
from tests.agents.commands.test_dead import called
from topics import otlp_spans, spans_dead
from topics.admin import ensure, watermarks
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

LETTERS = 12
UNREADABLE = 5
integration = pytest.mark.integration


@pytest.fixture
def kafka(kafka_settings: KafkaSettings) -> KafkaSettings:
    """A Kafka with twelve dead letters, one of them bytes of a batch."""
    ensure(Settings(kafka=kafka_settings))
    producer = Producer({"bootstrap.servers": kafka_settings.bootstrap_servers})
    for letter in range(LETTERS):
        reason = "unreadable: wrong checksum" if letter == UNREADABLE else "no OTLP"
        headers: Any = spans_dead.headers_of("spans_by_trace", 2, 70 + letter, reason, [("X-Scope-OrgID", b"acme")])
        producer.produce(full_name(spans_dead.TOPIC, kafka_settings), b"value %d" % letter, b"key", headers=headers)
    assert producer.flush(10) == 0
    return kafka_settings


def inlet(kafka: KafkaSettings) -> list[tuple[bytes, dict[str, bytes]]]:
    """Value and headers of every record of the inlet, by value."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "any", "enable.auto.commit": False})
    found = []
    for partition, (low, high) in watermarks(Settings(kafka=kafka), otlp_spans.TOPIC).items():
        consumer.assign([TopicPartition(full_name(otlp_spans.TOPIC, kafka), partition, low)])
        for _ in range(low, high):
            message = consumer.poll(10)
            assert message is not None
            headers: Any = message.headers()
            found.append((message.value() or b"", dict(headers)))
    consumer.close()
    return sorted(found, key=lambda one: int(one[0].split()[-1]))


@integration
def test_each_letter_is_sent_again_once_with_its_own_headers(kafka: KafkaSettings) -> None:
    some = called(dead, kafka, "replay", "3", "7-8", "--json")
    every = called(dead, kafka, "replay", "--all", "--json")
    again = called(dead, kafka, "replay", "--all", "--json")

    assert json.loads(some.stdout)["sent"] == 3, some.stderr
    assert (json.loads(every.stdout)["sent"], json.loads(every.stdout)["sent_before"]) == (LETTERS - 3 - 1, 3)
    assert (json.loads(again.stdout)["sent"], json.loads(again.stdout)["sent_before"]) == (0, LETTERS - 1)
    assert list(json.loads(again.stdout)["refused"]) == [str(UNREADABLE)]
    wanted = [b"value %d" % letter for letter in range(LETTERS) if letter != UNREADABLE]
    assert inlet(kafka) == [(value, {"X-Scope-OrgID": b"acme"}) for value in wanted]
    listed = json.loads(called(dead, kafka, "list", "--json").stdout)
    assert [row["letter"] for row in listed if not row["replayed"]] == [UNREADABLE]
    assert listed[0]["first_bytes"] == "value 0"


@integration
def test_a_letter_that_was_cut_is_not_sent_again(kafka: KafkaSettings) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    own: Any = spans_dead.headers_of("spans_by_trace", 2, 90, "no OTLP", [(spans_dead.CUT_HEADER, b"9000000")])
    producer.produce(full_name(spans_dead.TOPIC, kafka), b"value", headers=own)
    assert producer.flush(10) == 0

    told = called(dead, kafka, "replay", str(LETTERS))

    assert told.exit_code == 1
    assert f"letter {LETTERS} was not sent: it was too large" in told.stderr
    assert inlet(kafka) == []


@integration
def test_a_crash_before_the_note_sends_one_portion_twice_and_no_more(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "AT_A_TIME", 4)
    note, calls = dead_letters._note, []

    def dies_at_the_second(*given: Any) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise KafkaUnavailableError("killed between sending and noting")
        note(*given)

    monkeypatch.setattr(dead_letters, "_note", dies_at_the_second)
    assert called(dead, kafka, "replay", "--all").exit_code == 1
    called(dead, kafka, "replay", "--all")

    values = [value for value, _ in inlet(kafka)]
    twice = sorted({value for value in values if values.count(value) > 1})
    assert len(set(values)) == LETTERS - 1
    assert twice == [b"value 4", b"value 6", b"value 7"]


@integration
def test_two_replays_at_a_time_send_each_letter_once(kafka: KafkaSettings) -> None:
    settings = Settings(kafka=kafka.model_copy(update={"request_timeout_s": 20}))
    threads = [
        threading.Thread(target=dead_letters.replay, args=(settings, range(LETTERS)), kwargs={"low": 0})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(inlet(kafka)) == LETTERS - 1


@integration
def test_purge_asks_and_then_deletes_what_stands_before_a_letter(kafka: KafkaSettings) -> None:
    asked = called(dead, kafka, "purge")
    some = called(dead, kafka, "purge", "--before", "4", "--yes")
    left = json.loads(called(dead, kafka, "list", "--json").stdout)
    rest = called(dead, kafka, "purge", "--yes")
    none = called(dead, kafka, "purge", "--yes")

    assert asked.exit_code == 1
    assert "not all sent again" in asked.stderr
    assert some.exit_code == rest.exit_code == 0
    assert left[0]["letter"] == 4
    assert watermarks(Settings(kafka=kafka), spans_dead.TOPIC) == {0: (LETTERS, LETTERS)}
    assert none.exit_code == 1
    assert "no dead letters" in none.stderr


@integration
def test_a_letter_that_is_none_is_a_sentence(kafka: KafkaSettings) -> None:
    assert "is no letter" in called(dead, kafka, "replay", "x").stderr
    assert "there are 0 to 11" in called(dead, kafka, "replay", "40-50").stderr
    assert "--all" in called(dead, kafka, "replay").stderr


@given(st.lists(st.sets(st.integers(0, 40))), st.integers(0, 10))
def test_what_is_noted_is_read_back_the_same(portions: list[set[int]], low: int) -> None:
    noted = Noted()
    for portion in portions:
        noted.add(portion, low)
    read = Noted.read(noted.below, noted.text())

    assert read == noted
    for letter in range(45):
        below = bool(portions) and letter < low
        assert (letter in read) == (below or any(letter in portion for portion in portions))

"""Topics on the cluster: created where missing, differences named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from tests.kafka_run import running_kafka
from tests.waiting import wait_until
from topics import otlp_spans, span_chunks, spans_by_trace, spans_dead
from topics.admin import (
    ELECTING,
    TOPICS,
    _settled,
    client_config,
    copies_wanted,
    differences,
    ensure,
    group_owners,
    partition_count,
    show,
    watermarks,
    ways_to_lose,
)
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

SAFE = {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}


@pytest.mark.parametrize(("brokers", "expected"), [(1, (1, 1)), (2, (1, 1)), (3, (3, 2)), (9, (3, 2))])
def test_three_brokers_give_three_copies_of_which_two_must_be_in_sync(brokers: int, expected: tuple[int, int]) -> None:
    assert copies_wanted(KafkaSettings(), brokers) == expected


def test_copies_that_are_set_are_taken_whatever_the_cluster() -> None:
    assert copies_wanted(KafkaSettings(replication_factor=2), 5) == (2, 1)
    assert copies_wanted(KafkaSettings(replication_factor=5, min_insync_replicas=4), 1) == (5, 4)


def test_topics_that_could_lose_acknowledged_spans_are_named() -> None:
    assert list(ways_to_lose(spans_by_trace.TOPIC, 3, SAFE)) == []
    assert "one copy only" in next(ways_to_lose(otlp_spans.TOPIC, 1, SAFE))
    assert "min.insync.replicas" in next(ways_to_lose(spans_by_trace.TOPIC, 3, SAFE | {"min.insync.replicas": "1"}))
    assert "unclean" in next(ways_to_lose(spans_by_trace.TOPIC, 3, SAFE | {"unclean.leader.election.enable": "true"}))
    assert list(ways_to_lose(span_chunks.TOPIC, 1, {})) == []  # rebuilt from the buckets
    assert list(ways_to_lose(spans_dead.TOPIC, 1, {})) == []


def test_a_topic_with_other_partitions_retention_or_policy_is_told() -> None:
    config = {"cleanup.policy": "compact", "retention.ms": "1000", "max.message.bytes": "1000000"}

    told = list(differences(spans_by_trace.TOPIC, Settings(), 3, 1, config))

    assert [sentence.split(" ")[0] for sentence in told] == [
        "has",
        "cleanup.policy",
        "retention.ms",
        "max.message.bytes",
    ]


def test_copies_that_were_asked_for_and_are_not_there_are_told() -> None:
    wanted = Settings(kafka=KafkaSettings(replication_factor=3, min_insync_replicas=2))
    config = {"min.insync.replicas": "1"}

    told = [
        sentence for sentence in differences(span_chunks.TOPIC, wanted, 1, 2, config) if "the settings say" in sentence
    ]
    neither_is_set = list(differences(span_chunks.TOPIC, Settings(), 1, 2, config | {"cleanup.policy": "compact"}))

    assert told == ["has 2 copies, the settings say 3", "min.insync.replicas is 1, the settings say 2"]
    assert neither_is_set == []


def test_a_topic_that_wants_more_copies_in_sync_than_it_has_cannot_be_written() -> None:
    config = {"cleanup.policy": "compact", "min.insync.replicas": "2"}

    assert "no record can be written" in next(differences(span_chunks.TOPIC, Settings(), 1, 1, config))


@pytest.mark.integration
def test_ensure_creates_what_is_missing_once_and_show_sees_it(kafka_settings: KafkaSettings) -> None:
    settings = Settings(kafka=kafka_settings)
    assert [state.exists for state in show(settings)] == [False] * len(TOPICS)

    first, second = ensure(settings), ensure(settings)

    assert [state.created for state in first] == [True] * len(TOPICS)
    assert [state.created for state in second] == [False] * len(TOPICS)
    by_name = {state.topic.name: state for state in second}
    assert all(not state.differences for state in second)
    assert by_name["spans_by_trace"].partitions == kafka_settings.partitions
    assert "one copy only" in by_name["spans_by_trace"].could_lose_acknowledged_spans[0]
    assert by_name["span_chunks"].config["cleanup.policy"] == "compact"
    wider = Settings(kafka=kafka_settings.model_copy(update={"partitions": kafka_settings.partitions + 1}))
    assert "partitions" in {state.topic.name: state for state in show(wider)}["spans_by_trace"].differences[0]


@pytest.mark.integration
def test_watermarks_and_partition_count_are_those_of_the_cluster(kafka_settings: KafkaSettings) -> None:
    settings = Settings(kafka=kafka_settings)
    assert partition_count(settings, spans_by_trace.TOPIC) == 0
    assert watermarks(settings, spans_by_trace.TOPIC) == {}

    ensure(settings)

    assert partition_count(settings, spans_by_trace.TOPIC) == kafka_settings.partitions
    assert watermarks(settings, spans_by_trace.TOPIC) == dict.fromkeys(range(kafka_settings.partitions), (0, 0))


@pytest.mark.parametrize("code", sorted(ELECTING))
def test_a_broker_that_has_not_yet_heard_who_leads_is_asked_again(code: int) -> None:
    said = [code, code]

    def ask(_: object) -> str:
        if said:
            raise KafkaException(KafkaError(said.pop()))
        return "told"

    assert _settled(KafkaSettings(), ask) == "told"


def test_a_cluster_that_never_elects_is_asked_for_a_bounded_time() -> None:
    def ask(_: object) -> str:
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH))

    with pytest.raises(KafkaUnavailableError, match="UNKNOWN_LEADER_EPOCH"):
        _settled(KafkaSettings(request_timeout_s=0.2), ask)


@pytest.mark.integration
def test_owners_are_the_client_ids_of_the_groups_members(kafka_settings: KafkaSettings) -> None:
    settings = Settings(kafka=kafka_settings)
    ensure(settings)
    assert group_owners(settings) == {}
    consumer = Consumer(
        client_config(kafka_settings) | {"group.id": kafka_settings.group, "client.id": "http://127.0.0.1:6066"}
    )
    consumer.subscribe([full_name(spans_by_trace.TOPIC, kafka_settings)])
    while not consumer.assignment():
        consumer.poll(0.1)

    owners = group_owners(settings)

    assert owners == dict.fromkeys(range(kafka_settings.partitions), "http://127.0.0.1:6066")
    consumer.close()


ASKING = """
import sys
from topics import admin
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings, Settings

settings = Settings(kafka=KafkaSettings(bootstrap_servers=sys.argv[1], request_timeout_s=1))
used_elsewhere = []
for line in sys.stdin:
    used_elsewhere.append(admin._client(tuple(admin.client_config(settings.kafka).items())))
    try:
        said = str(admin.group_owners(settings))
    except KafkaUnavailableError:
        said = "away"
    sys.stdout.write(said + "\\n")
    sys.stdout.flush()
"""


@pytest.mark.integration
def test_a_broker_that_hangs_longer_than_it_is_asked_ends_no_process(tmp_path: Path) -> None:
    with running_kafka(tmp_path / "kafka", tmp_path / "kafka.log", heap_mb=256) as (bootstrap_servers, broker):
        ensure(Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap_servers)))
        command = [sys.executable, "-c", ASKING, bootstrap_servers]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:

            def told() -> str:
                assert asking.stdin
                assert asking.stdout
                asking.stdin.write("\n")
                asking.stdin.flush()
                return asking.stdout.readline().strip()

            wait_until(lambda: told() == "{}", 30)
            assert broker.pid is not None
            os.killpg(broker.pid, signal.SIGSTOP)
            assert [told() for _ in range(6)] == ["away"] * 6
            os.killpg(broker.pid, signal.SIGCONT)
            wait_until(lambda: told() == "{}", 30)
            asking.stdin.close()
            assert asking.wait(30) == 0


def test_a_cluster_that_is_away_is_a_clear_error() -> None:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=0.5)

    with pytest.raises(KafkaUnavailableError, match="Kafka at 127"):
        ensure(Settings(kafka=kafka))

"""Topics on the cluster: create what is missing, say what differs, and who owns which partition.

All functions block up to `kafka.request_timeout_s` and raise KafkaUnavailableError: call them off an event loop.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from topics import otlp_spans, span_chunks, spans_by_trace, spans_dead
from topics.errors import GroupSharedError, KafkaUnavailableError
from topics.kafka_tls import kafka_context
from topics.settings import KafkaSettings, Settings
from topics.topic import Topic, full_name

TOPICS: tuple[Topic, ...] = (spans_by_trace.TOPIC, otlp_spans.TOPIC, spans_dead.TOPIC, span_chunks.TOPIC)
BROKERS_FOR_COPIES = 3
ENDLESS_S = 3600.0
ELECTING = frozenset(  # says a broker that has not yet heard who leads a new topic or a group, or hears it late
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
UNREACHED = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """How one topic stands on the cluster. `differences` and `could_lose_acknowledged_spans` are sentences."""

    topic: Topic
    name: str
    exists: bool
    created: bool = False
    partitions: int = 0
    replication_factor: int = 0
    config: dict[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    could_lose_acknowledged_spans: tuple[str, ...] = ()


def client_config(kafka: KafkaSettings) -> dict[str, str | int | float | bool]:
    """What every librdkafka client of ours starts from: how to reach and to authenticate."""
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "client.id": "spanstream",
        "log.connection.close": False,
        "socket.timeout.ms": int(max(kafka.request_timeout_s, 1.0) * 1000),
        # A broker that comes back is found within a second, not within librdkafka's 10 s.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
    }
    if kafka.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = kafka.sasl_mechanism
        config["sasl.username"] = kafka.sasl_username
        config["sasl.password"] = kafka.sasl_password.get_secret_value()
    if kafka_context(kafka) is not None:
        if kafka.ssl_ca_path:
            config["ssl.ca.location"] = kafka.ssl_ca_path
        if kafka.ssl_cert_path:
            config["ssl.certificate.location"] = kafka.ssl_cert_path
            config["ssl.key.location"] = kafka.ssl_key_path
            config["ssl.key.password"] = kafka.ssl_key_password.get_secret_value()
    return config


def ensure(settings: Settings) -> list[TopicState]:
    """Create the topics that are missing, then say how all stand. A topic that another creates meanwhile is fine."""
    with _asking(settings.kafka) as client:
        timeout_s = settings.kafka.request_timeout_s
        cluster = client.list_topics(timeout=timeout_s)
        missing = [topic for topic in TOPICS if full_name(topic, settings.kafka) not in cluster.topics]
        if missing:
            copies, insync = copies_wanted(settings.kafka, len(cluster.brokers))
            new = [_new_topic(topic, settings, copies, insync) for topic in missing]
            for future in client.create_topics(new, request_timeout=timeout_s).values():
                _unless_exists(future.result)
            _wait_until_listed(client, [full_name(topic, settings.kafka) for topic in missing], timeout_s)
    return _states(settings, frozenset(topic.name for topic in missing))


def show(settings: Settings) -> list[TopicState]:
    """How each topic stands: missing, differing, or able to lose acknowledged spans. Changes nothing."""
    return _states(settings, frozenset())


def copies_wanted(kafka: KafkaSettings, brokers: int) -> tuple[int, int]:
    """(replication factor, min.insync.replicas): as set, else 3 and 2 from three brokers on, or 1 and 1."""
    copies = kafka.replication_factor or (3 if brokers >= BROKERS_FOR_COPIES else 1)
    return copies, kafka.min_insync_replicas or (2 if copies >= BROKERS_FOR_COPIES else 1)


def partition_count(settings: Settings, topic: Topic) -> int:
    """How many partitions the topic has; 0 when it does not exist."""
    with _asking(settings.kafka) as client:
        name = full_name(topic, settings.kafka)
        known = client.list_topics(timeout=settings.kafka.request_timeout_s).topics.get(name)
        return len(known.partitions) if known is not None and known.error is None else 0


def watermarks(settings: Settings, topic: Topic, partitions: Iterable[int] | None = None) -> dict[int, tuple[int, int]]:
    """(first offset still held, next offset to be written) of each partition; empty for a topic that is missing.

    partitions: those that are wanted; None: all.
    """
    name, timeout_s = full_name(topic, settings.kafka), settings.kafka.request_timeout_s
    wanted = range(partition_count(settings, topic)) if partitions is None else partitions
    places = [TopicPartition(name, index) for index in wanted]

    def ask(client: AdminClient) -> dict[int, tuple[int, int]]:
        asked = [
            client.list_offsets(dict.fromkeys(places, spec), request_timeout=ENDLESS_S)
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        ]
        low, high = ({at.partition: one.result(timeout_s).offset for at, one in each.items()} for each in asked)
        return {partition: (low[partition], high[partition]) for partition in sorted(low)}

    return _settled(settings.kafka, ask) if places else {}


def committed(settings: Settings, topic: Topic) -> dict[int, int]:
    """The workers' committed offset of each partition of the topic; partitions without one are left out.

    Asked by a consumer that joins nothing: librdkafka 2.16's admin client ends the process (a null group handle in
    rd_kafka_cgrp_op) when the answer to ListConsumerGroupOffsets is that the coordinator is elsewhere or not ready.
    """
    name, timeout_s = full_name(topic, settings.kafka), settings.kafka.request_timeout_s
    asked = [TopicPartition(name, index) for index in range(partition_count(settings, topic))]
    if not asked:
        return {}
    own = {"group.id": settings.kafka.group, "enable.auto.commit": False, "log_level": 2}
    consumer = Consumer(client_config(settings.kafka) | own)
    try:
        found = _settled(settings.kafka, lambda _: consumer.committed(asked, timeout=timeout_s))
    finally:
        consumer.close()
    return {where.partition: where.offset for where in found if where.offset >= 0}


def group_owners(settings: Settings) -> dict[int, str]:
    """Partition of spans_by_trace -> client ID of the worker that owns it, which is its table endpoint's URL.

    A partition without a member is left out. After a kill -9 the group lists the dead member until its session ends.
    """
    name, timeout_s = full_name(spans_by_trace.TOPIC, settings.kafka), settings.kafka.request_timeout_s
    group = settings.kafka.group

    def ask(client: AdminClient) -> list[Any]:
        members: list[Any] = _group(client, group, timeout_s).members
        return members

    return {
        where.partition: member.client_id
        for member in _settled(settings.kafka, ask)
        if member.assignment is not None
        for where in member.assignment.topic_partitions
        if where.topic == name
    }


def refuse_shared_group(settings: Settings, assignor: str) -> None:
    """Raise GroupSharedError where members of the workers' group share partitions by another rule than `assignor`.

    Kafka lets nobody in who does not know the members' rule: a worker would wait for ever.
    """
    group, timeout_s = settings.kafka.group, settings.kafka.request_timeout_s

    found = _settled(settings.kafka, lambda client: _group(client, group, timeout_s))
    if found.members and found.partition_assignor not in ("", assignor):
        programs = sorted({member.client_id for member in found.members})
        raise GroupSharedError(
            f"consumer group {group} has members that are no workers ({', '.join(programs[:5])}; they share partitions"
            f" by {found.partition_assignor!r}): stop them, or give the workers a group of their own (kafka.group)"
        )


def _group(client: AdminClient, group: str, timeout_s: float) -> Any:
    """We end the waiting: where librdkafka 2.16 does, a late answer aborts the process (its issue 4605)."""
    return client.describe_consumer_groups([group], request_timeout=ENDLESS_S)[group].result(timeout_s)


def _settled(kafka: KafkaSettings, ask: Callable[[AdminClient], Answer]) -> Answer:
    """The answer, asked again while the cluster is still electing a leader or coordinator, for a bounded time."""
    deadline_s = time.monotonic() + kafka.request_timeout_s
    with _asking(kafka) as client:
        while True:
            try:
                return ask(client)
            except KafkaException as exc:
                if exc.args[0].code() not in ELECTING or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.05)


@functools.lru_cache(maxsize=8)
def _client(config: tuple[tuple[str, str | int | float | bool], ...]) -> AdminClient:
    return AdminClient(dict(config) | {"log_level": 2})  # an absent broker is told by our errors, not on stderr


@contextmanager
def _asking(kafka: KafkaSettings) -> Iterator[AdminClient]:
    try:
        yield _client(tuple(client_config(kafka).items()))
    except (KafkaException, TimeoutError) as exc:
        _client.cache_clear()  # one whose broker was frozen goes on asking in vain; a new one is answered at once
        error = exc.args[0] if isinstance(exc, KafkaException) else KafkaError(KafkaError._TIMED_OUT)
        told = f"{error.name()}: {error.str()}"
        if error.code() in UNREACHED:
            where = f"Kafka at {kafka.bootstrap_servers} does not answer"
            raise KafkaUnavailableError(f"{where} ({told}): is it running, is kafka.bootstrap_servers right?") from exc
        raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {told}") from exc


def _wait_until_listed(client: AdminClient, names: list[str], timeout_s: float) -> None:
    """A topic is created some 10 ms before brokers tell of it; who asks at once would hear that it is unknown."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        listed = client.list_topics(timeout=timeout_s).topics
        if all(name in listed and listed[name].partitions for name in names):
            return
        time.sleep(0.02)
    raise KafkaUnavailableError(f"topics {names} were created, but after {timeout_s} s no broker tells of them")


def _unless_exists(result: Callable[[], Any]) -> None:
    try:
        result()
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def _config_wanted(topic: Topic, settings: Settings, insync: int) -> dict[str, str]:
    return {
        "cleanup.policy": topic.cleanup_policy,
        "retention.ms": str(topic.retention_ms(settings.kafka)),
        "max.message.bytes": str(topic.message_bytes_max(settings)),
        "min.insync.replicas": str(insync),
    }


def _new_topic(topic: Topic, settings: Settings, copies: int, insync: int) -> NewTopic:
    return NewTopic(
        full_name(topic, settings.kafka),
        num_partitions=topic.partitions(settings.kafka),
        replication_factor=copies,
        config=_config_wanted(topic, settings, insync),
    )


def _states(settings: Settings, created: frozenset[str]) -> list[TopicState]:
    with _asking(settings.kafka) as client:
        timeout_s = settings.kafka.request_timeout_s
        cluster = client.list_topics(timeout=timeout_s)
        names = {topic: full_name(topic, settings.kafka) for topic in TOPICS}
        resources = {
            topic: ConfigResource(ConfigResource.Type.TOPIC, name)
            for topic, name in names.items()
            if name in cluster.topics
        }
        configs: dict[Topic, dict[str, str]] = {}
        if resources:
            answers = client.describe_configs(list(resources.values()), request_timeout=timeout_s)
            for topic, resource in resources.items():
                entries = answers[resource].result()
                configs[topic] = {name: str(entry.value) for name, entry in entries.items()}
    states = []
    for topic, name in names.items():
        replicas = [p.replicas for p in cluster.topics[name].partitions.values()] if topic in configs else []
        if topic not in configs:
            states.append(
                TopicState(topic=topic, name=name, exists=topic.name in created, created=topic.name in created)
            )
            continue
        copies = min(map(len, replicas), default=0)
        states.append(
            TopicState(
                topic=topic,
                name=name,
                exists=True,
                created=topic.name in created,
                partitions=len(replicas),
                replication_factor=copies,
                config=configs[topic],
                differences=tuple(differences(topic, settings, len(replicas), copies, configs[topic])),
                could_lose_acknowledged_spans=tuple(ways_to_lose(topic, copies, configs[topic])),
            )
        )
    return states


def differences(
    topic: Topic, settings: Settings, partitions: int, copies: int, config: dict[str, str]
) -> Iterator[str]:
    """What stands otherwise on the cluster than the settings say, a sentence each."""
    kafka, insync = settings.kafka, int(config.get("min.insync.replicas", "1"))
    if partitions != topic.partitions(kafka):
        yield f"has {partitions} partitions, the settings say {topic.partitions(kafka)}"
    if kafka.replication_factor not in (0, copies):
        yield f"has {copies} copies, the settings say {kafka.replication_factor}"
    if kafka.min_insync_replicas not in (0, insync):
        yield f"min.insync.replicas is {insync}, the settings say {kafka.min_insync_replicas}"
    if insync > copies:
        yield f"min.insync.replicas is {insync}, more than its copies ({copies}): no record can be written to it"
    wanted = _config_wanted(topic, settings, insync)
    if config.get("cleanup.policy") != wanted["cleanup.policy"]:
        yield f"cleanup.policy is {config.get('cleanup.policy')}, should be {wanted['cleanup.policy']}"
    if topic.cleanup_policy == "delete" and config.get("retention.ms") != wanted["retention.ms"]:
        yield f"retention.ms is {config.get('retention.ms')}, the settings say {wanted['retention.ms']}"
    if int(config.get("max.message.bytes", wanted["max.message.bytes"])) < int(wanted["max.message.bytes"]):
        yield (
            f"max.message.bytes is {config['max.message.bytes']}, less than {wanted['max.message.bytes']}: larger"
            " records will be refused"
        )


def ways_to_lose(topic: Topic, copies: int, config: dict[str, str]) -> Iterator[str]:
    """Why a span that we acknowledged could be lost with one broker's disk; empty when it takes more than that."""
    if not topic.holds_acknowledged_spans:
        return
    insync = int(config.get("min.insync.replicas", "1"))
    if copies < 2:
        yield "one copy only (replication factor 1): the loss of one broker's disk loses spans"
    elif insync < 2:
        yield "min.insync.replicas is 1: a span is acknowledged when one broker has it"
    if config.get("unclean.leader.election.enable") == "true":
        yield "unclean.leader.election.enable is true: a broker that lags may become leader and drop spans"

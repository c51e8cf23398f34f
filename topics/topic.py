"""What a Kafka topic of ours is: one frozen description, read by producers, consumers and `spanstream topics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from topics.settings import KafkaSettings, Settings

HOUR_MS = 3_600_000
FOREVER_MS = -1
DEAD_HEADERS_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. `key` and `format` are sentences for people; the callables read what depends on settings."""

    name: str
    key: str
    format: str
    cleanup_policy: Literal["delete", "compact"]
    partitions: Callable[[KafkaSettings], int]
    retention_ms: Callable[[KafkaSettings], int]
    message_bytes_max: Callable[[Settings], int]
    holds_acknowledged_spans: bool
    """True where a lost record is a lost span: such a topic wants copies on several brokers."""


def full_name(topic: Topic, kafka: KafkaSettings) -> str:
    """The topic's name on the cluster: the deployment's prefix and its own name."""
    return kafka.topic_prefix + topic.name


def is_missing(topic: Topic, kafka: KafkaSettings) -> str:
    """What to do about a topic that is not there, in a sentence."""
    return f"topic {full_name(topic, kafka)} does not exist: `spanstream topics ensure` creates it"


def retention_of_spans_ms(kafka: KafkaSettings) -> int:
    """How long topics that hold spans keep a record, in milliseconds."""
    return int(kafka.retention_h * HOUR_MS)


def record_bytes_max(settings: Settings) -> int:
    """Largest message a topic of spans takes: our largest record with headers, and any 1 MiB record of others."""
    return max(2 * settings.receiver.record_bytes_max, 1 << 21)


def dead_bytes_max(settings: Settings) -> int:
    """Largest dead letter: any record of those topics, with the headers that say where it stood."""
    return record_bytes_max(settings) + DEAD_HEADERS_BYTES_MAX

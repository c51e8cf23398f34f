"""`spans_dead`: records that cannot be read, as they came, with where they stood and why."""

from __future__ import annotations

from collections.abc import Iterable

from topics.topic import HOUR_MS, Topic, dead_bytes_max

TOPIC_HEADER = "dead_topic"
PARTITION_HEADER = "dead_partition"
OFFSET_HEADER = "dead_offset"
REASON_HEADER = "dead_reason"

TOPIC = Topic(
    name="spans_dead",
    key="the record's own key",
    format="the record's value as it came; headers dead_topic, dead_partition, dead_offset, dead_reason and its own",
    cleanup_policy="delete",
    partitions=lambda _kafka: 1,
    retention_ms=lambda kafka: int(kafka.dead_retention_h * HOUR_MS),
    message_bytes_max=dead_bytes_max,
    holds_acknowledged_spans=False,
)

REASON_CHARACTERS_MAX = 500


def headers_of(
    topic: str, partition: int, offset: int, reason: str, original: Iterable[tuple[str, bytes | None]]
) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: origin and reason (cut to 500 characters) first, then the record's own."""
    return [
        (TOPIC_HEADER, topic.encode()),
        (PARTITION_HEADER, b"%d" % partition),
        (OFFSET_HEADER, b"%d" % offset),
        (REASON_HEADER, reason[:REASON_CHARACTERS_MAX].encode("utf-8", "replace")),
        *original,
    ]

"""`spans_dead`: records that cannot be read, as they came, with where they stood and why."""

from __future__ import annotations

from collections.abc import Iterable

from topics.topic import HOUR_MS, Topic, dead_bytes_max

TOPIC_HEADER = "dead_topic"
PARTITION_HEADER = "dead_partition"
OFFSET_HEADER = "dead_offset"
REASON_HEADER = "dead_reason"
CUT_HEADER = "dead_cut"

TOPIC = Topic(
    name="spans_dead",
    key="the record's own key",
    format="the record's value as it came; headers dead_topic, dead_partition, dead_offset, dead_reason and its own; "
    "of one that is too large the first MiB, and dead_cut in the place of its own",
    cleanup_policy="delete",
    partitions=lambda _kafka: 1,
    retention_ms=lambda kafka: int(kafka.dead_retention_h * HOUR_MS),
    message_bytes_max=dead_bytes_max,
    holds_acknowledged_spans=False,
)

REASON_CHARACTERS_MAX = 500
CUT_BYTES = 1 << 20
FRAME_BYTES_MAX = 10  # of a header, beside its name and value

Headers = Iterable[tuple[str, bytes | None]]


def fitted(
    key: bytes | None, value: bytes, own: Headers, bytes_max: int
) -> tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]:
    """Key, value and own headers of a letter: the record's, or of one above `bytes_max` what says that it was cut.

    A topic bounds what stands compressed in it: unpacked a record may be larger than any letter, which Kafka would
    refuse for ever.
    """
    headers = list(own)
    named = sum(len(name.encode()) + len(content or b"") + FRAME_BYTES_MAX for name, content in headers)
    size = len(key or b"") + len(value) + named
    if size <= bytes_max:
        return key, value, headers
    return None, value[:CUT_BYTES], [(CUT_HEADER, b"%d bytes in all" % size)]


def headers_of(
    topic: str, partition: int, offset: int, reason: str, original: Headers
) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: origin and reason (cut to 500 characters) first, then the record's own."""
    return [
        (TOPIC_HEADER, topic.encode()),
        (PARTITION_HEADER, b"%d" % partition),
        (OFFSET_HEADER, b"%d" % offset),
        (REASON_HEADER, reason[:REASON_CHARACTERS_MAX].encode("utf-8", "replace")),
        *original,
    ]

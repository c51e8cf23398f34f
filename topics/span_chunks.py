"""`span_chunks`: one entry a manifest, so that readers' catalogs hear of stored chunks at once. Compacted."""

from __future__ import annotations

from topics.errors import MalformedRecordError
from topics.topic import FOREVER_MS, Topic, record_bytes_max

TOPIC = Topic(
    name="span_chunks",
    key="<partition>/<first offset, 20 digits>; of edits <partition>/edits",
    format="the manifest's JSON; nothing when it is gone; of edits that there is a new one",
    cleanup_policy="compact",
    partitions=lambda _kafka: 1,
    retention_ms=lambda _kafka: FOREVER_MS,
    message_bytes_max=record_bytes_max,
    holds_acknowledged_spans=False,
)


def key_of(partition: int, first_offset: int) -> bytes:
    """The key of the manifest that starts at `first_offset` of `partition`; keys of a partition sort by offset."""
    return b"%d/%020d" % (partition, first_offset)


def edits_key(partition: int) -> bytes:
    """The key under which stands that a partition has edits."""
    return b"%d/edits" % partition


def parse_key(key: bytes | None) -> tuple[int, int]:
    """(partition, first offset) of a key. Raises MalformedRecordError for anything that key_of does not write."""
    try:
        partition, first_offset = (key or b"").split(b"/")
        if len(first_offset) == 20 and partition.isdigit() and first_offset.isdigit():
            return int(partition), int(first_offset)
    except ValueError:
        pass
    raise MalformedRecordError(f"no key of span_chunks: {key!r}")

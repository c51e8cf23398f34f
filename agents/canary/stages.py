"""Where a trace went missing: receiver, Kafka, worker, live, chunk or catalog, and what shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from agents.canary.known import Known
from agents.commands.querier import Querier
from topics import spans_by_trace
from topics.admin import client_config
from topics.errors import KafkaUnavailableError, SpanstreamError
from topics.settings import KafkaSettings
from topics.topic import full_name

RECEIVER, KAFKA, WORKER, LIVE, CHUNK, CATALOG = "receiver", "kafka", "worker", "live", "chunk", "catalog"
RECORDS_MAX = 20_000  # read of a partition to find a trace in Kafka
BEFORE_MS = 1000
InKafka = Callable[[int, Known], int | None]  # (partition, trace) -> its record's offset


def where(querier: Querier, known: Known) -> dict[str, Any]:
    """What the querier says of its whole way; empty where it does not answer."""
    try:
        document: dict[str, Any] = querier.ask(f"/api/where/{known.trace_id.hex()}")
    except SpanstreamError:
        return {}
    return document


def last_seen(document: dict[str, Any]) -> dict[str, Any] | None:
    """What is remembered of a trace's place; None where it has none."""
    for place in document.get("places", []):
        offset = max(place.get("offsets") or [place["last"]])
        return {"kind": place["kind"], "offset": offset, "chunk": place.get("chunk", "")}
    return None


def stage_of(document: dict[str, Any], seen: dict[str, Any] | None, in_kafka: InKafka, known: Known) -> tuple[str, str]:
    """(stage, what shows it) of an acknowledged trace that is not there as a whole.

    document: what `where` says now, seen: `last_seen` of when it was there.
    """
    if not document:
        return "querier", "the querier does not say where it stands"
    for reason in document["reasons"]:
        if "chunk " in reason or "Kafka" in reason:
            return (CHUNK if "chunk " in reason else KAFKA), reason
    if (there := last_seen(document)) is not None:
        stands = f"chunk {there['chunk']}" if there["kind"] == "store" else f"a {there['kind']} segment"
        return (CHUNK if there["kind"] == "store" else LIVE), f"a part of it stands in {stands}"
    try:
        offset = seen["offset"] if seen else in_kafka(document["partition"], known)
    except KafkaUnavailableError as error:
        return KAFKA, str(error)
    return _of_absent(document, seen, offset)


def _of_absent(document: dict[str, Any], seen: dict[str, Any] | None, offset: int | None) -> tuple[str, str]:
    """Of a trace that stands nowhere; offset: of its record, None where Kafka has none."""
    place = f"offset {offset} of partition {document['partition']}"
    if offset is None:
        return KAFKA, f"it was acknowledged, and partition {document['partition']} has no record of it since then"
    if offset >= document["horizon"]:
        if seen and seen["kind"] == "live":
            return LIVE, f"{place} was live, is not stored, and is live no more"
        return WORKER, f"Kafka has it at {place}; {_owner(document)} does not show it"
    if seen and seen["kind"] == "store":
        return CATALOG, f"chunk {seen['chunk']} held it, and the catalog names no chunk that does"
    return CHUNK, f"{place} is stored, and no chunk that the catalog knows holds it"


def reader_of(kafka: KafkaSettings) -> InKafka:
    """Looks for a trace's bytes in the records of a partition since it was written."""

    def in_kafka(partition: int, known: Known) -> int | None:
        own = {"group.id": f"{kafka.group}-canary", "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer(client_config(kafka) | own | {"log_level": 2})
        try:
            since_ms = known.written_unix_ns // 10**6 - BEFORE_MS
            topic = full_name(spans_by_trace.TOPIC, kafka)
            asked = [TopicPartition(topic, partition, since_ms)]
            consumer.assign(consumer.offsets_for_times(asked, timeout=kafka.request_timeout_s))
            return _found(consumer, known.trace_id, kafka.request_timeout_s)
        except KafkaException as exc:
            raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {exc.args[0]}") from exc
        finally:
            consumer.close()

    return in_kafka


def _found(consumer: Consumer, trace_id: bytes, quiet_s: float) -> int | None:
    deadline = time.monotonic() + quiet_s
    for _ in range(RECORDS_MAX):
        message = consumer.poll(quiet_s)
        if message is None or message.error() is not None or time.monotonic() > deadline:
            return None
        if trace_id in (message.value() or b""):
            return message.offset()
    return None


def _owner(document: dict[str, Any]) -> str:
    return f"worker {document['owner']}" if document["owner"] else "no worker owns it, and the tail"

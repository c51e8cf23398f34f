"""The rekey agent: whatever a collector wrote to the inlet, under any key, onto the keyed topic."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import faust

from agents.inbox import Inbox, in_batches
from agents.index_agent import source_record
from agents.source import KafkaSource
from agents.waits import Waits
from pipeline import telemetry
from pipeline.drops import DROPS, NOBODY, short_reason
from pipeline.partition.batch import SourceRecord
from pipeline.spans.parsed import ParseLimits, parse
from pipeline.spans.wire import CutLimits, Piece, cut_by_trace
from topics import otlp_spans, spans_by_trace
from topics.errors import MalformedRecordError, MalformedRequestError, RequestTooLargeError
from topics.settings import Settings
from topics.topic import full_name

RETRY_WAIT_MAX_S = 5.0


class KeyedRecord(NamedTuple):
    """One record for the keyed topic."""

    tenant: str
    partition: int
    first_trace_id: bytes
    value: bytes


def attach_rekey(app: faust.App, settings: Settings, source: KafkaSource, partitions: int) -> Any:
    """otlp_spans -> spans_by_trace, at least once: a record is acknowledged when Kafka has all its spans again.

    A crash between the two makes copies, which the workers remove. What is no OTLP goes to spans_dead with its reason.
    """
    name = full_name(otlp_spans.TOPIC, settings.kafka)
    inlet = app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    limits = CutLimits(
        record_bytes_max=settings.receiver.record_bytes_max,
        attribute_bytes_max=settings.limits.attribute_bytes_max,
        output_bytes_max=8 * settings.receiver.request_bytes_max,
    )
    waits = Waits(RETRY_WAIT_MAX_S)

    @app.agent(inlet, name="rekey", isolated_partitions=True)
    async def rekey(stream: Any) -> None:
        async def send(events: list[Any]) -> None:
            records = [source_record(event.message) for event in events]
            keyed, dead = await asyncio.to_thread(rekeyed, records, partitions, limits)
            await _until_sent(waits, source, keyed)
            for record, reason in dead:
                telemetry.RECORDS_DEAD.labels(reason="inlet").inc()
                DROPS.count(NOBODY if record.reason else record.tenant, "dead_records", {short_reason(reason): 1})
                aside = partial(source.set_aside, name, events[0].message.partition, record, reason)
                await waits.until_there("dead letter", aside)
            for event in events:
                await stream.ack(event)

        inbox = Inbox(settings.worker.take_records_max, settings.worker.gather_bytes_max)
        await in_batches(stream, inbox, send, wait_s=settings.worker.rekey_wait_s)

    return rekey


def rekeyed(
    records: Iterable[SourceRecord], partitions: int, limits: CutLimits
) -> tuple[list[KeyedRecord], list[tuple[SourceRecord, str]]]:
    """The keyed records that hold all spans of `records`, joined by tenant and partition; and what cannot be read.

    A record is parsed in full first: joined with others, one that does not parse would make dead letters of them all.
    """
    pieces: dict[tuple[str, int], list[Piece]] = defaultdict(list)
    dead: list[tuple[SourceRecord, str]] = []
    parse_limits = ParseLimits(span_bytes_max=limits.record_bytes_max, attribute_bytes_max=limits.attribute_bytes_max)
    for record in records:
        try:
            if record.reason or not record.value:
                raise MalformedRecordError(record.reason or "empty: a record without a value")
            parsed = parse(record.value, parse_limits)
            cuts = [cut_by_trace(payload, partitions, limits) for payload in parsed.payloads]
        except (MalformedRecordError, MalformedRequestError, RequestTooLargeError) as error:
            dead.append((record, str(error)))
            continue
        DROPS.count(record.tenant, "rejected_spans", sum((cut.rejected for cut in cuts), parsed.rejected))
        DROPS.count(record.tenant, "marked_spans", sum((cut.marked for cut in cuts), parsed.marked))
        counted = sum((cut.rejected + cut.marked for cut in cuts), parsed.rejected + parsed.marked)
        for reason, count in counted.items():
            telemetry.SPANS_MARKED.labels(reason=reason).inc(count)
        for piece in (piece for cut in cuts for piece in cut.pieces):
            pieces[record.tenant, piece.partition].append(piece)
    keyed = [one for (tenant, _), mine in pieces.items() for one in _joined(tenant, mine, limits.record_bytes_max)]
    return keyed, dead


def _joined(tenant: str, pieces: list[Piece], bytes_max: int) -> Iterator[KeyedRecord]:
    start = size = 0
    for at, piece in enumerate(pieces):
        if size and size + len(piece.data) > bytes_max:
            yield _record(tenant, pieces[start:at])
            start, size = at, 0
        size += len(piece.data)
    yield _record(tenant, pieces[start:])


def _record(tenant: str, pieces: list[Piece]) -> KeyedRecord:
    first = pieces[0]
    return KeyedRecord(tenant, first.partition, first.first_trace_id, b"".join(piece.data for piece in pieces))


async def _until_sent(waits: Waits, source: KafkaSource, records: list[KeyedRecord]) -> None:
    """Send until Kafka has them all; the inlet waits meanwhile."""

    async def send() -> None:
        nonlocal records
        sent = [
            source.producer.send(
                spans_by_trace.TOPIC,
                record.partition,
                record.first_trace_id.hex().encode(),
                record.value,
                spans_by_trace.headers_of(record.tenant, source.now_unix_ns()),
            )
            for record in records
        ]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        failed = {at: answer for at, answer in enumerate(answers) if isinstance(answer, BaseException)}
        records = [records[at] for at in failed]
        if failed:
            raise next(iter(failed.values()))

    await waits.until_there("rekey", send)

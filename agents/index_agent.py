"""The index agent: records of the keyed topic into segments, one actor a partition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import faust

from agents.inbox import Inbox, in_batches
from agents.owned import Ack
from agents.unreadable import reason_of
from agents.worker import Worker
from pipeline.partition.batch import SourceRecord
from topics.errors import MalformedRecordError
from topics.settings import Settings
from topics.spans_by_trace import DEFAULT_TENANT, tenant_of


def attach_index(app: faust.App, settings: Settings, worker: Worker) -> Any:
    """spans_by_trace -> segments, exactly once: the sink acknowledges a record when a manifest names its offset."""
    source = app.topic(worker.topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    limits = settings.worker

    @app.agent(source, name="index", isolated_partitions=True)
    async def index(stream: Any) -> None:
        async def take(events: list[Any]) -> None:
            records = [source_record(event.message) for event in events]
            acks = [partial(stream.ack, _without_payload(event)) for event in events]
            await take_unless_closed(worker, events[0].message.partition, records, acks)

        await in_batches(stream, Inbox(limits.take_records_max, limits.gather_bytes_max), take)

    return index


async def take_unless_closed(
    worker: Worker, partition: int, records: Sequence[SourceRecord], acks: Sequence[Ack]
) -> None:
    """Hand records to the worker. When it ends meanwhile its threads are gone: the records are the next owner's."""
    try:
        await worker.take(partition, records, acks)
    except RuntimeError:
        if not worker.pools.closed:
            raise


def source_record(message: Any) -> SourceRecord:
    """A Kafka message as the partition takes it. What is wrong with its batch or its tenant's name is its reason."""
    reason, tenant, headers = reason_of(message.headers), DEFAULT_TENANT, message.headers or ()
    if reason:
        headers = ()
    try:
        tenant = tenant_of(headers)
    except MalformedRecordError as error:
        reason = f"tenant: {error}"
    return SourceRecord(
        offset=message.offset,
        tenant=tenant,
        value=message.value or b"",
        time_unix_ns=int((message.timestamp or 0) * 1e9),
        reason=reason,
        key=message.key,
        headers=headers,
    )


def _without_payload(event: Any) -> Any:
    """The event with nothing but what its acknowledgement needs: payloads of unsealed records would fill the memory."""
    event.message.value = event.message.key = None
    event.value = event.key = None
    return event

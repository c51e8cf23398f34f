"""What a worker needs of Kafka and of the store, on the real parts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import faust
from faust.types import TP

from agents.ports import Assignment, Offsets
from pipeline.partition.batch import SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.spans.dedup import span_keys
from pipeline.store import commit
from pipeline.store.manifest import Manifest, edits_entry
from pipeline.store.objects import ObjectStore
from topics import admin, span_chunks, spans_by_trace, spans_dead
from topics.errors import KafkaUnavailableError, PartitionsChangedError
from topics.next_record import NextRecord
from topics.producer import RecordProducer
from topics.settings import Settings
from topics.topic import record_bytes_max


class KafkaSource:
    """agents.worker.Source over a Faust app's consumer and our own producer."""

    def __init__(self, app: faust.App, settings: Settings, topic: str) -> None:
        self._app = app
        self._settings = settings
        self._topic = topic
        self._next = NextRecord(settings.kafka, topic)
        self._producer: RecordProducer | None = None

    @property
    def producer(self) -> RecordProducer:
        """The producer of entries, dead letters and rekeyed records; made in the event loop, at first use."""
        if self._producer is None:
            receiver = self._settings.receiver
            self._producer = RecordProducer(
                self._settings.kafka,
                linger_s=receiver.linger_s,
                ack_timeout_s=receiver.ack_timeout_s,
                message_bytes_max=spans_dead.TOPIC.message_bytes_max(self._settings),
                queue_bytes_max=receiver.inflight_bytes_max,
            )
        return self._producer

    def now_unix_ns(self) -> int:
        """The clock that stamps records."""
        return time.time_ns()

    def end(self, partition: int) -> int | None:
        """The high-water mark of the last fetch; None for a partition that Kafka has just given to another worker."""
        try:
            end: int | None = self._app.consumer.highwater(TP(self._topic, partition))
        except AssertionError:  # aiokafka knows of a rebalance before Faust tells of it
            return None
        return end

    async def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`. In the thread of aiokafka: a fetch under way there must not end in between."""
        try:
            await self._app.consumer.seek_wait({TP(self._topic, partition): offset})
        except Exception as error:
            raise KafkaUnavailableError(f"cannot read partition {partition} from {offset} on: {error!r}") from error

    async def log_start(self, partition: int) -> int:
        """First offset that Kafka still has."""
        found = await asyncio.to_thread(admin.watermarks, self._settings, spans_by_trace.TOPIC)
        return found[partition][0]

    async def committed(self, partition: int) -> int | None:
        """What the consumer group has committed."""
        found = await asyncio.to_thread(admin.committed, self._settings, spans_by_trace.TOPIC)
        return found.get(partition)

    async def next_record(self, partition: int, offset: int) -> int:
        """Offset of the first record at or after `offset`; the end of the log where there is none."""
        return await asyncio.to_thread(self._next.offset, partition, offset)

    async def send_entry(self, manifest: Manifest) -> None:
        """Tell the readers' catalogs of a manifest."""
        key = span_chunks.key_of(manifest.partition, manifest.first)
        await self.producer.send(span_chunks.TOPIC, None, key, manifest.to_entry(), [])

    async def send_edited(self, partition: int) -> None:
        """Tell the readers' catalogs that a partition has a new edit."""
        await self.producer.send(span_chunks.TOPIC, None, span_chunks.edits_key(partition), edits_entry(partition), [])

    async def send_gone(self, partition: int, first: int) -> None:
        """Take back the entry of a manifest that is no more."""
        await self.producer.send(span_chunks.TOPIC, None, span_chunks.key_of(partition, first), None, [])

    async def send_dead(self, partition: int, record: SourceRecord, reason: str) -> None:
        """Set a record of the keyed topic aside."""
        await self.set_aside(self._topic, partition, record, reason)

    async def set_aside(self, topic: str, partition: int, record: SourceRecord, reason: str) -> None:
        """Write a record of a topic to the dead letters."""
        bytes_max = record_bytes_max(self._settings)
        key, value, own = spans_dead.fitted(record.key, record.value, record.headers, bytes_max)
        headers = spans_dead.headers_of(topic, partition, record.offset, reason, own)
        await self.producer.send(spans_dead.TOPIC, None, key, value, headers)

    async def close(self) -> None:
        """Give what is on its way a moment, then stop."""
        if self._producer is not None:
            await self._producer.flush(self._settings.kafka.request_timeout_s)
            await asyncio.to_thread(self._producer.close)
        await asyncio.to_thread(self._next.close)


class KafkaOffsets:
    """agents.ports.Offsets, asked of the cluster."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def log_start(self, partition: int) -> int:
        """First offset that Kafka still has."""
        return admin.watermarks(self._settings, spans_by_trace.TOPIC)[partition][0]

    def committed(self, partition: int) -> int | None:
        """What the consumer group has committed."""
        return admin.committed(self._settings, spans_by_trace.TOPIC).get(partition)


class StoreRanges:
    """agents.worker.Ranges over the object store. offsets, clock_ns: of Kafka, and the time; called in threads."""

    def __init__(  # noqa: PLR0913
        self,
        settings: Settings,
        store: ObjectStore,
        *,
        topic: str,
        partitions: int,
        worker_url: str,
        offsets: Offsets,
        clock_ns: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._store = store
        self._topic, self._partitions = topic, partitions
        self._worker_url = worker_url
        self._offsets = offsets
        self._clock_ns = clock_ns

    def assignment(self, partition: int, secret: bytes, keys_max: int) -> Assignment:
        """The mark and the window from the manifests, the log's start and the committed offset from Kafka.

        keys_max: most keys of the window, beyond those of the newest range.
        Raises PartitionsChangedError where the topic has more partitions than it had.
        """
        self._store.refuses_second_put()  # now, so that it is told before anything is stored
        window_s = self._settings.worker.window_s
        found = commit.read_mark(self._store, self._topic, partition)
        self._check_partitions(partition, found.newest)
        window = [
            (span_keys(spans, secret), manifest.record_time_max_unix_ns, manifest.last)
            for manifest, spans in commit.window_spans(self._store, found, window_s=window_s, keys_max=keys_max)
        ]
        return Assignment(
            mark=found.mark,
            newest=found.newest,
            window=window,
            log_start=self._offsets.log_start(partition),
            committed=self._offsets.committed(partition),
        )

    def _check_partitions(self, partition: int, newest: Manifest | None) -> None:
        before = newest.partitions if newest is not None else self._partitions
        if before == self._partitions and partition < self._partitions:
            return
        raise PartitionsChangedError(
            f"{self._topic} has another number of partitions than its chunks were written with, or than this worker"
            f" found at its start ({before}, {self._partitions}; this is partition {partition}): traces would stand on"
            " other partitions than before. Nothing is read or lost. See docs/operations.md, More partitions"
        )

    def store(self, sealed: SealedRange, stop: threading.Event) -> Manifest | None:
        """Chunks and manifest of one range."""
        return commit.store_range(
            self._store,
            self._settings,
            sealed,
            worker=self._worker_url,
            now_unix_ns=self._clock_ns(),
            stop=stop,
        )

"""What no worker has reached yet, read from Kafka itself: a partition's records from an offset to its end."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline import telemetry
from pipeline.query.blocks import LiveSegment, Loss
from pipeline.query.tail_rows import TailRows
from topics import spans_by_trace
from topics.admin import client_config, watermarks
from topics.errors import KafkaUnavailableError
from topics.settings import Settings
from topics.topic import full_name

CONSUMERS_IDLE_MAX = 2
POLL_S = 0.05
BURST_RECORDS = 1000
STALE = frozenset({KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH})
_ASK_HEADERS = methodcaller("headers")
Ends = Mapping[int, tuple[int, int]]  # partition -> (first offset still held, next offset to be written)


class _StaleLeaderError(Exception):
    """The consumer asked a leader by an epoch that is over."""


@dataclass(slots=True, kw_only=True)
class TailRead:
    """One partition's tail: rows of the offsets [start, reached). reasons: why `reached` lies below the end asked for.

    losses: offsets that Kafka's retention deleted before they were read.
    """

    start: int
    reached: int
    segments: list[LiveSegment] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    records: int = 0


@dataclass(slots=True)
class _Run:
    """A read under way: what is still open, what it may still take."""

    open: dict[int, int]  # partition -> end
    found: dict[int, TailRead]
    rows: dict[int, TailRows]
    needle: bytes
    bytes_left: int
    deadline_s: float
    failed: bool = False  # Kafka did not answer as it should: what was asked is asked no more


class TailReader:
    """Reads tails without joining a consumer group. Thread-safe; every call blocks: call it off an event loop.

    Rows are checked, cut and deduplicated as a worker does. Consumers are kept open between calls: connecting takes
    longer than reading a small tail.
    """

    def __init__(self, settings: Settings, partitions: int) -> None:
        """partitions: how many the keyed topic has."""
        self._settings = settings
        self._partitions = partitions
        self._topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        self._idle: queue.LifoQueue[Consumer] = queue.LifoQueue(CONSUMERS_IDLE_MAX)

    def close(self) -> None:
        """Close the idle consumers."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def ends(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """(first offset still held, next offset to be written) of each. Raises KafkaUnavailableError."""
        return watermarks(self._settings, spans_by_trace.TOPIC, partitions)

    def read(
        self, after: Mapping[int, int], ends: Ends, known: Mapping[int, Sequence[LiveSegment]]
    ) -> dict[int, TailRead]:
        """All rows from the offset `after` to the end, a partition; without copies of spans in its `known` segments.

        Bounded by querier.tail_bytes_max and tail_timeout_s; Kafka does not answer: a reason, no error.
        """
        return self._read(after, ends, b"", known)

    def read_trace(self, after: Mapping[int, int], ends: Ends, trace_id: bytes) -> dict[int, TailRead]:
        """The rows of one trace (16 bytes). The bytes are searched, only records with a hit are decoded.

        Bounded by querier.tail_timeout_s alone, since nothing else is kept.
        """
        return self._read(after, ends, trace_id, {})

    def _read(
        self, after: Mapping[int, int], ends: Ends, trace_id: bytes, known: Mapping[int, Sequence[LiveSegment]]
    ) -> dict[int, TailRead]:
        querier = self._settings.querier
        run = _Run(
            open={},
            found={},
            rows={p: TailRows(self._settings, (p, self._partitions), trace_id, known.get(p, ())) for p in after},
            needle=trace_id.lstrip(b"\0"),  # a foreign producer's short trace ID is padded only when decoded
            bytes_left=querier.tail_bytes_max if not trace_id else 1 << 62,
            deadline_s=time.monotonic() + querier.tail_timeout_s,
        )
        for partition, start in after.items():
            _begin(run, partition, start, *ends[partition])
        try:
            if run.open:
                self._consumed(run)
        except (KafkaUnavailableError, KafkaException) as exc:
            _give_up(run, f"Kafka does not answer: {exc}")
        for partition, found in run.found.items():
            found.segments = run.rows[partition].finish()
            telemetry.TAIL_RECORDS.inc(found.records)
        return run.found

    def _consumed(self, run: _Run) -> None:
        """Read; once more with a new consumer where one that was idle knows a leader of before."""
        told = ""
        for _ in range(2):
            with self._consumer(run) as consumer:
                try:
                    self._consume(consumer, run)
                except _StaleLeaderError as error:
                    run.failed, told = True, str(error)
                else:
                    return
        _give_up(run, f"Kafka says: {told}")

    def _consume(self, consumer: Consumer, run: _Run) -> None:
        consumer.assign([TopicPartition(self._topic, p, run.found[p].reached) for p in run.open])
        try:
            while run.open:
                if time.monotonic() > run.deadline_s:
                    run.failed = True
                    timeout_s = self._settings.querier.tail_timeout_s
                    return _give_up(run, f"reading it took longer than querier.tail_timeout_s {timeout_s}")
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                # poll answers at once, consume waits for a full burst: the rest only as far as it is here already
                for each in [message, *consumer.consume(BURST_RECORDS, 0)]:
                    self._take(each, run)
        finally:
            consumer.unassign()

    def _take(self, message: Any, run: _Run) -> None:
        partition = message.partition()
        end = run.open.get(partition)
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if error.code() == KafkaError._AUTO_OFFSET_RESET and end is not None:
                _give_up(run, "its records were deleted while they were read", partition)
            elif error.code() in STALE and end is not None:
                raise _StaleLeaderError(error.str())
            elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN and end is not None:
                run.failed = True
                _give_up(run, f"Kafka says: {error.str()}", partition)
            return
        if end is None:
            return
        found, offset = run.found[partition], message.offset()
        if error is None and offset < end:
            value = message.value() or b""
            run.bytes_left -= len(value)
            if run.bytes_left < 0:
                _give_up(run, f"it has more than querier.tail_bytes_max {self._settings.querier.tail_bytes_max} bytes")
                return
            found.records += 1
            if run.needle in value and (headers := _headers(message)) is not None:
                run.rows[partition].add(offset, headers, value)
            found.reached = offset + 1
        if error is not None or offset + 1 >= end:  # the end of the partition: what lies there are control records
            found.reached = end
            del run.open[partition]

    @contextmanager
    def _consumer(self, run: _Run) -> Iterator[Consumer]:
        """An idle one; a new one after it failed. One that failed is closed."""
        consumer = self._connect() if run.failed else self._idle_one()
        try:
            yield consumer
        except KafkaException as exc:
            consumer.close()
            raise KafkaUnavailableError(f"{self._topic}: {exc.args[0]}") from exc
        except BaseException:
            consumer.close()
            raise
        if run.failed:
            consumer.close()
            return
        try:
            self._idle.put_nowait(consumer)
        except queue.Full:
            consumer.close()

    def _idle_one(self) -> Consumer:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._connect()

    def _connect(self) -> Consumer:
        kafka = self._settings.kafka
        return Consumer(
            client_config(kafka)
            | {
                "group.id": f"{kafka.group}-reader",  # never joined, nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_uncommitted",  # as the workers read
                "check.crcs": True,  # damaged gzip makes librdkafka spin for ever
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
                "max.partition.fetch.bytes": 4 << 20,
                "queued.max.messages.kbytes": 32 << 10,
                "log_level": 2,  # an absent broker is told by our errors, not on stderr
            }
        )


def _headers(message: Any) -> Any:
    """The headers; None for a record that workers set aside, because a header's name is no UTF-8.

    There the client both returns and raises, which a plain call overlooks once CPython has specialised it: the process
    would crash later.
    """
    try:
        return _ASK_HEADERS(message) or ()
    except (SystemError, UnicodeDecodeError):
        return None


def _begin(run: _Run, partition: int, start: int, low: int, end: int) -> None:
    found = run.found[partition] = TailRead(start=start, reached=start)
    if start < min(low, end):
        found.reached = min(low, end)
        found.losses.append((start, found.reached - 1))
    if found.reached < end:
        run.open[partition] = end


def _give_up(run: _Run, reason: str, only: int | None = None) -> None:
    for partition in [only] if only is not None else list(run.open):
        found = run.found[partition]
        end = run.open.pop(partition)
        upto = f"partition {partition} was read from Kafka up to offset {found.reached} of {end}"
        found.reasons.append(f"{upto}: {reason}")

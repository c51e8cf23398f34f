"""Collecting spans of one tenant and partition from many requests into records.

A record costs Kafka and the workers far more than a span, so it waits a little for company: up to `batch_wait_s`, or
until it has `batch_bytes`. A request is acknowledged when all records that hold its spans are confirmed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline import telemetry
from pipeline.spans.wire import Piece
from topics import spans_by_trace
from topics.errors import KafkaUnavailableError
from topics.settings import ReceiverSettings
from topics.topic import Topic


class Sender(Protocol):
    """What a batcher needs of a producer."""

    def send(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> asyncio.Future[int]:
        """As RecordProducer.send."""


class _Waiting:
    """One request that waits for its records: `open` counts those not yet confirmed."""

    __slots__ = ("confirmed", "open")

    def __init__(self, confirmed: asyncio.Future[None], records: int) -> None:
        self.confirmed = confirmed
        self.open = records

    def settle(self, error: BaseException | None) -> None:
        self.open -= 1
        if self.confirmed.done():
            return
        if error is not None:
            self.confirmed.set_exception(error)
        elif self.open == 0:
            self.confirmed.set_result(None)


class _Record:
    """A record that still takes pieces."""

    __slots__ = ("first_trace_id", "opened_s", "pieces", "received_unix_ns", "size", "waiting")

    def __init__(self, first_trace_id: bytes, opened_s: float, received_unix_ns: int) -> None:
        self.first_trace_id = first_trace_id
        self.opened_s = opened_s
        self.received_unix_ns = received_unix_ns
        self.size = 0
        self.pieces: list[bytes] = []
        self.waiting: list[_Waiting] = []


class Batcher:
    """Open records, one a tenant and partition. Belongs to one event loop. Memory is bounded by who adds."""

    def __init__(
        self,
        sender: Sender,
        settings: ReceiverSettings,
        partitions: int,
        *,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sender, self._settings, self._partitions, self._unix_ns = sender, settings, partitions, unix_ns
        self._loop = asyncio.get_running_loop()
        self._open: OrderedDict[tuple[str, int], _Record] = OrderedDict()  # oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def add(self, tenant: str, pieces: Sequence[Piece]) -> asyncio.Future[None]:
        """Add a request's pieces, n >= 0. The future is done when Kafka has them all, or fails with its error."""
        confirmed: asyncio.Future[None] = self._loop.create_future()
        if not pieces:
            confirmed.set_result(None)
            return confirmed
        confirmed.add_done_callback(_heard)
        waiting = _Waiting(confirmed, len(pieces))
        settings = self._settings
        for piece in pieces:
            place = (tenant, piece.partition)
            record = self._open.get(place)
            if record is not None and record.size + len(piece.data) > settings.record_bytes_max:
                self._send(place)
                record = None
            if record is None:
                record = _Record(piece.first_trace_id, self._loop.time(), self._unix_ns())
                self._open[place] = record
            record.pieces.append(piece.data)
            record.size += len(piece.data)
            record.waiting.append(waiting)
            if record.size >= settings.batch_bytes:
                self._send(place)
        if self._closing:
            self.flush()
        elif self._timer is None and self._open:
            self._timer = self._loop.call_later(self.wait_s(), self._send_due)
        return confirmed

    def wait_s(self) -> float:
        """How long a record waits for company. Grows with the tenants, so that records stay large, up to a limit."""
        free = self._settings.batch_tenants_free * self._partitions
        crowding = max(1.0, len(self._open) / free)
        return min(self._settings.batch_wait_s * crowding, max(self._settings.batch_wait_max_s, 0.0))

    def flush(self) -> None:
        """Send every open record at once."""
        for place in list(self._open):
            self._send(place)

    def close(self) -> None:
        """Send every open record, and from here on each one as soon as it is added."""
        self._closing = True
        self.flush()

    def _send_due(self) -> None:
        self._timer = None
        wait_s, now_s = self.wait_s(), self._loop.time()
        for place, record in list(self._open.items()):
            due_s = record.opened_s + wait_s
            # The loop's timers may fire a clock tick early.
            if due_s > now_s + 0.001:
                self._timer = self._loop.call_at(due_s, self._send_due)
                return
            self._send(place)

    def _send(self, place: tuple[str, int]) -> None:
        record = self._open.pop(place)
        tenant, partition = place
        sent = self._sender.send(
            spans_by_trace.TOPIC,
            partition,
            record.first_trace_id.hex().encode(),
            b"".join(record.pieces),
            spans_by_trace.headers_of(tenant, record.received_unix_ns),
        )
        telemetry.RECORDS_SENT.inc()
        telemetry.RECORD_BYTES.inc(record.size)
        waiting = record.waiting

        def settle(future: asyncio.Future[int]) -> None:
            error = KafkaUnavailableError("the producer was stopped") if future.cancelled() else future.exception()
            for request in waiting:
                request.settle(error)

        sent.add_done_callback(settle)


def _heard(confirmed: asyncio.Future[None]) -> None:
    """A sender that hung up reads no outcome: asyncio would call a failure nobody's."""
    if not confirmed.cancelled():
        confirmed.exception()

"""Collecting spans of one tenant and partition from many requests into records.

A record costs Kafka and the workers far more than a span, so requests wait a little for company: up to `batch_wait_s`,
or until a record has `batch_bytes`. What waits is cut by trace together, since a cut costs the more a span the fewer
spans it has. A request is acknowledged when all records that hold its spans are confirmed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline import telemetry
from pipeline.drops import DROPS
from pipeline.spans.wire import Cut, CutLimits, Piece, cut_by_trace
from topics import spans_by_trace
from topics.errors import KafkaUnavailableError, SpanstreamError
from topics.settings import ReceiverSettings
from topics.topic import Topic

CUT_BYTES = 512 << 10
"""So much is cut at once at most (and any single payload): it takes 3 ms of the event loop."""


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
    """One payload that waits for its records: `open` counts those not yet confirmed, and its cut as one."""

    __slots__ = ("confirmed", "open", "rejected")

    def __init__(self, confirmed: asyncio.Future[Counter[str]]) -> None:
        self.confirmed = confirmed
        self.open = 1
        self.rejected: Counter[str] = Counter()

    def settle(self, error: BaseException | None) -> None:
        self.open -= 1
        if self.confirmed.done():
            return
        if error is not None:
            self.confirmed.set_exception(error)
        elif self.open == 0:
            self.confirmed.set_result(self.rejected)


class _Record:
    """A record that still takes pieces."""

    __slots__ = ("first_trace_id", "pieces", "size", "spans", "waiting")

    def __init__(self, first_trace_id: bytes) -> None:
        self.first_trace_id = first_trace_id
        self.size = self.spans = 0
        self.pieces: list[bytes] = []
        self.waiting: list[_Waiting] = []


class _Open:
    """What a tenant has waiting: payloads not yet cut, and records by partition."""

    __slots__ = ("opened_s", "payload_bytes", "payloads", "received_unix_ns", "records", "waiting")

    def __init__(self, opened_s: float, received_unix_ns: int) -> None:
        self.opened_s = opened_s
        self.received_unix_ns = received_unix_ns
        self.payloads: list[bytes] = []
        self.payload_bytes = 0
        self.waiting: list[_Waiting] = []
        self.records: dict[int, _Record] = {}


class Batcher:
    """Open records, one a tenant and partition. Belongs to one event loop. Memory is bounded by who adds."""

    def __init__(
        self,
        sender: Sender,
        settings: ReceiverSettings,
        limits: CutLimits,
        partitions: int,
        *,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sender, self._settings, self._limits, self._partitions = sender, settings, limits, partitions
        self._unix_ns = unix_ns
        self._loop = asyncio.get_running_loop()
        self._open: OrderedDict[str, _Open] = OrderedDict()  # oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def add(self, tenant: str, payload: bytes) -> asyncio.Future[Counter[str]]:
        """Add a payload: TracesData that parses, of about 512 kB at most.

        The future gives the rejected spans by reason when Kafka has all others, or fails with KafkaUnavailableError,
        or RequestTooLargeError where copies of the payload's resources would take too much.
        """
        waiting = _Waiting(self._loop.create_future())
        waiting.confirmed.add_done_callback(_heard)
        opened = self._open.get(tenant)
        if opened is None:
            opened = self._open[tenant] = _Open(self._loop.time(), self._unix_ns())
        if opened.payloads and opened.payload_bytes + len(payload) > CUT_BYTES:
            self._cut(tenant, opened)
        opened.payloads.append(payload)
        opened.payload_bytes += len(payload)
        opened.waiting.append(waiting)
        if opened.payload_bytes >= CUT_BYTES:
            self._cut(tenant, opened)
        if self._closing:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self.wait_s(), self._send_due)
        return waiting.confirmed

    def wait_s(self) -> float:
        """How long a record waits for company. Grows with the tenants, so that records stay large, up to a limit."""
        crowding = max(1.0, len(self._open) / self._settings.batch_tenants_free)
        return min(self._settings.batch_wait_s * crowding, max(self._settings.batch_wait_max_s, 0.0))

    def flush(self) -> None:
        """Send all that waits at once."""
        while self._open:
            self._send_tenant(next(iter(self._open)))

    def close(self) -> None:
        """Send all that waits, and from here on each payload as soon as it is added."""
        self._closing = True
        self.flush()

    def _send_due(self) -> None:
        self._timer = None
        wait_s, now_s = self.wait_s(), self._loop.time()
        while self._open:
            tenant, opened = next(iter(self._open.items()))
            due_s = opened.opened_s + wait_s
            if due_s > now_s + 0.001:  # the loop's timers may fire a clock tick early
                self._timer = self._loop.call_at(due_s, self._send_due)
                return
            self._send_tenant(tenant)

    def _send_tenant(self, tenant: str) -> None:
        opened = self._open[tenant]
        self._cut(tenant, opened)
        del self._open[tenant]
        for partition, record in opened.records.items():
            self._send(tenant, opened.received_unix_ns, partition, record)

    def _cut(self, tenant: str, opened: _Open) -> None:
        """Cut the payloads that wait, all together, or one by one where the outcomes differ."""
        payloads, waiting = opened.payloads, opened.waiting
        opened.payloads, opened.payload_bytes, opened.waiting = [], 0, []
        if not payloads:
            return
        try:
            cut = self._cut_joined(payloads)
        except SpanstreamError:
            cut = None
        if cut is not None and not cut.rejected:
            self._place(tenant, opened, cut, waiting)
            return
        for payload, one in zip(payloads, waiting, strict=True):
            try:
                own = self._cut_joined([payload])
            except SpanstreamError as exc:
                one.settle(exc)
                continue
            one.rejected = own.rejected
            self._place(tenant, opened, own, [one])

    def _cut_joined(self, payloads: list[bytes]) -> Cut:
        return cut_by_trace(b"".join(payloads), self._partitions, self._limits)

    def _place(self, tenant: str, opened: _Open, cut: Cut, waiting: list[_Waiting]) -> None:
        for mark, count in cut.marked.items():
            telemetry.SPANS_CHANGED.labels(mark=mark).inc(count)
        DROPS.count(tenant, "marked_spans", cut.marked)
        for one in waiting:
            one.open += len(cut.pieces)
        for piece in cut.pieces:
            self._add_piece(tenant, opened, piece, waiting)
        for one in waiting:
            one.settle(None)  # its cut is done

    def _add_piece(self, tenant: str, opened: _Open, piece: Piece, waiting: list[_Waiting]) -> None:
        record = opened.records.get(piece.partition)
        if record is not None and record.size + len(piece.data) > self._settings.record_bytes_max:
            self._send(tenant, opened.received_unix_ns, piece.partition, record)
            record = None
        if record is None:
            record = opened.records[piece.partition] = _Record(piece.first_trace_id)
        record.pieces.append(piece.data)
        record.size += len(piece.data)
        record.spans += piece.spans
        record.waiting += waiting
        if record.size >= self._settings.batch_bytes:
            self._send(tenant, opened.received_unix_ns, piece.partition, record)
            del opened.records[piece.partition]

    def _send(self, tenant: str, received_unix_ns: int, partition: int, record: _Record) -> None:
        sent = self._sender.send(
            spans_by_trace.TOPIC,
            partition,
            record.first_trace_id.hex().encode(),
            b"".join(record.pieces),
            spans_by_trace.headers_of(tenant, received_unix_ns),
        )
        telemetry.RECORDS_SENT.inc()
        telemetry.RECORD_BYTES.inc(record.size)
        waiting = record.waiting

        def settle(future: asyncio.Future[int]) -> None:
            error = KafkaUnavailableError("the producer was stopped") if future.cancelled() else future.exception()
            if error is None:
                telemetry.SPANS_RECEIVED.inc(record.spans)
            for one in waiting:
                one.settle(error)

        sent.add_done_callback(settle)


def _heard(confirmed: asyncio.Future[Counter[str]]) -> None:
    """A sender that hung up reads no outcome: asyncio would call a failure nobody's."""
    if not confirmed.cancelled():
        confirmed.exception()

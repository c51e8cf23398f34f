"""What both protocols do with a request: tenant, limits, cut, batch, and the answer only after Kafka's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from pipeline import telemetry
from pipeline.doors.door import Door
from pipeline.doors.overrides import Overrides
from pipeline.drops import DROPS
from pipeline.receive.batch import Batcher
from pipeline.receive.limits import InflightBytes, InflightShare, TenantRates
from pipeline.receive.request import Form, parse_body
from pipeline.spans.parsed import ParseLimits
from pipeline.spans.slices import SLICE_BYTES
from topics.errors import (
    KafkaUnavailableError,
    MalformedRequestError,
    OverloadedError,
    RateLimitedError,
    RequestTooLargeError,
    SpanstreamError,
)
from topics.settings import Settings

log = structlog.get_logger("receiver")
_RESPONSE: Any = trace_service_pb2.ExportTraceServiceResponse
REFUSALS: dict[type[SpanstreamError], str] = {
    RateLimitedError: "rate_limited",
    RequestTooLargeError: "too_large",
    MalformedRequestError: "malformed",
    OverloadedError: "overloaded",
    KafkaUnavailableError: "kafka_unavailable",
}
TELL_EVERY_S = 10.0  # that Kafka does not confirm
JSON_IN_LOOP_BYTES = 64 << 10  # a longer JSON body is read in a thread: 2 ms and more


class Ingest:
    """Takes unpacked requests, from `open` to `close`; before and after it refuses them. Belongs to one event loop."""

    def __init__(self, settings: Settings, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        receiver = settings.receiver
        self._settings = receiver
        self.door = Door(settings)
        self._batcher: Batcher | None = None
        self._overrides = Overrides(settings)
        self._rates = TenantRates(self._rate_of, clock_s)
        self._limits = ParseLimits(
            span_bytes_max=receiver.record_bytes_max, attribute_bytes_max=settings.limits.attribute_bytes_max
        )
        self.inflight = InflightBytes(receiver.inflight_bytes_max)
        self.closed_because: str | None = "Kafka has not answered yet"
        self._told_s = -TELL_EVERY_S

    def open(self, batcher: Batcher) -> None:
        """Take requests from here on."""
        self._batcher, self.closed_because = batcher, None

    def close(self, reason: str) -> None:
        """Refuse further requests, and send at once what waits for company."""
        self.closed_because = reason
        if self._batcher is not None:
            self._batcher.close()

    def _rate_of(self, tenant: str) -> tuple[float, float]:
        own, all_ = self._overrides.of(tenant), self._settings
        rate = all_.tenant_rate_bytes_per_s if own.rate_bytes_per_s is None else own.rate_bytes_per_s
        return rate, all_.tenant_burst_bytes if own.burst_bytes is None else own.burst_bytes

    def request_bytes_max(self, tenant: str) -> int:
        """Largest request of a tenant, as sent and unpacked. Its own limit can only be lower than that of all."""
        return min(self._settings.request_bytes_max, self._overrides.of(tenant).request_bytes_max or 1 << 62)

    @contextmanager
    def request_of(self, tenant: str) -> Iterator[InflightShare]:
        """One request's share of the bytes under way, given back at its end. A refusal is counted for its tenant."""
        share = self.inflight.share()
        try:
            yield share
        except SpanstreamError as exc:
            DROPS.count(tenant, "refused_requests", {REFUSALS.get(type(exc), "failed"): 1})
            if isinstance(exc, KafkaUnavailableError):
                self._tell(exc)
            raise
        finally:
            share.release()

    async def export(self, tenant: str, body: bytes, form: Form) -> bytes:
        """Take one request: returns its response in the request's form when Kafka has all of it.

        body: unpacked; its bytes are already counted in `inflight` by the caller. Raises MalformedRequestError,
        RequestTooLargeError, RateLimitedError, OverloadedError or KafkaUnavailableError: then nothing was
        acknowledged, and what was taken may be sent again.
        """
        batcher = self._batcher
        if batcher is None or self.closed_because is not None:
            raise OverloadedError(f"the receiver takes no spans: {self.closed_because}")
        if len(body) > (allowed := self.request_bytes_max(tenant)):
            raise RequestTooLargeError(f"the request is larger than {allowed} bytes")
        started_s = time.perf_counter()
        self._rates.take(tenant, len(body))
        telemetry.REQUEST_BYTES.inc(len(body))
        slow = len(body) > (JSON_IN_LOOP_BYTES if form is Form.JSON else SLICE_BYTES)
        question = (body, form, self._limits, self._settings.json_values_max)
        parsed = await asyncio.to_thread(parse_body, *question) if slow else parse_body(*question)
        del body, question
        rejected = parsed.rejected
        try:
            async with asyncio.timeout(self._settings.ack_timeout_s):
                for outcome in await self._added(batcher, tenant, parsed.payloads):
                    rejected.update(await outcome)
        except TimeoutError as exc:
            raise KafkaUnavailableError(f"Kafka has not confirmed within {self._settings.ack_timeout_s} s") from exc
        telemetry.REQUEST_SECONDS.observe(time.perf_counter() - started_s)
        for mark, count in parsed.marked.items():
            telemetry.SPANS_CHANGED.labels(mark=mark).inc(count)
        for reason, count in rejected.items():
            telemetry.SPANS_REJECTED.labels(reason=reason).inc(count)
        DROPS.count(tenant, "marked_spans", parsed.marked)
        DROPS.count(tenant, "rejected_spans", rejected)
        return _response(rejected, form)

    def _tell(self, error: KafkaUnavailableError) -> None:
        """Now and then in the log: who sends is told each time, but cannot mend it."""
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            log.warning("not_confirmed", error=str(error))

    async def _added(self, batcher: Batcher, tenant: str, payloads: list[bytes]) -> list[asyncio.Future[Counter[str]]]:
        outcomes = [batcher.add(tenant, payloads[0])] if payloads else []
        for payload in payloads[1:]:
            await asyncio.sleep(0)  # each may be cut at once, 3 ms: others get their turn between
            outcomes.append(batcher.add(tenant, payload))
        return outcomes


def _response(rejected: Counter[str], form: Form) -> bytes:
    if not rejected:
        return b"" if form is Form.PROTOBUF else b"{}"
    count, message = rejected.total(), rejection_text(rejected)
    if form is Form.JSON:
        return orjson.dumps({"partialSuccess": {"rejectedSpans": str(count), "errorMessage": message}})
    response = _RESPONSE()
    response.partial_success.rejected_spans = count
    response.partial_success.error_message = message
    return bytes(response.SerializeToString())


def rejection_text(rejected: Counter[str]) -> str:
    """One sentence for partial_success: how many spans were rejected, and why."""
    reasons = ", ".join(f"{count} because {reason}" for reason, count in rejected.most_common())
    return f"{rejected.total()} spans rejected: {reasons}"

"""A live tail as server-sent events: one event `spans` a turn, also where nothing came, so that silence is told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import orjson
import structlog

from pipeline.query.live_tail import Arrived, TailSpan
from pipeline.serve.tempo import Json, complete
from topics.errors import SpanstreamError

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # the latter for proxies, which would wait
log = structlog.get_logger("querier")


async def of(turns: AsyncIterator[Arrived]) -> AsyncIterator[bytes]:
    """The body. A question that fails on the way ends it with an event `failed`, the sentence in `message`."""
    try:
        async for turn in turns:
            yield event("spans", _turn(turn))
    except SpanstreamError as exc:
        yield event("failed", {"message": str(exc)})
    except Exception:
        log.exception("live_tail_failed")
        yield event("failed", {"message": "internal error: see the querier's log"})


def event(name: str, data: Json) -> bytes:
    """A server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _turn(turn: Arrived) -> Json:
    return {
        "nowUnixNano": str(time.time_ns()),
        "spans": [_span(one) for one in turn.spans],
        "arrived": turn.arrived,
        "matched": turn.matched,
        "skipped": turn.matched - len(turn.spans),
    } | complete(turn.reasons)


def _span(one: TailSpan) -> Json:
    return {
        "traceID": one.trace_id.hex(),
        "spanID": one.span_id.hex(),
        "name": one.name,
        "serviceName": one.service,
        "kind": one.kind,
        "status": one.status,
        "startTimeUnixNano": str(one.start_unix_ns),
        "durationNanos": str(one.duration_ns),
    }

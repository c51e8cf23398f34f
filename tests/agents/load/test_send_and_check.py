"""Sending and counting back, against a receiver and a querier in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from google.rpc import status_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.load.blocks import Load
from agents.load.check import Counted, Question, check
from agents.load.send import Sent, Target, send, told_by
from pipeline.serve.headers import COPIES_HEADER
from topics.errors import LoadRefusedError, QuerierUnavailableError, ReceiverUnavailableError

LOAD = Load(400, 11)
proto: Any = trace_pb2


class Backend:
    """Keeps what it is sent; says 503 `busy` times, after the requests that it takes first. Answers traces by ID."""

    def __init__(self, busy: int = 0, status: int = 503, takes_first: int = 0) -> None:
        self.busy, self.status, self.takes_first = busy, status, takes_first
        self.traces: dict[bytes, list[Any]] = {}
        self.partial = False
        self.copies = 0

    async def take(self, request: web.Request) -> web.Response:
        self.takes_first -= 1
        if self.busy and self.takes_first < 0:
            self.busy -= 1
            return web.Response(status=self.status, headers={"Retry-After": "0"}, text="not now")
        for resource in proto.TracesData.FromString(await request.read()).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces.setdefault(span.trace_id, []).append(span)
        return web.Response(body=b"")

    async def trace(self, request: web.Request) -> web.Response:
        spans = self.traces.get(bytes.fromhex(request.match_info["id"]), [])
        data = proto.TracesData()
        data.resource_spans.add().scope_spans.add().spans.extend(spans)
        body = data.SerializeToString()
        length = len(body)
        varint = bytearray()
        while length >= 0x80:
            varint.append(length & 0x7F | 0x80)
            length >>= 7
        varint.append(length)
        answer = b"\x0a" + bytes(varint) + body
        body = answer + (b"\x18\x01\x22\x04slow" if self.partial else b"")
        return web.Response(body=body, headers={COPIES_HEADER: str(self.copies)})


@asynccontextmanager
async def served(backend: Backend) -> AsyncIterator[str]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", backend.take)
    app.router.add_get("/api/v2/traces/{id}", backend.trace)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def with_backend(backend: Backend, work: Callable[[str], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with served(backend) as url:
            return await work(url)

    return asyncio.run(run())


def sent_to(backend: Backend, **target: Any) -> Sent:
    sent: Sent = with_backend(backend, lambda url: send(LOAD, Target(url=url, **target)))
    return sent


def counted_from(backend: Backend, sent: Sent | None) -> Counted:
    acknowledged = sent.acknowledged if sent else None
    counted: Counted = with_backend(backend, lambda url: check(LOAD, acknowledged, Question(url=url, settle_s=0)))
    return counted


def test_what_was_sent_is_counted_back_exactly() -> None:
    backend = Backend()

    sent = sent_to(backend)
    counted = counted_from(backend, sent)

    assert sent.spans == sent.spans_acknowledged == counted.spans == LOAD.spans
    assert counted.exact


def test_a_busy_receiver_is_asked_again() -> None:
    backend = Backend(busy=3)

    sent = sent_to(backend)

    assert sent.retries == 3
    assert sent.spans_acknowledged == LOAD.spans


def test_a_receiver_that_stays_away_is_given_up_and_its_spans_need_not_be_there() -> None:
    backend = Backend(busy=10**6, takes_first=1)

    sent = sent_to(backend, give_up_s=0.0, connections=1)
    counted = counted_from(backend, sent)

    assert 0 < sent.spans_acknowledged < sent.spans
    assert "503" in sent.problem
    assert (counted.spans, counted.exact) == (sent.spans_acknowledged, True)


def test_a_wrong_request_is_not_sent_again() -> None:
    with pytest.raises(LoadRefusedError, match="400: not now"):
        sent_to(Backend(busy=1, status=400))


def test_missing_doubled_and_unexpected_spans_are_named() -> None:
    backend = Backend()
    sent = sent_to(backend)
    trace_id, spans = next((one, spans) for one, spans in backend.traces.items() if len(spans) >= 3)
    lost, twice = spans[0].span_id, spans[1].span_id
    foreign = proto.Span(trace_id=trace_id, span_id=b"foreign!")
    backend.traces[trace_id] = [*spans[1:], spans[1], foreign]

    counted = counted_from(backend, sent)

    assert (counted.missing, counted.doubled, counted.unexpected) == (1, 1, 1)
    assert counted.examples == {
        "missing": [f"{trace_id.hex()} {lost.hex()}"],
        "doubled": [f"{trace_id.hex()} {twice.hex()}"],
        "unexpected": [f"{trace_id.hex()} {b'foreign!'.hex()}"],
    }


def test_copies_that_the_querier_merged_are_counted_as_doubled() -> None:
    backend = Backend()
    sent = sent_to(backend)
    backend.copies = 2

    counted = counted_from(backend, sent)

    assert not counted.exact
    assert counted.doubled == 2 * LOAD.traces
    assert counted.examples["doubled"]


def test_a_partial_answer_is_not_exact() -> None:
    backend = Backend()
    sent = sent_to(backend)
    backend.partial = True

    counted = counted_from(backend, sent)

    assert counted.partial == LOAD.traces
    assert counted.partial_reasons == {"slow": LOAD.traces}
    assert not counted.exact


def test_a_url_that_is_no_querier_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.load.check.ASK_AGAIN_S", 0.0)

    with pytest.raises(QuerierUnavailableError, match="does not answer"):
        asyncio.run(check(LOAD, None, Question(url="http://127.0.0.1:1", settle_s=0)))


def test_without_any_acknowledgement_the_rest_is_not_tried() -> None:
    with pytest.raises(ReceiverUnavailableError, match=r"503: not now.*Nothing was acknowledged"):
        sent_to(Backend(busy=10**6), give_up_s=0.0)


def test_what_a_receiver_says_in_protobuf_is_told_as_a_sentence() -> None:
    assert told_by(status_pb2.Status(code=7, message="the token is unknown").SerializeToString()) == (
        "the token is unknown"
    )
    assert told_by(b"not now") == "not now"

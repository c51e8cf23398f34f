"""OTLP/HTTP: `POST /v1/traces` as an ASGI application, with /metrics and /ready beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import orjson
from google.rpc import code_pb2, status_pb2
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline import telemetry
from pipeline.doors.asgi import Receive, Scope, Send, headers_of
from pipeline.doors.door import Caller, Need, refusal
from pipeline.drops import DROPS, PATH
from pipeline.receive.ingest import Ingest
from pipeline.receive.limits import InflightShare
from pipeline.receive.request import Form, form_of, unpack
from topics.errors import (
    KafkaUnavailableError,
    MalformedRequestError,
    OverloadedError,
    RateLimitedError,
    RequestTooLargeError,
    SpanstreamError,
)
from topics.settings import ReceiverSettings

Handler = Callable[[Caller, Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_STATUS: Any = status_pb2.Status
TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
CLOSE = (b"connection", b"close")
NOT_ALLOWED = b"405 method not allowed, supported: [POST]"
UNSUPPORTED = b"415 unsupported media type, supported: [application/json, application/x-protobuf]"
REFUSAL_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
}
TOO_LARGE = "the request is larger than %d bytes"


class _HungUpError(Exception):
    """The sender closed the connection before its body was whole: there is nobody to answer."""


class HttpReceiver:
    """The ASGI application. `ready` says in a sentence why the process cannot take spans, or None when it can."""

    def __init__(self, ingest: Ingest, settings: ReceiverSettings, ready: Callable[[], str | None]) -> None:
        self._ingest, self._settings, self._ready = ingest, settings, ready
        self.routes: dict[str, tuple[Need, Handler]] = {
            "/v1/traces": (Need.WRITE, self._traces),
            "/ready": (Need.NOTHING, self._show_ready),
            "/metrics": (Need.ADMIN, self._show_metrics),
            PATH: (Need.READ, self._show_drops),
        }
        """Path -> what its caller needs, and who answers."""
        self._content_types = {form: [(b"content-type", form.value.encode())] for form in Form}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        need, handler = self.routes.get(scope["path"], (Need.NOTHING, self._show_nothing))
        try:
            caller = self._ingest.door.caller(headers_of(scope), need)
        except SpanstreamError as exc:
            status = await self._refuse(exc, _form_of(scope) if need is Need.WRITE else None, send)
            telemetry.REFUSED.labels(status=status).inc()
            return
        await handler(caller, scope, receive, send)

    async def _show_ready(self, _caller: Caller, _scope: Scope, _receive: Receive, send: Send) -> None:
        missing = self._ready()
        await _answer(send, 200 if missing is None else 503, TEXT, (missing or "ready").encode() + b"\n")

    async def _show_metrics(self, _caller: Caller, scope: Scope, _receive: Receive, send: Send) -> None:
        telemetry.INFLIGHT_BYTES.set(self._ingest.inflight.bytes)
        names = parse_qs(scope["query_string"].decode("latin-1")).get("name[]", [])
        await _answer(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], telemetry.page(names))

    async def _show_drops(self, caller: Caller, _scope: Scope, _receive: Receive, send: Send) -> None:
        """What of the asking tenants' spans this receiver did not take as they were sent."""
        body = DROPS.body(caller.tenants, multitenancy=self._settings.multitenancy)
        await _answer(send, 200, self._content_types[Form.JSON], body)

    async def _show_nothing(self, _caller: Caller, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _answer(send, 404, TEXT, f"404 page not found, there are: {', '.join(self.routes)}\n".encode())

    async def _traces(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        form = _form_of(scope)
        if scope["method"] != "POST":
            status = await _answer(send, 405, [*TEXT, (b"allow", b"POST")], NOT_ALLOWED)
        elif form is None:
            status = await _answer(send, 415, TEXT, UNSUPPORTED)
        else:
            try:
                status = await self._export(caller.tenant, dict(scope["headers"]), (form, receive, send))
            except SpanstreamError as exc:
                status = await self._refuse(exc, form, send)
            except _HungUpError:
                return
        telemetry.REQUESTS.labels(protocol="http", status=status).inc()

    async def _export(self, tenant: str, headers: dict[bytes, bytes], asked: tuple[Form, Receive, Send]) -> int:
        form, receive, send = asked
        with self._ingest.request_of(tenant) as share:
            length, allowed = headers.get(b"content-length", b""), self._ingest.request_bytes_max(tenant)
            if length.isdigit() and int(length) > allowed:
                raise RequestTooLargeError(TOO_LARGE % allowed)
            # The body is handed on, not kept: it can go as soon as it is cut, long before Kafka's answer.
            response = await self._ingest.export(tenant, await self._body(headers, receive, share), form)
        return await _answer(send, 200, self._content_types[form], response)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, share: InflightShare) -> bytes:
        """The unpacked body. Raises RequestTooLargeError, OverloadedError, MalformedRequestError, _HungUpError."""
        body, more = await _next_part(receive)
        share.add(len(body))
        if more:
            try:
                async with asyncio.timeout(self._settings.idle_timeout_s):
                    body = await self._rest(body, receive, share)
            except TimeoutError as exc:
                raise MalformedRequestError(f"the body took longer than {self._settings.idle_timeout_s} s") from exc
        elif len(body) > self._settings.request_bytes_max:
            raise RequestTooLargeError(TOO_LARGE % self._settings.request_bytes_max)
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        unpacked = unpack(body, encoding.decode("latin-1"), self._settings.request_bytes_max)
        share.add(max(0, len(unpacked) - len(body)))
        return unpacked

    async def _rest(self, first: bytes, receive: Receive, share: InflightShare) -> bytes:
        parts, more = [first], True
        while more:
            part, more = await _next_part(receive)
            share.add(len(part))
            if share.bytes > self._settings.request_bytes_max:
                raise RequestTooLargeError(TOO_LARGE % self._settings.request_bytes_max)
            parts.append(part)
        return b"".join(parts)

    async def _refuse(self, error: SpanstreamError, form: Form | None, send: Send) -> int:
        """Answer with google.rpc.Status in the request's form, or as text where it has none."""
        status, code, retry_after_s = status_of(error, self._settings.retry_after_s)
        headers = [*(TEXT if form is None else self._content_types[form])]
        headers += [(name.encode(), value.encode()) for name, value in (refusal(error) or (0, {}))[1].items()]
        if retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))))
        if status in (413, 503):
            headers.append(CLOSE)  # the rest of the body is not read
        if form is Form.JSON:
            body = orjson.dumps({"code": code, "message": str(error)})
        elif form is None:
            body = f"{error}\n".encode()
        else:
            body = _STATUS(code=code, message=str(error)).SerializeToString()
        return await _answer(send, status, headers, body)


def status_of(error: SpanstreamError, retry_after_s: float) -> tuple[int, int, float | None]:
    """(HTTP status, google.rpc code, seconds to wait or None) of an error, for both protocols."""
    if isinstance(error, RateLimitedError):
        return 429, code_pb2.RESOURCE_EXHAUSTED, error.retry_after_s
    if isinstance(error, RequestTooLargeError):
        return 413, code_pb2.INVALID_ARGUMENT, None
    if isinstance(error, MalformedRequestError):
        return 400, code_pb2.INVALID_ARGUMENT, None
    if (refused := refusal(error)) is not None:
        return refused[0], REFUSAL_CODES[refused[0]], None
    if isinstance(error, KafkaUnavailableError | OverloadedError):
        return 503, code_pb2.UNAVAILABLE, retry_after_s
    return 500, code_pb2.INTERNAL, None


def _form_of(scope: Scope) -> Form | None:
    return form_of(headers_of(scope).get("content-type", ""))


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """(some of the body, whether there is more). Raises _HungUpError."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _HungUpError
    return message.get("body", b""), message.get("more_body", False)


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> int:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
    return status

"""OTLP/HTTP: `POST /v1/traces` as an ASGI application, with /metrics and /ready beside it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from google.rpc import code_pb2, status_pb2
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline import telemetry
from pipeline.doors.tenants import NO_TENANT, read_tenants
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
    UnknownTenantError,
)
from topics.settings import ReceiverSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_STATUS: Any = status_pb2.Status
TEXT: Headers = [(b"content-type", b"text/plain; charset=utf-8")]
CLOSE = (b"connection", b"close")
NOT_ALLOWED = b"405 method not allowed, supported: [POST]"
UNSUPPORTED = b"415 unsupported media type, supported: [application/json, application/x-protobuf]"
TOO_LARGE = "the request is larger than %d bytes"


class _HungUpError(Exception):
    """The sender closed the connection before its body was whole: there is nobody to answer."""


class HttpReceiver:
    """The ASGI application. `ready` says in a sentence why the process cannot take spans, or None when it can."""

    def __init__(self, ingest: Ingest, settings: ReceiverSettings, ready: Callable[[], str | None]) -> None:
        self._ingest, self._settings, self._ready = ingest, settings, ready
        self._content_types = {form: [(b"content-type", form.value.encode())] for form in Form}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        if path == "/v1/traces":
            await self._traces(scope, receive, send)
        elif path == "/ready":
            missing = self._ready()
            await _answer(send, 200 if missing is None else 503, TEXT, (missing or "ready").encode() + b"\n")
        elif path == "/metrics":
            telemetry.INFLIGHT_BYTES.set(self._ingest.inflight.bytes)
            await _answer(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], generate_latest())
        elif path == PATH:
            await self._drops(dict(scope["headers"]), send)
        else:
            await _answer(send, 404, TEXT, b"404 page not found: POST /v1/traces, GET /ready, GET /metrics\n")

    async def _drops(self, headers: dict[bytes, bytes], send: Send) -> None:
        """What of the asking tenants' spans this receiver did not take as they were sent."""
        named, multitenancy = headers.get(b"x-scope-orgid"), self._settings.multitenancy
        try:
            tenants = read_tenants(None if named is None else named.decode("latin-1"), multitenancy=multitenancy)
        except UnknownTenantError as exc:
            status, _, _ = status_of(exc, self._settings.retry_after_s)
            await _answer(send, status, TEXT, f"{exc}\n".encode())
            return
        body = DROPS.body(tenants, multitenancy=multitenancy)
        await _answer(send, 200, self._content_types[Form.JSON], body)

    async def _traces(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        form = form_of(headers.get(b"content-type", b"").decode("latin-1"))
        if scope["method"] != "POST":
            status = await _answer(send, 405, [*TEXT, (b"allow", b"POST")], NOT_ALLOWED)
        elif form is None:
            status = await _answer(send, 415, TEXT, UNSUPPORTED)
        else:
            try:
                status = await self._export(headers, form, receive, send)
            except SpanstreamError as exc:
                status = await self._refuse(exc, form, send)
            except _HungUpError:
                return
        telemetry.REQUESTS.labels(protocol="http", status=status).inc()

    async def _export(self, headers: dict[bytes, bytes], form: Form, receive: Receive, send: Send) -> int:
        tenant_header = headers.get(b"x-scope-orgid")
        tenant = self._ingest.tenant_of(None if tenant_header is None else tenant_header.decode("latin-1"))
        with self._ingest.request_of(tenant) as share:
            length = headers.get(b"content-length", b"")
            if length.isdigit() and int(length) > self._settings.request_bytes_max:
                raise RequestTooLargeError(TOO_LARGE % self._settings.request_bytes_max)
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

    async def _refuse(self, error: SpanstreamError, form: Form, send: Send) -> int:
        status, code, retry_after_s = status_of(error, self._settings.retry_after_s)
        headers = [*self._content_types[form]]
        if retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))))
        if status in (413, 503):
            headers.append(CLOSE)  # the rest of the body is not read
        if form is Form.JSON:
            body = orjson.dumps({"code": code, "message": str(error)})
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
    if isinstance(error, UnknownTenantError):
        missing = str(error) == NO_TENANT
        return (401, code_pb2.UNAUTHENTICATED, None) if missing else (400, code_pb2.INVALID_ARGUMENT, None)
    if isinstance(error, KafkaUnavailableError | OverloadedError):
        return 503, code_pb2.UNAVAILABLE, retry_after_s
    return 500, code_pb2.INTERNAL, None


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

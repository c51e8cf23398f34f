"""A door before an ASGI application: no route of it is reached without passing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pipeline import telemetry
from pipeline.doors.door import Caller, Door, Need, refusal
from pipeline.doors.tenants import NO_TENANT
from topics.errors import SpanstreamError, UnknownTenantError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
CALLER = "spanstream.caller"


class Guarded:
    """The application behind its door. need_of: what a path needs; whoever forgets one gets what its default says."""

    def __init__(self, app: Any, door: Door, need_of: Callable[[str], Need]) -> None:
        self._app, self._door, self._need_of = app, door, need_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it as Tempo does: the sentence as plain text."""
        if scope["type"] != "http":
            return  # neither websockets nor a lifespan
        try:
            scope[CALLER] = self._door.caller(headers_of(scope), self._need_of(scope["path"]))
        except SpanstreamError as error:
            status, headers = refusal(error) or (500, {})
            telemetry.REFUSED.labels(status=status).inc()
            body = b"" if scope["method"] == "HEAD" else f"{error}\n".encode()
            named = [(name.encode(), value.encode()) for name, value in headers.items()]
            start = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *named]
            await send({"type": "http.response.start", "status": status, "headers": start})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers of an ASGI request, names in lower case. Of one that comes twice the first counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def tenants_of(scope: Scope) -> list[str]:
    """Whose spans a request that passed its door is about. Raises UnknownTenantError where it did not say so."""
    tenants = list(caller_of(scope).tenants)
    if not tenants:
        raise UnknownTenantError(NO_TENANT)
    return tenants


def caller_of(scope: Scope) -> Caller:
    """Who sent a request that passed its door. KeyError for one that did not: such a route must not answer."""
    found: Caller = scope[CALLER]
    return found

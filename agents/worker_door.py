"""A worker's door: a middleware of its web server, which Faust's own pages pass too."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pipeline import telemetry
from pipeline.doors.door import Door, Need, refusal
from pipeline.drops import PATH
from topics.errors import SpanstreamError

CALLER = "spanstream.caller"
NEEDS = {"/live": Need.PEER, "/ready": Need.NOTHING, PATH: Need.READ}


def need_of(path: str) -> Need:
    """What a path needs of who asks. What is not ours is Faust's, and for operators."""
    if path == "/tables" or path.startswith("/tables/"):
        return Need.READ
    return NEEDS.get(path, Need.ADMIN)


def guarded(door: Door) -> Middleware:
    """Lets a request in, or answers it with the reason."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            headers = {name.lower(): value for name, value in reversed(list(request.headers.items()))}
            request[CALLER] = door.caller(headers, need_of(request.path))
        except SpanstreamError as error:
            status, added = refusal(error) or (500, {})
            telemetry.REFUSED.labels(status=status).inc()
            return web.Response(status=status, headers=added, text=f"{error}\n")
        return await handler(request)

    found: Any = guard
    return found

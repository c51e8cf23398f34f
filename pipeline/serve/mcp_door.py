"""`/api/mcp`: an assistant's questions, each answered as if its caller had asked the route itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from pipeline.doors.asgi import Receive, Scope, Send, headers_of
from pipeline.doors.door import AUTHORIZATION
from pipeline.serve.mcp_server import make_server
from pipeline.serve.plain_json import Json
from topics.errors import BadQuestionError
from topics.spans_by_trace import TENANT_HEADER

REQUEST_BYTES_MAX = 1 << 20
KEPT = (AUTHORIZATION, TENANT_HEADER.lower())


class McpDoor:
    """An ASGI application: streamable HTTP without sessions. app: the whole API, its door included."""

    def __init__(self, bytes_max: int) -> None:
        """bytes_max: of an answer. Set `app` before the first request."""
        self._bytes_max = bytes_max
        self.app: Starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a POST; there is nothing that the server would say by itself, so a GET gets 405."""
        if scope["method"] != "POST":
            response = PlainTextResponse("MCP is asked with POST\n", 405, {"allow": "POST"})
            await response(scope, receive, send)
            return
        await asyncio.to_thread(_load)  # a second of CPU, once: others are answered meanwhile
        import httpx
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        given = headers_of(scope)
        headers = {name: given[name] for name in KEPT if name in given} | {"accept": "application/json"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://querier", headers=headers) as client:
            server = make_server(asking(client), self._bytes_max)
            manager = StreamableHTTPSessionManager(
                server, json_response=True, stateless=True, max_request_body_size=REQUEST_BYTES_MAX
            )
            async with manager.run():
                await manager.handle_request(scope, receive, send)


def _load() -> None:
    import mcp.server.lowlevel
    import mcp.server.streamable_http_manager  # noqa: F401


def asking(client: Any) -> Any:
    """How tools ask with an httpx.AsyncClient. What is not 200 is raised as BadQuestionError, with the sentence."""

    async def ask(path: str, params: Mapping[str, str]) -> Json:
        answer = await client.get(path, params=params)
        if answer.status_code != 200:
            raise BadQuestionError(answer.text.strip()[:2000] or f"the querier answered {answer.status_code}")
        found: Json = answer.json()
        return found

    return ask

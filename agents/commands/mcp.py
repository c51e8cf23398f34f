"""`spanstream mcp`: a querier's tools for an assistant that starts programs: the Model Context Protocol on stdio."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from functools import partial

import httpx
import rich_click as click

from agents.commands.querier import Querier, asks_querier_without_json
from agents.exit_codes import INTERRUPTED
from pipeline.serve.mcp_door import asking
from pipeline.serve.mcp_server import make_server
from pipeline.serve.plain_json import Json
from topics.errors import QuerierUnavailableError


@click.command()
@partial(asks_querier_without_json, settings=("querier.mcp_answer_bytes_max",))
def mcp(querier: Querier) -> None:
    """Speak the Model Context Protocol on standard input and output, and ask a querier.

    For an assistant's list of servers: command `spanstream`, arguments `mcp --url http://127.0.0.1:3200`.
    """
    # A thread waits for standard input, and an interpreter that ends would wait for it
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    asyncio.run(_speak(querier))


async def _speak(querier: Querier) -> None:
    from mcp.server.stdio import stdio_server

    async with httpx.AsyncClient(
        base_url=querier.url, headers=querier.headers, timeout=querier.terminal.querier_timeout_s, verify=querier.tls
    ) as client:

        async def ask(path: str, params: Mapping[str, str]) -> Json:
            try:
                return await asking(client)(path, params)
            except httpx.HTTPError as exc:
                raise QuerierUnavailableError(f"the querier at {querier.url} does not answer ({exc})") from exc

        server = make_server(ask, querier.settings.querier.mcp_answer_bytes_max)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

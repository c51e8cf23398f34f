"""The Model Context Protocol by the official package: the tools of mcp_tools, the pages as resources.

The package costs a process 1 s of CPU and 30 MB, so it is imported with the first request of an assistant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from pipeline.serve import mcp_docs
from pipeline.serve.mcp_tools import TOOLS, Ask, Tool
from pipeline.serve.plain_json import Json
from topics.errors import BadQuestionError, SpanstreamError

NAME, VERSION = "spanstream", "1"
INSTRUCTIONS = (
    "Traces of a distributed system. Begin with services and get-attribute-names; traceql-search finds traces,"
    " get-trace shows one, compare says what slow or failing requests have in common. Long answers are cut:"
    " total_count and truncated say so."
)
RESOURCES: dict[str, Callable[[], str]] = {
    **{f"docs://traceql/{name}": lambda name=name: mcp_docs.traceql(name) for name in mcp_docs.TRACEQL},  # type: ignore[misc]
    **{f"docs://config/{name}": lambda name=name: mcp_docs.config(name) for name in mcp_docs.CONFIG},  # type: ignore[misc]
}


def make_server(ask: Ask, bytes_max: int) -> Any:
    """An mcp.server.Server. ask: a route of the querier, as the caller; bytes_max: of an answer."""
    from mcp import types
    from mcp.server.lowlevel import Server

    async def tools(_context: Any, _params: Any) -> Any:
        return types.ListToolsResult(tools=[types.Tool.model_validate(_described(*one)) for one in TOOLS.items()])

    async def call(_context: Any, params: Any) -> Any:
        try:
            text, failed = await answered(ask, params.name, params.arguments or {}, bytes_max), False
        except SpanstreamError as exc:
            text, failed = str(exc), True
        return types.CallToolResult.model_validate(
            {
                "content": [{"type": "text", "text": text}],
                "isError": failed,
                "_meta": {"type": params.name, "encoding": "text" if failed else "json", "version": VERSION},
            }
        )

    async def resources(_context: Any, _params: Any) -> Any:
        listed = [{"uri": uri, "name": uri.partition("://")[2], "mimeType": "text/markdown"} for uri in RESOURCES]
        return types.ListResourcesResult.model_validate({"resources": listed})

    async def read(_context: Any, params: Any) -> Any:
        uri = str(params.uri)
        if uri not in RESOURCES:
            raise ValueError(f"no resource {uri[:100]!r}")
        content = {"uri": uri, "mimeType": "text/markdown", "text": RESOURCES[uri]()}
        return types.ReadResourceResult.model_validate({"contents": [content]})

    return Server(
        NAME,
        version=VERSION,
        instructions=INSTRUCTIONS,
        on_list_tools=tools,
        on_call_tool=call,
        on_list_resources=resources,
        on_read_resource=read,
    )


def _described(name: str, tool: Tool) -> Json:
    properties = {key: {"type": "string", "description": text} for key, text in tool.parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(tool.required)}
    return {
        "name": name,
        "description": tool.description,
        "inputSchema": schema,
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }


async def answered(ask: Ask, name: str, given: Mapping[str, Any], bytes_max: int) -> str:
    """What a tool answers, as JSON. Raises BadQuestionError for what is no tool or not its parameters, and what the
    querier says is wrong.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise BadQuestionError(f"no tool {name[:60]!r}: there are {', '.join(TOOLS)}")
    unknown, missing = sorted(set(given) - set(tool.parameters)), [one for one in tool.required if not given.get(one)]
    if unknown or missing:
        wrong = f"{unknown[0][:60]!r} is no parameter" if unknown else f"{missing[0]} is missing"
        raise BadQuestionError(f"{wrong}: {name} takes {', '.join(tool.parameters)}")
    told = await tool.run(ask, {key: str(value) for key, value in given.items() if value is not None})
    return bounded(told, tool.many, bytes_max)


def bounded(told: Json, many: str, bytes_max: int) -> str:
    """The answer as JSON of so many bytes at most: of its list, or text, as much of the beginning as fits."""
    whole, follows = told[many], bool(told.pop("more_follow", False))
    low, high = 0, len(whole)

    def written(count: int) -> bytes:
        cut = {"total_count": len(whole), "truncated": follows or count < len(whole)}
        return orjson.dumps(told | {many: whole[:count]} | cut)

    if len(body := written(high)) > bytes_max:
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(written(middle)) <= bytes_max else (low, middle - 1)
        body = written(low)
    return body.decode()

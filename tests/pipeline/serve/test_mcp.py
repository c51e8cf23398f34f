"""An assistant's tools, asked with the official client, over HTTP and over stdio."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, get_default_environment
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr

from pipeline.query.questions import Questions
from pipeline.serve.mcp_server import bounded
from pipeline.serve.querier import Querier
from tests.doors import new_token
from tests.pages import ROOT
from tests.pipeline.query.world import OneSpan, span_id, trace_id
from tests.pipeline.serve.api import ports, with_querier
from topics.settings import DoorSettings, Settings

SPANS = [
    OneSpan(1, 1, name="GET /cart", kind=2, duration_ms=250, attributes=(("http.code", 500),), status=2),
    OneSpan(1, 2, 1, 5, 20, "SELECT", "db", 3, events=(("tried", (("times", 3),)),)),
    OneSpan(2, 3, name="GET /cart", kind=2, start_ms=60_000, duration_ms=10, attributes=(("http.code", 200),)),
]
AROUND = {"start": "2023-11-14T22:13:10Z", "end": "2023-11-14T22:15:00Z"}
TOOLS = {
    *("traceql-search", "traceql-metrics-instant", "traceql-metrics-range", "get-trace", "get-attribute-names"),
    *("get-attribute-values", "services", "sql", "compare", "trace-diff", "docs-traceql", "docs-config"),
}


def with_client(
    tmp_path: Path, test: Callable[[Client], Awaitable[None]], spans: list[OneSpan] = SPANS, **querier: Any
) -> None:
    async def asked(running: Querier, _questions: Questions) -> None:
        async with Client(f"http://127.0.0.1:{running.http_port}/api/mcp") as client:
            await test(client)

    with_querier(ports(tmp_path, **querier), spans, asked)


async def ask(client: Client, tool: str, **given: str) -> dict[str, Any]:
    result = await client.call_tool(tool, given)
    text = result.content[0].text  # type: ignore[union-attr]
    assert not result.is_error, text
    assert (result.meta or {})["type"] == tool
    found: dict[str, Any] = json.loads(text)
    return found


async def refused(client: Client, tool: str, **given: str) -> str:
    result = await client.call_tool(tool, given)
    assert result.is_error
    return result.content[0].text  # type: ignore[union-attr]


def test_the_tools_and_pages_are_listed(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        assert all(tool.description and tool.input_schema["type"] == "object" for tool in listed)
        uris = [str(one.uri) for one in (await client.list_resources()).resources]
        assert {"docs://traceql/basic", "docs://traceql/metrics", "docs://config/reference"} <= set(uris)
        texts = [(await client.read_resource(uri)).contents[0].text for uri in uris]  # type: ignore[union-attr]
        assert all(len(text) > 300 for text in texts)
        assert "## 9. Metrics queries" in texts[uris.index("docs://traceql/metrics")]

    with_client(tmp_path, test)


def test_each_tool_answers_what_it_promises(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        found = await ask(client, "traceql-search", query="{ status = error }", **AROUND)
        assert [one["traceID"] for one in found["traces"]] == [trace_id(1).hex()]
        assert (found["total_count"], found["truncated"]) == (1, False)
        found = await ask(client, "traceql-search", query="{}", limit="1", **AROUND)
        assert (found["traces"][0]["traceID"], found["truncated"]) == (trace_id(2).hex(), True)

        one, two = (await ask(client, "get-trace", trace_id=trace_id(1).hex()))["spans"]
        assert (one["name"], one["attributes"], one["durationMs"]) == ("GET /cart", {"http.code": 500}, 250)
        assert (two["parentSpanId"], two["service"]) == (span_id(1).hex(), "db")
        assert two["events"] == [{"name": "tried", "attributes": {"times": 3}}]

        (series,) = (await ask(client, "traceql-metrics-instant", query="{} | count_over_time()", **AROUND))["series"]
        assert series["value"] == 3
        query = "{} | count_over_time() by (name)"
        found = await ask(client, "traceql-metrics-range", query=query, step="60s", **AROUND)
        assert sorted(one["labels"]["name"] for one in found["series"]) == ["GET /cart", "SELECT"]

        names = (await ask(client, "get-attribute-names", scope="span", **AROUND))["names"]
        assert names == ["span.http.code"]
        given = {"name": "span.http.code", "filter-query": "{ status = error }", **AROUND}
        assert (await ask(client, "get-attribute-values", **given))["values"] == [{"type": "int", "value": "500"}]

        services = (await ask(client, "services", **AROUND))["services"]
        assert services == [
            {"service": "db", "operations": {"SELECT": 1}},
            {"service": "shop", "operations": {"GET /cart": 2}},
        ]
        found = await ask(client, "sql", query="SELECT name, count(*) AS n FROM spans GROUP BY 1 ORDER BY 2", **AROUND)
        assert (found["rows"], found["total_count"]) == ([["SELECT", 1], ["GET /cart", 2]], 2)

        found = await ask(client, "compare", selection="{ status = error }", query='{ name = "GET /cart" }', **AROUND)
        codes = {one["value"]: one for one in found["attributes"] if one["attribute"] == "span.http.code"}
        assert (codes["500"]["selection_share"], codes["500"]["baseline_share"]) == (1, 0)
        assert (codes["200"]["selection_spans"], codes["200"]["baseline_spans"]) == (0, 1)

        found = await ask(client, "trace-diff", base=trace_id(1).hex(), compare=trace_id(2).hex())
        assert (found["base_spans"], found["compare_spans"]) == (2, 1)
        assert found["operations"][0] == {
            "service": "shop",
            "operation": "GET /cart",
            "base": {"spans": 1, "errors": 1, "durationMs": 250.0},
            "compare": {"spans": 1, "errors": 0, "durationMs": 10.0},
        }
        assert "## 7." in (await ask(client, "docs-traceql", name="structural"))["text"]
        assert "querier.http_port" in (await ask(client, "docs-config", name="reference"))["text"]

    with_client(tmp_path, test, mcp_answer_bytes_max=1 << 20)


def test_what_is_wrong_is_told_with_what_to_do(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        assert "traceql-metrics-range" in await refused(client, "traceql-search", query="{} | rate()")
        assert "traceql-search" in await refused(client, "traceql-metrics-instant", query="{}")
        assert "did you mean error?" in await refused(client, "traceql-search", query="{ status = eror }")
        assert "name =~" in await refused(client, "traceql-search", query='{ name =~ "(" }')
        assert "query is missing" in await refused(client, "traceql-search")
        assert "'querry' is no parameter" in await refused(client, "sql", querry="SELECT 1")
        assert "no time as in" in await refused(client, "services", start="yesterday")
        assert "start must be before end" in await refused(client, "services", start=AROUND["end"], end=AROUND["start"])
        assert "no trace ID" in await refused(client, "get-trace", trace_id="../search")
        assert "no whole number from 1 to 200" in await refused(client, "traceql-search", query="{}", limit="1000")
        assert "is known" in await refused(client, "trace-diff", base="1", compare="2")
        assert "invalid SQL" in await refused(client, "sql", query="SELECT * FROM nothing")
        assert "there are basic" in await refused(client, "docs-traceql", name="none")
        assert "no tool 'drop'" in await refused(client, "drop")

    with_client(tmp_path, test)


def test_a_long_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    spans = [OneSpan(1, n + 1, start_ms=n, name=f"operation {n} {'x' * 100}") for n in range(200)]

    async def test(client: Client) -> None:
        result = await client.call_tool("get-trace", {"trace_id": trace_id(1).hex()})
        text = result.content[0].text  # type: ignore[union-attr]
        found = json.loads(text)
        assert 3500 < len(text) <= 4096
        assert (found["total_count"], found["truncated"]) == (200, True)
        assert [one["name"].split()[1] for one in found["spans"]] == [str(n) for n in range(len(found["spans"]))]

    with_client(tmp_path, test, spans, mcp_answer_bytes_max=4096)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 100])
def test_as_much_of_a_list_as_fits_is_told(size: int) -> None:
    whole = ["ü" * 10] * size

    told = bounded({"values": whole}, "values", 200)

    found = json.loads(told)
    assert len(told.encode()) <= 200
    assert found["truncated"] == (len(found["values"]) < size)
    assert (found["total_count"], found["values"]) == (size, whole[: len(found["values"])])


def test_a_caller_asks_as_itself_and_sees_its_own(tmp_path: Path) -> None:
    tokens = {one: new_token(tmp_path / "tokens.json", "read", tenants=(one,)) for one in ("single-tenant", "b")}
    settings = ports(tmp_path, multitenancy=True)
    doors = DoorSettings(tokens_path=str(tmp_path / "tokens.json"), peer_token=SecretStr("planted"))
    settings = Settings(**{**dict(settings), "doors": doors})

    async def test(running: Querier, _questions: Questions) -> None:
        url = f"http://127.0.0.1:{running.http_port}/api/mcp"
        async with httpx.AsyncClient() as plain:
            assert (await plain.post(url, json={})).status_code == 401
            assert (await plain.get(url)).status_code == 401
            known = {"Authorization": f"Bearer {tokens['b']}"}
            assert (await plain.get(url, headers=known)).status_code == 405
            assert (await plain.post(url, headers=known, content=b"no JSON")).status_code in (400, 406)
        for tenant, services in (("single-tenant", 2), ("b", 0)):
            shown = {"Authorization": f"Bearer {tokens[tenant]}"}
            async with (
                httpx2.AsyncClient(headers=shown) as http,
                Client(streamable_http_client(url, http_client=http)) as client,
            ):
                assert (await ask(client, "services", **AROUND))["total_count"] == services

    with_querier(settings, SPANS, test)


def test_the_command_speaks_on_stdio_and_asks_a_querier(tmp_path: Path) -> None:
    async def test(running: Querier, _questions: Questions) -> None:
        arguments = ["-m", "agents.cli", "mcp", "--url", f"http://127.0.0.1:{running.http_port}"]
        async with Client(StdioServerParameters(command=sys.executable, args=arguments, cwd=ROOT)) as client:
            found = await ask(client, "traceql-search", query="{ status = error }", **AROUND)
            assert [one["traceID"] for one in found["traces"]] == [trace_id(1).hex()]
            assert "invalid SQL" in await refused(client, "sql", query="SELECT")
        arguments[-1] = "http://127.0.0.1:9"
        async with Client(StdioServerParameters(command=sys.executable, args=arguments, cwd=ROOT)) as client:
            assert "does not answer" in await refused(client, "services")

    with_querier(ports(tmp_path), SPANS, test)


@pytest.mark.parametrize("given_by", ["flag", "environment", "file"])
def test_the_command_cuts_answers_at_the_bound_of_its_settings(tmp_path: Path, given_by: str) -> None:
    file = tmp_path / "spanstream.toml"
    file.write_text("[querier]\nmcp_answer_bytes_max = 4096\n")
    arguments = {"flag": ["--querier-mcp-answer-bytes-max", "4096"], "file": ["--config", str(file)]}.get(given_by, [])
    environment = {"SPANSTREAM_QUERIER_MCP_ANSWER_BYTES_MAX": "4096"} if given_by == "environment" else {}
    spans = [OneSpan(one, one, name="x" * 200, start_ms=one) for one in range(1, 41)]

    async def test(running: Querier, _questions: Questions) -> None:
        command = ["-m", "agents.cli", "mcp", "--url", f"http://127.0.0.1:{running.http_port}", *arguments]
        spoken = StdioServerParameters(
            command=sys.executable, args=command, cwd=ROOT, env={**get_default_environment(), **environment}
        )
        async with Client(spoken) as client:
            result = await client.call_tool("traceql-search", {"query": "{}", "limit": "40", **AROUND})
            assert len(result.content[0].text) <= 4096  # type: ignore[union-attr]

    with_querier(ports(tmp_path), spans, test)


def test_a_querier_that_no_assistant_asks_does_not_load_the_package() -> None:
    code = "import sys, pipeline.serve.querier; print([one for one in ('mcp', 'httpx') if one in sys.modules])"

    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)

    assert told.stdout.strip() == b"[]"

"""The OpenAPI document says what the routes do: each of them, its parameters, its statuses, its forms."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from pipeline.serve import openapi, params
from pipeline.serve.search_rows import SEARCH_FORMATS
from pipeline.serve.sql import SQL_FORMATS
from tests.pipeline.query.world import OneSpan, span_id, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api
from tests.test_isolation import QUERIER

DOCUMENT: Any = json.loads(openapi.document())
VALUES = {
    "trace_id": trace_id(1).hex(),
    "other_id": trace_id(1).hex(),
    "span_id": span_id(1).hex(),
    "tag": "name",
    "id": "none",
    "rest": "services",
    "tenant": "shop",
}
ENDLESS = ("/api/tail", "/api/mcp")  # the first never ends, the second is a protocol of its own: tested by its client


def operations() -> list[tuple[str, str, Any]]:
    return [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def test_every_route_of_the_querier_is_described_and_no_other() -> None:
    assert set(DOCUMENT["paths"]) == {path.replace(":path}", "}") for path in QUERIER}


def test_every_reference_leads_somewhere_and_every_part_of_a_path_is_described() -> None:
    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', openapi.document().decode())):
        found = DOCUMENT
        for part in reference.split("/"):
            found = found[part]
    for path, _, operation in operations():
        named = {one["name"] for one in operation["parameters"] if one.get("in") == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def test_a_searchs_parameters_are_those_that_it_reads() -> None:
    (search,) = [one for path, _, one in operations() if path == "/api/search"]

    assert {one["name"] for one in search["parameters"] if one.get("in") == "query"} == params.SEARCH_PARAMETERS


def test_the_forms_of_an_answer_are_those_that_it_can_be_asked_for() -> None:
    for path, forms in (("/api/search", SEARCH_FORMATS), ("/api/sql", SQL_FORMATS)):
        for operation in DOCUMENT["paths"][path].values():
            (named,) = [one["schema"]["enum"] for one in operation["parameters"] if one.get("name") == "format"]
            assert named == list(forms)


def test_every_route_answers_with_a_status_and_a_form_that_is_described(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[str]:
        wrong = []
        for path, method, operation in operations():
            if path in ENDLESS or path == "/assets":
                continue
            for asked in ({}, {"q": "{", "since": "x", "start": "x"}):
                url = re.sub(r"{(\w+)}", lambda named: VALUES[named[1]], path)
                answer = await client.request(method, url, params=asked, headers={"Accept": "*/*"})
                form = answer.headers.get("content-type", "").partition(";")[0]
                described = operation["responses"].get(str(answer.status_code))
                if described is None or (answer.status_code == 200 and not {form, "*/*"} & set(described["content"])):
                    wrong.append(f"{method} {url} {asked}: {answer.status_code} {form}")
        return wrong

    assert not with_api(settings_of(tmp_path), lambda world: world.send([OneSpan(1, 1)]), test)


def test_the_document_is_served_to_everybody(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get(openapi.PATH)

    answer = with_api(settings_of(tmp_path, multitenancy=True), lambda _: None, test)  # no tenant is named

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == DOCUMENT


def test_a_parameter_that_means_something_else_of_a_route_is_described_there() -> None:
    def start_of(path: str) -> Any:
        (found,) = [one for one in DOCUMENT["paths"][path]["get"]["parameters"] if one.get("name") == "start"]
        return found["schema"]["type"], found["description"].partition(":")[0].partition(",")[0]

    assert start_of("/api/search") == ("integer", "Unix seconds; with end")
    assert start_of("/api/traces/{trace_id}") == ("integer", "Unix seconds")
    assert start_of("/api/metrics/query_range") == ("string", "Unix seconds")

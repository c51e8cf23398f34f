"""Traces, tags and values for language models."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.pipeline.query.world import trace_id
from tests.pipeline.serve.api import World, settings_of, with_api
from tests.pipeline.serve.test_app import CHILD, ROOT


def test_a_trace_for_language_models_has_plain_attributes_and_hexadecimal_ids(tmp_path: Path) -> None:
    wanted = {"Accept": "application/vnd.grafana.llm"}

    async def test(client: httpx.AsyncClient, world: World) -> list[httpx.Response]:
        paths = [f"/api/v2/traces/{trace_id(1).hex()}", "/api/v2/traces/1a2b", f"/api/traces/{trace_id(1).hex()}"]
        return [await client.get(path, headers=wanted) for path in paths]

    known, unknown, first = with_api(settings_of(tmp_path), lambda world: world.send([ROOT, CHILD]), test)

    assert {one.headers["content-type"] for one in (known, unknown, first)} == {"application/vnd.grafana.llm+json"}
    told = known.json()
    assert told["trace"]["traceId"] == trace_id(1).hex()
    assert int(told["metrics"]["inspectedBytes"]) > 0
    shop, db = told["trace"]["services"]
    assert shop == {
        "serviceName": "shop",
        "scopes": [
            {
                "name": "lib",
                "version": "1",
                "spans": [
                    {
                        "spanId": "0000000000000001",
                        "name": "GET /cart",
                        "kind": "SPAN_KIND_SERVER",
                        "startTimeUnixNano": "1700000000000000000",
                        "endTimeUnixNano": "1700000000250000000",
                        "durationMs": 250.0,
                        "attributes": {"http.status_code": 200, "ok": False},
                    }
                ],
            }
        ],
    }
    (span,) = db["scopes"][0]["spans"]
    assert span["parentSpanId"] == "0000000000000001"
    assert span["status"] == {"code": "STATUS_CODE_ERROR"}
    assert span["attributes"] == {"r": 0.5, "list": ["x"], "raw": "AP8="}
    assert unknown.json() == {}
    assert len(first.json()["batches"]) == 2


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/vnd.grafana.llm", "application/vnd.grafana.llm+json"),
        ("application/json, application/vnd.grafana.llm", "application/json"),
        ("application/vnd.grafana.llm, application/protobuf", "application/protobuf"),
    ],
)
def test_tags_come_for_language_models_where_they_are_asked_for_first(
    tmp_path: Path, accept: str, media_type: str
) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[httpx.Response]:
        paths = ["/api/v2/search/tags", "/api/v2/search/tag/.http.status_code/values"]
        return [await client.get(path, headers={"Accept": accept}) for path in paths]

    names, values = with_api(settings_of(tmp_path), lambda world: world.send([ROOT, CHILD]), test)

    assert {one.headers["content-type"] for one in (names, values)} == {media_type}
    if media_type.endswith("llm+json"):
        assert names.json()["scopes"]["resource"] == ["service.name"]
        assert values.json()["tagValues"] == {"int": ["200"]}

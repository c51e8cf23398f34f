"""The HTTP API answers as Tempo's clients expect it."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from starlette.datastructures import QueryParams
from starlette.responses import PlainTextResponse

from agents.trace_answer import read_answer
from pipeline.serve import messages
from pipeline.serve.formats import REASONS_HEADER
from pipeline.serve.params import tag_limit_of
from pipeline.serve.statuses import status_of
from pipeline.serve.ui import bundle
from tests.pipeline.query.world import T0, OneSpan, span_id, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api
from topics.errors import OvertakenError, SpanSchemaError, SpanstreamError, StoreUnavailableError

ROOT = OneSpan(1, 1, name="GET /cart", kind=2, duration_ms=250, attributes=(("http.status_code", 200), ("ok", False)))
CHILD = OneSpan(
    1, 2, 1, 5, 20, "SELECT <b>", "db", 3, status=2, attributes=(("r", 0.5), ("list", ["x"]), ("raw", b"\x00\xff"))
)
AROUND = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}


def get(
    tmp_path: Path, path: str, spans: list[OneSpan], *, headers: dict[str, str] | None = None, **querier: Any
) -> httpx.Response:
    """One answer of a querier that knows these spans."""

    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get(path, headers=headers or {})

    return with_api(settings_of(tmp_path, **querier), lambda world: world.send(spans), test)


# ---- traces


def test_a_trace_in_version_1_stands_under_batches_with_base64_ids(tmp_path: Path) -> None:
    answer = get(tmp_path, f"/api/traces/{trace_id(1).hex()}", [ROOT, CHILD])

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    first, second = answer.json()["batches"]
    assert first["resource"] == {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    (scope,) = first["scopeSpans"]
    assert scope["scope"] == {"name": "lib", "version": "1"}
    assert scope["spans"] == [
        {
            "traceId": base64.b64encode(trace_id(1)).decode(),
            "spanId": "AAAAAAAAAAE=",
            "name": "GET /cart",
            "kind": "SPAN_KIND_SERVER",
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000000250000000",
            "attributes": [
                {"key": "http.status_code", "value": {"intValue": "200"}},
                {"key": "ok", "value": {"boolValue": False}},
            ],
            "status": {},
        }
    ]
    (span,) = second["scopeSpans"][0]["spans"]
    assert span["parentSpanId"] == "AAAAAAAAAAE="
    assert span["status"] == {"code": "STATUS_CODE_ERROR"}
    assert {pair["key"]: pair["value"] for pair in span["attributes"]} == {
        "r": {"doubleValue": 0.5},
        "list": {"arrayValue": {"values": [{"stringValue": "x"}]}},
        "raw": {"bytesValue": "AP8="},
    }


def test_a_trace_in_version_2_stands_under_trace(tmp_path: Path) -> None:
    answer = get(tmp_path, f"/api/v2/traces/{trace_id(1).hex()}", [ROOT, CHILD]).json()

    assert len(answer["trace"]["resourceSpans"]) == 2
    assert int(answer["metrics"]["inspectedBytes"]) > 0
    assert set(answer) == {"trace", "metrics"}


def test_a_trace_comes_as_protobuf_too(tmp_path: Path) -> None:
    wanted = {"Accept": "application/protobuf"}

    first = get(tmp_path / "1", f"/api/traces/{trace_id(1).hex()}", [ROOT, CHILD], headers=wanted)
    second = get(tmp_path / "2", f"/api/v2/traces/{trace_id(1).hex()}", [ROOT, CHILD], headers=wanted)

    assert first.headers["content-type"] == "application/protobuf"
    trace = TracesData.FromString(first.content)
    assert [s.span_id for b in trace.resource_spans for p in b.scope_spans for s in p.spans] == [span_id(1), span_id(2)]
    read = read_answer(second.content)
    assert read.traces_data == trace
    assert not read.partial


def test_an_unknown_trace_is_404_in_version_1_and_empty_in_version_2(tmp_path: Path) -> None:
    first = get(tmp_path / "1", "/api/traces/1a2b", [ROOT])
    second = get(tmp_path / "2", "/api/v2/traces/1a2b", [ROOT])

    assert (first.status_code, first.content) == (404, b"")
    assert (second.status_code, second.json()["trace"]) == (200, {})


def test_a_trace_above_the_limit_is_422_in_version_1_and_partial_in_version_2(tmp_path: Path) -> None:
    spans = [replace(CHILD, id=n, attributes=(("filler", "x" * 100),)) for n in range(1, 40)]

    first = get(tmp_path / "1", f"/api/traces/{trace_id(1).hex()}", spans, trace_bytes_max=1024)
    second = get(tmp_path / "2", f"/api/v2/traces/{trace_id(1).hex()}", spans, trace_bytes_max=1024).json()

    assert (first.status_code, first.text) == (422, "trace exceeds max size (max bytes: 1024)\n")
    assert second["status"] == "PARTIAL"
    assert second["message"] == "Trace exceeds maximum size of 1024 bytes, a partial trace is returned"
    assert 0 < len(second["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"]) < 39


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/api/traces/xyz", 400, "trace IDs can only contain hex characters: invalid character 'x' at position 1"),
        (f"/api/v2/traces/{'0' * 33}", 400, "trace IDs can't be larger than 128 bits"),
        ("/api/traces/1?start=5&end=5", 400, "http parameter start must be before end. received start=5 end=5"),
        ("/api/traces/1?mode=x", 400, "invalid value for mode x"),
        ("/api/search?limit=0", 400, "invalid limit: must be a positive number"),
        ("/api/search?limit=999999", 400, "limit 999999 exceeds max limit 262144"),
        ("/api/search?spss=101", 400, "spans per span set exceeds 100. received 101"),
        ("/api/search?start=5", 400, "only one of start and end provided: must provide both or neither"),
        (
            "/api/search?start=1&end=604802",
            400,
            "range specified by start and end exceeds 168h0m0s. received start=1 end=604802",
        ),
        ("/api/search?since=soon", 400, 'invalid since: time: invalid duration "soon"'),
        ("/api/search?since=0s", 400, "http parameter start must be before end. received start="),
        ("/api/search?since=-1h", 400, "http parameter start must be before end. received start="),
        ("/api/search?since=169h", 400, "range specified by start and end exceeds 168h0m0s. received start="),
        ("/api/v2/search/tags?since=1y", 400, "range specified by start and end exceeds 168h0m0s. received start="),
        ("/api/services?since=1y", 400, "range specified by start and end exceeds 168h0m0s. received start="),
        ("/api/sql?q=SELECT%201&since=1y", 400, "range specified by start and end exceeds 168h0m0s. received start="),
        ("/api/search?since=" + "9" * 5000 + "h", 400, "invalid since: time: invalid duration"),
        ("/api/search?tags=a%3Db%20a%3Dc", 400, "invalid tags: tag a has been set twice"),
        ("/api/search?tags=a&q=%7B.b%3D1%7D", 400, "invalid request: can't specify tags and q in the same query"),
        ("/api/search?minDuration=2s&maxDuration=1s", 400, "invalid maxDuration: must be greater than minDuration"),
        (
            "/api/search/tags?q=%7B.b%3D1" + "%7C%7C.b%3D1" * 100 + "%7D",
            400,
            "maximum condition groups reached (limit: 100). the filter has 101 alternatives",
        ),
        (f"/api/v2/traces/{trace_id(1).hex()}?q=%7B%7D%7Crate()", 400, "invalid q: a trace is filtered by one spanset"),
        (
            f"/api/v2/traces/{trace_id(1).hex()}?q=%7BtraceDuration%3E1s%7D",
            400,
            "invalid q: trace:duration is the same",
        ),
        (
            f"/api/v2/traces/{trace_id(1).hex()}?q=%7B%7D&keep_hierarchy=x",
            400,
            "invalid keep_hierarchy: 'x' is neither",
        ),
        (f"/api/v2/traces/{trace_id(1).hex()}?q=%7B%7D&match_depth=-1", 400, "invalid depth: ancestor_depth is -1 or"),
        ("/api/search?order=oldest&cursor=" + "bg" * 22, 400, "invalid cursor: "),
        (
            "/api/search?order=largest",
            400,
            "invalid order: 'largest' is none of newest, oldest, longest, shortest, most_",
        ),
        ("/api/search?cursor=x", 400, "invalid cursor: x"),
        ("/api/search/tags?scope=x", 400, "invalid scope: x"),
        ("/api/v2/search/tag/x%20y/values", 400, "please provide a valid tagName"),
        ("/tables", 503, "no worker answers"),
        ("/nothing", 404, "Not Found: /api/openapi.json lists the routes that there are"),
    ],
)
def test_a_wrong_question_gets_its_sentence(tmp_path: Path, path: str, status: int, text: str) -> None:
    answer = get(tmp_path, path, [])

    assert (answer.status_code, answer.text[: len(text)]) == (status, text)
    assert answer.headers["content-type"].startswith("text/plain")
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailableError, 503), (OvertakenError, 503), (SpanSchemaError, 500)]
)
def test_an_error_has_the_status_of_what_it_is_one_of(error: type[SpanstreamError], status: int) -> None:
    assert status_of(error("said")) == status


def test_any_method_is_taken(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[int]:
        return [(await client.request(method, "/api/search")).status_code for method in ("POST", "PUT", "DELETE")]

    assert with_api(settings_of(tmp_path), lambda world: None, test) == [200, 200, 200]


# ---- search


def test_a_search_answers_hex_ids_stats_and_whether_it_is_complete(tmp_path: Path) -> None:
    query = f"/api/search?start={AROUND['start']}&end={AROUND['end']}&tags=service.name%3DDB"

    answer = get(tmp_path, query, [ROOT, CHILD]).json()

    assert answer["traces"] == [
        {
            "traceID": trace_id(1).hex(),
            "rootServiceName": "shop",
            "rootTraceName": "GET /cart",
            "startTimeUnixNano": "1700000000000000000",
            "durationMs": 250,
            "serviceStats": {"shop": {"spanCount": 1}, "db": {"spanCount": 1, "errorCount": 1}},
        }
    ]
    assert answer["complete"] is True
    assert answer["metrics"]["inspectedTraces"] == 1
    assert "status" not in answer


def test_a_trace_without_root_says_so(tmp_path: Path) -> None:
    (hit,) = get(tmp_path, f"/api/search?start={AROUND['start']}&end={AROUND['end']}", [CHILD]).json()["traces"]

    assert hit["rootServiceName"] == "<root span not yet received>"
    assert "rootTraceName" not in hit


def test_no_hit_is_an_empty_list(tmp_path: Path) -> None:
    answer = get(tmp_path, "/api/search?tags=a%3Db", [ROOT]).json()

    assert answer["traces"] == []
    assert isinstance(answer["metrics"], dict)


def test_an_unknown_parameter_alone_is_a_tag(tmp_path: Path) -> None:
    now_ms = (time.time_ns() - T0) // 10**6 - 1000
    spans = [replace(ROOT, start_ms=now_ms), OneSpan(2, 1, start_ms=now_ms, service="other")]

    answer = get(tmp_path, "/api/search?service.name=shop", spans).json()

    assert [hit["traceID"] for hit in answer["traces"]] == [trace_id(1).hex()]


def test_the_cursor_leads_through_all_traces(tmp_path: Path) -> None:
    spans = [OneSpan(number, 1, start_ms=number % 3) for number in range(1, 8)]

    async def test(client: httpx.AsyncClient, world: World) -> list[str]:
        found: list[str] = []
        params = {**AROUND, "limit": "3"}
        while True:
            answer = (await client.get("/api/search", params=params)).json()
            found += [hit["traceID"] for hit in answer["traces"]]
            if "nextCursor" not in answer:
                return found
            params["cursor"] = answer["nextCursor"]

    found = with_api(settings_of(tmp_path), lambda world: world.send(spans), test)

    expected = sorted(range(1, 8), key=lambda number: (-(number % 3), trace_id(number)))
    assert found == [trace_id(number).hex() for number in expected]


def test_a_search_comes_as_protobuf_too(tmp_path: Path) -> None:
    wanted = {"Accept": "application/protobuf"}

    answer = get(tmp_path, f"/api/search?start={AROUND['start']}&end={AROUND['end']}", [ROOT, CHILD], headers=wanted)

    read = messages.message("SearchResponse").FromString(answer.content)
    assert read.traces[0].traceID == trace_id(1).hex()
    assert read.traces[0].startTimeUnixNano == T0
    assert {entry.key: entry.value.spanCount for entry in read.traces[0].serviceStats} == {"shop": 1, "db": 1}


def test_what_is_not_complete_says_partial_and_why(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        world.send([ROOT])
        world.tail.low = {0: 1, 1: 1}

    async def test(client: httpx.AsyncClient, world: World) -> list[Any]:
        search = await client.get("/api/search", params=AROUND)
        trace = await client.get(f"/api/v2/traces/{trace_id(1).hex()}")
        first = await client.get(f"/api/traces/{trace_id(1).hex()}")
        return [search.json(), trace.json(), (first.status_code, first.content, first.headers.get(REASONS_HEADER, ""))]

    search, trace, first = with_api(settings_of(tmp_path), prepare, test)

    assert (search["complete"], search["status"]) == (False, "PARTIAL")
    assert trace["status"] == "PARTIAL"
    assert "Kafka deleted offsets 0 to 0 of partition" in trace["message"]
    assert first[:2] == (404, b"")
    assert json.loads(first[2]) == [trace["message"]]


# ---- tags and services


def test_tag_names_come_in_both_versions(tmp_path: Path) -> None:
    first = get(tmp_path / "1", "/api/search/tags", [ROOT, CHILD]).json()
    second = get(tmp_path / "2", "/api/v2/search/tags", [ROOT, CHILD]).json()
    only = get(tmp_path / "3", "/api/v2/search/tags?scope=resource", [ROOT, CHILD]).json()

    assert first["tagNames"] == ["http.status_code", "list", "ok", "r", "raw", "service.name"]
    scopes = {scope["name"]: scope["tags"] for scope in second["scopes"]}
    assert scopes["resource"] == ["service.name"]
    assert scopes["span"] == ["http.status_code", "list", "ok", "r", "raw"]
    assert {"duration", "rootName", "span:kind"} <= set(scopes["intrinsic"])
    assert only["scopes"] == [{"name": "resource", "tags": ["service.name"]}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/search/tag/service.name/values", ["db", "shop"]),
        ("/api/search/tag/status.code/values", ["error", "unset"]),
        ("/api/search/tag/error/values", ["true"]),
        ("/api/search/tag/http.status_code/values", ["200"]),
        ("/api/v2/search/tag/.r/values", [{"type": "float", "value": "0.5"}]),
        ("/api/v2/search/tag/span.ok/values", [{"type": "bool", "value": "false"}]),
        ('/api/v2/search/tag/span."list"/values', [{"type": "string", "value": "x"}]),
        ("/api/v2/search/tag/resource.service.name/values?limit=1", [{"type": "string", "value": "db"}]),
        (
            "/api/v2/search/tag/kind/values",
            [{"type": "keyword", "value": "client"}, {"type": "keyword", "value": "server"}],
        ),
        ("/api/v2/search/tag/duration/values", []),
        ("/api/v2/search/tag/trace:id/values", []),
        ("/api/search/tag/nowhere/values", []),
    ],
)
def test_tag_values_come_with_their_types(tmp_path: Path, path: str, expected: list[Any]) -> None:
    assert get(tmp_path, path, [ROOT, CHILD]).json()["tagValues"] == expected


@pytest.mark.parametrize(
    ("given", "limit"), [("", 10), ("5", 5), ("0", 10), ("x", 10), ("-1", 10), ("999999999", 262_144), ("9" * 99, 10)]
)
def test_a_limit_of_tags_is_one_that_the_engine_takes(given: str, limit: int) -> None:
    assert tag_limit_of(QueryParams({"limit": given}), 10) == limit


@pytest.mark.parametrize("path", ["/api/v2/search/tags", "/api/search/tag/service.name/values"])
def test_more_tags_than_are_told_by_default_are_not_hidden(tmp_path: Path, path: str) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[Any]:
        return [(await client.get(path + more)).json() for more in ("", "?limit=1", "?limit=5")]

    few, asked, all_ = with_api(settings_of(tmp_path, tag_values_max=1), lambda world: world.send([ROOT, CHILD]), test)

    assert few["status"] == "PARTIAL"
    assert few["message"] == "there are more than 1 (querier.tag_values_max): limit= may ask for more"
    assert "status" not in asked
    assert "status" not in all_


def test_services_come_with_their_operations(tmp_path: Path) -> None:
    answer = get(tmp_path, "/api/services", [ROOT, CHILD]).json()

    assert answer == {"services": {"db": {"SELECT <b>": 1}, "shop": {"GET /cart": 1}}, "complete": True}


# ---- the rest


def test_small_routes_answer_what_grafana_asks(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[httpx.Response]:
        return [await client.get(path) for path in ("/api/echo", "/api/status/buildinfo", "/metrics", "/ready")]

    echo, build, metrics, ready = with_api(settings_of(tmp_path), lambda world: None, test)

    assert echo.text == "echo\n"
    assert build.json()["version"].startswith("3.0.0")
    assert "spanstream_querier_request_seconds" in metrics.text
    assert (ready.status_code, ready.text) == (200, "ready\n")


def test_ready_says_what_is_missing(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        world.stored.problem = "the manifests have not been listed yet"
        return await client.get("/ready")

    answer = with_api(settings_of(tmp_path), lambda world: None, test)

    assert (answer.status_code, answer.text) == (503, "the manifests have not been listed yet\n")


def test_tables_are_passed_on_to_a_worker(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> Any:
        return (await client.get("/tables?prefix=a")).json()

    def owned(world: World) -> None:
        world.owners[0] = world.server.url

    assert with_api(settings_of(tmp_path), owned, test) == {"tables": [], "asked": "prefix=a"}


def test_large_answers_are_compressed_for_who_takes_it(tmp_path: Path) -> None:
    answer = get(tmp_path, "/api/v2/search/tags", [ROOT], headers={"Accept-Encoding": "gzip"})
    large = get(tmp_path / "2", "/metrics", [], headers={"Accept-Encoding": "gzip"})

    assert answer.status_code == 200
    assert large.headers["content-encoding"] == "gzip"


def test_where_names_partition_offsets_and_segment(tmp_path: Path) -> None:
    answer = get(tmp_path, f"/api/where/{trace_id(1).hex()}", [ROOT, CHILD]).json()

    assert answer["topic"] == "spans_by_trace"
    assert answer["spans"] == 2
    assert answer["places"] == [
        {
            "kind": "kafka",
            "tenant": "single-tenant",
            "spans": 2,
            "offsets": [0, 1],
            "first": 0,
            "last": 1,
            "worker": "",
        }
    ]


def test_with_tenants_each_sees_its_own(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[tuple[int, str]]:
        path = f"/api/traces/{trace_id(1).hex()}"
        headers = [{}, {"X-Scope-OrgID": "a/b"}, {"X-Scope-OrgID": "other"}, {"X-Scope-OrgID": "other|single-tenant"}]
        answers = [await client.get(path, headers=each) for each in headers]
        return [(answer.status_code, answer.text[:12]) for answer in answers]

    found = with_api(settings_of(tmp_path, multitenancy=True), lambda world: world.send([ROOT]), test)

    assert found == [(401, "no org id\n"), (400, "X-Scope-OrgI"), (404, ""), (200, '{"batches":[')]


def test_the_plain_trace_page_shows_the_waterfall_and_escapes_what_was_sent(tmp_path: Path) -> None:
    page = get(tmp_path, f"/plain/trace/{trace_id(1).hex()}", [ROOT, CHILD])

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "SELECT &lt;b&gt;" in page.text
    assert "SELECT <b>" not in page.text
    assert page.text.index("GET /cart") < page.text.index("SELECT &lt;b&gt;")
    assert "250 ms" in page.text
    assert "read from Kafka" in page.text


def test_the_plain_page_of_an_unknown_trace_says_so(tmp_path: Path) -> None:
    page = get(tmp_path, "/plain/trace/1a2b", [])

    assert page.status_code == 404
    assert "No span of this trace is known" in page.text


def test_the_plain_first_page_lists_the_newest_traces(tmp_path: Path) -> None:
    page = get(tmp_path, f"/plain?start={AROUND['start']}&end={AROUND['end']}&limit=1", [ROOT, CHILD, OneSpan(2, 1)])

    assert page.status_code == 200
    assert page.text.count('href="/plain/trace/') == 1
    assert "Older traces" in page.text


def test_numbers_that_json_has_not_are_texts(tmp_path: Path) -> None:
    odd = replace(ROOT, attributes=(("nan", float("nan")), ("inf", float("-inf")), ("empty", ""), ("none", [])))

    answer = get(tmp_path, f"/api/v2/traces/{trace_id(1).hex()}", [odd])

    attributes = answer.json()["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    assert {pair["key"]: pair["value"] for pair in attributes} == {
        "nan": {"doubleValue": "NaN"},
        "inf": {"doubleValue": "-Infinity"},
        "empty": {"stringValue": ""},
        "none": {"arrayValue": {}},
    }
    json.loads(answer.content, parse_constant=pytest.fail)


@pytest.mark.parametrize(("built", "path"), [(True, "/"), (False, "/"), (False, "/trace/{}"), (False, "/services")])
def test_without_a_bundle_every_view_is_a_plain_page_that_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool, path: str
) -> None:
    monkeypatch.setattr(bundle, "is_built", lambda: built)
    monkeypatch.setattr(bundle, "view", lambda request: PlainTextResponse("the bundle's page"))
    address = path.format(trace_id(1).hex()) + f"?start={AROUND['start']}&end={AROUND['end']}"

    page = get(tmp_path, address, [ROOT, CHILD])

    assert page.status_code == 200
    assert ("`make ui` builds it" in page.text, "GET /cart" in page.text) == (not built, not built)

"""Two traces compared over HTTP: what is the same, changed, added and removed, and what wrong questions get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.serve import trace_diff
from tests.pipeline.query.world import OneSpan, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api

BEFORE = [
    OneSpan(1, 1, name="GET /cart", kind=2, duration_ms=250, attributes=(("code", 200), ("old", "x"))),
    OneSpan(1, 2, 1, 5, 20, "SELECT", "db", 3),
    OneSpan(1, 3, 1, 30, 20, "SELECT", "db", 3),
    OneSpan(1, 4, 3, 31, 5, "parse", "db"),
]
AFTER = [
    OneSpan(2, 11, name="GET /cart", kind=2, duration_ms=250, status=2, attributes=(("code", 500), ("new", True))),
    OneSpan(2, 12, 11, 5, 20, "SELECT", "db", 3, events=(("retry", ()),)),
    OneSpan(2, 13, 11, 30, 7, "charge", "payment", 3, status=2),
]
IDS = {"base": {"traceId": trace_id(1).hex()}, "compare": {"traceId": trace_id(2).hex()}}


def compared(
    tmp_path: Path, body: Any, spans: list[OneSpan] | None = None, method: str = "POST", **querier: Any
) -> httpx.Response:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        given = {"content": body} if isinstance(body, bytes) else {"json": body}
        return await client.request(method, "/api/v2/traces/diff", **given)

    sent = BEFORE + AFTER if spans is None else spans
    return with_api(settings_of(tmp_path, **querier), lambda world: world.send(sent), test)


def test_spans_that_meet_are_compared_and_the_others_are_added_or_removed(tmp_path: Path) -> None:
    answer = compared(tmp_path, IDS).json()

    assert (answer["version"], answer["base"]) == ("trace-patch-v0", {"traceId": trace_id(1).hex(), "spanCount": 4})
    assert answer["stats"] == {
        "spanCountA": 4,
        "spanCountB": 3,
        "matchedSpans": 2,
        "modifiedSpans": 2,
        "addedSpans": 1,
        "removedSpans": 2,
        "fieldChanges": 1,
        "attributeChanges": 3,
        "eventChanges": 1,
        "truncated": False,
    }
    root, select = answer["modified"]
    assert root == {
        "span": {"path": ["shop: GET /cart"], "service": "shop", "name": "GET /cart", "kind": "SPAN_KIND_SERVER"},
        "changes": [
            {
                "op": "modify",
                "target": {"type": "field", "name": "status"},
                "before": "STATUS_CODE_UNSET",
                "after": "STATUS_CODE_ERROR",
            },
            {
                "op": "modify",
                "target": {"type": "attribute", "scope": "span", "key": "code"},
                "before": 200,
                "after": 500,
            },
            {"op": "add", "target": {"type": "attribute", "scope": "span", "key": "new"}, "after": True},
            {"op": "remove", "target": {"type": "attribute", "scope": "span", "key": "old"}, "before": "x"},
        ],
    }
    assert [change["after"] for change in select["changes"]] == [["retry"]]
    assert answer["added"] == [
        {
            "target": {
                "type": "span",
                "path": ["shop: GET /cart", "payment: charge"],
                "parentPath": ["shop: GET /cart"],
                "index": 0,
            },
            "span": {
                "path": ["shop: GET /cart", "payment: charge"],
                "service": "payment",
                "name": "charge",
                "kind": "SPAN_KIND_CLIENT",
                "duration_nanos": 7_000_000,
                "status": "STATUS_CODE_ERROR",
            },
        }
    ]
    assert [(one["target"]["path"][-1], one["target"]["index"]) for one in answer["removed"]] == [
        ("db: SELECT", 1),
        ("db: parse", 0),
    ]
    assert answer["warnings"] == []


def test_a_trace_does_not_differ_from_itself(tmp_path: Path) -> None:
    answer = compared(tmp_path, {"base": IDS["base"], "compare": IDS["base"]}).json()

    assert (answer["modified"], answer["added"], answer["removed"]) == ([], [], [])
    assert answer["stats"]["matchedSpans"] == 4


def test_a_summary_tells_by_operation_and_holds_the_patch_where_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = compared(tmp_path / "1", IDS | {"format": "trace-summary-v0-native"}).json()
    composed = compared(tmp_path / "2", IDS | {"format": "trace-summary-v0-composed"}).json()
    monkeypatch.setattr(trace_diff, "COMPOSED_PATCH_BYTES_MAX", 100)
    large = compared(tmp_path / "3", IDS | {"format": "trace-summary-v0-composed"}).json()

    assert {one["operation"] for one in native["operations"]} == {"GET /cart", "SELECT", "parse", "charge"}
    assert "modified" not in native
    assert len(composed["patch"]["removed"]) == 2
    assert "patch" not in large
    assert large["patchOmitted"] == {"reason": "over_budget"}


def test_odd_spans_are_warned_of_and_compared(tmp_path: Path) -> None:
    odd = [replace(BEFORE[0], kind=3), BEFORE[0], replace(BEFORE[1], duration_ms=-3)]

    answer = compared(tmp_path, IDS, odd + AFTER).json()

    assert {one["code"] for one in answer["warnings"]} == {"duplicate_span_id", "invalid_duration"}
    assert answer["base"]["spanCount"] == 3


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is no JSON"),
        (b"[]", 400, "the body is no JSON object"),
        ({}, 400, "base names no trace"),
        ({"base": IDS["base"], "compare": {"traceId": 5}}, 400, "compare names no trace"),
        ({"base": IDS["base"], "compare": {"traceId": "x"}}, 400, "trace IDs can only contain hex characters"),
        (IDS | {"base": {"traceId": "1", "start": 9, "end": 5}}, 400, "http parameter start must be before end"),
        (IDS | {"base": {"traceId": "1", "start": [1]}}, 400, "invalid start"),
        (IDS | {"format": "html"}, 400, "invalid format: 'html' is none of trace-patch-v0"),
        (IDS | {"filler": "x" * 20_000}, 400, "the body is larger than 16384 bytes"),
        (IDS | {"compare": {"traceId": "1a2b"}}, 404, f"no span of trace {'1a2b':0>32} (compare) is known"),
    ],
)
def test_a_wrong_question_gets_its_sentence(tmp_path: Path, body: Any, status: int, said: str) -> None:
    answer = compared(tmp_path, body)

    assert (answer.status_code, answer.text[: len(said)]) == (status, said)
    assert answer.headers["content-type"].startswith("text/plain")


def test_traces_too_large_together_and_other_methods_are_refused(tmp_path: Path) -> None:
    large = compared(
        tmp_path / "1", IDS, trace_bytes_max=1024, spans=[replace(s, name="x" * 999) for s in BEFORE + AFTER]
    )
    other = compared(tmp_path / "2", IDS, method="GET")

    assert (large.status_code, large.text[:38]) == (429, "both traces together exceed max size (")
    assert (other.status_code, other.headers["allow"]) == (405, "POST")


def test_a_trace_that_may_not_be_whole_is_not_compared(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        world.send(BEFORE + AFTER)
        world.tail.low = {0: 1, 1: 1}

    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.post("/api/v2/traces/diff", json=IDS)

    answer = with_api(settings_of(tmp_path), prepare, test)

    assert answer.status_code == 422
    assert "Kafka deleted offsets" in answer.text

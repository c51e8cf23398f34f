"""Tempo's messages made from JSON: the same that protobuf's own, slow way makes of it."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import json_format

from pipeline.query.search import SearchAnswer
from pipeline.serve import messages, tempo
from tests.pipeline.query.world import T0, OneSpan
from tests.pipeline.serve.test_app import get

S = T0 // 10**9
ODD = OneSpan(
    1,
    1,
    attributes=(("nan", math.nan), ("inf", -math.inf), ("zero", 0), ("no", False), ("empty", ""), ("list", [1, 2])),
)
ODD_QUERY = "{} | select(.nan, .inf, .zero, .no, .empty, .list) | by(.nan) | max(.zero) < 1"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("AnyValue", {}),
        ("AnyValue", {"stringValue": ""}),
        ("AnyValue", {"boolValue": False}),
        ("AnyValue", {"intValue": "0"}),
        ("AnyValue", {"intValue": "-9223372036854775808"}),
        ("AnyValue", {"doubleValue": 0}),
        ("AnyValue", {"doubleValue": "-Infinity"}),
        ("AnyValue", {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "日本語"}, {}]}}),
        ("AnyValue", {"arrayValue": {}}),
        ("SpanSet", {"spans": [{"spanID": "00", "durationNanos": "18446744073709551615"}], "matched": 4294967295}),
        ("SearchTagsV2Response", {"scopes": [{"name": "span", "tags": ["a", "b"]}], "metrics": {}}),
        ("QueryRangeResponse", {"series": [], "metrics": {"completedJobs": 1}, "status": "PARTIAL", "message": "why"}),
    ],
)
def test_a_message_is_what_protobuf_makes_of_its_json(name: str, body: dict[str, Any]) -> None:
    plain = body | ({"status": messages.PARTIAL} if "status" in body else {})
    expected = json_format.ParseDict(plain, messages.message(name)())

    assert messages.message(name).FromString(messages.encoded(name, body)) == expected


def test_numbers_that_json_has_not_are_told_in_both_forms(tmp_path: Path) -> None:
    path = f"/api/search?start={S - 10}&end={S + 10}&q={quote(ODD_QUERY)}"

    plain = get(tmp_path / "1", path, [ODD]).json()
    message = get(tmp_path / "2", path, [ODD], headers={"Accept": "application/protobuf"}).content

    (found,) = plain["traces"][0]["spanSets"]
    values = {one["key"]: one["value"] for one in found["spans"][0]["attributes"]}
    assert values["nan"] == {"doubleValue": "NaN"}
    assert values["inf"] == {"doubleValue": "-Infinity"}
    assert found["attributes"][0]["value"] == {"doubleValue": "NaN"}
    (same,) = messages.message("SearchResponse").FromString(message).traces[0].spanSets
    assert {one.key: one.value.doubleValue for one in same.spans[0].attributes}["inf"] == -math.inf
    assert {one.key: one.value.WhichOneof("value") for one in same.spans[0].attributes} == {
        "nan": "doubleValue",
        "inf": "doubleValue",
        "zero": "intValue",
        "no": "boolValue",
        "empty": "stringValue",
        "list": "arrayValue",
    }


def test_labels_that_are_no_numbers_are_told_as_json_has_them(tmp_path: Path) -> None:
    path = f"/api/metrics/query?start={S - 10}&end={S + 10}&q={quote('{} | count_over_time() by (span.inf)')}"

    (series,) = get(tmp_path, path, [ODD]).json()["series"]

    assert series["labels"][0]["value"] == {"doubleValue": "-Infinity"}


@pytest.mark.parametrize("accept", ["application/json", "application/protobuf"])
def test_an_answer_is_written_off_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    where = []

    def seen(answer: SearchAnswer) -> dict[str, Any]:
        where.append(threading.current_thread() is threading.main_thread())
        return tempo.search(answer)

    monkeypatch.setattr("pipeline.serve.app.tempo", SimpleNamespace(search=seen))

    answer = get(tmp_path, f"/api/search?start={S - 10}&end={S + 10}", [ODD], headers={"Accept": accept})

    assert (answer.status_code, where) == (200, [False])

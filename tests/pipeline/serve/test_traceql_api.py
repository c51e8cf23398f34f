"""TraceQL over HTTP: spansets in Tempo's form, and what wrong queries get."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.serve import messages
from tests.pipeline.query.world import T0, OneSpan, span_id, trace_id
from tests.pipeline.serve.test_app import AROUND, get

ROOT = OneSpan(1, 1, name="GET /cart", duration_ms=50, kind=2, attributes=(("code", 200), ("ratio", 0.5)))
FAILED = OneSpan(1, 2, 1, 5, 1500, "SELECT", "db", status=2, attributes=(("tags", ["a", "b"]), ("ok", False)))
OTHER = OneSpan(2, 3, name="job", start_ms=100)


def search(tmp_path: Path, query: str, more: str = "", **options: Any) -> Any:
    path = f"/api/search?start={AROUND['start']}&end={AROUND['end']}&q={quote(query)}{more}"
    return get(tmp_path, path, [ROOT, FAILED, OTHER], **options)


def test_a_found_trace_has_its_spansets(tmp_path: Path) -> None:
    (hit,) = search(tmp_path, "{ status = error && name != nil } | select(.tags, span.ok)").json()["traces"]

    found = {
        "spans": [
            {
                "spanID": span_id(2).hex(),
                "name": "SELECT",
                "startTimeUnixNano": str(T0 + 5 * 10**6),
                "durationNanos": "1500000000",
                "attributes": [
                    {"key": "status", "value": {"stringValue": "error"}},
                    {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}},
                    {"key": "ok", "value": {"boolValue": False}},
                ],
            }
        ],
        "matched": 1,
    }
    assert hit["traceID"] == trace_id(1).hex()
    assert hit["spanSets"] == [found]
    assert hit["spanSet"] == found
    assert hit["serviceStats"] == {"shop": {"spanCount": 1}, "db": {"spanCount": 1, "errorCount": 1}}


def test_groups_and_aggregates_stand_beside_their_spansets(tmp_path: Path) -> None:
    query = "{} | by(resource.service.name) | max(duration) > 1s | count() = 1"

    (hit,) = search(tmp_path, query).json()["traces"]

    assert hit["spanSets"][0]["attributes"] == [
        {"key": "by(resource.service.name)", "value": {"stringValue": "db"}},
        {"key": "max(duration)", "value": {"stringValue": "1.5s"}},
        {"key": "count()", "value": {"intValue": "1"}},
    ]


def test_durations_are_texts_wherever_they_stand(tmp_path: Path) -> None:
    spans = [OneSpan(1, 1, duration_ms=1500, events=(("retry", ()), ("retry", ())))]
    path = f"/api/search?start={AROUND['start']}&end={AROUND['end']}&q="
    query = "{ event:timeSinceStart >= 1ns } | by(duration) | by(traceDuration) | avg(duration) > 1s"

    (hit,) = get(tmp_path, path + quote(query), spans).json()["traces"]

    seconds = {"stringValue": "1.5s"}
    assert [one["value"] for one in hit["spanSet"]["attributes"]] == [seconds] * 3
    assert hit["spanSet"]["spans"][0]["attributes"] == [{"key": "event:timeSinceStart", "value": {"stringValue": "0s"}}]


def test_as_many_spans_of_a_set_are_shown_as_asked_and_all_are_counted(tmp_path: Path) -> None:
    hits = search(tmp_path, "{ traceDuration > 1s }", "&spss=1").json()["traces"]

    assert [(hit["spanSet"]["matched"], len(hit["spanSet"]["spans"])) for hit in hits] == [(2, 1)]


def test_a_metrics_query_searches_for_the_spans_that_it_measures(tmp_path: Path) -> None:
    hits = search(tmp_path, '{ name = "job" } | rate() by (resource.service.name)').json()["traces"]

    assert [hit["traceID"] for hit in hits] == [trace_id(2).hex()]


def test_spansets_come_as_protobuf_too(tmp_path: Path) -> None:
    answer = search(tmp_path, "{ .ok = false && .ok != nil }", headers={"Accept": "application/protobuf"})

    (hit,) = messages.message("SearchResponse").FromString(answer.content).traces
    (span,) = hit.spanSets[0].spans
    assert (span.spanID, hit.spanSets[0].matched, hit.spanSet.matched) == (span_id(2).hex(), 1, 1)
    assert [(one.key, one.value.WhichOneof("value"), one.value.boolValue) for one in span.attributes] == [
        ("ok", "boolValue", False)
    ]


SEVERAL = "spanset operators are not supported for multiple spansets per trace"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ .a == 1 }", "invalid TraceQL query: parse error at line 1, col 6"),
        ("{ .a", "invalid TraceQL query: parse error at line 1"),
        ('{ name =~ "[" }', "invalid regex"),
        ("{ name = 1 }", "binary operations must operate on the same type"),
        ("{} | by(name) | { .a } && { .b }", SEVERAL),
        ("({} | by(name) | { .a } && { .b }) || {}", SEVERAL),
        ("{} | by(name) | ({ .a } && { .b } | count()) > 1", SEVERAL),
    ],
)
def test_a_wrong_query_is_told_what_is_wrong(tmp_path: Path, query: str, said: str) -> None:
    answer = search(tmp_path, query)

    assert answer.status_code == 400
    assert said in answer.text
    assert answer.text.startswith("invalid TraceQL query: ")


@pytest.mark.parametrize("text", ["'; DROP TABLE x; --", '"', "{live}", "{}", "?", "$1", "\\", "é\u202e\x00"])
def test_hostile_names_and_values_are_names_and_values(tmp_path: Path, text: str) -> None:
    escaped = "".join(f"\\u{ord(one):04x}" for one in text)
    name = text.replace("\\", "\\\\").replace('"', '\\"')
    spans = [OneSpan(1, 1, attributes=((text, text),)), OneSpan(2, 2, attributes=((text, "other"),))]
    path = f"/api/search?start={AROUND['start']}&end={AROUND['end']}&q="

    found = get(tmp_path, path + quote(f'{{ span."{name}" = "{escaped}" }} | by(span."{name}")'), spans).json()

    assert [hit["traceID"] for hit in found["traces"]] == [trace_id(1).hex()]
    assert found["traces"][0]["spanSet"]["attributes"][0]["value"] == {"stringValue": text}


def test_the_first_page_takes_a_query_and_counts_what_is_found(tmp_path: Path) -> None:
    path = f"/plain?start={AROUND['start']}&end={AROUND['end']}&q="
    found = get(tmp_path / "1", path + quote('{ resource.service.name = "db" }'), [ROOT, FAILED, OTHER])
    wrong = get(tmp_path / "2", path + quote("{ <b> == 1 }"), [ROOT])

    assert found.status_code == 200
    assert trace_id(1).hex() in found.text
    assert trace_id(2).hex() not in found.text
    assert '<td class="number">1</td>' in found.text
    assert wrong.status_code == 400
    assert "parse error at line 1" in wrong.text
    assert "<b>" not in wrong.text
    assert "{ &lt;b&gt; == 1 }" in wrong.text  # the form keeps what was asked


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("{ status = error }", ["ok", "tags"]),
        ('{ resource.service.name = "db" && span.code = }', ["ok", "tags"]),
        ("{ span.code = 200 || span.x = 1 }", ["code", "ratio"]),
        ("{ span.none = 1 }", []),
        ("{ .code = ", ["code", "ok", "ratio", "tags"]),
    ],
)
def test_tag_names_are_those_of_the_spans_that_match(tmp_path: Path, query: str, names: list[str]) -> None:
    answer = get(tmp_path, f"/api/v2/search/tags?scope=span&q={quote(query)}", [ROOT, FAILED, OTHER]).json()

    assert [scope["tags"] for scope in answer["scopes"]] == ([names] if names else [])


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("{ status = error }", ["db"]),
        ("{ status != error }", ["shop"]),
        ('{ span.tags = "b" && name = "SELECT" }', ["db"]),
        ("{ duration > 1s || name = `job` }", ["db", "shop"]),
    ],
)
def test_tag_values_are_those_of_the_spans_that_match(tmp_path: Path, query: str, values: list[str]) -> None:
    path = f"/api/v2/search/tag/resource.service.name/values?q={quote(query)}"
    answer = get(tmp_path, path, [ROOT, FAILED, OTHER]).json()

    assert answer["tagValues"] == [{"type": "string", "value": value} for value in values]


@pytest.mark.parametrize(
    ("parameters", "left"),
    [("", [2]), ("&keep_hierarchy=true", [1, 2]), ("&keep_hierarchy=1&ancestor_depth=0", [2]), ("&match_depth=1", [2])],
)
def test_of_a_trace_by_id_the_spans_that_match_are_given(tmp_path: Path, parameters: str, left: list[int]) -> None:
    path = f"/api/v2/traces/{trace_id(1).hex()}?q={quote('{ status = error }')}{parameters}"
    answer = get(tmp_path, path, [ROOT, FAILED, OTHER]).json()

    spans = [s for r in answer["trace"]["resourceSpans"] for scope in r["scopeSpans"] for s in scope["spans"]]
    assert sorted(span["name"] for span in spans) == sorted({1: ROOT.name, 2: FAILED.name}[one] for one in left)
    assert answer.get("status") == (None if len(left) == 2 else "PARTIAL")
    assert answer.get("message", "") == ("" if len(left) == 2 else "1 of 2 spans are left out by the filter")

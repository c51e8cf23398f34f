"""Names and values of attributes, two traces compared, and matches followed, in a terminal."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.commands.diff import diff, differences
from agents.commands.tags import tags, values
from agents.commands.tail import Follower, tail
from agents.commands.waterfall import rows_of
from tests.agents.commands.answers import Answers

proto: Any = trace_pb2


def trace_of(number: int, spans: list[tuple[str, int, int]]) -> Any:
    """spans: name, duration in ms, status code; all of service `unknown`."""
    data = proto.TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for at, (name, duration_ms, status) in enumerate(spans, 1):
        span = scope.spans.add(name=name, start_time_unix_nano=10**18, end_time_unix_nano=10**18 + duration_ms * 10**6)
        span.trace_id, span.span_id = number.to_bytes(16, "big"), at.to_bytes(8, "big")
        span.status.code = status
    return data


def serve_trace(number: int, data: Any) -> None:
    answer = proto.TracesData.SerializeToString(data)
    assert len(answer) < 1 << 14
    length = bytes([len(answer)]) if len(answer) < 128 else bytes([len(answer) & 0x7F | 0x80, len(answer) >> 7])
    Answers.table[f"/api/v2/traces/{number:032x}"] = (200, b"\x0a" + length + answer)


def test_tags_are_listed_as_traceql_writes_them(querier: str) -> None:
    scopes = [{"name": "span", "tags": ["b", "a"]}, {"name": "intrinsic", "tags": ["status"]}]
    Answers.table["/api/v2/search/tags"] = (200, json.dumps({"scopes": scopes}).encode())

    told = CliRunner().invoke(tags, ["--scope", "span", "--q", "{ status = error }", "--url", querier])

    assert told.stdout.split() == ["status", "span.a", "span.b"]
    assert Answers.asked[-1][1]["scope"] == ["span"]
    assert Answers.asked[-1][1]["q"] == ["{ status = error }"]


def test_values_are_listed_with_their_types_and_a_name_is_quoted(querier: str) -> None:
    found = [{"type": "string", "value": "[b]"}, {"type": "int", "value": "7"}]
    Answers.table["/api/v2/search/tag/span.a%2Fb/values"] = (200, json.dumps({"tagValues": found}).encode())

    told = CliRunner().invoke(values, ["span.a/b", "--since", "2h", "--url", querier])

    assert told.exit_code == 0, told.stderr
    assert [line.split() for line in told.stdout.splitlines()[1:]] == [["7", "int"], ["[b]", "string"]]


def test_a_tag_without_values_is_a_hint(querier: str) -> None:
    Answers.table["/api/v2/search/tag/span.x/values"] = (200, b'{"tagValues": []}')

    assert "spanstream tags" in CliRunner().invoke(values, ["span.x", "--url", querier]).stderr


def test_a_difference_is_added_removed_changed_or_the_same() -> None:
    before = rows_of(trace_of(1, [("root", 100, 0), ("old", 5, 0), ("db", 10, 0)]))
    after = rows_of(trace_of(2, [("root", 100, 0), ("new", 70, 0), ("db", 10, 2), ("db", 20, 0)]))

    found = [(one.operation, one.change, one.more_ns // 10**6) for one in differences(before, after)]

    assert found == [("new", "added", 70), ("db", "changed", 20), ("old", "removed", -5), ("root", "same", 0)]


def test_diff_shows_both_traces_and_as_json_all_numbers(querier: str) -> None:
    serve_trace(1, trace_of(1, [("root", 100, 0)]))
    serve_trace(2, trace_of(2, [("root", 300, 2)]))

    shown = CliRunner().invoke(diff, ["1", "2", "--url", querier])
    told = json.loads(CliRunner().invoke(diff, ["1", "2", "--url", querier, "--json"]).stdout)

    assert "+200 ms" in shown.stdout
    assert (told["a"]["durationNanos"], told["b"]["errors"]) == (100 * 10**6, 1)
    assert told["operations"][0]["change"] == "changed"


def test_diff_with_an_unknown_trace_fails_with_a_sentence(querier: str) -> None:
    serve_trace(1, trace_of(1, [("root", 100, 0)]))

    assert CliRunner().invoke(diff, ["1", "2", "--url", querier]).exit_code == 1


def found_traces(count: int) -> bytes:
    return json.dumps({"traces": [{"traceID": f"{at:x}"} for at in range(count, 0, -1)]}).encode()


def test_tail_shows_each_trace_once_and_counts_what_is_too_much(querier: str) -> None:
    Answers.table["/api/search"] = (200, found_traces(5))

    told = CliRunner().invoke(tail, ["{ .a = 1 }", "--rate", "2", "--for", "1", "--json", "--url", querier])

    assert told.exit_code == 0, told.stderr
    assert len(Answers.asked) >= 2
    assert [json.loads(line)["traceID"] for line in told.stdout.splitlines()] == ["4", "5"]
    assert "3 skipped" in told.stderr


def test_what_tail_remembers_is_bounded() -> None:
    seen_max = 1000
    follower = Follower(seen_max)

    for at in range(0, seen_max + 400, 200):
        assert len(follower.new({"traceID": str(at + more)} for more in range(200))) == 200

    assert not follower.new([{"traceID": str(seen_max + 1)}])
    assert follower.new([{"traceID": "0"}])

"""Questions from the command line, to a querier in this process."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest
from click.testing import CliRunner
from opentelemetry.proto.trace.v1 import trace_pb2

from agents.commands.ask import drops, search, seconds_of, services, trace
from agents.commands.load import load
from agents.commands.measure import chart, metrics
from agents.commands.where import where
from tests.agents.commands.answers import Answers
from topics.errors import BadQuestionError

TRACE_ID = "0000000000000000000000000000abcd"
proto: Any = trace_pb2


def one_trace() -> bytes:
    data = proto.TracesData()
    span = (
        data.resource_spans.add()
        .scope_spans.add()
        .spans.add(name="GET [x]", start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 5 * 10**6)
    )
    span.trace_id, span.span_id = bytes.fromhex(TRACE_ID), b"\x01" * 8
    return bytes(data.SerializeToString())


def test_a_trace_is_shown_as_a_waterfall_and_its_id_may_be_short(querier: str) -> None:
    data = one_trace()
    Answers.table[f"/api/v2/traces/{TRACE_ID}"] = (200, b"\x0a" + bytes([len(data)]) + data)

    answer = CliRunner().invoke(trace, ["abcd", "--url", querier])

    assert answer.exit_code == 0, answer.stderr
    assert TRACE_ID in answer.stdout
    assert "GET [x]" in answer.stdout
    assert "5 ms" in answer.stdout


def test_a_trace_as_json_has_ids_in_hex_and_as_otlp_is_what_was_sent(querier: str) -> None:
    data = one_trace()
    Answers.table[f"/api/v2/traces/{TRACE_ID}"] = (200, b"\x0a" + bytes([len(data)]) + data)

    as_json = CliRunner().invoke(trace, ["abcd", "--url", querier, "--json"])
    as_otlp = CliRunner().invoke(trace, ["abcd", "--url", querier, "--otlp"])

    span = json.loads(as_json.stdout)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["spanId"]) == (TRACE_ID, "01" * 8)
    assert as_otlp.stdout_bytes == data


def test_a_partial_trace_says_so_on_stderr(querier: str) -> None:
    data = one_trace()
    answer_bytes = b"\x0a" + bytes([len(data)]) + data + b"\x18\x01\x22\x04away"
    Answers.table[f"/api/v2/traces/{TRACE_ID}"] = (200, answer_bytes)

    answer = CliRunner().invoke(trace, ["abcd", "--url", querier])

    assert "PARTIAL: away" in answer.stderr


@pytest.mark.parametrize(("trace_id", "code"), [("xyz", 2), ("1" * 33, 2), ("", 2), ("12", 1)])
def test_a_wrong_or_unknown_trace_id_is_a_sentence(querier: str, trace_id: str, code: int) -> None:
    Answers.table[f"/api/v2/traces/{'12'.zfill(32)}"] = (200, b"\x0a\x00")

    answer = CliRunner().invoke(trace, [trace_id, "--url", querier])

    assert answer.exit_code == code
    assert len(answer.stderr.strip().splitlines()) == 1


def test_no_querier_is_a_sentence_that_says_what_to_do() -> None:
    answer = CliRunner().invoke(services, ["--url", "http://127.0.0.1:1"])

    assert answer.exit_code == 1
    assert "spanstream up" in answer.stderr


def test_a_refused_question_is_shown_as_the_querier_said_it(querier: str) -> None:
    Answers.table["/api/search"] = (400, b"invalid tags: tag a has been set twice\n")

    answer = CliRunner().invoke(search, ["--tags", "a=1 a=2", "--url", querier])

    assert answer.exit_code == 2
    assert answer.stderr == "invalid tags: tag a has been set twice\n"


def test_search_takes_a_query(querier: str) -> None:
    Answers.table["/api/search"] = (200, json.dumps({"traces": []}).encode())

    answer = CliRunner().invoke(search, ["{ status = error }", "--url", querier])

    assert answer.exit_code == 0, answer.stderr
    assert Answers.asked[-1][1]["q"] == ["{ status = error }"]
    assert "tags" not in Answers.asked[-1][1]


def test_search_asks_for_tags_and_shows_a_line_a_trace(querier: str) -> None:
    one = {
        "traceID": "abcd",
        "rootServiceName": "shop",
        "rootTraceName": "GET /",
        "startTimeUnixNano": "1700000000000000000",
        "durationMs": 12,
        "serviceStats": {"shop": {"spanCount": 3, "errorCount": 1}},
    }
    Answers.table["/api/search"] = (200, json.dumps({"traces": [one]}).encode())

    answer = CliRunner().invoke(search, ["--service", 'a "b"', "--tags", "x=1", "--since", "2h", "--url", querier])

    assert answer.exit_code == 0, answer.stderr
    assert all(text in answer.stdout for text in (TRACE_ID, "shop GET /", "12 ms"))
    ((_, asked),) = Answers.asked
    assert asked["tags"] == ['x=1 service.name="a \\"b\\""']
    assert int(asked["end"][0]) - int(asked["start"][0]) == 7201


def test_services_are_listed_with_their_operations(querier: str) -> None:
    Answers.table["/api/services"] = (200, b'{"services": {"shop": {"GET": 1, "PUT": 20}}}')

    answer = CliRunner().invoke(services, ["--url", querier])

    assert [line.split() for line in answer.stdout.splitlines()[1:]] == [["shop", "PUT", "20"], ["shop", "GET", "1"]]


def test_where_shows_the_whole_way(querier: str) -> None:
    document = {
        "traceID": TRACE_ID,
        "topic": "spans_by_trace",
        "partition": 3,
        "partitions": 8,
        "owner": "http://w:6066",
        "horizon": 12,
        "spans": 3,
        "complete": True,
        "reasons": [],
        "places": [
            {"kind": "store", "tenant": "t", "spans": 2, "offsets": [], "first": 0, "last": 11, "bucket": "b",
             "chunk": "chunks/x.parquet", "manifest": "manifests/y.json", "manifestBucket": "a"},
            {"kind": "live", "tenant": "t", "spans": 1, "offsets": [12], "first": 12, "last": 12, "worker": "http://w"},
        ],
    }  # fmt: skip
    Answers.table[f"/api/where/{TRACE_ID}"] = (200, json.dumps(document).encode())

    answer = CliRunner().invoke(where, ["abcd", "--url", querier])

    for text in ("partition 3 of 8", "chunks/x.parquet", "manifests/y.json", "live segment", "record offsets 12"):
        assert text in answer.stdout


def test_where_says_that_it_may_not_know_of_a_trace(querier: str) -> None:
    document = {
        "traceID": TRACE_ID, "topic": "spans_by_trace", "partition": 3, "partitions": 8, "places": [],
        "complete": False, "reasons": ["Kafka does not answer"],
    }  # fmt: skip
    Answers.table[f"/api/where/{TRACE_ID}"] = (200, json.dumps(document).encode())

    answer = CliRunner().invoke(where, ["abcd", "--url", querier])

    assert answer.exit_code == 1
    assert "PARTIAL: Kafka does not answer" in answer.stderr


def test_a_load_that_was_sent_before_is_counted_by_its_seed() -> None:
    answer = CliRunner().invoke(load, ["--check-only"])

    assert answer.exit_code == 2
    assert "--seed" in answer.stderr


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("2h", 7200), ("1d", 86_400), (" 3s ", 3)])
def test_how_far_back_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1.5h", "-1h", "1w", "9999999s"])
def test_any_other_time_is_refused(text: str) -> None:
    with pytest.raises(BadQuestionError, match="since"):
        seconds_of(text)


def test_metrics_show_a_chart_of_each_series(querier: str) -> None:
    samples = [{"timestampMs": str(at * 1000)} | ({"value": at / 2} if at else {}) for at in range(5)]
    label = {"key": "resource.service.name", "value": {"stringValue": "shop"}}
    Answers.table["/api/metrics/query_range"] = (
        200,
        json.dumps({"series": [{"labels": [label], "samples": samples}], "metrics": {}}).encode(),
    )

    told = CliRunner().invoke(metrics, ["{} | rate() by (resource.service.name)", "--step", "10s", "--url", querier])

    assert told.exit_code == 0, told.output
    (path, asked) = Answers.asked[-1]
    assert (path, asked["q"], asked["step"]) == (
        "/api/metrics/query_range",
        ["{} | rate() by (resource.service.name)"],
        ["10s"],
    )
    line = told.output.splitlines()[-1]
    assert line.split()[:4] == ["resource.service.name=shop", "0", "2", "2"]
    assert line.strip().endswith("█")


def test_an_instant_metric_is_one_number_a_series(querier: str) -> None:
    label = {"key": "__name__", "value": {"stringValue": "rate"}}
    Answers.table["/api/metrics/query"] = 200, json.dumps({"series": [{"labels": [label], "value": 12.5}]}).encode()

    told = CliRunner().invoke(metrics, ["{} | rate()", "--instant", "--url", querier])

    assert told.output.split() == ["series", "value", "rate", "12.5"]


def test_points_in_time_become_bars() -> None:
    assert chart([(0, 1.0), (50, 2.0), (100, 0.0)], 0, 100, 11) == "▅    █    ▁"


def test_drops_are_listed_by_tenant_and_reason_and_a_silent_process_is_named(querier: str) -> None:
    document = {
        "tenants": {
            "a": {"rejected_spans": {"span ID is all zero": 2, "[bold]x": 1000}},
            "": {"dead_records": {"tenant": 1}},
        },
        "complete": False,
        "reasons": ["receiver http://x does not tell its numbers"],
    }
    Answers.table["/api/status/drops"] = (200, json.dumps(document).encode())

    answer = CliRunner().invoke(drops, ["--url", querier])

    lines = [line.split() for line in answer.stdout.splitlines()]
    assert ["a", "rejected", "spans", "[bold]x", "1,000"] in lines
    assert ["a", "rejected", "spans", "span", "ID", "is", "all", "zero", "2"] in lines
    assert ["(not", "readable)", "dead", "records", "tenant", "1"] in lines
    assert "PARTIAL: receiver http://x" in answer.stderr
    assert json.loads(CliRunner().invoke(drops, ["--json", "--url", querier]).stdout) == document


@pytest.mark.parametrize("url", ["127.0.0.1:3200", "ftp://there", "http://", "http://there:99999"])
def test_a_url_that_cannot_be_asked_is_wrong_use(url: str) -> None:
    answer = CliRunner().invoke(services, ["--url", url])

    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"--url is '{url}', must be a URL such as http://")


def test_what_ends_a_connection_without_an_answer_is_said_to_be_no_querier() -> None:
    def hang_up(stranger: socket.socket) -> None:
        connection, _ = stranger.accept()
        with connection:
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as stranger:
        threading.Thread(target=hang_up, args=(stranger,), daemon=True).start()
        answer = CliRunner().invoke(services, ["--url", f"http://127.0.0.1:{stranger.getsockname()[1]}"])

    assert answer.exit_code == 1
    assert "is no querier" in answer.stderr


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [(401, b"no org id\n", "--tenant"), (401, b"a token is needed", "--doors-token"), (403, b"no", "--doors-token")],
)
def test_who_is_not_let_in_is_told_what_to_show(querier: str, status: int, said: bytes, advice: str) -> None:
    Answers.table["/api/services"] = (status, said)

    answer = CliRunner().invoke(services, ["--url", querier])

    assert advice in answer.stderr


def test_an_empty_answer_is_a_sentence(querier: str) -> None:
    Answers.table["/api/search"] = (200, b'{"traces": []}')
    Answers.table["/api/services"] = (200, b'{"services": {}, "complete": true}')
    Answers.table["/api/status/drops"] = (200, b'{"tenants": {}, "complete": true, "reasons": []}')

    assert "No trace matches in the last 1h" in CliRunner().invoke(search, ["--url", querier]).stderr
    assert "spanstream load" in CliRunner().invoke(services, ["--url", querier]).stderr
    assert "All was kept" in CliRunner().invoke(drops, ["--url", querier]).stderr


def test_services_that_are_not_all_are_told_to_be_partial(querier: str) -> None:
    Answers.table["/api/services"] = (
        200,
        b'{"services": {"shop": {"GET": 1}}, "complete": false, "status": "PARTIAL", "message": "a worker is away"}',
    )

    assert "PARTIAL: a worker is away" in CliRunner().invoke(services, ["--url", querier]).stderr

"""TraceQL metrics over HTTP: Tempo's JSON, default steps, and what wrong questions get."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.serve.metrics import default_step
from tests.pipeline.query.world import T0, OneSpan, trace_id
from tests.pipeline.serve.test_app import get

S, MS = 10**9, 10**6
T0_S = T0 // S
SPANS = [
    OneSpan(1, 1, name="GET /cart", duration_ms=50, kind=2, start_ms=500),
    OneSpan(1, 2, 1, 500, 1500, "SELECT", "db", status=2),
    OneSpan(2, 3, name="job", start_ms=10_500, duration_ms=200),
]


def ask(tmp_path: Path, query: str, more: str = "", route: str = "query_range") -> Any:
    path = f"/api/metrics/{route}?start={T0_S}&end={T0_S + 20}&q={quote(query)}{more}"
    return get(tmp_path, path, SPANS)


def at(seconds: int) -> str:
    return str((T0_S + seconds) * 1000)


def test_a_rate_has_a_sample_at_the_end_of_each_interval_and_zeros_without_value(tmp_path: Path) -> None:
    answer = ask(tmp_path, "{} | rate()", "&step=10").json()

    (series,) = answer["series"]
    assert series["labels"] == [{"key": "__name__", "value": {"stringValue": "rate"}}]
    assert series["samples"] == [
        {"timestampMs": at(0)},
        {"timestampMs": at(10), "value": 0.2},
        {"timestampMs": at(20), "value": 0.1},
    ]
    assert answer["metrics"]["totalJobs"] == 1


def test_series_are_named_by_their_groups(tmp_path: Path) -> None:
    series = ask(tmp_path, "{} | count_over_time() by (resource.service.name, status)", "&step=20s").json()["series"]

    assert [[(label["key"], label["value"]) for label in one["labels"]] for one in series] == [
        [("resource.service.name", {"stringValue": "db"}), ("status", {"stringValue": "error"})],
        [("resource.service.name", {"stringValue": "shop"}), ("status", {"stringValue": "unset"})],
    ]
    assert [one["samples"][-1]["value"] for one in series] == [1.0, 2.0]


def test_exemplars_name_traces_with_the_measured_value(tmp_path: Path) -> None:
    (series,) = ask(tmp_path, "{} | max_over_time(duration)", "&step=10").json()["series"]

    assert series["exemplars"] == [
        {
            "labels": [{"key": "trace:id", "value": {"stringValue": trace_id(1).hex()}}],
            "value": 1.5,
            "timestampMs": str((T0 + 500 * MS) // MS),
        },
        {
            "labels": [{"key": "trace:id", "value": {"stringValue": trace_id(2).hex()}}],
            "value": 0.2,
            "timestampMs": str((T0 + 10_500 * MS) // MS),
        },
    ]


@pytest.mark.parametrize(
    ("query", "more", "exemplars"),
    [
        ("{} | rate() with(exemplars=false)", "", 0),
        ("{} | rate() with(exemplars=1)", "&exemplars=50", 1),
        ("{} | rate()", "&exemplars=1", 1),
        ("{} | rate()", "&exemplars=x", 2),
        ("{} >> {} | count_over_time()", "", 1),
    ],
)
def test_the_querys_word_on_exemplars_goes_before_the_parameter(
    tmp_path: Path, query: str, more: str, exemplars: int
) -> None:
    (series,) = ask(tmp_path, query, f"&step=10{more}").json()["series"]

    assert len(series.get("exemplars", [])) == exemplars


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("count_over_time() with(extrapolate=true)", 7),
        ("count_over_time() with(extrapolate=false)", 3),
        ("count_over_time() with(extrapolate=1)", 3),
        ("rate() with(extrapolate=true)", 0.35),
        ("sum_over_time(.n) with(extrapolate=true)", 4 * 10 + 2 * 20 + 30),
        ("avg_over_time(.n) with(extrapolate=true)", 110 / 7),
        ("max_over_time(.n) with(extrapolate=true)", 30),
    ],
)
def test_a_span_that_a_sampler_kept_may_count_for_those_that_it_left_out(
    tmp_path: Path, query: str, value: float
) -> None:
    states = ("ot=th:c", "other=1,ot=rv:0;th:8", "")  # a fourth of the spans was kept, a half, all
    spans = [
        replace(span, trace_state=state, attributes=(("n", 10 * at),))
        for at, (span, state) in enumerate(zip(SPANS, states, strict=True), 1)
    ]
    path = f"/api/metrics/query?start={T0_S}&end={T0_S + 20}&q={quote('{} | ' + query)}"

    (series,) = get(tmp_path, path, spans).json()["series"]

    assert math.isclose(series["value"], value)


def test_an_instant_query_has_one_value(tmp_path: Path) -> None:
    answer = ask(tmp_path, "{} | rate()", route="query").json()

    assert answer["series"] == [{"labels": [{"key": "__name__", "value": {"stringValue": "rate"}}], "value": 0.15}]


def test_an_instant_query_that_finds_nothing_has_no_series(tmp_path: Path) -> None:
    assert "series" not in ask(tmp_path, '{ name = "none" } | rate()', route="query").json()
    assert ask(tmp_path, '{ name = "none" } | rate()').json()["series"] == []


def test_beyond_the_most_series_the_answer_is_partial(tmp_path: Path) -> None:
    answer = ask(tmp_path, "{} | rate() by (name)", "&maxSeries=2").json()

    assert (len(answer["series"]), answer["status"]) == (2, "PARTIAL")
    assert answer["message"].startswith("Response exceeds maximum series limit of 2, a partial response is returned.")


def test_compare_tells_of_both_sides(tmp_path: Path) -> None:
    series = ask(tmp_path, "{} | compare({ status = error })", "&step=20").json()["series"]

    last = {tuple(label["value"]["stringValue"] for label in one["labels"]): one["samples"][-1] for one in series}
    assert last["selection", "db"]["value"] == 1
    assert last["baseline", "shop"]["value"] == 2
    assert last["baseline_total", "nil"]["value"] == 2


@pytest.mark.parametrize(
    ("query", "more", "said"),
    [
        ("{}", "", "compiling query: not a metrics query"),
        ("{} | rate(", "", "invalid TraceQL query: parse error at line 1"),
        ("", "", "q is missing"),
        ("{} | rate()", "&step=1ms", "step of 1ms is too small, minimum step for given range is 2ms"),
        ("{} | rate()", "&step=0", "could not parse 'step' parameter"),
        ("{} | rate()", "&step=x", "invalid step: time: invalid duration"),
        ("{} | rate()", "&step=" + "9" * 20, "could not parse 'step' parameter"),
        ("{} | rate()", "&step=" + "9" * 400, "invalid step: time: invalid duration"),
        ("{} | rate()", "&step=" + "9" * 5000 + "h", "invalid step: time: invalid duration"),
        ("{} | rate()", "&step=2562048h", "invalid step: time: invalid duration"),
        ("{} | rate() by (name) | topk(0)", "", "invalid TraceQL query"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(tmp_path: Path, query: str, more: str, said: str) -> None:
    answer = ask(tmp_path, query, more)

    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ("start=20&end=10", "end must be greater than start"),
        ("start=x", "could not parse 'start' parameter"),
        ("end=2026-01-01T00:00:00", "could not parse 'end' parameter"),
        (
            f"start={T0_S}&end={T0_S + 90_000}",
            "metrics query time range exceeds the maximum allowed duration of 24h0m0s",
        ),
        ("since=soon", "invalid since: time: invalid duration"),
        ("since=0s", "end must be greater than start"),
        ("since=25h", "metrics query time range exceeds the maximum allowed duration of 24h0m0s"),
        ("start=" + "9" * 5000, "could not parse 'start' parameter"),
    ],
)
def test_wrong_times_are_told(tmp_path: Path, times: str, said: str) -> None:
    answer = get(tmp_path, f"/api/metrics/query_range?q={quote('{} | rate()')}&{times}", SPANS)

    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (str(T0_S), str(T0_S + 20)),
        (f"{T0_S}.0", f"{T0_S + 20}.0"),
        (str(T0), str(T0 + 20 * S)),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:40.000000Z"),
    ],
)
def test_times_come_in_seconds_nanoseconds_and_words(tmp_path: Path, start: str, end: str) -> None:
    assert T0_S == 1_700_000_000
    path = f"/api/metrics/query?q={quote('{} | count_over_time()')}&start={start}&end={end}"

    assert get(tmp_path, path, SPANS).json()["series"][0]["value"] == 3


@pytest.mark.parametrize(
    ("range_s", "step_s"),
    [
        (30, 0.1),
        (60, 1),
        (5 * 60, 1),
        (15 * 60, 3),
        (30 * 60, 5),
        (3600, 15),
        (3 * 3600, 45),
        (6 * 3600, 60),
        (12 * 3600, 180),
        (24 * 3600, 300),
        (7 * 24 * 3600, 2400),
    ],
)
def test_steps_that_are_not_given_are_round(range_s: int, step_s: float) -> None:
    assert default_step(range_s * S) == step_s * S


@pytest.mark.parametrize(("step", "points"), [("2562047h", 2), ("1000000h", 2), ("1d", 2)])
def test_a_step_longer_than_the_range_has_the_points_around_it(tmp_path: Path, step: str, points: int) -> None:
    (series,) = ask(tmp_path, "{} | count_over_time()", f"&step={step}").json()["series"]

    assert [sample.get("value") for sample in series["samples"]] == [*[None] * (points - 1), 3.0]


def test_an_end_alone_near_1970_begins_there(tmp_path: Path) -> None:
    answer = get(tmp_path, f"/api/metrics/query?q={quote('{} | rate()')}&end=5", SPANS)

    assert answer.status_code == 200

"""What a metrics query measures (section 9, deviation 15.7)."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.traceql.tree import (
    Attribute,
    Compare,
    GroupBy,
    Metric,
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
    Rank,
    ScalarFilter,
    Spanset,
    Static,
    Threshold,
)
from tests.pipeline.traceql.by_hand import (
    count,
    intrinsic,
    named,
    one,
    resource,
    says,
    span,
    status,
    where,
)
from tests.pipeline.traceql.reference.metrics import instant, metrics
from tests.pipeline.traceql.reference.model import Event, Span, Trace
from tests.pipeline.traceql.reference.search import search

S = 10**9
A, NAME, DURATION = span("a"), intrinsic("name"), intrinsic("duration")
Answer = dict[tuple[Any, ...], dict[float, float]]


def at(second: float, name: str = "x", **more: Any) -> Span:
    """A span that starts then and lasts 100 ms."""
    start_ns = round(second * S)
    return one(name, round(second * 1000) + 1, **({"start_ns": start_ns, "end_ns": start_ns + S // 10} | more))


def measuring(measure: Metric | Compare, *second: Any, of: Spanset | None = None) -> MetricsPipeline:
    return MetricsPipeline(Pipeline((of or where(),)), measure, second)


def metric(function: str, of: Any = None, by: tuple[Any, ...] = (), quantiles: tuple[float, ...] = ()) -> Metric:
    return Metric(function, of, quantiles, by)


def answer(body: Any, trace: Trace, start_s: float = 10, end_s: float = 30, step_s: float = 10) -> Answer:
    """Values of labels, `__name__` shortened to what it says -> second -> value."""
    series = metrics(Query(body), [trace], round(start_s * S), round(end_s * S), round(step_s * S))
    return {
        tuple(value.value for _, value in one.labels): {t / S: value for t, value in one.points.items()}
        for one in series
    }


# ---- points


def test_a_point_covers_the_step_before_it_and_its_own_time() -> None:
    """9: bucket i is (t - step, t]."""
    trace = [at(10), at(10.001), at(20), at(20.001), at(31)]

    assert answer(measuring(metric("count_over_time")), trace) == {("count_over_time",): {10: 1, 20: 2, 30: 1}}


def test_points_run_from_the_start_rounded_down_to_the_end_rounded_up() -> None:
    """9."""
    assert answer(measuring(metric("count_over_time")), [at(5), at(40)], start_s=14, end_s=31) == {
        ("count_over_time",): {10: 1, 20: 0, 30: 0, 40: 1}
    }


@pytest.mark.parametrize("step_s", [0.5, 1, 3, 7])
def test_the_counts_of_all_points_are_the_spans_that_the_points_cover(step_s: float) -> None:
    """15.7."""
    trace = [at(number / 4) for number in range(400)]

    (points,) = answer(measuring(metric("count_over_time")), trace, 21, 42, step_s).values()

    times = sorted(points)
    covered = [one for one in trace if (times[0] - step_s) * S < one.start_ns <= times[-1] * S]
    assert sum(points.values()) == len(covered)


def test_an_instant_query_is_a_range_query_of_one_step() -> None:
    """15.7, 9.7."""
    trace = [at(10), at(12), at(20), at(21)]
    rate = Query(measuring(metric("rate")))

    (in_one,) = instant(rate, [trace], 10 * S, 20 * S)
    (in_range,) = metrics(rate, [trace], 10 * S, 20 * S, 10 * S)

    assert in_one.points == {20 * S: 0.2}
    assert in_range.points[20 * S] == in_one.points[20 * S]


def test_without_data_there_is_no_series() -> None:
    """9."""
    for function in ("rate", "count_over_time"):
        assert answer(measuring(metric(function)), [at(99)]) == {}
    for function in ("min_over_time", "histogram_over_time"):
        assert answer(measuring(metric(function, A)), [at(15)]) == {}
    assert answer(measuring(metric("quantile_over_time", A, quantiles=(0.5,))), [at(15)]) == {}


def test_a_span_counts_once_also_if_the_pipeline_groups_it() -> None:
    """15.7; the pipeline sees the whole trace (15.3)."""
    trace = [at(15, "x"), at(25, "y"), at(99, "x")]
    body = MetricsPipeline(
        Pipeline((where(), GroupBy(NAME), ScalarFilter("=", count(), Static("int", 2)))), metric("count_over_time")
    )

    assert answer(body, trace) == {("count_over_time",): {10: 0, 20: 1, 30: 0}}


# ---- functions


VALUES = [at(11, attributes={"a": 4}), at(12, attributes={"a": -2.5}), at(21, attributes={"a": "x"}), at(22)]


@pytest.mark.parametrize(
    ("function", "value"),
    [("min_over_time", -2.5), ("max_over_time", 4), ("sum_over_time", 1.5), ("avg_over_time", 0.75)],
)
def test_numbers_are_measured_and_points_without_any_left_out(function: str, value: float) -> None:
    """9, 9.1; 15.11: also negative ones, and spans without the attribute do no harm."""
    assert answer(measuring(metric(function, A)), VALUES) == {(function,): {20: value}}


def test_a_rate_is_spans_a_second() -> None:
    """9."""
    assert answer(measuring(metric("rate")), VALUES) == {("rate",): {10: 0, 20: 0.2, 30: 0.2}}


@pytest.mark.parametrize(
    ("function", "of", "value"),
    [
        ("max_over_time", "duration", 0.25),
        ("sum_over_time", "duration", 0.35),
        ("max_over_time", "traceDuration", 1_100_000_000),
        ("min_over_time", "event:timeSinceStart", 7),
    ],
)
def test_the_duration_is_in_seconds_and_others_in_nanoseconds(function: str, of: str, value: float) -> None:
    """9.1."""
    trace = [at(11, end_ns=11 * S + S // 4), at(12, events=(Event(12 * S + 7),))]

    assert answer(measuring(metric(function, intrinsic(of))), trace) == {(function,): {20: pytest.approx(value)}}


@pytest.mark.parametrize(
    ("q", "value"), [(0, 1), (0.1, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3.5), (0.9, 100), (1, 100)]
)
def test_a_quantile_is_the_value_of_its_rank(q: float, value: float) -> None:
    """9.2's rank, 15.7's exactness; of floats too."""
    trace = [at(11 + place, attributes={"a": held}) for place, held in enumerate([3.5, 1, 100, 2])]

    body = measuring(metric("quantile_over_time", A, quantiles=(q,)))

    assert answer(body, trace) == {("quantile_over_time", q): {10: 0, 20: value, 30: 0}}


def test_every_quantile_has_its_series_and_durations_are_in_seconds() -> None:
    """9.2."""
    body = measuring(metric("quantile_over_time", DURATION, by=(NAME,), quantiles=(0.5, 0.9)))

    assert answer(body, [at(15)]) == {("x", 0.5): {10: 0, 20: 0.1, 30: 0}, ("x", 0.9): {10: 0, 20: 0.1, 30: 0}}


def test_a_histogram_counts_in_powers_of_two() -> None:
    """9.2: floats and what is below 2 do not count."""
    held: list[Any] = [-4, 0, 1, 2, 3, 4, 5, 2.0, "x"]
    trace = [at(11 + place / 2, attributes={"a": one}) for place, one in enumerate(held)]

    assert answer(measuring(metric("histogram_over_time", A)), trace) == {
        ("histogram_over_time", 2): {10: 0, 20: 1, 30: 0},
        ("histogram_over_time", 4): {10: 0, 20: 2, 30: 0},
        ("histogram_over_time", 8): {10: 0, 20: 1, 30: 0},
    }


def test_a_histogram_of_durations_has_bounds_in_seconds() -> None:
    """9.2."""
    assert answer(measuring(metric("histogram_over_time", DURATION)), [at(15, end_ns=15 * S + 1000)]) == {
        ("histogram_over_time", 1024 / S): {10: 0, 20: 1, 30: 0}
    }


# ---- labels


def labels(trace: Trace, *by: Any) -> list[dict[str, Any]]:
    series = metrics(Query(measuring(metric("rate", by=by))), [trace], 0, 99 * S, 10 * S)
    return [{key: value.value for key, value in one.labels} for one in series]


def test_labels_are_named_as_one_writes_them() -> None:
    """9.3."""
    trace = [at(1, attributes={"a b": 1, "a": True}, status="ok", resource={"service.name": "shop"})]

    assert labels(trace, resource("service.name"), Attribute("", "a"), NAME, intrinsic("status"), span("a b")) == [
        {"resource.service.name": "shop", ".a": True, "name": "x", "status": "ok", 'span."a b"': 1}
    ]
    assert labels(trace) == [{"__name__": "rate"}]


def test_a_nil_label_is_left_out_and_if_all_are_the_first_says_nil() -> None:
    """9.3; series come by number of labels, then keys, then values."""
    trace = [at(1, attributes={"a": 2}), at(2, attributes={"a": 1, "b": 1}), at(3), at(4, attributes={"b": 1})]

    assert labels(trace, A, span("b")) == [
        {"span.a": 2},
        {"span.a": "nil"},
        {"span.b": 1},
        {"span.a": 1, "span.b": 1},
    ]


def test_a_label_keeps_its_type() -> None:
    """9.3: values are typed, so 1, 1.0, "1" and true are four series."""
    trace = [at(number, attributes={"a": held}) for number, held in enumerate([1, 1.0, "1", True, 1], 1)]

    assert [type(one["span.a"]) for one in labels(trace, A)] == [bool, float, int, str]


def test_an_array_of_one_is_its_element_and_a_longer_one_nil() -> None:
    """9.3."""
    trace = [at(1, attributes={"a": ["x"]}), at(2, attributes={"a": "x"}), at(3, attributes={"a": ["x", "y"]})]

    assert labels(trace, A) == [{"span.a": "nil"}, {"span.a": "x"}]


def test_traces_grouped_by_their_id_stay_apart() -> None:
    """15.11."""
    world = [[at(11, trace_id=bytes([number]) * 16)] for number in (1, 2)]

    series = metrics(Query(measuring(metric("rate", by=(intrinsic("trace:id"),)))), world, 0, 20 * S, 10 * S)

    assert [one.labels[0][1].value for one in series] == ["01" * 16, "02" * 16]


# ---- second stages


NAMED = [at(11, "a"), at(12, "a"), at(13, "b"), at(14, "c"), at(21, "b"), at(22, "c")]
COUNT_BY_NAME = metric("count_over_time", by=(NAME,))


@pytest.mark.parametrize(
    ("stages", "kept"),
    [
        ((Rank("topk", 1),), {("a",): {10: 0, 20: 2}, ("b",): {30: 1}}),
        ((Rank("bottomk", 1),), {("a",): {10: 0, 30: 0}, ("b",): {20: 1}}),
        ((Threshold(">", 1.0),), {("a",): {20: 2}}),
        ((Threshold("=", 1.0),), {("b",): {20: 1, 30: 1}, ("c",): {20: 1, 30: 1}}),
        ((Threshold("!=", 1.0),), {("a",): {10: 0, 20: 2, 30: 0}, ("b",): {10: 0}, ("c",): {10: 0}}),
        ((Threshold(">", -3.0), Rank("topk", 1), Threshold(">=", 2.0)), {("a",): {20: 2}}),
        ((Threshold("<", 2.0), Rank("topk", 1)), {("a",): {10: 0}, ("b",): {20: 1, 30: 1}}),
        ((Threshold(">", 9.0),), {}),
    ],
    ids=str,
)
def test_second_stages_keep_points_time_by_time_in_their_order(stages: tuple[Any, ...], kept: Answer) -> None:
    """9.5: ties by the order of labels."""
    assert answer(measuring(COUNT_BY_NAME, *stages), NAMED) == kept


# ---- calculating with metrics


def test_series_of_equal_labels_are_calculated_point_by_point() -> None:
    """9.8: x / 0 is no point."""
    left, right = measuring(COUNT_BY_NAME, of=named("a", "b")), measuring(COUNT_BY_NAME)

    assert answer(MetricsMath("/", left, right), NAMED) == {("a",): {20: 1}, ("b",): {20: 1, 30: 1}}


def test_an_ungrouped_side_or_a_number_goes_with_each_series() -> None:
    """9.8."""
    share = MetricsMath("/", measuring(COUNT_BY_NAME), measuring(metric("count_over_time")))

    assert answer(share, NAMED) == {("a",): {20: 0.5, 30: 0}, ("b",): {20: 0.25, 30: 0.5}, ("c",): {20: 0.25, 30: 0.5}}
    assert answer(MetricsMath("-", 1.0, measuring(COUNT_BY_NAME, of=named("a"))), NAMED) == {
        ("a",): {10: 1, 20: -1, 30: 1}
    }


def test_the_name_of_an_ungrouped_answer_tells_the_calculation() -> None:
    """9.8; second stages may follow."""
    sides = measuring(metric("rate")), measuring(metric("count_over_time"))
    body = MetricsMath("*", MetricsMath("/", *sides), 10.0, (Threshold(">", 0.5),))

    assert answer(body, NAMED) == {("((rate / count_over_time) * 10)",): {20: pytest.approx(1), 30: pytest.approx(1)}}


def test_series_without_a_counterpart_are_left_out() -> None:
    """9.8."""
    sides = measuring(COUNT_BY_NAME, of=named("a", "c")), measuring(COUNT_BY_NAME, of=named("b", "c"))

    assert answer(MetricsMath("+", *sides), NAMED) == {("c",): {10: 0, 20: 2, 30: 2}}


# ---- comparing


SHOP = {"service.name": "shop"}
FAILING = [
    at(11, "a", status="error", attributes={"a": 1, "b": 1}, resource=SHOP),
    at(12, "a", status="error", attributes={"a": 2}, resource=SHOP),
    at(13, "b", attributes={"a": 1}, resource=SHOP),
    at(21, "b", attributes={"a": [1, 2]}, resource=SHOP),
]
ERRORS = where(says(intrinsic("status"), "=", status("error")))


def compared(compare: Compare) -> Answer:
    series = metrics(Query(measuring(compare)), [FAILING], 20 * S, 30 * S, 10 * S)
    return {
        (one.labels[0][1].value, one.labels[1][0], one.labels[1][1].value): {t / S: v for t, v in one.points.items()}
        for one in series
    }


def test_compare_counts_the_values_of_each_attribute_on_both_sides() -> None:
    """9.4."""
    answer_ = compared(Compare(ERRORS))

    assert answer_["selection", "span.a", 1] == {20: 1, 30: 0}
    assert answer_["selection", "span.a", 2] == {20: 1, 30: 0}
    assert answer_["baseline", "span.a", 1] == {20: 1, 30: 0}
    assert answer_["selection_total", "span.a", "nil"] == {20: 2, 30: 0}
    assert answer_["baseline_total", "span.a", "nil"] == {20: 1, 30: 0}
    assert answer_["baseline_total", "name", "nil"] == {20: 1, 30: 1}
    assert answer_["selection", "status", "error"] == {20: 2, 30: 0}
    assert answer_["baseline", "resource.service.name", "shop"] == {20: 1, 30: 1}
    assert ("baseline_total", "span.b", "nil") not in answer_


def test_compare_leaves_out_durations_ids_and_what_is_said_of_the_whole_trace() -> None:
    """9.4."""
    keys = {key for _, key, _ in compared(Compare(ERRORS))}

    assert keys == {"span.a", "span.b", "resource.service.name", "name", "status", "kind"}


def test_compare_shows_the_most_frequent_values_of_each_side() -> None:
    """9.4; 15.11: of equally frequent ones always the same."""
    answer_ = compared(Compare(ERRORS, top=1))

    assert ("selection", "span.a", 1) in answer_
    assert ("selection", "span.a", 2) not in answer_
    assert answer_["selection_total", "span.a", "nil"] == {20: 2, 30: 0}


def test_compare_selects_only_inside_its_window() -> None:
    """9.4: start < the span's start <= end."""
    answer_ = compared(Compare(ERRORS, window=(11 * S, 12 * S)))

    assert answer_["selection_total", "span.a", "nil"] == {20: 1, 30: 0}
    assert answer_["baseline_total", "span.a", "nil"] == {20: 2, 30: 0}


def test_a_metrics_query_can_be_searched_by_its_pipeline() -> None:
    """11: what is searched is the pipeline before the metric."""
    body = measuring(metric("rate"), of=named("b"))

    (found,) = search(Query(body), [NAMED], 0, 99 * S)

    assert [one.name for one in found.spans] == ["b", "b"]

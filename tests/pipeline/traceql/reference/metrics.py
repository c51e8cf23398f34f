"""Metrics queries (section 9), exact: every value is calculated from all the spans that it is about."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.traceql.tree import (
    Compare,
    Intrinsic,
    Metric,
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
    Static,
)
from tests.pipeline.traceql.reference.comparison import compared
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.fields import value_of
from tests.pipeline.traceql.reference.model import Span, Trace
from tests.pipeline.traceql.reference.series import Labels, Series, after, calculated, named
from tests.pipeline.traceql.reference.spansets import group_value, run
from tests.pipeline.traceql.reference.texts import field_text
from tests.pipeline.traceql.reference.values import NIL, TRUE, is_number

Weigh = Callable[[Span], float]
DURATION = Intrinsic("span:duration")
NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class Interval:
    """Of a point: spans that start after `after_ns` and not after `until_ns`, which is the point's time."""

    after_ns: int
    until_ns: int

    def holds(self, span: Span) -> bool:
        return self.after_ns < span.start_ns <= self.until_ns


Measured = dict[int, list[tuple[float, float]]]  # point -> what was measured in it, and how many spans stand for it


def metrics(query: Query, traces: Iterable[Trace], start_ns: int, end_ns: int, step_ns: int) -> list[Series]:
    """A range query: points from start, rounded down to the step, to end, rounded up, both included (9, 15.7)."""
    first, last = start_ns // step_ns, -(-end_ns // step_ns)
    intervals = [Interval((number - 1) * step_ns, number * step_ns) for number in range(first, last + 1)]
    return answered(query, traces, intervals)


def instant(query: Query, traces: Iterable[Trace], start_ns: int, end_ns: int) -> list[Series]:
    """An instant query: one point, at the end, for all that starts in (start, end] (9.7)."""
    return answered(query, traces, [Interval(start_ns, end_ns)])


def answered(query: Query, traces: Iterable[Trace], intervals: Sequence[Interval]) -> list[Series]:
    """Of the hints extrapolate is looked at (10): nothing is sampled here, but spans may come from a sampler."""
    if isinstance(query.body, Pipeline):
        raise TypeError("no metrics query")
    families = [Family(trace) for trace in traces if trace]
    weigh = stands_for if ("extrapolate", TRUE) in query.hints else lambda _span: 1.0
    return math_or_pipeline(query.body, families, intervals, weigh)


def math_or_pipeline(
    of: MetricsPipeline | MetricsMath, families: Sequence[Family], intervals: Sequence[Interval], weigh: Weigh
) -> list[Series]:
    if isinstance(of, MetricsMath):
        left, right = (
            one if isinstance(one, int | float) else math_or_pipeline(one, families, intervals, weigh)
            for one in (of.left, of.right)
        )
        return after(of.second, calculated(of.op, left, right))
    spans = [(span, family) for family in families for span in surviving(of.pipeline, family)]
    placed = [(one.until_ns, span, family) for one in intervals for span, family in spans if one.holds(span)]
    times = [one.until_ns for one in intervals]
    if isinstance(of.measure, Compare):
        return after(of.second, compared(of.measure, placed, times))
    step_s = (intervals[0].until_ns - intervals[0].after_ns) / NS_PER_S
    return after(of.second, measured(of.measure, [(*one, weigh(one[1])) for one in placed], times, step_s))


def surviving(pipeline: Pipeline, family: Family) -> list[Span]:
    """The spans behind the pipeline, each once. The pipeline sees the whole trace, whatever the interval (15.3)."""
    spans = {span for spanset in run(pipeline, family) for span in spanset.spans}
    return [span for span in family.spans if span in spans]


def stands_for(span: Span) -> float:
    """How many spans one stands for that a sampler kept: those above a threshold of 56 bits, of all of them."""
    members = [one.strip() for one in span.trace_state.split(",")]
    pairs = [pair for one in members if one.startswith("ot=") for pair in one.removeprefix("ot=").split(";")]
    for pair in pairs:
        digits = pair.removeprefix("th:")
        if pair.startswith("th:") and 1 <= len(digits) <= 14 and set(digits) <= set("0123456789abcdef"):
            return 2**56 / (2**56 - int(digits.ljust(14, "0"), 16))
    return 1.0


def measured(
    metric: Metric, placed: list[tuple[int, Span, Family, float]], times: list[int], step_s: float
) -> list[Series]:
    """placed: spans with the time of their point, and how many each stands for. No data, no series: a series has at
    least one span that counts.
    """
    series: dict[Labels, Measured] = defaultdict(lambda: defaultdict(list))
    for at, span, family, weight in placed:
        value = measure(metric, span, family)
        if value is not None:
            labels = labels_of(metric, span, family)
            if metric.function == "histogram_over_time":
                labels = (*labels, ("__bucket", Static("float", value)))
            series[labels][at].append((value, weight))
    if metric.function == "quantile_over_time":
        return [
            Series((*labels, ("p", Static("float", float(q)))), {at: quantile(q, found.get(at, [])) for at in times})
            for labels, found in series.items()
            for q in metric.quantiles
        ]
    return [Series(labels, points(metric.function, found, times, step_s)) for labels, found in series.items()]


def labels_of(metric: Metric, span: Span, family: Family) -> Labels:
    """Of by(); without it the function's name. What is nil is left out; if all is, the first label says `nil` (9.3)."""
    if not metric.by:
        return (named(metric.function),)
    labels = [(field_text(field), group_value(value_of(field, span, family))) for field in metric.by]
    there = tuple((key, value) for key, value in labels if value != NIL)
    return there or ((labels[0][0], Static("string", "nil")),)


# ---- what one span adds


def measure(metric: Metric, span: Span, family: Family) -> float | None:
    """The value that the function is about; None where the span has none, and then it does not count.

    min, max, sum and avg: the intrinsic duration in seconds, other durations in nanoseconds (9.1). Quantiles and
    histograms: all durations in seconds (9.2).
    """
    if metric.of is None:
        return 1.0
    value = value_of(metric.of, span, family)
    if not isinstance(value, Static) or not is_number(value) or isinstance(value.value, str | None):
        return None
    if metric.function == "histogram_over_time":
        return bucket(value)
    in_seconds = metric.of == DURATION or metric.function == "quantile_over_time"
    return value.value / NS_PER_S if value.type == "duration" and in_seconds else float(value.value)


def bucket(value: Static) -> float | None:
    """Smallest power of two not below the value; durations in seconds. Floats and what is below 2 do not count."""
    if not isinstance(value.value, int) or value.value < 2:
        return None
    bound = 1 << (value.value - 1).bit_length()
    return bound / NS_PER_S if value.type == "duration" else float(bound)


# ---- what an interval's spans make


def points(function: str, found: Measured, times: list[int], step_s: float) -> dict[int, float]:
    """Where nothing was measured counts are 0, and everything else has no point."""
    match function:
        case "rate":
            return {at: spans(found.get(at, [])) / step_s for at in times}
        case "count_over_time" | "histogram_over_time":
            return {at: spans(found.get(at, [])) for at in times}
        case "min_over_time":
            return {at: min(found[at])[0] for at in times if at in found}
        case "max_over_time":
            return {at: max(found[at])[0] for at in times if at in found}
        case "sum_over_time":
            return {at: total(found[at]) for at in times if at in found}
        case "avg_over_time":
            return {at: total(found[at]) / spans(found[at]) for at in times if at in found}
    raise KeyError(function)


def spans(found: list[tuple[float, float]]) -> float:
    return math.fsum(weight for _, weight in found)


def total(found: list[tuple[float, float]]) -> float:
    return math.fsum(value * weight for value, weight in found)


def quantile(q: float, found: list[tuple[float, float]]) -> float:
    """The smallest value that at least the share q of the values does not exceed; 0 of none (9, 15.7: within 1 %).

    Values of any sign count. The share is rounded, as 0.1 * 30 is a little more than 3.
    """
    below, wanted = 0.0, round(q * spans(found), 9)
    for value, weight in sorted(found):
        below += weight
        if round(below, 9) >= wanted:
            return value
    return 0.0

"""TraceQL metrics over HTTP: parameters in, Tempo's JSON out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from starlette.datastructures import QueryParams

from pipeline.query.intervals import Intervals
from pipeline.query.metrics import MetricsAnswer, MetricsQuestion
from pipeline.query.series import Exemplar, Label, SeriesTable
from pipeline.serve.params import duration_of, hours_text, whole
from pipeline.serve.span_sets import any_value, double
from pipeline.serve.tempo import Json, complete
from pipeline.traceql import tree
from pipeline.traceql.check import RegexError, compiled
from pipeline.traceql.durations import LONG_UNITS_NS, duration_text
from topics.errors import BadQuestionError
from topics.settings import QuerierSettings

S, MS = 10**9, 10**6
SINCE_NS = 3600 * S
POINTS_MAX = 10_000
EXEMPLARS = 100
SHORT_NS, SHORT_STEP_NS = 60 * S, 50 * MS  # ranges below one minute have steps of a multiple of this
STEPS_NS = tuple(seconds * S for seconds in (3600, 300, 60, 15, 5, 1))
STEPS = 240
NS_DIGITS = 11  # of a time in whole nanoseconds at least
TIME_NS_MAX = 2**63 - 1
Told = Callable[[MetricsAnswer, int], Json]
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]+)?")


def range_question(params: QueryParams, querier: QuerierSettings, regex_error: RegexError) -> MetricsQuestion:
    """All parameters of /api/metrics/query_range."""
    query = _query(params, regex_error)
    start_ns, end_ns = _times(params, querier)
    step_ns = _step(params, start_ns, end_ns)
    intervals = Intervals.of_range(start_ns, end_ns, step_ns)
    if intervals.points > POINTS_MAX:
        least = duration_text(-(-(end_ns - start_ns) // POINTS_MAX))
        raise BadQuestionError(
            f"step of {duration_text(step_ns)} is too small, minimum step for given range is {least}"
        )
    return MetricsQuestion(
        query=_body(query),
        intervals=intervals,
        exemplars=_exemplars(params, query),
        extrapolate=_hint(query, "extrapolate") is True,
    )


def instant_question(params: QueryParams, querier: QuerierSettings, regex_error: RegexError) -> MetricsQuestion:
    """All parameters of /api/metrics/query: one interval, from start to end."""
    query = _query(params, regex_error)
    start_ns, end_ns = _times(params, querier)
    intervals = Intervals(start_ns, end_ns - start_ns, 1)
    extrapolate = _hint(query, "extrapolate") is True
    return MetricsQuestion(query=_body(query), intervals=intervals, extrapolate=extrapolate)


def _query(params: QueryParams, regex_error: RegexError) -> tree.Query:
    text = params.get("q", "") or params.get("query", "")
    if not text:
        raise BadQuestionError("invalid metrics query: q is missing, as in q={ status = error } | rate()")
    return compiled(text, regex_error)


def _body(query: tree.Query) -> tree.MetricsPipeline | tree.MetricsMath:
    if isinstance(query.body, tree.Pipeline):
        raise BadQuestionError(
            "compiling query: not a metrics query: it has to end in a metrics function, as in { ... } | rate()"
        )
    return query.body


def _times(params: QueryParams, querier: QuerierSettings) -> tuple[int, int]:
    now_ns = time.time_ns()
    since_ns = duration_of(params, "since", LONG_UNITS_NS)
    end_ns = _time(params, "end", now_ns)
    start_ns = _time(params, "start", max(0, end_ns - (SINCE_NS if since_ns is None else since_ns)))
    if end_ns <= start_ns:
        raise BadQuestionError("end must be greater than start")
    longest_ns = int(querier.metrics_range_h_max * 3600 * S)
    if end_ns - start_ns > longest_ns:
        longest = hours_text(querier.metrics_range_h_max)
        raise BadQuestionError(f"metrics query time range exceeds the maximum allowed duration of {longest}")
    return start_ns, end_ns


def _time(params: QueryParams, name: str, default_ns: int) -> int:
    """Unix seconds, also with a fraction; Unix ns, which have more than 10 digits; or RFC 3339."""
    text = params.get(name, "")
    found = default_ns
    if _NUMBER.fullmatch(text):
        whole_part, _, fraction = text.partition(".")
        nanoseconds = len(whole_part) >= NS_DIGITS and not fraction
        found = int(whole_part) if nanoseconds else int(whole_part) * S + int(fraction[:9].ljust(9, "0") or 0)
    elif text:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise BadQuestionError(f"could not parse '{name}' parameter: {text[:100]!r} is no time")
        found = int(at.timestamp()) * S + at.microsecond * 1000
    if not 0 <= found <= TIME_NS_MAX:
        raise BadQuestionError(f"could not parse '{name}' parameter: {text[:100]!r} is no time")
    return found


def _step(params: QueryParams, start_ns: int, end_ns: int) -> int:
    """In ns: seconds, a duration, or by the range."""
    text = params.get("step", "")
    found = int(float(text) * S) if _NUMBER.fullmatch(text) else duration_of(params, "step", LONG_UNITS_NS)
    if found is None:
        return default_step(end_ns - start_ns)
    if not 0 < found <= TIME_NS_MAX:
        raise BadQuestionError(f"could not parse 'step' parameter: {text[:100]!r} is not above 0, or too long")
    return found


def default_step(range_ns: int) -> int:
    """About 240 points, at times that are round."""
    baseline_ns = range_ns // STEPS
    if range_ns < SHORT_NS:
        return max(SHORT_STEP_NS, baseline_ns // SHORT_STEP_NS * SHORT_STEP_NS)
    round_ns = next((one for one in STEPS_NS if baseline_ns > one), S)
    return max(S, baseline_ns // round_ns * round_ns)


def _hint(query: tree.Query, name: str) -> int | float | str | bool | None:
    return next((value.value for key, value in query.hints if key == name), None)


def _exemplars(params: QueryParams, query: tree.Query) -> int:
    """How many are wanted: the query's hint goes before the parameter."""
    hint = _hint(query, "exemplars")
    if isinstance(hint, bool):
        return EXEMPLARS if hint else 0
    if isinstance(hint, int):
        return min(max(0, hint), EXEMPLARS)
    text = params.get("exemplars", "")
    wanted = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return min(wanted or EXEMPLARS, EXEMPLARS)


def series_limit(params: QueryParams, querier: QuerierSettings) -> int:
    """The most series of an answer; 0: no limit."""
    wanted = max(0, whole(params, "maxSeries") or 0)
    limits = [limit for limit in (wanted, querier.series_max) if limit]
    return min(limits, default=0)


# ---- answers


def range_answer(answer: MetricsAnswer, limit: int) -> Json:
    """QueryRangeResponse."""
    table = answer.series
    return {"series": _series(table, limit), "metrics": _metrics(answer)} | _complete(answer, table, limit)


def points_of(table: SeriesTable, first: int, end: int) -> list[Json]:
    """Of a QueryRangeResponse, the series with those of their points whose number is from `first` to before `end`."""
    within = replace(table, values=table.values[:, first:end], times_ns=table.times_ns[first:end])
    return _series(within.kept(within.values), 0)


def _series(table: SeriesTable, limit: int) -> list[Json]:
    """limit: the most series; 0: all."""
    exemplars: dict[Any, list[Json]] = {}
    for one in table.exemplars:
        exemplars.setdefault(one.labels, []).append(_exemplar(one))
    times = [str(at // MS) for at in table.times_ns.tolist()]
    series = []
    for labels, values in zip(table.labels[: limit or None], table.values[: limit or None].tolist(), strict=True):
        found: Json = {"labels": [_label(label) for label in labels], "samples": _samples(times, values)}
        if labels in exemplars:
            found["exemplars"] = exemplars[labels]
        series.append(found)
    return series


def instant_answer(answer: MetricsAnswer, limit: int) -> Json:
    """QueryInstantResponse: without data it has no `series`."""
    table = answer.series
    found: Json = {"metrics": _metrics(answer)} | _complete(answer, table, limit)
    numbers = range(min(limit, len(table.labels)) if limit else len(table.labels))
    series = [
        {"labels": [_label(label) for label in table.labels[number]]} | _value(float(table.values[number][0]))
        for number in numbers
    ]
    return ({"series": series} if series else {}) | found


def _complete(answer: MetricsAnswer, table: SeriesTable, limit: int) -> Json:
    reasons = list(answer.reasons)
    if limit and len(table.labels) > limit:
        reasons.append(
            f"Response exceeds maximum series limit of {limit}, a partial response is returned. "
            "Warning: the accuracy of each individual value is not guaranteed."
        )
    return complete(reasons)


def _metrics(answer: MetricsAnswer) -> Json:
    found: Json = {"completedJobs": 1, "totalJobs": 1}
    if answer.chunks:
        found |= {"inspectedBytes": str(answer.chunk_bytes), "totalBlocks": answer.chunks}
    return found


def _label(label: Label) -> Json:
    type_ = "string" if label.type in ("status", "kind") else label.type
    return {"key": label.key, "value": any_value(type_, label.value)}


def _samples(times_ms: list[str], values: list[float]) -> list[Json]:
    """As `_value` says it, in one expression: there are thousands."""
    return [
        {"timestampMs": at, "value": value if math.isfinite(value) else double(value)} if value else {"timestampMs": at}
        for at, value in zip(times_ms, values, strict=True)
        if not math.isnan(value)
    ]


def _value(value: float) -> Json:
    return {"value": double(value)} if value else {}


def _exemplar(one: Exemplar) -> Json:
    labels = [Label("trace:id", "string", one.trace_id.hex()), *(each for each in one.labels if each.key[:2] != "__")]
    found: Json = {"labels": [_label(each) for each in labels]} | _value(one.value)
    return found | {"timestampMs": str(one.start_unix_ns // MS)}

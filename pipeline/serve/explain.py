"""`/api/explain`: a TraceQL query answered as ever, told is how."""

from __future__ import annotations

import time
from typing import Any

from starlette.datastructures import QueryParams

from pipeline.query import plan
from pipeline.query.explained import Watch
from pipeline.query.metrics import MetricsAnswer, MetricsQuestion
from pipeline.query.search import SearchAnswer, SearchQuestion
from pipeline.serve import metrics, params, tempo
from pipeline.traceql import tree
from pipeline.traceql.check import RegexError, compiled
from pipeline.traceql.text import text_of
from topics.errors import BadQuestionError
from topics.settings import QuerierSettings


def question_of(
    asked: QueryParams, querier: QuerierSettings, regex_error: RegexError
) -> SearchQuestion | MetricsQuestion:
    """The question of /api/metrics/query_range where q= is a metrics query, else that of /api/search."""
    if not asked.get("q", "").strip():
        raise BadQuestionError("nothing to explain: q is missing, as in q={ status = error }")
    if isinstance(compiled(asked["q"], regex_error).body, tree.Pipeline):
        return params.search_question(asked, querier, regex_error)
    return metrics.range_question(asked, querier, regex_error)


def told(
    question: SearchQuestion | MetricsQuestion,
    watch: Watch,
    answer: SearchAnswer | MetricsAnswer,
    began_s: float,
    chunks_max: int,
) -> tempo.Json:
    """As JSON. began_s: monotonic time of the question."""
    found: dict[str, Any] = (
        {"traces": len(answer.traces)} if isinstance(answer, SearchAnswer) else {"series": len(answer.series.labels)}
    )
    return {
        "plan": _plan(question),
        **watch.told(chunks_max),
        "totalMs": round((time.monotonic() - began_s) * 1000, 3),
        "answer": found,
        "complete": not answer.reasons,
    } | tempo.complete(answer.reasons)


def _plan(question: SearchQuestion | MetricsQuestion) -> tempo.Json:
    if isinstance(question, MetricsQuestion):
        intervals = question.intervals
        return {
            "kind": "metrics",
            "query": text_of(question.query),
            "startUnixNano": str(intervals.low_ns),
            "endUnixNano": str(intervals.high_ns),
            "points": intervals.points,
        }
    assert question.query is not None, "a question of tags alone is not explained"
    rows = plan.rows_decide(question.query)
    return {
        "kind": "search",
        "query": text_of(question.query),
        "startUnixNano": str(question.start_ns),
        "endUnixNano": str(question.end_ns),
        "order": question.order.name,
        "limit": question.limit,
        "decidedBy": "single rows" if rows else "whole traces",
    }

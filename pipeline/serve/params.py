"""Parameters of a request: times, limits. Wrong ones raise BadQuestionError with the sentence to answer."""

from __future__ import annotations

import re
import time

from starlette.datastructures import QueryParams

from pipeline.query.order import ORDERS
from pipeline.query.search import SearchQuestion
from pipeline.query.tags import Among
from pipeline.query.texts import duration_ns, tags_of
from pipeline.query.trace_filter import TraceFilter, condition_alone
from pipeline.traceql import tree
from pipeline.traceql.check import RegexError, compiled
from pipeline.traceql.durations import LONG_UNITS_NS, UNITS_NS
from pipeline.traceql.matchers import matchers_of
from topics.errors import BadQuestionError
from topics.settings import QuerierSettings

SECOND_NS = 10**9
SEARCH_DEFAULT_NS = 15 * 60 * SECOND_NS
SPANS_PER_SPAN_SET, SPANS_PER_SPAN_SET_MAX = 3, 100
UINT32_MAX = 2**32 - 1
QUERY_BYTES_MAX = 131_072
TAG_LIMIT_MAX = 262_144  # as many as Tempo's traces of a search; the engine's own limit of a sorted list is a million
SEARCH_PARAMETERS = frozenset(
    ("q", "tags", "minDuration", "maxDuration", "limit", "spss", "start", "end", "since", "cursor", "order", "format")
)
_INT = re.compile(r"[+-]?\d{1,19}")


def whole(params: QueryParams, name: str) -> int | None:
    """A whole number; None where the parameter is absent or empty."""
    value = params.get(name, "")
    if not value:
        return None
    if _INT.fullmatch(value) is None:
        raise BadQuestionError(f"invalid {name}: {value[:100]!r} is no whole number")
    return int(value)


def unix_seconds(params: QueryParams, name: str) -> int | None:
    """A time in whole Unix seconds that fits 32 bits."""
    value = whole(params, name)
    if value is not None and not 0 <= value <= UINT32_MAX:
        raise BadQuestionError(f"invalid {name}: {value} is no time in Unix seconds")
    return value


def duration_of(params: QueryParams, name: str, units: dict[str, int] = UNITS_NS) -> int | None:
    """A duration in ns; None where the parameter is absent or empty. units: as of `duration_ns`."""
    value = params.get(name, "")
    try:
        return duration_ns(value, units=units) if value else None
    except BadQuestionError as exc:
        raise BadQuestionError(f"invalid {name}: {exc}") from exc


def trace_times(params: QueryParams) -> tuple[int | None, int | None]:
    """start and end of a trace by ID in Unix ns; both may be absent. The end's whole second is meant."""
    start, end = unix_seconds(params, "start"), unix_seconds(params, "end")
    if start and end and end <= start:
        raise BadQuestionError(f"http parameter start must be before end. received start={start} end={end}")
    mode = params.get("mode", "") or "all"
    if mode not in ("all", "blocks", "ingesters", "external"):
        raise BadQuestionError(f"invalid value for mode {mode}")
    return start * SECOND_NS if start else None, (end + 1) * SECOND_NS - 1 if end else None


def search_times(params: QueryParams, range_h_max: float, now_ns: int | None = None) -> tuple[int, int] | None:
    """start and end in Unix ns from start and end or since; None where neither is given."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    if (since_ns := duration_of(params, "since", LONG_UNITS_NS)) is not None:
        _check_range((now_ns - since_ns) / SECOND_NS, now_ns / SECOND_NS, range_h_max)
        return max(0, now_ns - since_ns), now_ns
    start, end = unix_seconds(params, "start"), unix_seconds(params, "end")
    if not start and not end:
        return None
    if not start or not end:
        raise BadQuestionError("only one of start and end provided: must provide both or neither")
    _check_range(start, end, range_h_max)
    return start * SECOND_NS, (end + 1) * SECOND_NS - 1


def _check_range(start_s: float, end_s: float, range_h_max: float) -> None:
    received = f"received start={int(start_s)} end={int(end_s)}"
    if end_s <= start_s:
        raise BadQuestionError(f"http parameter start must be before end. {received}")
    if end_s - start_s > range_h_max * 3600:
        raise BadQuestionError(f"range specified by start and end exceeds {hours_text(range_h_max)}. {received}")


def times_or_recent(params: QueryParams, range_h_max: float) -> tuple[int, int]:
    """The same; the last 15 minutes where no times are given."""
    now_ns = time.time_ns()
    return search_times(params, range_h_max, now_ns) or (now_ns - SEARCH_DEFAULT_NS, now_ns)


def limit_of(params: QueryParams, default: int, maximum: int) -> int:
    """limit=; zero and less are errors."""
    limit = whole(params, "limit")
    if limit is None:
        return default
    if limit <= 0:
        raise BadQuestionError("invalid limit: must be a positive number")
    if limit > maximum:
        raise BadQuestionError(f"limit {limit} exceeds max limit {maximum}")
    return limit


def tag_limit_of(params: QueryParams, default: int) -> int:
    """limit= of tag names and values, at most TAG_LIMIT_MAX: what is no positive number counts as absent, as Tempo has
    it.
    """
    value = params.get("limit", "")
    limit = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    return min(limit or default, TAG_LIMIT_MAX)


def trace_filter_of(params: QueryParams, regex_error: RegexError) -> TraceFilter | None:
    """Which spans of a trace are wanted: q=, keep_hierarchy=, ancestor_depth=, match_depth=. None: all."""
    above, below = whole(params, "ancestor_depth"), whole(params, "match_depth") or 0
    if not params.get("q", "").strip():
        return None
    if not (-1 if above is None else above) >= -1 or below < 0:
        raise BadQuestionError("invalid depth: ancestor_depth is -1 or more, match_depth is 0 or more")
    levels = None if above is None or above == -1 else above
    return TraceFilter(
        condition=condition_alone(compiled(params["q"], regex_error).body),
        levels_above=levels if _is_true(params, "keep_hierarchy") else 0,
        levels_below=below,
    )


def _is_true(params: QueryParams, name: str) -> bool:
    value = params.get(name, "").lower()
    if value not in ("", "1", "t", "true", "0", "f", "false"):
        raise BadQuestionError(f"invalid {name}: {value[:50]!r} is neither true nor false")
    return value in ("1", "t", "true")


def among_of(params: QueryParams, range_h_max: float, regex_error: RegexError) -> Among:
    """Among which spans tags are looked for: start=, end= and q=, of which as much as can be understood counts."""
    query = params.get("q", "")
    if len(query.encode()) > QUERY_BYTES_MAX:
        raise BadQuestionError(f"TraceQL query is larger than {QUERY_BYTES_MAX} bytes")
    return Among(search_times(params, range_h_max), matchers_of(query, regex_error))


def search_question(
    params: QueryParams, querier: QuerierSettings, regex_error: RegexError, tags: dict[str, str] | None = None
) -> SearchQuestion:
    """All parameters of /api/search. regex_error: what is wrong with a regex, None where nothing is; tags: in the place
    of those of the parameters.
    """
    if params.get("q") and (params.get("tags") or tags):
        raise BadQuestionError("invalid request: can't specify tags and q in the same query")
    tags = tags_of(params.get("tags", "")) if tags is None else tags
    if not tags and not {"q", "tags", "start", "end"} & set(params.keys()):
        tags = {name: value for name, value in params.items() if name not in SEARCH_PARAMETERS}
    low, high = _durations(params)
    spans = whole(params, "spss") or 0
    if spans > SPANS_PER_SPAN_SET_MAX or spans < 0:
        raise BadQuestionError(f"spans per span set exceeds {SPANS_PER_SPAN_SET_MAX}. received {spans}")
    order = params.get("order", "newest")
    if order not in ORDERS:
        raise BadQuestionError(f"invalid order: {order[:50]!r} is none of {', '.join(ORDERS)}")
    now_ns = time.time_ns()
    start_ns, end_ns = search_times(params, querier.search_range_h_max, now_ns) or (now_ns - SEARCH_DEFAULT_NS, now_ns)
    return SearchQuestion(
        tags=tags,
        query=pipeline_of(compiled(params["q"], regex_error).body) if params.get("q") else None,
        span_set_spans=spans or SPANS_PER_SPAN_SET,
        start_ns=start_ns,
        end_ns=end_ns,
        limit=limit_of(params, querier.search_limit_default, querier.search_limit_max),
        duration_min_ns=low,
        duration_max_ns=high,
        order=ORDERS[order],
        cursor=params.get("cursor", ""),
    )


def pipeline_of(body: tree.Pipeline | tree.MetricsPipeline | tree.MetricsMath | float) -> tree.Pipeline:
    """What a search looks for: of a metrics query the spans that it measures, of several the first's."""
    if isinstance(body, tree.MetricsMath):
        return pipeline_of(body.right if isinstance(body.left, float) else body.left)
    assert not isinstance(body, float), "the checks refuse a sum of numbers"
    return body if isinstance(body, tree.Pipeline) else body.pipeline


def _durations(params: QueryParams) -> tuple[int | None, int | None]:
    low, high = duration_of(params, "minDuration"), duration_of(params, "maxDuration")
    if low is not None and high is not None and high < low:
        raise BadQuestionError("invalid maxDuration: must be greater than minDuration")
    return low, high


def hours_text(hours: float) -> str:
    """Hours as Go prints a duration."""
    seconds = round(hours * 3600)
    return f"{seconds // 3600}h{seconds // 60 % 60}m{seconds % 60}s"

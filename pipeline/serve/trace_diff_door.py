"""`POST /api/v2/traces/diff`: two traces are read and compared."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from pipeline.doors.asgi import tenants_of
from pipeline.query.questions import Questions
from pipeline.query.texts import trace_id_of
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import params, trace_diff
from pipeline.serve.answers import count_partial
from pipeline.serve.formats import JSON
from pipeline.serve.gone import unless_gone
from pipeline.serve.query_limits import QueryLimits
from pipeline.serve.sql import body_of
from pipeline.spans import to_otlp
from topics.errors import BadQuestionError

BODY_BYTES_MAX = 16 << 10
SHAPE = '{"base": {"traceId": "..."}, "compare": {"traceId": "..."}}'


class TraceDiffDoor:
    """The handler of the route."""

    def __init__(self, questions: Questions, limits: QueryLimits) -> None:
        self._questions, self._limits = questions, limits

    async def diff(self, request: Request) -> Response:
        """What differs from base to compare."""
        if request.method != "POST":
            return _refused(f"traces are compared with POST, the body is {SHAPE}", 405, {"allow": "POST"})
        asked = asked_of(await body_of(request, BODY_BYTES_MAX, "the body"))
        return await unless_gone(request, self._answer(request, asked))

    async def _answer(self, request: Request, asked: dict[str, Any]) -> Response:
        found = list[FoundTrace]()
        bytes_max = self._limits.of(tenants_of(request.scope)).trace_bytes_max
        for name in ("base", "compare"):
            one = await self._questions.trace(tenants_of(request.scope), *asked[name])
            count_partial("trace", one.reasons)
            if one.reasons:
                return _refused(f"{name} may not be whole, so that it is not compared: {'; '.join(one.reasons)}", 422)
            if not one.spans.num_rows:
                return _refused(f"no span of trace {one.trace_id.hex()} ({name}) is known", 404)
            found.append(one)
        return await self._questions.in_thread(lambda: _compared(found, asked["format"], bytes_max))


def _compared(found: list[FoundTrace], form: str, bytes_max: int) -> Response:
    traces = [to_otlp.to_proto(one.spans) for one in found]
    if sum(one.ByteSize() for one in traces) > bytes_max:
        return _refused(f"both traces together exceed max size (max bytes: {bytes_max})", 429)
    keys: dict[Any, int] = {}
    base, compare = (trace_diff.side_of(*one, keys) for one in zip(found, traces, strict=True))
    return Response(orjson.dumps(trace_diff.told(base, compare, form)), media_type=JSON)


def asked_of(body: bytes) -> dict[str, Any]:
    """base, compare: trace ID, start, end as of `Questions.trace`; format. Raises BadQuestionError."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadQuestionError(f"the body is no JSON: {exc}") from exc
    if not isinstance(given, dict):
        raise BadQuestionError(f"the body is no JSON object: {SHAPE}")
    form = given.get("format") or trace_diff.PATCH
    if form not in trace_diff.FORMATS:
        raise BadQuestionError(f"invalid format: {str(form)[:50]!r} is none of {', '.join(trace_diff.FORMATS)}")
    return {name: _trace_of(given, name) for name in ("base", "compare")} | {"format": form}


def _trace_of(given: dict[str, Any], name: str) -> tuple[bytes, int | None, int | None]:
    one = given.get(name)
    if not isinstance(one, dict) or not isinstance(one.get("traceId"), str):
        raise BadQuestionError(f"{name} names no trace: the body is {SHAPE}")
    times = QueryParams({key: str(one[key]) for key in ("start", "end") if one.get(key)})
    return trace_id_of(one["traceId"]), *params.trace_times(times)


def _refused(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(f"{sentence}\n", status, headers, "text/plain; charset=utf-8")

"""The HTTP API: Tempo's routes and some of ours. It translates; pipeline.query.questions answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from pipeline import drops, telemetry
from pipeline.doors.asgi import Guarded, caller_of, tenants_of
from pipeline.doors.door import Door, Need
from pipeline.query.questions import Questions
from pipeline.query.texts import trace_id_of
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import (
    explain,
    llm,
    messages,
    openapi,
    params,
    search_events,
    search_rows,
    status_pages,
    tail_events,
    tempo,
)
from pipeline.serve.answers import Answers, count_partial
from pipeline.serve.formats import JSON, LLM, MEDIA_TYPES, PROTOBUF, accepted, form_of, reasons_header
from pipeline.serve.gone import unless_gone
from pipeline.serve.headers import COPIES_HEADER
from pipeline.serve.mcp_door import McpDoor
from pipeline.serve.query_limits import QueryLimits
from pipeline.serve.sql import SqlDoor
from pipeline.serve.statuses import status_of
from pipeline.serve.trace_diff_door import TraceDiffDoor
from pipeline.serve.trace_view import TraceViewDoor
from pipeline.serve.traces import Encoded, encode
from pipeline.serve.ui import bundle, pages
from pipeline.traceql.check import compiled
from topics.errors import BadQuestionError, ForbiddenError, SpanstreamError
from topics.settings import Settings

log = structlog.get_logger("querier")
ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
RETRY_AFTER = {"retry-after": "5"}
ALLOW = {"allow": "DELETE"}
GZIP_BYTES_MIN = 1000
NEEDS = {
    "/api/echo": Need.NOTHING,
    openapi.PATH: Need.NOTHING,
    "/api/status/buildinfo": Need.NOTHING,
    "/ready": Need.NOTHING,
    "/metrics": Need.ADMIN,
}
OF_ALL_TENANTS = ("partitions", "segments")  # tables whose rows are not one tenant's
Handler = Callable[[Request], Awaitable[Response]]


def make_app(questions: Questions, settings: Settings) -> Starlette:
    """The ASGI application."""
    limits = QueryLimits(questions, settings.querier)
    answers, status = Answers(questions, limits), status_pages.StatusDoor(questions, settings)
    api, view = Api(questions, answers, limits, settings), TraceViewDoor(questions, settings.querier)
    routes = [
        ("/api/traces/{trace_id}", api.trace_v1),
        (openapi.DIFF_PATH, TraceDiffDoor(questions, limits).diff),
        ("/api/v2/traces/{trace_id}", api.trace_v2),
        ("/api/search", api.search),
        ("/api/metrics/query_range", api.metrics_range),
        ("/api/metrics/query", api.metrics_instant),
        ("/api/search/tags", api.tag_names),
        ("/api/v2/search/tags", api.tag_names_by_scope),
        ("/api/search/tag/{tag:path}/values", api.tag_values),
        ("/api/v2/search/tag/{tag:path}/values", api.typed_tag_values),
        ("/api/services", api.services),
        ("/api/explain", api.explain),
        ("/api/sql", SqlDoor(questions, limits, settings.querier).sql),
        ("/api/tail", api.tail),
        ("/api/where/{trace_id}", api.where),
        ("/api/trace-view/{trace_id}", view.columns),
        ("/api/trace-view/{trace_id}/matches", view.matches),
        ("/api/trace-view/{trace_id}/events", view.events),
        ("/api/trace-view/{trace_id}/spans/{span_id}", view.span),
        (drops.PATH, api.drops),
        ("/api/status/system", api.system),
        ("/api/status/canary", api.canary),
        ("/api/status/queries", api.queries),
        ("/api/status/queries/{id}", api.query),
        *((path, status.page) for path in status_pages.PAGES),
        (f"{status_pages.OVERRIDES}/{{tenant}}", status.overrides_of),
        ("/tables", api.tables),
        ("/tables/{rest:path}", api.tables),
        ("/trace/{trace_id}", api.trace_view),
        ("/trace/{trace_id}/against/{other_id}", api.trace_view),
        *((path, api.view) for path in bundle.VIEWS),
        (f"{bundle.PLAIN}/trace/{{trace_id}}", api.trace_page),
        (bundle.PLAIN, api.newest_page),
    ]
    plain: list[tuple[str, Handler]] = [
        ("/api/echo", api.echo),
        (openapi.PATH, api.openapi),
        ("/api/status/buildinfo", api.buildinfo),
        ("/ready", api.ready),
        ("/metrics", api.metrics),
    ]
    assistants = McpDoor(settings.querier.mcp_answer_bytes_max)
    assistants.app = Starlette(
        routes=[
            *(Route(path, answered(handler), methods=ANY_METHOD) for path, handler in routes),
            Route("/api/mcp", assistants),
            *(Route(path, handler, methods=ANY_METHOD) for path, handler in plain),
            Mount("/assets", bundle.Assets()),
        ],
        middleware=[
            Middleware(Guarded, door=Door(settings), need_of=need_of),
            Middleware(GZipMiddleware, minimum_size=GZIP_BYTES_MIN, compresslevel=4),
        ],
        exception_handlers={404: _no_route},
    )
    return assistants.app


async def _no_route(_request: Request, _error: Exception) -> Response:
    said = f"Not Found: {openapi.PATH} lists the routes that there are\n"
    return Response(said, 404, media_type="text/plain; charset=utf-8")


def need_of(path: str) -> Need:
    """What a path needs of who asks: to read, unless another need is written down here."""
    if path.startswith("/assets/"):
        return Need.NOTHING  # the page's program: everybody's
    if path in status_pages.PAGES or path.startswith(f"{status_pages.OVERRIDES}/"):
        return Need.ADMIN  # they tell of the process and of all tenants
    if path in bundle.VIEWS or path.startswith("/trace/"):
        return Need.PAGE
    return NEEDS.get(path, Need.READ)


def answered(handler: Handler) -> Handler:
    """The handler, timed; its errors as Tempo answers them: the sentence as plain text."""
    question = handler.__name__

    async def timed(request: Request) -> Response:
        began = time.monotonic()
        try:
            # A handler that reads a body looks out for its caller itself
            reads_body = request.method == "POST"
            response = await (handler(request) if reads_body else unless_gone(request, _answer_of(handler, request)))
        except SpanstreamError as exc:
            status = status_of(exc)
            headers = RETRY_AFTER if status in (429, 503) else {}
            response = Response(f"{exc}\n", status, headers, "text/plain; charset=utf-8")
        except Exception:
            log.exception("question_failed", question=question, path=request.url.path)
            response = Response("internal error: see the querier's log\n", 500, media_type="text/plain; charset=utf-8")
        seconds = time.monotonic() - began
        telemetry.QUERY_SECONDS.labels(question=question, status=response.status_code).observe(seconds)
        return response

    return timed


async def _answer_of(handler: Handler, request: Request) -> Response:
    return await handler(request)


class Api:
    """The handlers, one a route."""

    def __init__(self, questions: Questions, answers: Answers, limits: QueryLimits, settings: Settings) -> None:
        self._questions, self._limits = questions, limits
        self._settings = settings
        self._querier = settings.querier
        self._answers = answers

    # ---- traces

    async def trace_v1(self, request: Request) -> Response:
        """A trace as `batches`; 404 where there is none, 422 where it is too large; a header says what is missing."""
        found = await self._find(request)
        headers = _copies(found) | reasons_header(found.reasons)
        if not found.spans.num_rows:
            return Response(status_code=404, headers=headers)
        encoded = await self._encode(found, request, v1=True)
        if encoded.cut:
            limit = self._limits.of(self._tenants(request)).trace_bytes_max
            return Response(f"trace exceeds max size (max bytes: {limit})\n", 422, media_type="text/plain")
        return Response(encoded.body, headers=headers, media_type=encoded.media_type)

    async def trace_v2(self, request: Request) -> Response:
        """A TraceByIDResponse; 200 with an empty trace where there is none."""
        asked = params.trace_filter_of(request.query_params, self._questions.regex_error)
        found = await self._find(request)
        if asked is not None:
            found = await self._questions.part_of(self._tenants(request), found, asked)
        encoded = await self._encode(found, request, v1=False)
        return Response(encoded.body, headers=_copies(found), media_type=encoded.media_type)

    async def where(self, request: Request) -> Response:
        """Where each part of a trace stands."""
        everything = caller_of(request.scope).everything
        return _json(await self._questions.where(await self._find(request), everything=everything))

    async def trace_view(self, request: Request) -> Response:
        """A trace on the interactive page; on the plain one where that is not built."""
        return bundle.view(request) if bundle.is_built() else await self.trace_page(request)

    async def view(self, request: Request) -> Response:
        """A view of the interactive page; the newest traces on the plain one where that is not built."""
        return bundle.view(request) if bundle.is_built() else await self.newest_page(request)

    async def trace_page(self, request: Request) -> Response:
        """A trace as a page with a waterfall, without script."""
        found = await self._find(request)
        where = await self._questions.where(found, everything=caller_of(request.scope).everything)
        body = await self._questions.in_thread(partial(pages.trace_page, found, where))
        return Response(body, 200 if found.spans.num_rows else 404, media_type="text/html; charset=utf-8")

    async def _find(self, request: Request) -> FoundTrace:
        trace_id = trace_id_of(request.path_params["trace_id"])
        start_ns, end_ns = params.trace_times(request.query_params)
        found = await self._questions.trace(self._tenants(request), trace_id, start_ns, end_ns)
        count_partial("trace", found.reasons)
        return found

    async def _encode(self, found: FoundTrace, request: Request, *, v1: bool) -> Encoded:
        limit = self._limits.of(self._tenants(request)).trace_bytes_max
        encoding = partial(encode, found, v1=v1, form=accepted(request.headers.get("accept", "")), bytes_max=limit)
        encoded: Encoded = await self._questions.in_thread(encoding)
        return encoded

    # ---- search

    async def search(self, request: Request) -> Response:
        """Traces by TraceQL or tags, newest first."""
        form = form_of(request.query_params, request.headers.get("accept", ""), search_rows.SEARCH_FORMATS)
        tenants, asked = _asked(request)
        find = partial(self._answers.found, tenants, asked)
        if form == "events":
            return await search_events.stream(find, self._querier.search_told_every_s, self._questions.in_thread)
        answer = await find()
        count_partial("search", answer.reasons)
        if form != "json":
            return search_rows.stream(answer, form, self._questions.in_thread)
        return await self._told(request, "SearchResponse", lambda: tempo.search(answer))

    async def newest_page(self, request: Request) -> Response:
        """The newest traces as a page without script; takes the parameters of /api/search."""
        asked = dict(request.query_params)
        try:
            tenants = self._tenants(request)
            limits = self._limits.of(tenants)
            question = params.search_question(request.query_params, limits, self._questions.regex_error)
            answer = await self._questions.search(tenants, question)
        except BadQuestionError as exc:
            return Response(pages.refused_page(str(exc), asked), 400, media_type="text/html; charset=utf-8")
        return Response(pages.newest_page(answer, question, asked), media_type="text/html; charset=utf-8")

    async def tail(self, request: Request) -> Response:
        """Spans as they arrive: server-sent events, of the spans that q= holds of."""
        body = compiled(request.query_params.get("q", "") or "{}", self._questions.regex_error).body
        turns = self._questions.live_tail(self._tenants(request), params.pipeline_of(body))
        return StreamingResponse(tail_events.of(turns), media_type=tail_events.MEDIA_TYPE, headers=tail_events.HEADERS)

    # ---- metrics

    async def metrics_range(self, request: Request) -> Response:
        """Series of points."""
        return await self._encoded(await self._answers.metrics_range(*_asked(request)))

    async def metrics_instant(self, request: Request) -> Response:
        """A value for each series."""
        return await self._encoded(await self._answers.metrics_instant(*_asked(request)))

    async def _encoded(self, answer: tempo.Json) -> Response:
        return Response(await self._questions.in_thread(lambda: orjson.dumps(answer)), media_type=JSON)

    async def explain(self, request: Request) -> Response:
        """How a TraceQL query is answered: what was chosen and why, what was read, how long it took."""
        began_s = time.monotonic()
        limits = self._limits.of(self._tenants(request))
        question = explain.question_of(request.query_params, limits, self._questions.regex_error)
        watch, answer = await self._questions.explain(self._tenants(request), question)
        count_partial("explain", answer.reasons)
        body = partial(explain.told, question, watch, answer, began_s, self._querier.explain_chunks_max)
        return _json(await self._questions.in_thread(body))

    # ---- tags

    async def tag_names(self, request: Request) -> Response:
        """Tag names of all scopes together."""
        answer = await self._answers.tag_names(*_asked(request))
        return await self._told(request, "SearchTagsResponse", lambda: answer)

    async def tag_names_by_scope(self, request: Request) -> Response:
        """Tag names by scope."""
        answer = await self._answers.tag_names_by_scope(*_asked(request))
        return await self._told(request, "SearchTagsV2Response", lambda: answer, llm.tag_names)

    async def tag_values(self, request: Request) -> Response:
        """Values of a tag without scope, as texts."""
        tenants, asked = _asked(request)
        answer = await self._answers.tag_values(tenants, request.path_params["tag"], asked)
        return await self._told(request, "SearchTagValuesResponse", lambda: answer)

    async def typed_tag_values(self, request: Request) -> Response:
        """Values of a TraceQL attribute, with their types."""
        tenants, asked = _asked(request)
        answer = await self._answers.typed_tag_values(tenants, request.path_params["tag"], asked)
        return await self._told(request, "SearchTagValuesV2Response", lambda: answer, llm.tag_values)

    async def _told(
        self,
        request: Request,
        message: str,
        told: Callable[[], tempo.Json],
        for_llm: Callable[[tempo.Json], tempo.Json] | None = None,
    ) -> Response:
        """What `told` gives, in the form that is asked for, made off the event loop: it may be large. for_llm: of an
        answer that has a form for language models.
        """
        form = accepted(request.headers.get("accept", ""))
        found: Response = await self._questions.in_thread(lambda: _in_form(form, message, told(), for_llm))
        return found

    async def services(self, request: Request) -> Response:
        """Services with their operations, and how many spans each has."""
        return _json(await self._answers.services(*_asked(request)))

    # ---- the rest

    async def system(self, request: Request) -> Response:
        """What is stored by day; workers and partitions for who may see what is of all tenants together."""
        everything = caller_of(request.scope).everything
        return _json(await self._questions.system(self._tenants(request), everything=everything))

    async def drops(self, request: Request) -> Response:
        """What of the asking tenants' spans was not kept as it was sent, by reason."""
        everything = caller_of(request.scope).everything
        return _json(await self._questions.drops(self._tenants(request), everything=everything))

    async def canary(self, _request: Request) -> Response:
        """What canaries found: of known traces of their own, in no tenant's data."""
        return _json({"canaries": await self._questions.canaries()})

    async def queries(self, request: Request) -> Response:
        """The queries under way in this querier: the asking tenants', or all for who may see all."""
        caller = caller_of(request.scope)
        told = self._questions.under_way.told(None if caller.everything else self._tenants(request))
        return _json({"queries": told, "mayCancel": caller.everything})

    async def query(self, request: Request) -> Response:
        """DELETE cancels a query."""
        if request.method != "DELETE":
            return Response("a query is cancelled with DELETE; GET /api/status/queries lists them\n", 405, ALLOW)
        if not caller_of(request.scope).everything:
            raise ForbiddenError("only a token with the scope admin for all tenants may cancel queries")
        return _json(self._questions.under_way.cancel(request.path_params["id"]))

    async def tables(self, request: Request) -> Response:
        """The workers' tables: passed on to a worker."""
        caller = caller_of(request.scope)
        table, _, key = request.path_params.get("rest", "").partition("/")
        if table in OF_ALL_TENANTS and not caller.everything:
            raise ForbiddenError(f"table {table} tells of all tenants together: the token is for some only")
        asked = dict(request.query_params) | ({"key": key} if key else {})
        status, body, media_type = await self._questions.tables(caller.tenants, table, asked)
        return Response(body, status, media_type=media_type)

    async def echo(self, _request: Request) -> Response:
        """What Grafana's "Test datasource" asks."""
        return Response("echo\n", media_type="text/plain; charset=utf-8")

    async def openapi(self, _request: Request) -> Response:
        """What there is to ask, for programs."""
        return Response(openapi.document(), media_type=JSON)

    async def buildinfo(self, _request: Request) -> Response:
        """What Grafana reads the version from."""
        return _json(status_pages.BUILD)

    async def ready(self, _request: Request) -> Response:
        """200 when questions are answered in full; 503 and why otherwise."""
        missing = self._questions.missing()
        return Response(f"{missing or 'ready'}\n", 503 if missing else 200, media_type="text/plain; charset=utf-8")

    async def metrics(self, request: Request) -> Response:
        """Prometheus text; `?name[]=`: of these samples alone."""
        self._questions.observe()
        body = telemetry.page(request.query_params.getlist("name[]"))
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    def _tenants(self, request: Request) -> list[str]:
        return tenants_of(request.scope)


def _asked(request: Request) -> tuple[list[str], QueryParams]:
    """Whose spans, and what about them."""
    return tenants_of(request.scope), request.query_params


def _copies(found: FoundTrace) -> dict[str, str]:
    """How many late copies of its spans are stored beside a trace's own: they are in no answer by ID."""
    return {COPIES_HEADER: str(found.copies)}


def _in_form(form: str, message: str, body: tempo.Json, for_llm: Callable[[tempo.Json], tempo.Json] | None) -> Response:
    if form == PROTOBUF:
        return Response(messages.encoded(message, body), media_type=PROTOBUF)
    if form == LLM and for_llm is not None:
        return Response(orjson.dumps(for_llm(body)), media_type=MEDIA_TYPES[LLM])
    return _json(body)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)

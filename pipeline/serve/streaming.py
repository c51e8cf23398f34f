"""Tempo's StreamingQuerier over gRPC: what is new while a query runs, then the whole answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import grpc
import orjson
import structlog
from google.protobuf.message import DecodeError
from starlette.datastructures import QueryParams

from pipeline import telemetry
from pipeline.doors.calls import add_port, metadata_of, options
from pipeline.doors.door import Door, Need, refusal
from pipeline.doors.tls import ServerTls
from pipeline.query.metrics import SoFar
from pipeline.query.summary import TraceSummary
from pipeline.query.tags import TagAnswer
from pipeline.serve import messages, metrics, tempo
from pipeline.serve.answers import Answers
from pipeline.serve.asked import Asked
from pipeline.serve.formats import reasons_header
from pipeline.serve.statuses import status_of
from pipeline.serve.tempo import Json
from topics.errors import BadQuestionError, SpanstreamError
from topics.settings import QuerierSettings

log = structlog.get_logger("querier")
SERVICE = "tempopb.StreamingQuerier"
STOP_GRACE_S = 10
REQUEST_BYTES_MAX = 1 << 20
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
}
WORKING: Json = {"metrics": {"totalJobs": 1}}  # a message that tells only that there is no answer yet
Heard = Callable[[Any], None]
Ask = Callable[[Answers, list[str], Any, Heard], Awaitable[Json]]


def code_of(status: int) -> grpc.StatusCode:
    """Of an HTTP status."""
    other = grpc.StatusCode.INTERNAL if status >= 500 else grpc.StatusCode.UNKNOWN
    return CODES.get(status, other)


class NewTraces:
    """What of the traces found so far was not told before."""

    def __init__(self) -> None:
        self._told: dict[str, Json] = {}

    def of(self, found: list[TraceSummary]) -> Json:
        """A SearchResponse's traces that are new or changed; nothing where there are none."""
        new = [one for one in map(tempo.search_hit, found) if self._told.get(one["traceID"]) != one]
        self._told.update((trace["traceID"], trace) for trace in new)
        return {"traces": new} if new else {}


class NewPoints:
    """What of the points measured so far was not told before: the newest come first."""

    def __init__(self) -> None:
        self._told_from: int | None = None

    def of(self, found: SoFar) -> Json:
        """A QueryRangeResponse's series in the time that is now complete; nothing where none is."""
        before = len(found.series.times_ns) if self._told_from is None else self._told_from
        self._told_from = min(before, found.first)
        new = metrics.points_of(found.series, self._told_from, before)
        return {"series": new} if new else {}


class NewTags:
    """What of the names or values found so far was not told before. as_json: the answer that a method gives."""

    def __init__(self, as_json: Callable[[TagAnswer], Json]) -> None:
        self._as_json = as_json
        self._told: set[tuple[str, bytes]] = set()

    def of(self, found: TagAnswer) -> Json:
        """The same fields with what is new in them; nothing where there is none."""
        answer = self._as_json(found)
        told: Json = {field: self._new(field, answer.get(field, [])) for field in ("tagNames", "tagValues")}
        scopes = [scope | {"tags": self._new(scope["name"], scope["tags"])} for scope in answer.get("scopes", ())]
        told["scopes"] = [scope for scope in scopes if scope["tags"]]
        return {field: new for field, new in told.items() if new}

    def _new(self, where: str, found: list[Any]) -> list[Any]:
        keyed = {(where, orjson.dumps(one)): one for one in found}
        new = [one for key, one in keyed.items() if key not in self._told]
        self._told |= keyed.keys()
        return new


class Method(NamedTuple):
    """of, gives: messages; many: the field of the answer that a large one is split at; news: tells what is new."""

    of: str
    gives: str
    many: str
    ask: Ask
    news: Callable[[], NewTraces | NewPoints | NewTags] = NewTraces


def _params(**given: str | int) -> QueryParams:
    """A request's fields as parameters: zero and empty ones are absent."""
    return QueryParams({name: str(value) for name, value in given.items() if value})


async def _search(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    low, high = of.MinDurationMs, of.MaxDurationMs
    asked = _params(
        q=of.Query,
        limit=of.Limit,
        start=of.start,
        end=of.end,
        spss=of.SpansPerSpanSet,
        minDuration=f"{low}ms" if low else "",
        maxDuration=f"{high}ms" if high else "",
    )
    return await answers.search(tenants, asked, heard, {one.key: one.value for one in of.Tags})


def _tags(of: Any) -> QueryParams:
    return _params(scope=of.scope, q=of.query, start=of.start, end=of.end, limit=of.maxTagsPerScope)


def _values(of: Any) -> QueryParams:
    return _params(q=of.query, start=of.start, end=of.end, limit=of.maxTagValues)


async def _tag_names(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    return await answers.tag_names(tenants, _tags(of), heard)


async def _tag_names_by_scope(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    return await answers.tag_names_by_scope(tenants, _tags(of), heard)


async def _tag_values(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    return await answers.tag_values(tenants, of.tagName, _values(of), heard)


async def _typed_tag_values(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    return await answers.typed_tag_values(tenants, of.tagName, _values(of), heard)


async def _metrics_range(answers: Answers, tenants: list[str], of: Any, heard: Heard) -> Json:
    step = f"{of.step}ns" if of.step else ""
    asked = _params(q=of.query, start=of.start, end=of.end, step=step, exemplars=of.exemplars, maxSeries=of.maxSeries)
    return await answers.metrics_range(tenants, asked, heard)


async def _metrics_instant(answers: Answers, tenants: list[str], of: Any, _heard: Heard) -> Json:
    return await answers.metrics_instant(tenants, _params(q=of.query, start=of.start, end=of.end))


METHODS = {
    "Search": Method("SearchRequest", "SearchResponse", "traces", _search),
    "SearchTags": Method(
        "SearchTagsRequest",
        "SearchTagsResponse",
        "tagNames",
        _tag_names,
        partial(NewTags, partial(tempo.tag_names, intrinsic=False)),
    ),
    "SearchTagsV2": Method(
        "SearchTagsRequest",
        "SearchTagsV2Response",
        "scopes",
        _tag_names_by_scope,
        partial(NewTags, partial(tempo.tag_names_by_scope, intrinsic=False)),
    ),
    "SearchTagValues": Method(
        "SearchTagValuesRequest",
        "SearchTagValuesResponse",
        "tagValues",
        _tag_values,
        partial(NewTags, tempo.tag_values),
    ),
    "SearchTagValuesV2": Method(
        "SearchTagValuesRequest",
        "SearchTagValuesV2Response",
        "tagValues",
        _typed_tag_values,
        partial(NewTags, tempo.typed_tag_values),
    ),
    "MetricsQueryRange": Method("QueryRangeRequest", "QueryRangeResponse", "series", _metrics_range, NewPoints),
    "MetricsQueryInstant": Method("QueryInstantRequest", "QueryInstantResponse", "series", _metrics_instant),
}


class GrpcApi:
    """The gRPC server, on a port and on a local socket; `port` is set by start."""

    def __init__(self, answers: Answers, door: Door, querier: QuerierSettings) -> None:
        self._answers, self._door, self._querier = answers, door, querier
        self.port = 0
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=querier.grpc_requests_max,
            options=options(REQUEST_BYTES_MAX, querier.grpc_idle_s),
        )
        handlers = {name: grpc.unary_stream_rpc_method_handler(self._answered(name)) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, socket_path: str, tls: ServerTls | None) -> None:
        """Serve on the port, and on a socket of this machine for connections that others have let in. Raises
        RuntimeError when the port is taken.
        """
        self.port = add_port(self._server, f"{self._querier.host}:{self._querier.grpc_port}", tls)
        self._server.add_insecure_port(f"unix:{socket_path}")
        await self._server.start()

    async def stop(self) -> None:
        """Take no further calls; those under way get their answer, for a bounded time."""
        await self._server.stop(STOP_GRACE_S)

    def _answered(self, name: str) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
        """The method on raw bytes, timed, its errors as statuses."""
        method = METHODS[name]

        async def handle(body: bytes, context: Any) -> AsyncIterator[bytes]:
            began, status = time.monotonic(), 200
            try:
                tenants = list(self._door.caller(metadata_of(context), Need.READ).tenants)
                async for packet in self._packets(method, tenants, body, context):
                    yield packet
            except SpanstreamError as exc:
                status, _ = refusal(exc) or (status_of(exc), {})
                await context.abort(code_of(status), str(exc))
            except asyncio.CancelledError:
                status = 499
                raise
            except Exception:
                status = 500
                if not context.cancelled():
                    log.exception("question_failed", question=name)
                await context.abort(grpc.StatusCode.INTERNAL, "internal error: see the querier's log")
            finally:
                seconds = time.monotonic() - began
                telemetry.QUERY_SECONDS.labels(question=f"grpc_{name}", status=status).observe(seconds)

        return handle

    async def _packets(self, method: Method, tenants: list[str], body: bytes, context: Any) -> AsyncIterator[bytes]:
        """What is new, so often as settings say, then the whole answer. A caller that leaves ends its query."""
        try:
            request = messages.message(method.of).FromString(body)
        except DecodeError as exc:
            raise BadQuestionError(f"the request is no {method.of}: {exc}") from exc
        news = method.news()
        async with Asked(partial(method.ask, self._answers, tenants, request)) as asked:
            async for found in asked.so_far(self._querier.grpc_every_s):
                for packet in await asyncio.to_thread(self._new, method, news, found):
                    yield packet
            answer = await asked.answer
        # Trailing metadata: Tempo's messages of searches and tags cannot say it
        if reasons := reasons_header(answer.get("message")):
            context.set_trailing_metadata(tuple(reasons.items()))
        for packet in await asyncio.to_thread(lambda: list(self._split(method, answer))):
            yield packet

    def _new(self, method: Method, news: Any, found: Any) -> list[bytes]:
        """found: None where there is nothing yet."""
        return list(self._split(method, WORKING | (news.of(found) if found is not None else {})))

    def _split(self, method: Method, answer: Json) -> Iterator[bytes]:
        """The answer as messages, halved until each is small enough. Status and sentence stand in the last."""
        body = messages.encoded(method.gives, answer)
        many = answer.get(method.many, ())
        if len(body) <= self._querier.grpc_message_bytes_max or len(many) < 2:
            yield body
            return
        half = len(many) // 2
        first = {key: value for key, value in answer.items() if key not in ("status", "message")}
        yield from self._split(method, first | {method.many: many[:half]})
        yield from self._split(method, answer | {method.many: many[half:]})

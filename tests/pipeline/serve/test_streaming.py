"""Tempo's gRPC API, asked by a stock client made from tempo.proto, on the port of HTTP and on its own."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest
from google.protobuf import json_format
from grpc_tools import protoc
from pydantic import SecretStr

from pipeline.query.identifiers import Attribute, Intrinsic
from pipeline.query.metrics import Heard as HeardSeries
from pipeline.query.metrics import MetricsAnswer, MetricsQuestion, SoFar
from pipeline.query.questions import Questions
from pipeline.query.search import Heard, SearchAnswer, SearchQuestion
from pipeline.query.tags import Among, TagAnswer
from pipeline.query.tags import Heard as HeardTags
from pipeline.serve import messages
from pipeline.serve.querier import Querier
from pipeline.serve.streaming import code_of
from tests.doors import new_token
from tests.pages import ROOT
from tests.pipeline.query.world import T0, OneSpan, trace_id
from tests.pipeline.serve.api import ports, with_querier
from tests.waiting import wait_until_async
from topics.settings import DoorSettings, Settings

SPANS = [
    OneSpan(n, n + 1, start_ms=n, duration_ms=30 + n, kind=2, name=f"GET /{n}", attributes=(("http.code", 200 + n),))
    for n in range(5)
]
S = T0 // 10**9
AROUND = {"start": S - 10, "end": S + 100}
AROUND_NS = {name: seconds * 10**9 for name, seconds in AROUND.items()}
ENDLESS = "SELECT sum(a.range * b.range % 7) FROM range(10000000) a, range(10000000) b"


@pytest.fixture(scope="module")
def tempo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The modules that grpcio's own compiler makes: messages, and the stub beside them."""
    folder = tmp_path_factory.mktemp("proto")
    proto = ROOT / "pipeline" / "serve" / "tempo.proto"
    arguments = [f"-I{proto.parent}", f"--python_out={folder}", f"--grpc_python_out={folder}", str(proto)]
    assert protoc.main(["protoc", *arguments]) == 0
    sys.path.insert(0, str(folder))
    try:
        made = importlib.import_module("tempo_pb2")
        made.StreamingQuerierStub = importlib.import_module("tempo_pb2_grpc").StreamingQuerierStub  # type: ignore[attr-defined]
        yield made
    finally:
        sys.path.remove(str(folder))


async def told(tempo: Any, port: int, method: str, request: Any, metadata: Any = ()) -> list[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        return [one async for one in getattr(tempo.StreamingQuerierStub(channel), method)(request, metadata=metadata)]


def test_the_proto_file_and_the_messages_that_are_sent_agree(tempo: Any) -> None:
    def fields(of: Any) -> list[tuple[Any, ...]]:
        return sorted((field.json_name, field.number, kind_of(field), field.is_repeated) for field in of.fields)

    def kind_of(field: Any) -> Any:
        return {field.TYPE_ENUM: field.TYPE_UINT32}.get(field.type, field.type)

    for name in messages.MESSAGES:
        known = {"ServiceStatsEntry": "TraceSearchMetadata", "TagsEntry": "SearchRequest"}.get(name)
        theirs = tempo.DESCRIPTOR.message_types_by_name[known or name]
        theirs = theirs.nested_types_by_name[name] if known else theirs
        assert fields(messages.message(name).DESCRIPTOR) == fields(theirs), name


METHODS = [
    ("Search", "SearchRequest", {"Query": "{ .http.code > 201 }", **AROUND}, "/api/search?q={ .http.code > 201 }"),
    (
        "Search",
        "SearchRequest",
        {"Tags": {"http.code": "202", "name": "GET /2"}, "MinDurationMs": 10, "MaxDurationMs": 50, **AROUND},
        '/api/search?tags=http.code%3D202 name%3D"GET /2"&minDuration=10ms&maxDuration=50ms',
    ),
    ("SearchTags", "SearchTagsRequest", {"scope": "span", **AROUND}, "/api/search/tags?scope=span"),
    ("SearchTagsV2", "SearchTagsRequest", AROUND, "/api/v2/search/tags?"),
    ("SearchTagValues", "SearchTagValuesRequest", {"tagName": "name", **AROUND}, "/api/search/tag/name/values?"),
    (
        "SearchTagValuesV2",
        "SearchTagValuesRequest",
        {"tagName": "span.http.code", "query": "{ .http.code != 203 }", "maxTagValues": 3, **AROUND},
        "/api/v2/search/tag/span.http.code/values?q={ .http.code != 203 }&limit=3",
    ),
    (
        "MetricsQueryRange",
        "QueryRangeRequest",
        {"query": "{} | rate() by (name)", "step": 10**10, "exemplars": 2, "maxSeries": 3, **AROUND_NS},
        "/api/metrics/query_range?q={} | rate() by (name)&step=10&exemplars=2&maxSeries=3",
    ),
    (
        "MetricsQueryInstant",
        "QueryInstantRequest",
        {"query": "{} | quantile_over_time(duration, .5)", **AROUND_NS},
        "/api/metrics/query?q={} | quantile_over_time(duration, .5)",
    ),
]


def test_every_method_answers_as_http_does_on_both_ports(tempo: Any, tmp_path: Path) -> None:
    async def test(querier: Querier, _questions: Questions) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{querier.http_port}") as client:
            for method, request, given, path in METHODS:
                times = "" if "start=" in path else f"&start={AROUND['start']}&end={AROUND['end']}"
                plain = (await client.get(path + times)).raise_for_status().json()
                for port in (querier.http_port, querier.grpc_port):
                    *_, last = await told(tempo, port, method, getattr(tempo, request)(**given))
                    same = json_format.MessageToDict(last)
                    assert settled(same) == settled(plain), method

    with_querier(ports(tmp_path), SPANS, test)


def settled(answer: dict[str, Any]) -> dict[str, Any]:
    """What both forms have in common: empty lists, and points without value, are left out of one of them."""
    kept = {key: value for key, value in answer.items() if value and key not in ("nextCursor", "complete")}
    for name in ("traces", "series", "scopes"):
        kept[name] = sorted(orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in kept.get(name, ()))
    return kept


class Slow(Questions):
    """Has found the first trace, then two; then it waits until it is let on."""

    go_on: asyncio.Event

    async def search(
        self, tenants: Sequence[str], question: SearchQuestion, heard: Heard | None = None
    ) -> SearchAnswer:
        answer = await super().search(tenants, question)
        assert heard is not None
        for count in (1, 2):
            heard(answer.traces[:count])
            await self.go_on.wait()
            self.go_on.clear()
        return answer


def test_what_is_new_is_told_on_the_way_and_all_of_it_in_the_end(tempo: Any, tmp_path: Path) -> None:
    async def test(querier: Querier, questions: Questions) -> None:
        assert isinstance(questions, Slow)
        questions.go_on = asyncio.Event()
        heard, completed = list[list[str]](), list[int]()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{querier.http_port}") as channel:
            async for one in tempo.StreamingQuerierStub(channel).Search(tempo.SearchRequest(Query="{}", **AROUND)):
                heard.append([trace.traceID for trace in one.traces])
                completed.append(one.metrics.completedJobs)
                if one.traces:
                    questions.go_on.set()
        newest = [trace_id(n).hex() for n in (4, 3, 2, 1, 0)]
        assert [one for one in heard if one] == [newest[:1], newest[1:2], newest]
        assert (completed[-1], set(completed[:-1])) == (1, {0})

    with_querier(ports(tmp_path, grpc_every_s=0.02), SPANS, test, Slow)


class SlowMetrics(Questions):
    """Has measured the newest points, then nothing new, then more; each time it waits until its caller has heard it."""

    messages: list[list[int]]

    async def metrics(
        self, tenants: Sequence[str], question: MetricsQuestion, heard: HeardSeries | None = None
    ) -> MetricsAnswer:
        answer = await super().metrics(tenants, question)
        assert heard is not None
        for first, with_points in ((8, 1), (8, 1), (3, 2)):
            await self._tell(heard, SoFar(answer.series, first), with_points)
        return answer

    async def _tell(self, heard: HeardSeries, found: SoFar, with_points: int) -> None:
        """Until so many messages have had points, and two have come after this one: the second was made after it."""
        before = len(self.messages)
        heard(found)
        await wait_until_async(
            lambda: len([one for one in self.messages if one]) >= with_points and len(self.messages) >= before + 2
        )


def test_newest_points_are_told_on_the_way_and_all_of_them_in_the_end(tempo: Any, tmp_path: Path) -> None:
    async def test(querier: Querier, questions: Questions) -> None:
        assert isinstance(questions, SlowMetrics)
        questions.messages = heard = list[list[int]]()
        request = tempo.QueryRangeRequest(query="{} | rate()", start=T0, end=T0 + 9 * 10**9, step=10**9)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{querier.http_port}") as channel:
            async for one in tempo.StreamingQuerierStub(channel).MetricsQueryRange(request):
                heard.append([point.timestamp_ms // 1000 - S for each in one.series for point in each.samples])
        assert [points for points in heard if points] == [[8, 9], [3, 4, 5, 6, 7], list(range(10))]

    with_querier(ports(tmp_path, grpc_every_s=0.02), SPANS, test, SlowMetrics)


class SlowTags(Questions):
    """Has found the first name or value, then two; then it waits until it is let on."""

    go_on: asyncio.Event

    async def tag_names(
        self,
        tenants: Sequence[str],
        scopes: Sequence[str],
        among: Among,
        limit: int,
        heard: HeardTags | None = None,
    ) -> TagAnswer:
        answer = await super().tag_names(tenants, scopes, among, limit)
        for count in (1, 2):
            await self._tell(heard, TagAnswer(names={scope: keys[:count] for scope, keys in answer.names.items()}))
        return answer

    async def tag_values(
        self,
        tenants: Sequence[str],
        of: Attribute | Intrinsic,
        among: Among,
        limit: int,
        heard: HeardTags | None = None,
    ) -> TagAnswer:
        answer = await super().tag_values(tenants, of, among, limit)
        for count in (1, 2):
            await self._tell(heard, TagAnswer(values=answer.values[:count]))
        return answer

    async def _tell(self, heard: HeardTags | None, found: TagAnswer) -> None:
        assert heard is not None
        heard(found)
        await self.go_on.wait()
        self.go_on.clear()


@pytest.mark.parametrize("method", ["SearchTags", "SearchTagsV2", "SearchTagValues", "SearchTagValuesV2"])
def test_new_names_and_values_are_told_on_the_way_and_all_of_them_in_the_end(
    tempo: Any, tmp_path: Path, method: str
) -> None:
    spans = [OneSpan(n, n + 1, attributes=(("a", n), ("b", n), ("c", n))) for n in range(3)]

    def told_in(answer: dict[str, Any]) -> list[Any]:
        (scope,) = answer.get("scopes", [{}])
        return scope.get("tags") or answer.get("tagNames") or answer.get("tagValues") or []

    async def test(querier: Querier, questions: Questions) -> None:
        assert isinstance(questions, SlowTags)
        questions.go_on = asyncio.Event()
        values = tempo.SearchTagValuesRequest(tagName="a" if method == "SearchTagValues" else "span.a", **AROUND)
        request = values if "Values" in method else tempo.SearchTagsRequest(scope="span", **AROUND)
        heard = list[list[Any]]()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{querier.http_port}") as channel:
            async for one in getattr(tempo.StreamingQuerierStub(channel), method)(request):
                heard.append(told_in(json_format.MessageToDict(one)))
                if heard[-1]:
                    questions.go_on.set()
        first, second, *more = [some for some in heard if some]
        assert more == [[*first, *second, *more[0][2:]]]
        assert [len(first), len(second), len(more[0])] == [1, 1, 3]

    with_querier(ports(tmp_path, grpc_every_s=0.02), spans, test, SlowTags)


async def rest_of(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


class Endless(Questions):
    """A search that the engine never ends by itself."""

    async def search(
        self, tenants: Sequence[str], question: SearchQuestion, heard: Heard | None = None
    ) -> SearchAnswer:
        async with self.under_way.turn(tenants, "search", "endless"):
            await self._engine.run(lambda session: session.sql(ENDLESS))
        raise AssertionError("it ended")


def test_a_caller_that_leaves_ends_its_query_and_so_does_who_may_cancel(tempo: Any, tmp_path: Path) -> None:
    async def test(querier: Querier, questions: Questions) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{querier.http_port}") as channel:
            asking = tempo.StreamingQuerierStub(channel).Search(tempo.SearchRequest(Query="{}", **AROUND))
            assert not (await asking.read()).traces  # it runs
            (one,) = questions.under_way.told(None)
            asking.cancel()
            await wait_until_async(lambda: not questions.under_way.told(None))
            asking = tempo.StreamingQuerierStub(channel).Search(tempo.SearchRequest(Query="{}", **AROUND))
            await asking.read()
            (one,) = questions.under_way.told(None)
            questions.under_way.cancel(one["id"])
            with pytest.raises(grpc.aio.AioRpcError, match="cancelled by an administrator") as caught:
                await rest_of(asking)
            assert caught.value.code() is grpc.StatusCode.CANCELLED
        # Both have left the engine: it has one thread here, which is free
        await asyncio.wait_for(questions._engine.run(lambda session: session.sql("SELECT 1")), 10)

    with_querier(ports(tmp_path, grpc_every_s=0.02, queries_max=1), SPANS, test, Endless)


@pytest.mark.parametrize(
    ("method", "request_", "given", "sentence"),
    [
        ("Search", "SearchRequest", {"Query": "{ status = eror }"}, "did you mean error?"),
        ("Search", "SearchRequest", {"Query": "{}", "Limit": 2**32 - 1}, "exceeds max limit"),
        ("Search", "SearchRequest", {"Query": "{}", "Tags": {"a": "b"}}, "can't specify tags and q"),
        ("Search", "SearchRequest", {"Query": "{}", "start": 9, "end": 5}, "before end"),
        ("SearchTagsV2", "SearchTagsRequest", {"scope": "none of them"}, "invalid scope"),
        ("MetricsQueryRange", "QueryRangeRequest", {"query": "{}"}, "not a metrics query"),
        ("MetricsQueryInstant", "QueryInstantRequest", {}, "q is missing"),
    ],
)
def test_what_is_wrong_is_a_status_with_the_sentence(
    tempo: Any, tmp_path: Path, method: str, request_: str, given: dict[str, Any], sentence: str
) -> None:
    async def test(querier: Querier, _questions: Questions) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await told(tempo, querier.http_port, method, getattr(tempo, request_)(**given))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in (caught.value.details() or "")

    with_querier(ports(tmp_path), SPANS, test)


@pytest.mark.parametrize(
    ("status", "code"), [(404, "NOT_FOUND"), (413, "UNKNOWN"), (503, "INTERNAL"), (499, "CANCELLED")]
)
def test_statuses_are_those_of_tempos_grpc(status: int, code: str) -> None:
    assert code_of(status) is grpc.StatusCode[code]


def test_bytes_that_are_no_message_and_methods_that_are_none_are_refused(tempo: Any, tmp_path: Path) -> None:
    async def test(querier: Querier, _questions: Questions) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{querier.http_port}") as channel:
            for method, code in (("Search", "INVALID_ARGUMENT"), ("Nothing", "UNIMPLEMENTED")):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_stream(f"/tempopb.StreamingQuerier/{method}")(b"\xff\xff").read()
                assert caught.value.code() is grpc.StatusCode[code]

    with_querier(ports(tmp_path), SPANS, test)


def test_a_call_says_whose_spans_and_who_asks(tempo: Any, tmp_path: Path) -> None:
    tokens = {one: new_token(tmp_path / "tokens.json", "read", tenants=(one,)) for one in ("a", "b")}
    tokens["writer"] = new_token(tmp_path / "tokens.json", "write", tenants=("a",))
    settings = ports(tmp_path, multitenancy=True)
    doors = DoorSettings(tokens_path=str(tmp_path / "tokens.json"), peer_token=SecretStr("planted"))
    settings = Settings(**{**dict(settings), "doors": doors})

    async def test(querier: Querier, _questions: Questions) -> None:
        async def status(token: str, tenant: str = "") -> str:
            metadata = [("authorization", f"Bearer {token}")] if token else []
            metadata += [("x-scope-orgid", tenant)] if tenant else []
            try:
                await told(tempo, querier.http_port, "Search", tempo.SearchRequest(Query="{}", **AROUND), metadata)
            except grpc.aio.AioRpcError as exc:
                return exc.code().name
            return "OK"

        assert await status(tokens["a"]) == "OK"
        assert await status(tokens["a"], "a") == "OK"
        assert await status(tokens["a"], "b") == "PERMISSION_DENIED"
        assert await status(tokens["writer"]) == "PERMISSION_DENIED"
        assert await status("") == "UNAUTHENTICATED"
        assert await status("ss_none") == "UNAUTHENTICATED"
        assert await status(tokens["b"], "a/b") == "INVALID_ARGUMENT"

    with_querier(settings, SPANS, test)


def test_a_large_answer_comes_in_parts(tempo: Any, tmp_path: Path) -> None:
    spans = [OneSpan(n, n + 1, start_ms=n, name=f"operation {n} {'x' * 50}") for n in range(100)]

    async def test(querier: Querier, _questions: Questions) -> None:
        request = tempo.SearchRequest(Query="{}", Limit=200, **AROUND)
        parts = await told(tempo, querier.http_port, "Search", request)
        assert max(part.ByteSize() for part in parts) <= 2048
        whole = [trace.traceID for part in parts for trace in part.traces]
        assert sorted(whole) == sorted(trace_id(n).hex() for n in range(100))
        assert {part.metrics.totalJobs for part in parts} == {1}

    with_querier(ports(tmp_path, grpc_message_bytes_max=2048, grpc_every_s=60), spans, test)


@pytest.mark.parametrize("start", [b"PRI", b"PROPFIND / HTTP/1.1\r\n\r\n", b"P", b""])
def test_what_only_begins_like_http2_is_http1(tmp_path: Path, start: bytes) -> None:
    async def test(querier: Querier, _questions: Questions) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", querier.http_port)
        for byte in start:  # it may come byte by byte
            writer.write(bytes([byte]))
            await writer.drain()
        if start in (b"PRI", b"P", b""):
            rest = b"OST" if start == b"P" else b"GET" if not start else b"X"
            writer.write(rest + b" /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()

    with_querier(ports(tmp_path), SPANS, test)

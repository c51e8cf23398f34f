"""What Grafana's Tempo data source and Traces Drilldown ask, request by request, and the fields that they read.

requests.json: `reads` names a field by its path (`[]`: of every element) and what each text of it looks like; `text` is
of the whole answer; $start and the like stand for the times of the spans. Written from Grafana's public documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.trace_answer import read_answer
from pipeline.query.questions import Questions
from pipeline.serve import messages
from pipeline.serve.querier import Querier
from pipeline.serve.streaming import SERVICE
from tests.pages import ROOT
from tests.pipeline.query.world import T0, OneSpan, trace_id
from tests.pipeline.serve.api import ports, with_querier

REQUESTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "requests.json").read_text())
BY = sorted({one["by"] for one in REQUESTS})
S = T0 // 10**9
PLACES = {
    "$start": S - 60,
    "$end": S + 120,
    "$start_ns": (S - 60) * 10**9,
    "$end_ns": (S + 120) * 10**9,
    "$trace": trace_id(1).hex(),
}
FAILED = (("exception", (("exception.message", "out of stock"),)),)
SPANS = [
    OneSpan(
        1,
        1,
        name="GET /cart",
        kind=2,
        duration_ms=250,
        status=2,
        attributes=(("http.status_code", 500), ("customer", "c1")),
        events=FAILED,
    ),
    OneSpan(1, 2, 1, 5, 20, "SELECT", "db", 3, status=2, events=(("retry", ()),)),
    OneSpan(2, 3, name="GET /", kind=2, start_ms=30_000, duration_ms=10, attributes=(("http.status_code", 200),)),
]


def filled(value: Any) -> Any:
    """The value with the times and IDs of this test's spans."""
    if isinstance(value, str):
        return PLACES.get(value, value.replace("$trace", trace_id(1).hex()))
    return value


def found(answer: Any, path: str) -> Iterator[str]:
    """The texts that stand at a path, wherever its lists have elements with such a field."""
    name, _, rest = path.partition(".")
    if not isinstance(answer, dict) or name.removesuffix("[]") not in answer:
        return
    inner = answer[name.removesuffix("[]")]
    for one in inner if name.endswith("[]") else [inner]:
        if rest:
            yield from found(one, rest)
        else:
            yield str(one)


async def answered(asked: dict[str, Any], client: httpx.AsyncClient, port: int) -> tuple[int, str, Any]:
    """Status, text and JSON of an answer, over HTTP or gRPC; of protobuf in the JSON of its messages."""
    given = {name: filled(value) for name, value in asked.get("params", {}).items()}
    if "method" in asked:
        request = messages.message(asked["request"])(**given)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream(f"/{SERVICE}/{asked['method']}")
            *_, last = [one async for one in call(request.SerializeToString())]
        return 200, "", json_format.MessageToDict(messages.message(asked["gives"]).FromString(last))
    accept = "application/protobuf" if asked.get("protobuf") else "application/json"
    answer = await client.get(filled(asked["path"]), params=given, headers={"Accept": accept})
    if not asked.get("protobuf"):
        return answer.status_code, answer.text, answer.json() if asked.get("reads") else None
    assert answer.headers["content-type"] == accept
    v1 = asked["protobuf"] == "v1"
    data = TracesData.FromString(answer.content) if v1 else read_answer(answer.content).traces_data
    return answer.status_code, "", json_format.MessageToDict(data)


@pytest.mark.parametrize("by", BY)
def test_what_grafana_asks_is_answered_with_the_fields_that_it_reads(tmp_path: Path, by: str) -> None:
    async def test(querier: Querier, _questions: Questions) -> None:
        wrong = []
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{querier.http_port}") as client:
            for asked in (one for one in REQUESTS if one["by"] == by):
                status, text, answer = await answered(asked, client, querier.http_port)
                if status != asked.get("status", 200) or not re.search(asked.get("text", ""), text):
                    wrong.append(f"{asked['what']}: {status} {text[:200]}")
                    continue
                for path, form in asked.get("reads", {}).items():
                    texts = list(found(answer, path))
                    odd = [one for one in texts if not re.search(form, one)]
                    if odd or not texts:
                        wrong.append(f"{asked['what']}: {path} is {odd[:3] or 'nowhere in ' + str(answer)[:300]}")
        assert not wrong, "\n".join(wrong)

    with_querier(ports(tmp_path), SPANS, test)


def test_the_provisioned_data_source_streams_from_the_port_of_the_api() -> None:
    path = ROOT / "infra" / "grafana" / "provisioning" / "datasources" / "spanstream.yaml"
    source = yaml.safe_load(path.read_text())["datasources"][0]

    assert (source["type"], source["access"]) == ("tempo", "proxy")
    assert source["jsonData"]["streamingEnabled"] == {"search": True, "metrics": True}
    assert source["jsonData"]["nodeGraph"] == {"enabled": True}

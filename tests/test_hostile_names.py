"""Names that want to be a path, a pattern, a statement, a page or a terminal's command are shown, nothing else."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import httpx
import pytest
import structlog
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from rich.table import Table
from rich.text import Text

from agents.commands import terminal
from agents.commands.ask import show_trace
from agents.trace_answer import TraceAnswer
from pipeline.spans import schema
from pipeline.store.manifest import chunk_name
from pipeline.store.objects import ObjectStore
from tests.pipeline.query.world import T0, OneSpan, otlp, rows, stored
from tests.pipeline.serve.api import PARTITIONS, World, settings_of, with_api
from topics.logs import set_up_logs
from topics.partitioner import partition_of
from topics.settings import LogSettings, StoreSettings
from topics.spans_by_trace import is_tenant_name
from topics.visible import REPLACEMENT, visible

HOSTILE = (
    "../../../../etc/passwd",
    "a\x00b",
    'it\'s "quoted" `twice`',
    "'; DROP TABLE spans; --",
    "') UNION SELECT secret FROM duckdb_secrets(); --",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m\x9b5A",
    "{table} {{ 7*7 }} %s %(x)s {0.__class__}",
    "\u202ereversed\u2066",
    "s3://spans-a/*?[a-z]",
    "line\nline\r\nSet-Cookie: a=b",
)
AROUND = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}
TENANTS = ("*", "o'b(r)i!en-_.", "...", "plain")


def spans() -> list[OneSpan]:
    """A span for each name, which stands wherever a text can."""
    return [
        OneSpan(
            number,
            1,
            name=name,
            service=name,
            attributes=((name, name), ("key", name), ("list", [name])),
            resource=((name, name),),
            events=((name, ((name, name),)),),
        )
        for number, name in enumerate(HOSTILE, start=1)
    ]


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_chunks_name_is_no_pattern_and_no_path_whatever_its_tenant(tenant: str) -> None:
    assert is_tenant_name(tenant)

    name = chunk_name(tenant, "spans_by_trace", 0, (0, 9), "token", T0)

    assert not set(name) & set("*?[]{}\\\x00")
    assert not {".", "..", ""} & set(name.split("/"))
    assert len(name.split("/")) == 6
    others = {chunk_name(other, "spans_by_trace", 0, (0, 9), "token", T0) for other in TENANTS if other != tenant}
    assert name not in others


@pytest.mark.integration
def test_a_tenant_whose_name_is_a_pattern_reads_its_own_chunks_only(
    tmp_path: Path, store_settings: StoreSettings
) -> None:
    settings = settings_of(tmp_path, store=store_settings, multitenancy=True)
    span = OneSpan(1, 1)
    partition = partition_of(span.trace_id, PARTITIONS)

    def prepare(world: World) -> None:
        parts = [rows({at: [OneSpan(1, 1, name=f"of {tenant}")]}, tenant) for at, tenant in enumerate(TENANTS)]
        world.stored.manifests.append(stored(settings, partition, 0, len(TENANTS) - 1, schema.concat(parts)))

    async def test(client: httpx.AsyncClient, _world: World) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        for tenant in TENANTS:
            headers = {"X-Scope-OrgID": tenant}
            query = AROUND | {"q": "{} | rate() by (name)"}
            for path, asked in (
                (f"/api/v2/traces/{span.trace_id.hex()}", {}),
                ("/api/search", AROUND | {"q": "{}"}),
                ("/api/search/tag/name/values", AROUND),
                ("/api/metrics/query_range", query),
                ("/api/services", {}),
            ):
                answer = await client.get(path, params=asked, headers=headers)
                assert answer.status_code == 200, answer.text
                told.setdefault(tenant, []).append(answer.text)
        return told

    told = with_api(settings, prepare, test)

    for tenant, answers in told.items():
        for text in answers:
            assert {other for other in TENANTS if f"of {other}" in text} == {tenant}
    objects = [one.name for one in ObjectStore(store_settings).list(store_settings.buckets[0], "")]
    objects += [one.name for one in ObjectStore(store_settings).list(store_settings.buckets[1], "")]
    assert {name.split("/")[0] for name in objects} == {"chunks", "manifests"}


def test_hostile_names_of_spans_are_found_as_they_are_and_break_no_question(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> list[str]:
        wrong = []
        for span in spans():
            quoted = json.dumps(span.name)
            asked: list[tuple[str, dict[str, str], bool]] = [
                (f"/api/v2/traces/{span.trace_id.hex()}", {}, True),
                ("/api/search", AROUND | {"q": f"{{ name = {quoted} && .key = {quoted} }}"}, True),
                ("/api/search", AROUND | {"tags": f"key={quoted}"}, True),
                ("/api/metrics/query_range", AROUND | {"q": f"{{ name = {quoted} }} | rate() by (.key)"}, True),
                ("/api/search", AROUND | {"q": span.name}, False),
                ("/api/search", AROUND | {"tags": span.name, "order": span.name}, False),
                (f"/api/search/tag/{httpx.QueryParams({'a': span.name})}/values", AROUND, False),
                (f"/api/where/{span.trace_id.hex()}", {}, False),
                (f"/plain/trace/{span.trace_id.hex()}", {}, False),
                ("/plain", AROUND, False),
                ("/tables/" + httpx.QueryParams({"a": span.name})["a"].replace("\x00", "%00"), {}, False),
            ]
            for path, params, finds in asked:
                try:
                    answer = await client.get(path, params=params)
                except httpx.InvalidURL:
                    continue
                if answer.status_code >= 500 and answer.status_code != 503:
                    wrong.append(f"{path} {params}: {answer.status_code} {answer.text[:200]}")
                if finds and (answer.status_code != 200 or not _named(answer, span.name)):
                    wrong.append(f"{path} {params} does not find {span.name!r}: {answer.text[:200]}")
                if "html" in answer.headers.get("content-type", ""):
                    wrong += [
                        f"{path} is touched by {tag}" for tag in ("<script>alert", "<img src=x") if tag in answer.text
                    ]
                if "set-cookie" in answer.headers:
                    wrong.append(f"{path} sets a cookie")
        return wrong

    assert not with_api(settings_of(tmp_path), lambda world: world.send(spans()), test)


def _named(answer: httpx.Response, name: str) -> bool:
    """Whether the name stands in a JSON answer as it is; what protobuf's text cannot hold is told in its place."""
    return json.dumps(name)[1:-1].encode() in json.dumps(answer.json()).encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_steers_the_terminal_that_shows_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    span = OneSpan(1, 1, name=name, service=name, status=2)
    table = Table(box=None)
    table.add_column(name)
    table.add_row(Text(name, "bold"))

    show_trace(TraceAnswer(traces_data=TracesData.FromString(otlp([span])), partial=False, message=""))
    terminal.screen().print(table)
    terminal.screen().print(Text(name), name, markup=False)
    terminal.say(name)
    terminal.say_error(name)

    shown = capsys.readouterr()
    assert visible(shown.out + shown.err) == shown.out + shown.err
    assert re.sub(r"[\s\ufffd]", "", visible(name))[:6] in re.sub(r"[\s\ufffd]", "", shown.out)


def test_no_name_steers_the_terminal_that_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    for kind in ("console", "json"):
        set_up_logs(LogSettings(format=kind), out)  # type: ignore[arg-type]
        for name in HOSTILE:
            structlog.get_logger("test").warning("refused", tenant=name, error=f"no tenant {name}")

    told = out.getvalue()
    assert not [one for one in told if one in "\x1b\x9b\x00\x07\r\u202e"]
    assert REPLACEMENT in told


def test_what_is_safe_to_show_stays_as_it_is() -> None:
    for text in ("GET /cart → 200\t✓\n", "äöü 漢字 🙂", ""):
        assert visible(text) == text


def test_a_settings_error_quotes_hostile_values_without_their_escapes() -> None:
    from topics.errors import SettingsError
    from topics.settings import load

    with pytest.raises(SettingsError) as caught:
        load({"receiver.grpc_port": HOSTILE[6]})

    assert "\x1b" not in str(caught.value)

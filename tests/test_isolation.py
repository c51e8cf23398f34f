"""Two tenants on real processes behind locked doors: over every route and method, neither sees a byte of the other.

The routes are those of the routers: one that is new fails here until it is written down how it is asked.
"""

from __future__ import annotations

import base64
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.table_endpoint import TableEndpoint
from pipeline.doors.outgoing import Outgoing
from pipeline.drops import PATH as DROPS
from pipeline.receive.http import HttpReceiver
from pipeline.receive.ingest import Ingest
from pipeline.serve import status_pages
from pipeline.serve.app import make_app as make_querier_app
from pipeline.serve.ui import bundle
from pipeline.store.objects import ObjectStore
from tests.doors import PEER_TOKEN, locked, new_token
from tests.queriers import querier, receiver, worker
from tests.waiting import wait_until
from tests.workers import everything_is_stored
from topics import admin
from topics.settings import KafkaSettings, ReceiverSettings, Settings, StoreSettings, WorkerSettings

TRACE = bytes.fromhex("0123456789abcdef0123456789abcdef")
START_NS = 1_700_000_000 * 10**9
AROUND = f"start={START_NS // 10**9 - 60}&end={START_NS // 10**9 + 600}"
A, B = "tenant-a", "tenant-b"
UNKNOWN = f"ss_000000000000_{'x' * 43}"


class Asked(NamedTuple):
    """A way to ask a route; `{mark}` is the asking tenant's. tells: the answer must hold that tenant's mark."""

    path: str
    tells: bool = False


QUERIER = {
    "/api/traces/{trace_id}": [Asked(f"/api/traces/{TRACE.hex()}", tells=True)],
    "/api/v2/traces/{trace_id}": [Asked(f"/api/v2/traces/{TRACE.hex()}", tells=True)],
    "/api/v2/traces/diff": [Asked("/api/v2/traces/diff")],
    "/api/search": [
        Asked(f"/api/search?{AROUND}&q={{}}", tells=True),
        Asked(f"/api/search?{AROUND}&q={{ .shared = `same` }} | select(.shared, event.told, name)", tells=True),
        Asked(f"/api/search?{AROUND}&tags=shared%3Dsame", tells=True),
        Asked(f"/api/search?{AROUND}&q={{}}&format=ndjson", tells=True),
        Asked(f"/api/search?{AROUND}&q={{}}&format=csv", tells=True),
    ],
    "/api/metrics/query_range": [Asked(f"/api/metrics/query_range?{AROUND}&q={{}} | rate() by (name)", tells=True)],
    "/api/metrics/query": [Asked(f"/api/metrics/query?{AROUND}&q={{}} | count_over_time() by (name)", tells=True)],
    "/api/search/tags": [Asked(f"/api/search/tags?{AROUND}", tells=True), Asked("/api/search/tags", tells=True)],
    "/api/v2/search/tags": [Asked(f"/api/v2/search/tags?{AROUND}", tells=True)],
    "/api/search/tag/{tag:path}/values": [
        Asked(f"/api/search/tag/service.name/values?{AROUND}", tells=True),
        Asked("/api/search/tag/name/values", tells=True),
        Asked("/api/search/tag/{other}.key/values"),
    ],
    "/api/v2/search/tag/{tag:path}/values": [
        Asked(f"/api/v2/search/tag/resource.service.name/values?{AROUND}", tells=True),
        Asked("/api/v2/search/tag/.{other}.key/values"),
    ],
    "/api/services": [Asked("/api/services", tells=True), Asked(f"/api/services?{AROUND}", tells=True)],
    "/api/explain": [
        Asked(f"/api/explain?{AROUND}&q={{ .shared = `same` }}"),
        Asked(f"/api/explain?{AROUND}&q={{ status = error }} >> {{}}"),
        Asked(f"/api/explain?{AROUND}&q={{}} | rate() by (name)"),
    ],
    "/api/sql": [
        Asked(f"/api/sql?{AROUND}&q=SELECT * FROM spans", tells=True),
        Asked(f"/api/sql?{AROUND}&q=DESCRIBE spans"),
        Asked(f"/api/sql?{AROUND}&q=SELECT * FROM traces", tells=True),
    ],
    "/api/tail": [Asked("/api/tail?q={}")],
    "/api/where/{trace_id}": [Asked(f"/api/where/{TRACE.hex()}", tells=True)],
    "/api/trace-view/{trace_id}": [Asked(f"/api/trace-view/{TRACE.hex()}", tells=True)],
    "/api/trace-view/{trace_id}/matches": [
        Asked(f"/api/trace-view/{TRACE.hex()}/matches?q={{ name = `{{other}}-name` }}"),
    ],
    "/api/trace-view/{trace_id}/events": [Asked(f"/api/trace-view/{TRACE.hex()}/events", tells=True)],
    "/api/trace-view/{trace_id}/spans/{span_id}": [
        Asked(f"/api/trace-view/{TRACE.hex()}/spans/{f'mark{letter}-00'.encode().hex()}") for letter in "ab"
    ],
    DROPS: [Asked(DROPS, tells=True)],
    "/api/mcp": [Asked("/api/mcp")],
    "/api/status/system": [Asked("/api/status/system")],
    "/api/status/canary": [Asked("/api/status/canary")],
    "/api/status/queries": [Asked("/api/status/queries")],
    "/api/status/queries/{id}": [Asked("/api/status/queries/0123456789abcdef")],
    **{path: [Asked(path)] for path in status_pages.PAGES},
    "/status/overrides/{tenant}": [Asked("/status/overrides/{other_tenant}")],
    "/tables": [Asked("/tables")],
    "/tables/{rest:path}": [
        *(Asked(f"/tables/{table}") for table in ("services", "operations", "attributes", "chunks")),
        Asked("/tables/partitions"),
        Asked("/tables/segments"),
        Asked("/tables/services/{other_tenant}/{other}-service"),
        Asked("/tables/services?prefix={other_tenant}"),
        Asked("/tables/../live?want=0:0,1:0"),
        Asked("/tables/%2e%2e/live?want=0:0,1:0"),
        Asked("/tables/services/..%2f..%2flive?want=0:0,1:0"),
    ],
    "/trace/{trace_id}": [Asked(f"/trace/{TRACE.hex()}")],
    "/trace/{trace_id}/against/{other_id}": [Asked(f"/trace/{TRACE.hex()}/against/{TRACE.hex()}")],
    **{view: [Asked(f"{view}?{AROUND}")] for view in bundle.VIEWS},
    f"{bundle.PLAIN}/trace/{{trace_id}}": [Asked(f"{bundle.PLAIN}/trace/{TRACE.hex()}", tells=True)],
    bundle.PLAIN: [Asked(f"{bundle.PLAIN}?{AROUND}", tells=True)],
    "/assets": [Asked("/assets/none.js"), Asked("/assets/%2e%2e/%2e%2e/pyproject.toml")],
    "/api/echo": [Asked("/api/echo")],
    "/api/openapi.json": [Asked("/api/openapi.json")],
    "/api/status/buildinfo": [Asked("/api/status/buildinfo")],
    "/ready": [Asked("/ready")],
    "/metrics": [Asked("/metrics")],
}
RECEIVER = {path: [Asked(path)] for path in ("/v1/traces", "/ready", "/metrics", DROPS)}
WORKER = {
    "/live": [Asked("/live?want=0:0,1:0"), Asked(f"/live?want=0:0,1:0&trace_id={TRACE.hex()}")],
    "/ready": [Asked("/ready")],
    "/metrics": [Asked("/metrics")],
    DROPS: [Asked(DROPS)],
    "/tables": [Asked("/tables")],
    "/tables/{table}": [*(one for one in QUERIER["/tables/{rest:path}"] if one.path.count("/") == 2)],
    "/tables/{table}/{key}": [Asked("/tables/attributes/{other_tenant}/span.{other}.key")],
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def mark(tenant: str) -> str:
    return f"mark{tenant[-1]}"


def spans_of(tenant: str, number: int) -> bytes:
    """A span of the trace that both send, with the tenant's mark wherever a text can stand."""
    told = mark(tenant)
    text = {"stringValue": told}
    span: dict[str, Any] = {
        "traceId": base64.b64encode(TRACE).decode(),
        "spanId": base64.b64encode(f"{told}-0{number}".encode()).decode(),
        "name": f"{told}-name",
        "kind": 2,
        "startTimeUnixNano": START_NS + number,
        "endTimeUnixNano": START_NS + number + 10**6 * (1 if number else -1),
        "traceState": f"{told}=1",
        "attributes": [
            {"key": f"{told}.key", "value": text},
            {"key": "shared", "value": {"stringValue": "same"}},
            {"key": "told", "value": text},
        ],
        "events": [{"name": f"{told}-event", "attributes": [{"key": "told", "value": text}]}],
        "links": [{"traceId": base64.b64encode(TRACE).decode(), "spanId": "AAAAAAAAAAE=", "traceState": f"{told}=2"}],
        "status": {"code": 2, "message": f"{told}-message"},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": f"{told}-service"}}]}
    scope = {"name": f"{told}-scope", "version": told}
    data = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}
    return ParseDict(data, TracesData()).SerializeToString()


def marks_in(body: bytes, tenant: str) -> bool:
    """Whether a tenant's mark or name is told, in whatever form: text, bytes, hex or base64."""
    told = mark(tenant)
    forms = [told.encode(), told.encode().hex().encode(), tenant.encode()]
    forms += [base64.b64encode(f"{told}-0{number}".encode()).lower()[:8] for number in range(3)]
    return any(form in body.lower() for form in forms)


class Running(NamedTuple):
    """The URLs of the processes, the tokens of the tenants, and one that is for both."""

    settings: Settings
    urls: dict[str, str]
    tokens: dict[str, str]
    client: httpx.Client


@pytest.fixture
def running(kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path) -> Iterator[Running]:
    tokens = {one: new_token(tmp_path / "tokens.json", "write", "read", "admin", tenants=(one,)) for one in (A, B)}
    tokens["both"] = new_token(tmp_path / "tokens.json", "read", "admin")
    settings = Settings(
        kafka=kafka_settings.model_copy(update={"partitions": 2, "session_timeout_s": 6.0}),
        store=store_settings,
        receiver=ReceiverSettings(multitenancy=True),
        worker=WorkerSettings(seal_age_s=2),
        doors=locked(tmp_path),
    )
    admin.ensure(settings)
    with ExitStack() as stack:
        urls = {"receiver": stack.enter_context(receiver(settings, tmp_path))}
        urls["worker"] = stack.enter_context(worker(settings, tmp_path))
        own = settings.querier.model_copy(update={"receiver_urls": (urls["receiver"],), "tag_values_max": 100})
        urls["querier"] = stack.enter_context(querier(settings.model_copy(update={"querier": own}), tmp_path))
        client = stack.enter_context(
            httpx.Client(
                verify=Outgoing.of_peer(settings).tls, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
            )
        )
        yield Running(settings, urls, tokens, client)


def ask(running: Running, process: str, method: str, path: str, token: str, **headers: str) -> httpx.Response:
    shown = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    url = running.urls[process] + path
    if not path.startswith("/api/tail"):
        return running.client.request(method, url, headers=shown)
    with running.client.stream(method, url, headers=shown) as endless:
        return httpx.Response(endless.status_code, content=read_for(endless, 0.3, ""))


def read_for(endless: httpx.Response, seconds: float, until: str) -> bytes:
    """What an answer without end tells within so long, or until it tells `until`."""
    body, end_s = b"", time.monotonic() + seconds
    with suppress(httpx.ReadTimeout):
        for part in endless.iter_raw():
            body += part
            if time.monotonic() > end_s or (until and until.encode() in body):
                break
    return body


def send(running: Running, tenant: str, number: int) -> None:
    headers = {"Authorization": f"Bearer {running.tokens[tenant]}", "Content-Type": "application/x-protobuf"}
    url = running.urls["receiver"] + "/v1/traces"
    assert running.client.post(url, content=spans_of(tenant, number), headers=headers).status_code == 200


def follow(running: Running, tenant: str, other: str, number: int) -> str:
    """What is wrong with what a tenant is told of spans as they arrive, its own and the other's."""
    shown = {"Authorization": f"Bearer {running.tokens[tenant]}"}
    with running.client.stream("GET", running.urls["querier"] + "/api/tail?q={}", headers=shown) as endless:
        told = threading.Timer(1.0, lambda: [send(running, one, number) for one in (other, tenant)])
        told.start()
        body = read_for(endless, 20.0, mark(tenant))
        told.join()
    if not marks_in(body, tenant):
        return f"/api/tail told {tenant} nothing: {body!r:.300}"
    return f"/api/tail told {tenant} of {other}: {body!r:.300}" if marks_in(body, other) else ""


def filled(path: str, tenant: str) -> str:
    """A path that asks for what is the other's, where it can."""
    other = B if tenant == A else A
    return path.replace("{other}", mark(other)).replace("{other_tenant}", other)


def span_count(running: Running, tenant: str, **headers: str) -> int:
    answer = ask(running, "querier", "GET", f"/api/v2/traces/{TRACE.hex()}", running.tokens[tenant], **headers)
    found = answer.json()["trace"].get("resourceSpans", [])
    return sum(len(scope["spans"]) for resource in found for scope in resource["scopeSpans"])


def test_every_route_of_every_process_is_walked() -> None:
    settings = Settings()
    api = make_querier_app(cast(Any, None), settings)
    http = HttpReceiver(Ingest(settings), settings.receiver, lambda: None)
    tables = TableEndpoint(cast(Any, None), cast(Any, None), "", settings)

    assert {getattr(route, "path", "") for route in api.routes} == set(QUERIER)
    assert set(http.routes) == set(RECEIVER)
    assert {path.replace(":.+", "") for path, _ in tables.routes()} == set(WORKER)


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_over_every_route_and_method_no_tenant_sees_a_byte_of_the_other(running: Running) -> None:
    for number, tenant in ((0, A), (0, B), (1, A), (1, B)):
        send(running, tenant, number)
    store = ObjectStore(running.settings.store)
    wait_until(lambda: everything_is_stored(store, running.settings), 60, "the first spans are in chunks")
    for tenant in (A, B):
        send(running, tenant, 2)  # and one that is live for a while
        wait_until(lambda who=tenant: span_count(running, who) == 3, 30, "all three are found")  # type: ignore[misc]
    wrong = [sentence for tenant, other in ((A, B), (B, A)) for sentence in told_too_much(running, tenant, other)]
    wrong += told_by_methods(running)
    wrong += filter(None, (follow(running, A, B, 3), follow(running, B, A, 4)))
    assert not wrong, "\n".join(wrong)
    # What there was to be told: a peer is given both, and a token for all tenants may ask for both at once
    live = ask(running, "worker", "GET", "/live?want=0:0,1:0", PEER_TOKEN)
    assert live.status_code == 200
    assert span_count(running, "both", x_scope_orgid=f"{A}|{B}") == 10
    assert (
        ask(running, "querier", "GET", "/tables/segments", running.tokens["both"], x_scope_orgid=A).status_code == 200
    )
    assert "spanstream_" in ask(running, "worker", "GET", "/metrics", running.tokens["both"]).text
    for who, told in ((A, False), ("both", True)):  # partitions are shared: their offsets tell of all tenants
        system = ask(running, "querier", "GET", "/api/status/system", running.tokens[who], x_scope_orgid=A)
        assert (system.status_code, bool(system.json()["partitions"])) == (200, told)
    check_secrets_stay_inside(Path(running.settings.doors.tokens_path).parent, running)


def every_way() -> Iterator[tuple[str, Asked]]:
    """(process, a way to ask) for every route of every process."""
    for process, routes in (("querier", QUERIER), ("receiver", RECEIVER), ("worker", WORKER)):
        for ways in routes.values():
            yield from ((process, one) for one in ways)


def told_too_much(running: Running, tenant: str, other: str) -> Iterator[str]:
    """What a tenant is told of another, or is not told of itself, a sentence each."""
    token = running.tokens[tenant]
    for process, one in every_way():
        path = filled(one.path, tenant)
        answer = ask(running, process, "GET", path, token)
        if marks_in(_unquoted(answer.content, path, tenant), other):
            yield f"{process} told {tenant} of {other}: {path} {answer.text[:300]}"
        if one.tells and not marks_in(answer.content, tenant):
            yield f"{process} told {tenant} nothing: {path} {answer.status_code} {answer.text[:300]}"
        for named in (other, f"{A}|{B}"):
            given = ask(running, process, "GET", path, token, x_scope_orgid=named)
            if given.status_code == 200 and marks_in(_unquoted(given.content, path, tenant), other):
                yield f"{process} {path} for {named}: {given.text[:300]}"
        if one.tells and ask(running, process, "GET", path, UNKNOWN).status_code != 401:
            yield f"{process} {path} answers a token that is none"


def told_by_methods(running: Running) -> Iterator[str]:
    """The same for every method of every route, in both encodings."""
    for process, routes in (("querier", QUERIER), ("receiver", RECEIVER), ("worker", WORKER)):
        for path, method in itertools.product((filled(ways[0].path, A) for ways in routes.values()), METHODS):
            accept = "application/protobuf" if method in ("GET", "POST") else "application/json"
            answer = ask(running, process, method, path, running.tokens[A], accept=accept)
            if marks_in(_unquoted(answer.content, path, A), B):
                yield f"{process} told {A} of {B}: {method} {path} {accept}"


def _unquoted(body: bytes, path: str, tenant: str) -> bytes:
    """The body without what the path asked for: an error may repeat it."""
    other = B if tenant == A else A
    if mark(other) in path or other in path:
        for said in (f"{other}/{mark(other)}-service", f"{other}/span.{mark(other)}.key", f"{mark(other)}.key"):
            body = body.replace(said.encode(), b"")
    return body


def check_secrets_stay_inside(folder: Path, running: Running) -> None:
    """No log of a process holds a token or a password."""
    secrets = [PEER_TOKEN, *(token.split("_", 2)[2] for token in running.tokens.values())]
    secrets.append(running.settings.store.secret_key.get_secret_value())
    for log in folder.glob("*.log"):
        text = log.read_text()
        assert text
        assert not [secret for secret in secrets if secret in text], log

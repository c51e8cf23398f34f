"""A worker's web server: every route that it has, Faust's own included, stands behind the door."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agents.app import make_app
from agents.table_endpoint import TableEndpoint
from tests.doors import PEER_TOKEN, locked, new_token
from topics.settings import ReceiverSettings, Settings, WorkerSettings

OPEN = {"/ready"}
FOR_READERS = {"/api/status/drops", "/tables", "/tables/{table}", "/tables/{table}/{key}"}
FOR_OPERATORS = {"/metrics"}


def server_of(folder: Path) -> web.Application:
    """As Faust makes it, before there is a Kafka; handlers that need a worker fail once they are reached."""
    settings = Settings(
        worker=WorkerSettings(data_dir=folder / "worker"),
        receiver=ReceiverSettings(multitenancy=True),
        doors=locked(folder, tls=False),
    )
    app = make_app(settings)
    app.routes = TableEndpoint(cast(Any, None), cast(Any, None), "", settings).routes()
    app.web.init_server()
    found: web.Application = cast(Any, app.web).web_app
    return found


def test_no_route_is_reached_without_a_token_or_with_too_small_a_one(tmp_path: Path) -> None:
    tokens = {
        "": "",
        "reader": new_token(tmp_path / "tokens.json", "read", tenants=("a",)),
        "operator of a": new_token(tmp_path / "tokens.json", "read", "admin", tenants=("a",)),
        "operator": new_token(tmp_path / "tokens.json", "admin"),
        "peer": PEER_TOKEN,
    }

    async def main() -> dict[str, dict[str, int]]:
        told: dict[str, dict[str, int]] = {}
        async with TestClient(TestServer(server_of(tmp_path))) as client:
            paths = {r.resource.canonical for r in client.server.app.router.routes() if r.resource}  # type: ignore[attr-defined]
            for path in paths | {"/%6cive", "/live/", "/nothing"}:
                for who, token in tokens.items():
                    headers = {"X-Scope-OrgID": "a"} | ({"Authorization": f"Bearer {token}"} if token else {})
                    answer = await client.get(re.sub(r"\{\w+\}", "none", path), headers=headers)
                    told.setdefault(path, {})[who] = answer.status
        return told

    told = asyncio.run(main())

    assert {"/live", "/", "/table/", "/router/", *OPEN, *FOR_READERS, *FOR_OPERATORS} <= set(told)  # ours and Faust's
    for path, status in told.items():
        if path in OPEN:
            continue
        assert status[""] == 401, path
        assert (status["reader"] == 403) == (path not in FOR_READERS), (path, status)
        assert (status["operator of a"] == 403) == (path not in FOR_READERS), (path, status)
        assert status["peer"] not in (401, 403), path
        if path in ("/live", "/%6cive", *FOR_READERS):
            assert status["operator"] == 403, path

"""`/status` and below: version, state, routes, settings and overrides of this querier, as Tempo tells them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from pipeline.query.questions import Questions
from pipeline.serve import openapi
from pipeline.serve.formats import JSON
from pipeline.serve.plain_json import Json
from topics.errors import BadQuestionError
from topics.settings import Settings, shown, values_of

OVERRIDES = "/status/overrides"
BUILD = {
    # Grafana switches features on by Tempo's version: 3.0's are answered, and what is not says so
    "version": "3.0.0+spanstream",
    "revision": "",
    "branch": "",
    "buildUser": "",
    "buildDate": "",
    "goVersion": "",
}
MODES = {"/status/config": ("", "diff", "defaults"), "/status/runtime_config": ("", "diff")}
ALLOW = {"allow": "GET, HEAD"}
TEXT = "text/plain; charset=utf-8"


class StatusDoor:
    """The handlers."""

    def __init__(self, questions: Questions, settings: Settings) -> None:
        self._questions, self._settings = questions, settings

    async def page(self, request: Request) -> Response:
        """One of PAGES."""
        path, mode = request.url.path, request.query_params.get("mode", "")
        if request.method not in ("GET", "HEAD"):
            return Response("this page is asked for with GET\n", 405, ALLOW, TEXT)
        if mode not in MODES.get(path, (mode,)):
            raise BadQuestionError(f"invalid mode: {mode[:50]!r} is none of {', '.join(filter(None, MODES[path]))}")
        if path == OVERRIDES:
            return _json({"tenants": [_listed(name) for name in sorted(self._questions.overrides.every())]})
        text = self._overview() if path == "/status" else self._part(path, mode)
        return Response(text, media_type=TEXT)

    async def overrides_of(self, request: Request) -> Response:
        """The limits that a tenant has of its own."""
        tenant = request.path_params["tenant"]
        own = self._questions.overrides.of(tenant).model_dump(exclude_none=True)
        told = {"tenant": tenant, "user_configurable_overrides": None, "runtime_overrides": own or None}
        return _json(told | {"using_default_or_wildcard_runtime_overrides": not own})

    def _overview(self) -> str:
        return "\n".join(f"{path}\n\n{self._part(path, '')}" for path in PAGES if path not in ("/status", OVERRIDES))

    def _part(self, path: str, mode: str) -> str:
        if path == "/status/version":
            return _table(("", ""), BUILD.items())
        if path == "/status/services":
            missing = self._questions.missing()
            return _table(("service", "state"), [("querier", f"Starting: {missing}" if missing else "Running")])
        if path == "/status/endpoints":
            rows = [(name, ", ".join(route.methods), route.summary) for name, route in sorted(openapi.ROUTES.items())]
            return _table(("path", "methods", "what"), rows)
        if path == "/status/config":
            return _yaml_of_settings(self._settings, mode)
        limits = {name: own.model_dump(exclude_none=True) for name, own in self._questions.overrides.every().items()}
        return _yaml({"overrides": dict(sorted(limits.items()))})


PAGES = (
    "/status",
    "/status/version",
    "/status/services",
    "/status/endpoints",
    "/status/config",
    "/status/runtime_config",
    OVERRIDES,
)


def _listed(tenant: str) -> Json:
    return {"name": tenant, "has_runtime_overrides": True, "has_user_configurable_overrides": False}


def _json(body: Json) -> Response:
    return Response(orjson.dumps({"now": datetime.now(UTC)} | body), media_type=JSON)


def _yaml_of_settings(settings: Settings, mode: str) -> str:
    """mode: diff: what is not the default; defaults: as if nothing were set. Secrets are hidden."""
    defaults = values_of(Settings())
    told: dict[str, Json] = {}
    for (name, value), (_, default) in zip(values_of(settings), defaults, strict=True):
        section, _, field = name.partition(".")
        if mode != "diff" or value != default:
            told.setdefault(section, {})[field] = shown(default if mode == "defaults" else value)
    return _yaml(told)


def _yaml(value: Json, depth: int = 0) -> str:
    """Objects as blocks, all else as JSON writes it, which is YAML too."""
    if not value and not depth:
        return "{}\n"
    lines = []
    for name, one in value.items():
        key = f"{'  ' * depth}{name if name.isidentifier() else orjson.dumps(name).decode()}:"
        block = isinstance(one, dict) and one
        lines.append(f"{key}\n{_yaml(one, depth + 1)}" if block else f"{key} {orjson.dumps(one).decode()}\n")
    return "".join(lines)


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need to be."""
    lines = [list(map(str, row)) for row in ([titles] if any(titles) else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )

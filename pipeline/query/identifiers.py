"""What a tag's name stands for: attributes of some scopes, or an intrinsic field of a span."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.traceql.names import PREFIXES, attribute_at
from topics.errors import BadQuestionError

SCOPE_OF = {"resource": "resource", "span": "span", "event": "event", "link": "link", "instrumentation": "scope"}
API_SCOPE_OF = {ours: theirs for theirs, ours in SCOPE_OF.items()}
INTRINSICS = (
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
)
SAME = {
    "span:name": "name",
    "span:kind": "kind",
    "span:status": "status",
    "span:statusMessage": "statusMessage",
    "trace:rootName": "rootName",
    "trace:rootService": "rootServiceName",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute's key in the scopes (ours) where it is looked for."""

    scopes: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """One of INTRINSICS, under its shorter name where there are two."""

    name: str


def legacy_tag(name: str) -> Attribute | Intrinsic:
    """A tag name of the first version of the API: no scope; looked for in spans and resources."""
    legacy = {"name": "name", "status.code": "status", "root.name": "rootName", "root.service.name": "rootServiceName"}
    if name in legacy:
        return Intrinsic(legacy[name])
    return Attribute(("resource",) if name == "service.name" else ("resource", "span"), name)


def identifier(text: str) -> Attribute | Intrinsic:
    """A TraceQL attribute: `resource.service.name`, `.http.method`, `span."a b"`, `name`, `span:kind`.

    Raises BadQuestionError for anything else.
    """
    if text in INTRINSICS:
        return Intrinsic(SAME.get(text, text))
    if not text.startswith(PREFIXES) or text.startswith("parent."):
        raise BadQuestionError(
            f"please provide a valid tagName: {text!r} is neither a scoped attribute (resource.service.name, "
            f".http.method) nor one of {', '.join(INTRINSICS)}"
        )
    try:
        found, end = attribute_at(text, 0)
    except BadQuestionError as exc:
        raise BadQuestionError(f"please provide a valid tagName: {text!r} does not parse: {exc}") from exc
    if end < len(text):
        raise BadQuestionError(f"please provide a valid tagName: {text!r} does not parse at pos {end + 1}")
    return Attribute((SCOPE_OF[found.scope],) if found.scope else ("resource", "span"), found.name)

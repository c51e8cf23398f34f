"""What a tag's name stands for: attributes of some scopes, or an intrinsic field of a span."""

from __future__ import annotations

import re
from dataclasses import dataclass

from topics.errors import BadQuestionError

API_SCOPES = ("resource", "span", "event", "link", "instrumentation")
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
_BARE = re.compile(r"[^\s\"{}()=~!<>&|^,]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


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
    scope, dot, rest = text.partition(".")
    if dot and scope == "":
        return Attribute(("resource", "span"), _key(text, rest))
    if dot and scope in SCOPE_OF:
        return Attribute((SCOPE_OF[scope],), _key(text, rest))
    raise BadQuestionError(
        f"please provide a valid tagName: {text!r} is neither a scoped attribute (resource.service.name, .http.method) "
        f"nor one of {', '.join(INTRINSICS)}"
    )


def _key(text: str, rest: str) -> str:
    """The key: runs of plain characters and quoted parts, as TraceQL joins them."""
    key, at = "", 0
    while at < len(rest):
        if (part := _QUOTED.match(rest, at)) is not None:
            key += re.sub(r"\\(.)", r"\1", part[1])
        elif (part := _BARE.match(rest, at)) is not None:
            key += part[0]
        else:
            break
        at = part.end()
    if not key or at < len(rest):
        raise BadQuestionError(
            f"please provide a valid tagName: {text!r} does not parse at pos {len(text) - len(rest) + at + 1}"
        )
    return key

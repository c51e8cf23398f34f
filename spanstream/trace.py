"""A whole trace: its spans in the order of their tree, parents before children."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spanstream import html
from spanstream.answers import Many, attributes, column, instants, whole

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_SPANS = 200


@dataclass(frozen=True, slots=True)
class Span:
    """One span. parent_span_id: empty for a root; depth: how many spans it stands below; kind, status: lower case."""

    span_id: str
    parent_span_id: str
    depth: int
    name: str
    service: str
    kind: str
    status: str
    status_message: str
    start_unix_ns: int
    duration_ns: int
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(repr=False)
    events: tuple[dict[str, Any], ...] = field(repr=False)
    links: tuple[dict[str, Any], ...] = field(repr=False)


class Trace(Many[Span]):
    """The spans of a trace. One whose parent is not there stands as a root."""

    def __init__(self, trace_id: str, answer: dict[str, Any]) -> None:
        found = [_span(*one) for one in _in_order(answer.get("trace", {}).get("resourceSpans", []))]
        super().__init__(found, complete=answer.get("status") != "PARTIAL", message=answer.get("message", ""))
        self.trace_id = trace_id

    @property
    def start_unix_ns(self) -> int:
        """Of its first span."""
        return min(span.start_unix_ns for span in self._items)

    @property
    def duration_ns(self) -> int:
        """From the first start to the last end."""
        return max(span.start_unix_ns + span.duration_ns for span in self._items) - self.start_unix_ns

    def arrow(self) -> pa.Table:
        """A row a span. Attributes are columns: `span.http.route`, `resource.host.name`; events and links are JSON."""
        import pyarrow as pa

        spans = self._items
        texts = ("span_id", "parent_span_id", "name", "service", "kind", "status", "status_message")
        columns = {"trace_id": pa.array([self.trace_id] * len(spans), pa.string())}
        columns |= {name: pa.array([getattr(span, name) for span in spans], pa.string()) for name in texts}
        columns["depth"] = pa.array([span.depth for span in spans], pa.int32())
        columns["start"] = instants([span.start_unix_ns for span in spans])
        columns["duration_ns"] = whole([span.duration_ns for span in spans])
        for name in ("events", "links"):
            columns[name] = pa.array([json.dumps(getattr(span, name)) for span in spans], pa.string())
        for scope, given in (("resource", [s.resource for s in spans]), ("span", [s.attributes for s in spans])):
            for key in dict.fromkeys(key for one in given for key in one):
                columns[f"{scope}.{key}"] = column([one.get(key) for one in given])
        return pa.table(columns)

    def __repr__(self) -> str:
        return f"<trace {self.trace_id}: {len(self):,} spans{'' if self.complete else ', PARTIAL'}>"

    def _repr_html_(self) -> str:
        first, whole = self.start_unix_ns, max(1, self.duration_ns)
        rows = [
            (
                f'<span style="padding-left:{min(span.depth, 40)}em"></span>{html.service(span.service)} '
                + html.text(span.name),
                html.number(html.duration(span.duration_ns)),
                html.text(span.status_message or span.status) if span.status == "error" else "",
                html.bar((span.start_unix_ns - first) / whole, span.duration_ns / whole, span.service),
            )
            for span in self._items[:SHOWN_SPANS]
        ]
        head = f"{self.trace_id}, {html.when(first)}, {html.duration(self.duration_ns)}, {len(self):,} spans"
        return html.table(
            ("span", "duration", "error", ""), rows, html.more(len(self) - SHOWN_SPANS), head, self._note()
        )


def _in_order(resources: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], int]]:
    """(span, resource, depth): each once, rings included; siblings by their start."""
    pairs = [
        (span, resource.get("resource", {}))
        for resource in resources
        for scope in resource.get("scopeSpans", [])
        for span in scope.get("spans", [])
    ]
    pairs.sort(key=lambda pair: int(pair[0].get("startTimeUnixNano", 0)))
    known = {span.get("spanId", "") for span, _ in pairs}
    below: dict[str, list[int]] = {}
    for at, (span, _) in enumerate(pairs):
        parent = span.get("parentSpanId", "")
        below.setdefault(parent if parent in known else "", []).append(at)
    seen: set[int] = set()
    for start in [*below.get("", []), *range(len(pairs))]:  # what is left are rings
        waiting = [(start, 0)]
        while waiting:
            at, depth = waiting.pop()
            if at in seen:
                continue
            seen.add(at)
            yield (*pairs[at], depth)
            waiting += [(child, depth + 1) for child in reversed(below.get(pairs[at][0].get("spanId") or "-", []))]


def _span(span: dict[str, Any], resource: dict[str, Any], depth: int) -> Span:
    start, end = (int(span.get(name, 0)) for name in ("startTimeUnixNano", "endTimeUnixNano"))
    of_resource, status = attributes(resource.get("attributes", [])), span.get("status", {})
    return Span(
        span_id=_hex(span.get("spanId", "")),
        parent_span_id=_hex(span.get("parentSpanId", "")),
        depth=depth,
        name=span.get("name", ""),
        service=str(of_resource.get("service.name", "")),
        kind=str(span.get("kind", "unspecified")).removeprefix("SPAN_KIND_").lower(),
        status=str(status.get("code", "unset")).removeprefix("STATUS_CODE_").lower(),
        status_message=status.get("message", ""),
        start_unix_ns=start,
        duration_ns=end - start,
        attributes=attributes(span.get("attributes", [])),
        resource=of_resource,
        events=tuple(_event(one) for one in span.get("events", [])),
        links=tuple(_link(one) for one in span.get("links", [])),
    )


def _event(one: dict[str, Any]) -> dict[str, Any]:
    at, given = int(one.get("timeUnixNano", 0)), attributes(one.get("attributes", []))
    return {"name": one.get("name", ""), "unix_ns": at, "attributes": given}


def _link(one: dict[str, Any]) -> dict[str, Any]:
    ids = {"trace_id": _hex(one.get("traceId", "")), "span_id": _hex(one.get("spanId", ""))}
    return ids | {"attributes": attributes(one.get("attributes", []))}


def _hex(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()

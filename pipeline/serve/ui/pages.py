"""Two plain pages, for browsers without script and before the interactive page is built: the newest traces, and one
trace as a waterfall. What they show comes escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pipeline.query.search import SearchAnswer, SearchQuestion
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import tempo
from pipeline.serve.ui import bundle
from pipeline.spans import schema, to_otlp
from pipeline.spans.index import NO_SERVICE

SPANS_SHOWN_MAX = 10_000
COLOURS = 12
NARROWEST_PERCENT = 0.15
TWO_TO_64 = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the waterfall. left, width: percent of the trace's time; colour: 0 to COLOURS - 1, by service."""

    span_id: str
    name: str
    service: str
    kind: str
    depth: int
    left: float
    width: float
    duration: str
    offset: str
    failed: bool
    status: str
    colour: int
    orphan: bool
    attributes: list[tuple[str, str]]
    resource: list[tuple[str, str]]
    events: list[tuple[str, str, list[tuple[str, str]]]]
    links: list[str]


def trace_page(found: FoundTrace, where: Mapping[str, Any]) -> str:
    """The page of a trace; one that says so where it was not found."""
    rows = list(waterfall(found))
    start_ns, end_ns = extent(found)
    return _template("trace.html").render(
        trace_id=found.trace_id.hex(),
        rows=rows[:SPANS_SHOWN_MAX],
        spans=len(rows),
        errors=sum(row.failed for row in rows),
        services=sorted({(row.service, row.colour) for row in rows}),
        title=f"{rows[0].service}: {rows[0].name}" if rows else "no such trace",
        duration=duration_text(end_ns - start_ns),
        start=time_text(start_ns) if rows else "",
        where=where,
        reasons=list(dict.fromkeys(found.reasons)),
    )


def newest_page(answer: SearchAnswer, question: SearchQuestion, asked: Mapping[str, str]) -> str:
    """The page of a search."""
    hits = [
        {
            "trace_id": hit.trace_id.hex(),
            "service": hit.root_service if hit.has_root else tempo.NO_ROOT,
            "name": hit.root_name,
            "start": time_text(hit.start_unix_ns),
            "duration": duration_text(hit.duration_ns),
            "spans": hit.spans,
            "errors": hit.errors,
            "matched": sum(one.matched for one in hit.span_sets),
            "services": [(name, _colour(name)) for name in sorted(hit.services)],
        }
        for hit in answer.traces
    ]
    following = ""
    if answer.next_cursor:
        kept = {name: value for name, value in asked.items() if name != "cursor"}
        following = f"{bundle.PLAIN}?" + urlencode(kept | {"cursor": answer.next_cursor})
    return _template("newest.html").render(
        hits=hits,
        reasons=list(dict.fromkeys(answer.reasons)),
        following=following,
        error="",
        asked=asked,
        first=time_text(question.start_ns),
        last=time_text(question.end_ns),
    )


def refused_page(error: str, asked: Mapping[str, str]) -> str:
    """The page of a search that cannot be asked: what is wrong, and the form as it was filled in."""
    return _template("newest.html").render(error=error, asked=asked)


# ---- the waterfall


def waterfall(found: FoundTrace) -> Iterator[Row]:
    """Spans as lines, children below their parents by start; those whose parent is missing stand as roots."""
    spans = [
        (span, batch.resource)
        for batch in to_otlp.to_proto(found.spans).resource_spans
        for part in batch.scope_spans
        for span in part.spans
    ]
    spans.sort(key=lambda pair: (pair[0].start_time_unix_nano, pair[0].span_id))
    start_ns, end_ns = extent(found)
    for at, depth, orphan in _in_order([(span.span_id, span.parent_span_id) for span, _ in spans]):
        span, resource = spans[at]
        yield _row(span, resource, depth, orphan, (start_ns, max(1, end_ns - start_ns)))


def _in_order(ids: list[tuple[bytes, bytes]]) -> Iterator[tuple[int, int, bool]]:
    """(place, depth, orphan) of every span once, depth first; cycles are broken at their first span."""
    known = {span_id for span_id, _ in ids}
    children: dict[bytes, list[int]] = {}
    roots: list[int] = []
    for at, (span_id, parent) in enumerate(ids):
        if parent and parent in known and parent != span_id:
            children.setdefault(parent, []).append(at)
        else:
            roots.append(at)
    seen: set[int] = set()
    for first in [*roots, *range(len(ids))]:
        stack = [(first, 0)]
        while stack:
            at, depth = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            yield at, depth, depth == 0 and bool(ids[at][1])
            stack += [(child, depth + 1) for child in reversed(children.pop(ids[at][0], []))]


def extent(found: FoundTrace) -> tuple[int, int]:
    """The trace's first start and last end, Unix ns."""
    starts = found.spans.column("start_unix_ns").to_pylist()
    if not starts:
        return 0, 0
    durations = found.spans.column("duration_ns").to_pylist()
    return min(starts), max(start + max(0, duration) for start, duration in zip(starts, durations, strict=True))


def _row(span: Any, resource: Any, depth: int, orphan: bool, span_of_time: tuple[int, int]) -> Row:
    start_ns, total_ns = span_of_time
    attributes = _pairs(resource.attributes)
    service = dict(attributes).get("service.name", NO_SERVICE)
    length_ns = max(0, span.end_time_unix_nano - span.start_time_unix_nano)
    left = (span.start_time_unix_nano - start_ns) / total_ns * 100
    return Row(
        span_id=span.span_id.hex(),
        name=span.name,
        service=service,
        kind=tempo.KINDS.get(span.kind, str(span.kind)).removeprefix("SPAN_KIND_").lower(),
        depth=min(depth, 40),
        left=round(left, 3),
        width=round(min(max(NARROWEST_PERCENT, length_ns / total_ns * 100), 100 - min(left, 99.5)), 3),
        duration=duration_text(length_ns),
        offset=duration_text(span.start_time_unix_nano - start_ns),
        failed=span.status.code == schema.STATUS_ERROR,
        status=span.status.message,
        colour=_colour(service),
        orphan=orphan,
        attributes=_pairs(span.attributes),
        resource=attributes,
        events=[
            (event.name, duration_text(event.time_unix_nano - start_ns), _pairs(event.attributes))
            for event in span.events
        ],
        links=[link.trace_id.hex() for link in span.links],
    )


def _pairs(attributes: Any) -> list[tuple[str, str]]:
    return [(pair.key, value_text(tempo.any_value(pair.value))) for pair in attributes]


def value_text(value: Any) -> str:
    """An attribute's value for people."""
    for inner in value.values():
        if isinstance(inner, dict):
            parts = inner.get("values", [])
            if "kvlistValue" in value:
                return "{" + ", ".join(f"{part['key']}: {value_text(part['value'])}" for part in parts) + "}"
            return "[" + ", ".join(value_text(part) for part in parts) + "]"
        if isinstance(inner, bool):
            return "true" if inner else "false"
        return str(inner)
    return ""


def duration_text(duration_ns: int) -> str:
    """A duration for people: three digits and a unit."""
    sign, size = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if size >= factor:
            value = size / factor
            return f"{sign}{value:.0f} {unit}" if value >= 100 else f"{sign}{value:.3g} {unit}"
    return f"{sign}{size} ns"


def time_text(unix_ns: int) -> str:
    """A time in UTC, to the millisecond; the number itself where no calendar has it."""
    try:
        at = datetime.fromtimestamp(unix_ns // 10**6 / 1e3, UTC)
    except (ValueError, OverflowError, OSError):
        return str(unix_ns)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d} UTC"


def _colour(service: str) -> int:
    """The same for a service on every page."""
    return sum(byte * (at + 1) for at, byte in enumerate(service.encode())) % COLOURS


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"plain": bundle.PLAIN, "notice": lambda: "" if bundle.is_built() else bundle.NOT_BUILT}
    return environment.get_template(name)

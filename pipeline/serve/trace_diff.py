"""What differs from one trace to another, span by span: the answer of `/api/v2/traces/diff`.

Spans meet by their way from the root: service, name and kind of each step, and the how-manyeth of these it is below
its parent.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from pipeline.query import trace_rows
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import tempo
from pipeline.serve.mcp_tools import differing, spans_of
from pipeline.serve.plain_json import Json, attributes_of
from pipeline.spans import schema

PATCH, SUMMARY, COMPOSED = "trace-patch-v0", "trace-summary-v0-native", "trace-summary-v0-composed"
FORMATS = (PATCH, SUMMARY, COMPOSED)
COMPOSED_PATCH_BYTES_MAX = 64 << 10
ENTRIES_MAX = 10_000  # of spans modified, added, removed, each
STEPS_MAX = 100  # of a path, the nearest
NAMES_MAX = 500  # of spans of a trace; more of them look like IDs in names
NO_CODE = "STATUS_CODE_UNSET"


class Node(NamedTuple):
    """A span. key: the same for spans that meet; parent: its place in the list, -1: none; nth: below the parent,
    among those that are called alike.
    """

    key: int
    parent: int
    nth: int
    service: str
    span: Json
    resource: Json


@dataclass(frozen=True, slots=True)
class Side:
    """One of both traces. resource_spans: as Tempo's JSON has them."""

    trace_id: str
    resource_spans: list[Json]
    nodes: list[Node]

    def path(self, node: Node) -> list[str]:
        """Its way from the root."""
        steps: deque[str] = deque()
        while len(steps) < STEPS_MAX:
            steps.appendleft(f"{node.service}: {node.span.get('name', '')}")
            if node.parent < 0:
                break
            node = self.nodes[node.parent]
        return list(steps)


class _Key(NamedTuple):
    parent: int
    service: str
    name: str
    kind: Any
    nth: int


def side_of(found: FoundTrace, data: Any, keys: dict[Any, int]) -> Side:
    """A trace that has spans. data: it as TracesData; keys: of ways from the root, the same for both sides. 50 us a
    span.
    """
    resource_spans = tempo.trace(data)
    said: dict[Any, tuple[Json, Json]] = {}
    for batch in resource_spans:
        resource = attributes_of(batch.get("resource", {}))
        for scope in batch["scopeSpans"]:
            said.update(((one["spanId"], one.get("kind")), (one, resource)) for one in scope["spans"])
    ids = [base64.b64encode(one).decode() for one in found.spans.column("span_id").to_pylist()]
    kinds = [tempo.KINDS.get(one, one) if one else None for one in schema.column(found.spans, "kind").to_pylist()]
    rows = [said[one] for one in zip(ids, kinds, strict=True)]
    nodes = list(_arranged(rows, trace_rows.parents_within(found.spans).tolist(), keys))
    return Side(found.trace_id.hex(), resource_spans, nodes)


def _arranged(rows: list[tuple[Json, Json]], parents: list[int], keys: dict[Any, int]) -> Iterator[Node]:
    """Level by level, as they start."""
    below: dict[int, list[int]] = defaultdict(list)
    for row, parent in enumerate(parents):
        below[parent].append(row)
    seen: Counter[Any] = Counter()
    waiting = deque((row, -1, -1) for row in below[-1])
    place = 0
    while waiting:
        row, parent, parent_key = waiting.popleft()
        span, resource = rows[row]
        called = _Key(parent_key, str(resource.get("service.name", "")), span.get("name", ""), span.get("kind"), 0)
        sibling = parent, called
        called = called._replace(nth=seen[sibling])
        seen[sibling] += 1
        key = keys.setdefault(called, len(keys))
        yield Node(key, parent, called.nth, called.service, span, resource)
        waiting.extend((child, place, key) for child in below[row])
        place += 1


def told(base: Side, compare: Side, form: str) -> Json:
    """The answer in one of FORMATS."""
    warnings = [*_warnings("base", base), *_warnings("compare", compare)]
    sides = {
        name: {"traceId": one.trace_id, "spanCount": len(one.nodes)}
        for name, one in (("base", base), ("compare", compare))
    }
    patch = _patch(base, compare)
    head = {"version": form, **sides, "stats": patch.pop("stats")}
    if form == PATCH:
        return head | patch | {"warnings": warnings}
    before, after = ({"resourceSpans": one.resource_spans} for one in (base, compare))
    summary = head | {"operations": differing(spans_of(before), spans_of(after)), "warnings": warnings}
    if form == SUMMARY:
        return summary
    if len(orjson.dumps(patch)) > COMPOSED_PATCH_BYTES_MAX:
        return summary | {"patchOmitted": {"reason": "over_budget"}}
    return summary | {"patch": patch}


def _patch(base: Side, compare: Side) -> Json:
    after = {node.key: node for node in compare.nodes}
    before = {node.key for node in base.nodes}
    matched = [(node, after[node.key]) for node in base.nodes if node.key in after]
    changed = [(node, found) for node, other in matched if (found := list(_changes(node, other)))]
    added = [node for node in compare.nodes if node.key not in before]
    removed = [node for node in base.nodes if node.key not in after]
    kinds = Counter(_counted(one["target"]) for _, found in changed for one in found)
    stats = {
        "spanCountA": len(base.nodes),
        "spanCountB": len(compare.nodes),
        "matchedSpans": len(matched),
        "modifiedSpans": len(changed),
        "addedSpans": len(added),
        "removedSpans": len(removed),
        "fieldChanges": kinds["field"],
        "attributeChanges": kinds["attribute"],
        "eventChanges": kinds["events"],
        "truncated": max(len(changed), len(added), len(removed)) > ENTRIES_MAX,
    }
    return {
        "stats": stats,
        "modified": [{"span": _named(base, node), "changes": found} for node, found in changed[:ENTRIES_MAX]],
        "added": [_whole(compare, node) for node in added[:ENTRIES_MAX]],
        "removed": [_whole(base, node) for node in removed[:ENTRIES_MAX]],
    }


def _changes(before: Node, after: Node) -> Iterator[Json]:
    one, other = _fields(before.span), _fields(after.span)
    for name in one:
        yield from _change({"type": "field", "name": name}, one[name], other[name])
    for scope, left, right in (
        ("resource", before.resource, after.resource),
        ("span", attributes_of(before.span), attributes_of(after.span)),
    ):
        for key in sorted({*left, *right}):
            target = {"type": "attribute", "scope": scope, "key": key}
            yield from _change(target, left.get(key), right.get(key))


def _change(target: Json, before: Any, after: Any) -> Iterator[Json]:
    if before == after:
        return
    if before is None:
        yield {"op": "add", "target": target, "after": after}
    elif after is None:
        yield {"op": "remove", "target": target, "before": before}
    else:
        yield {"op": "modify", "target": target, "before": before, "after": after}


def _fields(span: Json) -> Json:
    """What is compared of a span beside its attributes."""
    return {
        "duration_nanos": _duration_ns(span),
        "status": span["status"].get("code", NO_CODE),
        "status_message": span["status"].get("message"),
        "events": [one.get("name", "") for one in span.get("events", [])],
    }


def _counted(target: Json) -> str:
    return "events" if target.get("name") == "events" else str(target["type"])


def _duration_ns(span: Json) -> int:
    return max(0, int(span.get("endTimeUnixNano", 0)) - int(span.get("startTimeUnixNano", 0)))


def _named(side: Side, node: Node) -> Json:
    kind = node.span.get("kind", "SPAN_KIND_UNSPECIFIED")
    return {"path": side.path(node), "service": node.service, "name": node.span.get("name", ""), "kind": kind}


def _whole(side: Side, node: Node) -> Json:
    named = _named(side, node)
    fields = _fields(node.span)
    target = {"type": "span", "path": named["path"], "parentPath": named["path"][:-1], "index": node.nth}
    return {
        "target": target,
        "span": named | {"duration_nanos": fields["duration_nanos"], "status": fields["status"]},
    }


def _warnings(name: str, side: Side) -> Iterator[Json]:
    ids = Counter(node.span["spanId"] for node in side.nodes)
    if twice := sum(count > 1 for count in ids.values()):
        yield {"code": "duplicate_span_id", "message": f"{name}: {twice} span IDs stand at two spans"}
    ends = ((int(one.span.get("endTimeUnixNano", 0)), int(one.span.get("startTimeUnixNano", 0))) for one in side.nodes)
    if backwards := sum(end < start for end, start in ends):
        yield {"code": "invalid_duration", "message": f"{name}: {backwards} spans end before they start"}
    names = {node.span.get("name", "") for node in side.nodes}
    if len(names) > NAMES_MAX:
        yield {"code": "high_cardinality_span_name", "message": f"{name}: {len(names)} names of spans: IDs in them?"}

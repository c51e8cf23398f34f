"""What a search finds (sections 11 and 12, 15.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.traceql.tree import MetricsMath, MetricsPipeline, Pipeline, Query, Static
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.fields import value_of
from tests.pipeline.traceql.reference.model import Span, Trace
from tests.pipeline.traceql.reference.spansets import Spanset, run
from tests.pipeline.traceql.reference.texts import field_text
from tests.pipeline.traceql.reference.values import Value


@dataclass(frozen=True, slots=True)
class FoundSpanset:
    """One spanset of a found trace.

    attributes: of by() and the aggregates, durations in ns, nil as Static("nil", None). selected: for each span what
    select() asked for and the span has, under its text.
    """

    spans: tuple[Span, ...]
    attributes: dict[str, Static]
    selected: tuple[dict[str, Value], ...]


@dataclass(frozen=True, slots=True)
class FoundTrace:
    """A trace that a search found. root_name and root_service: None where no root was received."""

    trace_id: bytes
    start_ns: int
    duration_ns: int
    root_name: str | None
    root_service: str | None
    service_stats: dict[str, tuple[int, int]]
    spansets: tuple[FoundSpanset, ...]

    @property
    def spans(self) -> list[Span]:
        """All that is matched, spanset after spanset."""
        return [span for one in self.spansets for span in one.spans]


def search(query: Query, traces: Iterable[Trace], start_ns: int, end_ns: int) -> list[FoundTrace]:
    """All traces found, the one that started last first; of one start the smaller ID first. No limit.

    A trace is looked at whole, and is found if a span of its answer overlaps the time range, ends included (12). Of a
    metrics query the pipeline is searched. Hints change nothing (15.6).
    """
    families = [Family(trace) for trace in traces if trace]
    answers = [(family, run(searched(query), family)) for family in families]
    found = [
        found_trace(family, spansets)
        for family, spansets in answers
        if any(span.start_ns <= end_ns and span.end_ns >= start_ns for one in spansets for span in one.spans)
    ]
    return sorted(found, key=lambda one: (-one.start_ns, one.trace_id))


def searched(query: Query) -> Pipeline:
    match query.body:
        case Pipeline():
            return query.body
        case MetricsPipeline(pipeline):
            return pipeline
        case MetricsMath():
            raise ValueError("metrics math has no one pipeline to search")


def found_trace(family: Family, spansets: list[Spanset]) -> FoundTrace:
    root = family.named_root()
    return FoundTrace(
        trace_id=family.spans[0].trace_id,
        start_ns=family.start_ns,
        duration_ns=family.end_ns - family.start_ns,
        root_name=root.name if root else None,
        root_service=service_of(root) if root else None,
        service_stats=service_stats(family),
        spansets=tuple(found_spanset(one, family) for one in spansets),
    )


def found_spanset(spanset: Spanset, family: Family) -> FoundSpanset:
    selected: list[dict[str, Value]] = [
        {field_text(field): value for field in spanset.selected if (value := value_of(field, span, family)) is not None}
        for span in spanset.spans
    ]
    return FoundSpanset(spanset.spans, dict(spanset.attributes), tuple(selected))


def service_of(span: Span) -> str:
    name = span.resource.get("service.name")
    return name if isinstance(name, str) else ""


def service_stats(family: Family) -> dict[str, tuple[int, int]]:
    """Service -> spans, and spans with status error, of the whole trace."""
    stats: dict[str, tuple[int, int]] = {}
    for span in family.spans:
        spans, errors = stats.get(service_of(span), (0, 0))
        stats[service_of(span)] = spans + 1, errors + (span.status == "error")
    return stats

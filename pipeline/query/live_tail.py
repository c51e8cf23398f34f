"""Spans as they arrive: at each turn the rows that came since the turn before, those that a filter holds of.

Which rows are new is told by the offsets of their records, so a span is shown once. Rows that were stored in a chunk
between two turns are no more after H: their owner is asked for them once more, and where it has let them go the turn
says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.query.chunks import SERVICE_SQL, Present
from pipeline.query.engine import Engine, Session
from pipeline.query.plan import condition_of, rows_decide
from pipeline.query.series import WORDS
from pipeline.query.snapshot import Snapshot, Snapshots
from pipeline.spans import schema
from pipeline.traceql import tree
from topics.errors import BadQuestionError

SHOWN = ("trace_id", "span_id", "name", "kind", "status_code", "start_unix_ns", "duration_ns", "record_offset")
TEXT_CHARS_MAX = 300  # of a name: a list shows no more
GAP = "some spans were stored before they could be shown here; a search finds them"


@dataclass(frozen=True, slots=True)
class TailSpan:
    """One span, as a list shows it. status, kind: the words of TraceQL."""

    trace_id: bytes
    span_id: bytes
    name: str
    service: str
    kind: str
    status: str
    start_unix_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One turn. spans: the newest of those that match, by start; matched: how many match; arrived: how many came."""

    spans: list[TailSpan] = field(default_factory=list)
    matched: int = 0
    arrived: int = 0
    reasons: list[str] = field(default_factory=list)


class LiveTail:
    """The spans of some tenants that arrive after the first turn. spans_max: of one turn, all others are counted."""

    def __init__(
        self, snapshots: Snapshots, engine: Engine, tenants: Sequence[str], pipeline: tree.Pipeline, spans_max: int
    ) -> None:
        if not rows_decide(pipeline):
            raise BadQuestionError(
                "invalid q: spans are followed by one spanset about spans alone, like { status = error }"
            )
        self._snapshots, self._engine, self._tenants = snapshots, engine, tenants
        self._pipeline, self._spans_max = pipeline, spans_max
        self._seen: dict[int, int] | None = None  # partition -> first offset that was not looked at

    async def next(self) -> Arrived:
        """What came since the turn before; the first turn only finds out where the topic ends."""
        snapshot, before = await self._snapshots.take(), self._seen
        if before and (stored := _stored_since(snapshot, before)):
            snapshot = await self._snapshots.reaching_back(snapshot, stored)
        self._seen = {p: view.reached for p, view in snapshot.partitions.items()}
        reasons = list(snapshot.reasons)
        if before is None:
            return Arrived(reasons=reasons)
        if _stored_since(snapshot, before):
            reasons.append(GAP)
        if not snapshot.has_rows_from(before):
            return Arrived(reasons=reasons)
        return await self._engine.run(lambda session: self._turn(session, snapshot, before, reasons))

    def _turn(self, session: Session, snapshot: Snapshot, before: dict[int, int], reasons: list[str]) -> Arrived:
        condition = condition_of(self._pipeline, Present.of((), snapshot.column_names()))
        columns = sorted({*SHOWN, *condition.columns, schema.SERVICE_COLUMN, "resource_more"})
        rows = pa.concat_tables(snapshot.rows(columns, tenant, since=before) for tenant in self._tenants)
        if not rows.num_rows:
            return Arrived(reasons=reasons)
        statement = (
            f"SELECT trace_id, span_id, left(name, {TEXT_CHARS_MAX}) AS name, left({SERVICE_SQL}, {TEXT_CHARS_MAX}) AS "
            "service, kind, status_code, start_unix_ns, duration_ns, count(*) OVER () AS matched FROM {live} "
            f"WHERE {condition.sql} ORDER BY start_unix_ns DESC, span_id LIMIT {self._spans_max}"
        )
        found = session.sql(statement, condition.values, live=rows).to_pylist()
        matched = found[0]["matched"] if found else 0
        return Arrived(spans=[_span(row) for row in found], matched=matched, arrived=rows.num_rows, reasons=reasons)


def _stored_since(snapshot: Snapshot, before: dict[int, int]) -> dict[int, int]:
    """The partitions with rows below H that were not looked at, and where those begin."""
    return {p: before[p] for p, view in snapshot.partitions.items() if view.horizon > before.get(p, view.horizon)}


def _span(row: dict[str, Any]) -> TailSpan:
    return TailSpan(
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        name=row["name"] or "",
        service=row["service"] or "",
        kind=_word("kind", row["kind"]),
        status=_word("status", row["status_code"]),
        start_unix_ns=row["start_unix_ns"] or 0,
        duration_ns=row["duration_ns"] or 0,
    )


def _word(of: str, number: int | None) -> str:
    words = WORDS[of]
    return words[number] if number is not None and 0 <= number < len(words) else words[0]

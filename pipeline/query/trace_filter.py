"""Parts of one found trace: the spans that a condition holds of, and their relatives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.query import trace_rows
from pipeline.query.chunks import ChunkReader, Present
from pipeline.query.engine import Session
from pipeline.query.fields import leaves
from pipeline.query.plan import Plan
from pipeline.query.trace_by_id import FoundTrace
from pipeline.query.trace_rows import Ints
from pipeline.spans import schema
from pipeline.traceql import tree
from topics.errors import BadQuestionError

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which spans are wanted: those of which the condition holds, so many levels above them and below them.

    None: all levels.
    """

    condition: tree.Field
    levels_above: int | None = 0
    levels_below: int = 0


def condition_alone(body: tree.Pipeline | tree.MetricsPipeline | tree.MetricsMath) -> tree.Field:
    """The condition of a query that is one spanset, about spans alone. Raises BadQuestionError for any other."""
    stages = body.stages if isinstance(body, tree.Pipeline) else ()
    if len(stages) != 1 or not isinstance(stages[0], tree.Filter):
        raise BadQuestionError("invalid q: a trace is filtered by one spanset, like { status = error }")
    condition = stages[0].condition
    whole = [leaf.name for leaf in leaves(condition) if isinstance(leaf, tree.Intrinsic) and _is_of_trace(leaf.name)]
    if whole:
        raise BadQuestionError(f"invalid q: {whole[0]} is the same for all spans of a trace")
    return condition


def _is_of_trace(name: str) -> bool:
    return name.startswith("trace:")


def filtered(session: Session, found: FoundTrace, asked: TraceFilter) -> FoundTrace:
    """The trace with the wanted spans alone; a reason says how many are left out."""
    if not found.spans.num_rows:
        return found
    kept = wanted(session, found.spans, found.trace_id, asked)
    if kept.all():
        return found
    reason = f"{len(kept) - int(kept.sum())} of {len(kept)} spans are left out by the filter"
    return replace(found, spans=found.spans.filter(pa.array(kept)), reasons=[*found.reasons, reason])


def wanted(session: Session, spans: pa.Table, trace_id: bytes, asked: TraceFilter) -> Rows:
    """Which rows of a trace are wanted."""
    plan = Plan(tree.Pipeline((tree.Filter(asked.condition),)), Present.of((), spans.column_names))
    rows = trace_rows.read(ChunkReader(session, []), [], _numbered(spans, plan), _ids(trace_id), plan.columns)
    found = plan.surviving(session, rows)
    kept = found | _above(found, rows.parent, asked.levels_above) | _below(found, rows.parent, asked.levels_below)
    wanted = np.zeros(spans.num_rows, dtype=bool)
    wanted[rows.table.column("place").to_numpy()[kept]] = True
    return wanted


def _numbered(spans: pa.Table, plan: Plan) -> pa.Table:
    """The columns that the plan reads; in the place of a record's offset the number of the row."""
    columns = {name: schema.column(spans, name) for name in trace_rows.columns_read(plan.columns)}
    return pa.table(columns | {"record_offset": pa.array(np.arange(spans.num_rows))})


def _ids(trace_id: bytes) -> pa.Array:
    return pa.array([trace_id], pa.binary(16))


def _above(found: Rows, parent: Ints, levels: int | None) -> Rows:
    """The rows up to so many levels above those."""
    every, newest = found.copy(), found
    while levels is None or levels > 0:
        parents = parent[newest]
        newest = np.zeros_like(found)
        newest[parents[parents >= 0]] = True
        newest &= ~every
        if not newest.any():
            break
        every |= newest
        levels = None if levels is None else levels - 1
    return every


def _below(found: Rows, parent: Ints, levels: int) -> Rows:
    """The rows up to so many levels below those."""
    every = found.copy()
    for _ in range(levels):
        newer = ~every & (parent >= 0) & every[np.maximum(parent, 0)]
        if not newer.any():
            break
        every |= newer
    return every

"""A TraceQL pipeline as what the engine is asked: which rows may be in its answer, and what it must know of a trace."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import Present
from pipeline.query.conditions import Condition, Need, any_condition
from pipeline.query.engine import Session
from pipeline.query.fields import FieldSql, leaves, necessary, operands
from pipeline.query.identifiers import SCOPE_OF
from pipeline.query.spansets import Computed, Evaluation, Keys, Numbers
from pipeline.query.sql import TRUE, Sql, all_of, any_of, sql
from pipeline.query.trace_rows import TraceRows
from pipeline.query.values import Value, for_arrow, scalars
from pipeline.spans import schema
from pipeline.traceql import tree
from pipeline.traceql.fields import NUMERIC
from topics.errors import BadQuestionError

NOT_SHOWN = (
    "span:duration",
    "span:name",
    "trace:duration",
    "trace:rootName",
    "trace:rootService",
    "span:id",
    "trace:id",
)
UINT64_MAX = np.uint64(2**64 - 1)
ROW = "trace_row"
WHOLE = ("int", "duration")


class FoundSpan(NamedTuple):
    """A span of a spanset. name: where the query speaks of it. attributes: (what, type of the value, value)."""

    span_id: bytes
    start_unix_ns: int
    duration_ns: int
    name: str | None
    attributes: list[tuple[tree.Attribute | tree.Intrinsic, str, Any]]


@dataclass(frozen=True, slots=True)
class SpanSet:
    """One spanset of a found trace. attributes: of by() and aggregates; (type, value), a number, or None."""

    matched: int
    spans: list[FoundSpan]
    attributes: list[tuple[tree.GroupBy | tree.Aggregate, Any]] = field(default_factory=list)


# ---- which rows may be in the answer


def condition_of(pipeline: tree.Pipeline, present: Present) -> Condition:
    """What every span of the answer's spansets fulfils by its row alone. Raises BadQuestionError."""
    _refuse_several_spansets(pipeline)
    compiler = FieldSql(present)
    found = _condition(pipeline, compiler)
    return Condition(
        found.text, list(found.values), set(compiler.columns), list(_needs(pipeline)), service=_service_of(pipeline)
    )


def _refuse_several_spansets(pipeline: tree.Pipeline, *, several: bool = False) -> None:
    """Operators between spansets want one spanset a trace, whatever a trace has: before by(), or after coalesce().

    several: whether the pipeline may begin with more. In brackets that a stage or a scalar filter opens the spansets
    stay what they are; each side of an operator begins with one.
    """
    for stage in pipeline.stages:
        if several and isinstance(stage, tree.SpansetOperation):
            raise BadQuestionError(
                "invalid TraceQL query: spanset operators are not supported for multiple spansets per trace. "
                "consider using coalesce()"
            )
        for inner in _inner_pipelines(stage):
            _refuse_several_spansets(inner, several=several)
        several = isinstance(stage, tree.GroupBy) or (several and not isinstance(stage, tree.Coalesce))


def _inner_pipelines(node: tree.Stage | tree.Scalar) -> Iterator[tree.Pipeline]:
    match node:
        case tree.Wrapped() | tree.ScalarPipeline():
            yield node.pipeline
        case tree.SpansetOperation() | tree.ScalarFilter() | tree.ScalarOperation():
            yield from _inner_pipelines(node.left)
            yield from _inner_pipelines(node.right)


def _condition(stage: tree.Pipeline | tree.Stage, compiler: FieldSql) -> Sql:
    if isinstance(stage, tree.Pipeline):
        return all_of(_condition(each, compiler) for each in stage.stages)
    if isinstance(stage, tree.Filter):
        if _row_decides(stage):  # all at once: what is joined by && may be about one and the same event
            return compiler.truth(stage.condition)
        return all_of(compiler.truth(each) for each in necessary(stage.condition))
    if isinstance(stage, tree.Wrapped):
        return _condition(stage.pipeline, compiler)
    if not isinstance(stage, tree.SpansetOperation):
        return TRUE
    right = _condition(stage.right, compiler)
    both = stage.op in tree.SET_OPERATORS or stage.op.startswith("&")
    return any_of((_condition(stage.left, compiler), right)) if both else right


def anchor_of(pipeline: tree.Pipeline, present: Present) -> Condition | None:
    """What some row of every found trace fulfils, whether or not it is in the answer; None where nothing is known."""
    for filters in _anchors(pipeline):
        conditions = [condition_of(tree.Pipeline((one,)), present) for one in filters]
        if all(one.sql != TRUE.text for one in conditions):
            return any_condition(conditions)
    return None


def _anchors(stage: tree.Pipeline | tree.Stage) -> Iterator[list[tree.Filter]]:
    """Filters of which, in every found trace, some row is kept by one or another."""
    match stage:
        case tree.Pipeline():
            for each in stage.stages:
                yield from _anchors(each)
        case tree.Filter():
            yield [stage]
        case tree.Wrapped():
            yield from _anchors(stage.pipeline)
        case tree.SpansetOperation(op="||"):
            for left in _anchors(stage.left):
                yield from ([*left, *right] for right in _anchors(stage.right))
        case tree.SpansetOperation():
            if not stage.op.startswith("!"):
                yield from _anchors(stage.left)
            yield from _anchors(stage.right)


def _needs(pipeline: tree.Pipeline) -> Iterator[Need]:
    """Attributes that every such span has: chunks without them are not opened."""
    for stage in pipeline.stages:
        if isinstance(stage, tree.Filter):
            for each in operands(stage.condition, "&&"):
                yield from _needs_of(each)


def _service_of(pipeline: tree.Pipeline) -> Callable[[str], bool] | None:
    """The service that every such span is of, where a condition names it."""
    service = tree.Attribute("resource", "service.name")
    for stage in pipeline.stages:
        for each in operands(stage.condition, "&&") if isinstance(stage, tree.Filter) else ():
            if isinstance(each, tree.Binary) and each.op == "=" and service in (each.left, each.right):
                other = each.right if each.left == service else each.left
                if isinstance(other, tree.Static) and other.type == "string" and other.value:
                    return partial(operator.eq, other.value)
    return None


def _needs_of(node: tree.Field) -> Iterator[Need]:
    if not isinstance(node, tree.Binary) or node.op not in tree.COMPARISONS:
        return
    sides = (node.left, node.right)
    if any(isinstance(side, tree.Static) and side.type == "nil" for side in sides):
        return
    for side in sides:
        if isinstance(side, tree.Attribute) and not side.parent and side != tree.Attribute("resource", "service.name"):
            scopes = ("span", "resource") if not side.scope else (SCOPE_OF[side.scope],)
            columns = [(scope, type_) for scope in scopes for type_ in schema.TYPES if type_ != "any"]
            names = frozenset(schema.column_name(scope, side.name, type_) for scope, type_ in columns)
            keys = frozenset(f"{scope}.{side.name}" for scope in scopes)
            yield Need(names, keys)


def trace_condition_of(pipeline: tree.Pipeline, present: Present) -> Condition:
    """What the rows of every trace of the answer fulfil together: SQL of aggregates over all of them."""
    compiler = FieldSql(present)
    found = _trace_condition(pipeline, compiler)
    return Condition(found.text, list(found.values), set(compiler.columns))


def _trace_condition(stage: tree.Pipeline | tree.Stage, compiler: FieldSql) -> Sql:
    if isinstance(stage, tree.Pipeline):
        stages = [_trace_condition(each, compiler) for each in stage.stages]
        return all_of([*stages, *_counts(stage, compiler)])
    if isinstance(stage, tree.Wrapped):
        return _trace_condition(stage.pipeline, compiler)
    if isinstance(stage, tree.Filter):
        condition = _condition(stage, compiler)
        return TRUE if condition == TRUE else sql("bool_or({})", condition)
    if not isinstance(stage, tree.SpansetOperation):
        return TRUE
    left, right = _trace_condition(stage.left, compiler), _trace_condition(stage.right, compiler)
    if stage.op == "||":
        return any_of((left, right))
    return right if stage.op.startswith("!") else all_of((left, right))


def _counts(pipeline: tree.Pipeline, compiler: FieldSql) -> Iterator[Sql]:
    """Of `count() > n` behind filters: so many rows, copies included."""
    conditions: list[Sql] = []
    for stage in pipeline.stages:
        if isinstance(stage, tree.ScalarFilter):
            least = _count_at_least(stage)
            if least is not None:
                yield counted(all_of(conditions), least)
        elif isinstance(stage, tree.Filter):
            conditions.append(_condition(stage, compiler))
        elif not isinstance(stage, tree.Select):
            return


def counted(condition: Sql, least: int) -> Sql:
    """Whether so many rows of a trace fulfil a condition."""
    return sql(f"count_if({{}}) >= {least}", condition)


def spans_at_least(pipeline: tree.Pipeline) -> int:
    """How many spans a found trace has at least: no stage adds any, and a group has no more than its trace."""
    counts = (_count_at_least(stage) for stage in pipeline.stages if isinstance(stage, tree.ScalarFilter))
    return max((count for count in counts if count is not None), default=0)


def _count_at_least(stage: tree.ScalarFilter) -> int | None:
    """The n of `count() >= n` and the like."""
    if stage.left != tree.Aggregate("count", None) or not isinstance(stage.right, tree.Static):
        return None
    limit = stage.right.value
    if not isinstance(limit, int) or stage.op not in ("=", ">=", ">"):
        return None
    return limit + (stage.op == ">")


def rows_decide(pipeline: tree.Pipeline) -> bool:
    """Whether every row that fulfils the condition is in the answer."""
    return all(
        isinstance(stage, tree.Select) or (isinstance(stage, tree.Filter) and _row_decides(stage))
        for stage in pipeline.stages
    )


def _row_decides(stage: tree.Filter) -> bool:
    return len(necessary(stage.condition)) == len(operands(stage.condition, "&&"))


# ---- what is computed of each row


class Plan:
    """The expressions of a pipeline, compiled for rows of whole traces. `columns`: what those rows must have."""

    def __init__(self, pipeline: tree.Pipeline, present: Present) -> None:
        self._pipeline = pipeline
        self._compiler = FieldSql(present)
        stages = list(_stages(pipeline))
        conditions = [stage.condition for stage in stages if isinstance(stage, tree.Filter)]
        aggregated = [one.argument for one in stages if isinstance(one, tree.Aggregate) and one.argument is not None]
        grouped = [stage.expression for stage in stages if isinstance(stage, tree.GroupBy)]
        selected = [one for stage in stages if isinstance(stage, tree.Select) for one in stage.fields]
        read = [leaf for each in (*conditions, *aggregated, *grouped) for leaf in leaves(each)]
        self._truths = {node: self._compiler.truth(node) for node in conditions}
        self._numbers = {node: self._compiler.value(node) for node in aggregated}
        self._keys = {node: self._compiler.value(node) for node in grouped}
        self._shown = {leaf: self._compiler.value(leaf) for leaf in (*read, *selected) if _is_shown(leaf)}
        self._with_name = tree.Intrinsic("span:name") in (*read, *selected)
        self.columns = sorted(self._compiler.columns)

    def surviving(self, session: Session, rows: TraceRows) -> npt.NDArray[np.bool_]:
        """Which rows are in a spanset of the outcome."""
        found = np.zeros(len(rows.trace), dtype=bool)
        if len(found):
            found[Evaluation(rows, self._of(self._computed(session, rows.table))).run(self._pipeline).rows] = True
        return found

    def evaluate(
        self, session: Session, rows: TraceRows, range_ns: tuple[int, int], spans_max: int
    ) -> dict[bytes, list[SpanSet]]:
        """The traces with spansets of which a span overlaps the range; up to `spans_max` spans of each set."""
        if not len(rows.trace):
            return {}
        table = self._computed(session, rows.table)
        sets = Evaluation(rows, self._of(table)).run(self._pipeline)
        inside = overlap(rows.table, range_ns)
        hit = np.unique(rows.trace[sets.rows[inside[sets.rows]]])
        found: dict[bytes, list[SpanSet]] = {}
        firsts = np.searchsorted(sets.of, np.arange(len(sets.trace) + 1)).tolist()
        for number in np.flatnonzero(np.isin(sets.trace, hit)).tolist():
            members = sets.rows[firsts[number] : firsts[number + 1]]
            spans = [self._span(rows.table, table, row) for row in members[:spans_max].tolist()]
            one = SpanSet(len(members), spans, list(sets.attributes[number]))
            found.setdefault(rows.trace_ids[sets.trace[number]].tobytes(), []).append(one)
        return found

    def _computed(self, session: Session, rows: pa.Table) -> pa.Table:
        """All expressions of all rows, in one statement."""
        wanted: list[tuple[str, Sql]] = [(f"t{at}", one) for at, one in enumerate(self._truths.values())]
        for at, value in enumerate(self._numbers.values()):
            wanted += [(f"n{at}_{type_}", for_arrow(type_, one)) for type_, one in value.of.items() if type_ in NUMERIC]
        for at, value in enumerate(self._keys.values()):
            wanted += [(f"k{at}_{type_}", one) for type_, one in scalars(value).items()]
        for at, value in enumerate(self._shown.values()):
            wanted += [(f"s{at}_{type_}", for_arrow(type_, one)) for type_, one in value.of.items()]
        if all(one.text == TRUE.text for _, one in wanted):  # `{}`: there is nothing to ask the engine
            return pa.table({name: np.ones(rows.num_rows, dtype=bool) for name, _ in wanted})
        rows = rows.select(self.columns).append_column(ROW, pa.array(np.arange(rows.num_rows)))
        text, values_ = sql(", ".join([ROW, *(f'{{}} AS "{name}"' for name, _ in wanted)]), *(one for _, one in wanted))
        return session.sql(f"SELECT {text} FROM {{rows}} ORDER BY {ROW}", values_, rows=rows)

    def _of(self, table: pa.Table) -> Computed:
        return Computed(
            truths={node: table.column(f"t{at}").to_numpy() for at, node in enumerate(self._truths)},
            numbers={node: _numbers(table, f"n{at}", value) for at, (node, value) in enumerate(self._numbers.items())},
            keys={node: keys_of(table, f"k{at}_") for at, node in enumerate(self._keys)},
        )

    def _span(self, rows: pa.Table, table: pa.Table, row: int) -> FoundSpan:
        attributes = []
        for at, (leaf, value) in enumerate(self._shown.items()):
            for type_ in value.of:
                if (shown := table.column(f"s{at}_{type_}")[row].as_py()) is not None:
                    attributes.append((leaf, type_, shown))
                    break
        return FoundSpan(
            rows.column("span_id")[row].as_py(),
            rows.column("start_unix_ns")[row].as_py(),
            rows.column("duration_ns")[row].as_py(),
            rows.column("name")[row].as_py() or "" if self._with_name else None,
            attributes,
        )


def _stages(
    node: tree.Pipeline | tree.Stage | tree.Scalar,
) -> Iterator[tree.Stage | tree.Aggregate]:
    """Every stage, filter and aggregate of a pipeline, those inside others too."""
    if isinstance(node, tree.Pipeline):
        for stage in node.stages:
            yield from _stages(stage)
    elif isinstance(node, tree.Wrapped):
        yield from _stages(node.pipeline)
    elif isinstance(node, tree.ScalarPipeline):
        yield from _stages(node.pipeline)
        yield node.aggregate
    elif isinstance(node, tree.SpansetOperation | tree.ScalarFilter | tree.ScalarOperation):
        yield from _stages(node.left)
        yield from _stages(node.right)
    elif not isinstance(node, tree.Static):
        yield node


def _is_shown(leaf: tree.Attribute | tree.Intrinsic) -> bool:
    return isinstance(leaf, tree.Attribute) or leaf.name not in (*NOT_SHOWN, "parent")


def _numbers(table: pa.Table, name: str, value: Value) -> Numbers:
    """What is no number, infinite ones among it, is none."""
    columns = {type_: table.column(f"{name}_{type_}") for type_ in NUMERIC if type_ in value.of}
    none = pa.chunked_array([pa.nulls(table.num_rows, pa.int64())])
    whole = pc.coalesce(none, *(columns[type_] for type_ in WHOLE if type_ in columns))
    durations = "duration" in columns and all(
        column.null_count == table.num_rows for type_, column in columns.items() if type_ != "duration"
    )
    exact = Numbers.of_whole(pc.fill_null(whole, 0).to_numpy(), whole.is_valid().to_numpy(), durations=durations)
    parts = columns.get("float")
    if parts is None or parts.null_count == len(parts):
        return exact
    found = pc.fill_null(parts, np.nan).to_numpy()
    is_float = np.isfinite(found)
    return Numbers(np.where(is_float, found, exact.values), exact.whole, exact.valid, exact.valid | is_float)


def keys_of(table: pa.Table, prefix: str) -> Keys:
    """What `scalars` gave in columns named prefix + type."""
    codes, values = np.zeros(table.num_rows, dtype=np.int64), list[tuple[str, Any] | None]([None])
    for name in table.column_names:
        if name.startswith(prefix):
            column = table.column(name)
            if pa.types.is_floating(column.type):
                column = pc.add(column, 0.0)  # -0.0 is 0.0, and one group with it
            coded = column.combine_chunks().dictionary_encode()
            coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
            own = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            codes = np.where(own >= 0, own + len(values), codes)
            values += [(name.removeprefix(prefix), one) for one in coded.dictionary.to_pylist()]
    return Keys(codes, values)


def overlap(rows: pa.Table, range_ns: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which spans overlap the range; one that ends before its start is where it starts."""
    low, high = (np.uint64(min(max(one, 0), int(UINT64_MAX))) for one in range_ns)
    start = rows.column("start_unix_ns").to_numpy()
    length = np.maximum(rows.column("duration_ns").to_numpy(), 0).astype(np.uint64)
    end = np.where(start > UINT64_MAX - length, UINT64_MAX, start + length)
    found: npt.NDArray[np.bool_] = (start <= high) & (end >= low)
    return found

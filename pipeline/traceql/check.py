"""What a query must keep to beyond its grammar: types, limits, what is not supported. Folds constants on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never

from pipeline.traceql.cursor import Places
from pipeline.traceql.fields import NUMERIC, negated
from pipeline.traceql.folding import folded
from pipeline.traceql.parser import Metrics, parsed
from pipeline.traceql.text import text_of
from pipeline.traceql.tokens import INVALID, line_and_column
from pipeline.traceql.tree import (
    ARITHMETIC,
    INTRINSIC_TYPES,
    Aggregate,
    Attribute,
    Binary,
    Coalesce,
    Compare,
    Field,
    Filter,
    GroupBy,
    Intrinsic,
    Metric,
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
    Rank,
    Scalar,
    ScalarFilter,
    ScalarOperation,
    ScalarPipeline,
    Select,
    SpansetOperation,
    Stage,
    Static,
    Unary,
    Wrapped,
)
from topics.errors import BadQuestionError

RegexError = Callable[[str], str | None]
DYNAMIC = "attribute"  # known when a span is looked at
NUMBER = "number"  # of arithmetic: int, float or duration
NIL = Static("nil", None)
PARENT = Intrinsic("parent")
SERVICE_NAME = Attribute("resource", "service.name")
BY_MAX = 5
BY_MAX_OF = {"quantile_over_time": 4, "histogram_over_time": 4, "avg_over_time": 4}  # they have labels of their own
_EQUAL = ("=", "!=")
_ORDER = ("<", "<=", ">", ">=")
_REGEX = ("=~", "!~")
_OPERATORS = {
    "bool": ("&&", "||", *_EQUAL),
    "string": (*_EQUAL, *_ORDER, *_REGEX),
    "status": _EQUAL,
    "kind": _EQUAL,
    "nil": _EQUAL,
    **dict.fromkeys((*NUMERIC, NUMBER), (*ARITHMETIC, *_EQUAL, *_ORDER)),
}


def compiled(text: str, regex_error: RegexError) -> Query:
    """The checked tree of a query's text: what callers need. Raises BadQuestionError.

    regex_error: what is wrong with a regular expression in RE2's syntax, None where nothing is.
    """
    query, places = parsed(text)
    return _Check(regex_error, text, places).query(query)


def check(query: Query, regex_error: RegexError) -> Query:
    """The query, its constants folded and `nil` on the right. Raises BadQuestionError, without a place."""
    return _Check(regex_error, "", Places()).query(query)


class _Check:
    """Every method gives the node it was given, with constants folded; or raises BadQuestionError."""

    def __init__(self, regex_error: RegexError, text: str, places: Places) -> None:
        self._regex_error = regex_error
        self._text = text
        self._places = places

    def query(self, query: Query) -> Query:
        body = query.body
        return replace(query, body=self._pipeline(body) if isinstance(body, Pipeline) else self._metrics(body))

    def _refuse(self, node: Any, what: str) -> Never:
        at = self._places.at(node)
        place = "" if at is None else " (at line {}, col {})".format(*line_and_column(self._text, at))
        raise BadQuestionError(f"{INVALID}{what}{place}")

    # ---- pipelines

    def _pipeline(self, pipeline: Pipeline) -> Pipeline:
        return Pipeline(tuple(self._stage(stage) for stage in pipeline.stages))

    def _stage(self, stage: Stage) -> Any:
        match stage:
            case Filter():
                return self._filter(stage)
            case Wrapped(pipeline):
                return Wrapped(self._pipeline(pipeline))
            case SpansetOperation(op, left, right):
                return SpansetOperation(op, self._stage(left), self._stage(right))
            case ScalarFilter():
                return self._scalar_filter(stage)
            case GroupBy(expression):
                return self._group_by(stage, expression)
            case Select(fields):
                self._no_parent(fields)
        assert isinstance(stage, Select | Coalesce)
        return stage

    def _filter(self, node: Filter) -> Filter:
        condition, type_ = self._field(node.condition)
        if type_ != "bool" and not isinstance(condition, Attribute):
            self._refuse(node, f"span filter field expressions must resolve to a boolean: {text_of(node)}")
        return Filter(condition)

    def _group_by(self, node: GroupBy, expression: Field) -> GroupBy:
        inner, _ = self._field(expression)
        if not _of_span(inner):
            self._refuse(node, f"grouping field expressions must reference the span: {text_of(node)}")
        return GroupBy(inner)

    # ---- scalars

    def _scalar_filter(self, node: ScalarFilter) -> ScalarFilter:
        (left, of_left), (right, of_right) = self._scalar(node.left), self._scalar(node.right)
        if isinstance(left, Static) and isinstance(right, Static):
            self._refuse(node, f"scalar filters without an aggregate are not yet supported: {text_of(node)}")
        self._numeric(node, of_left, of_right)
        return ScalarFilter(node.op, left, right)

    def _numeric(self, node: ScalarFilter | ScalarOperation, *types: str) -> None:
        if not _are_numeric(*types):
            self._refuse(node, f"binary operations must operate on the same type: {text_of(node)}")

    def _scalar(self, node: Scalar) -> tuple[Scalar, str]:
        match node:
            case Static():
                return node, node.type
            case Aggregate():
                return self._aggregate(node), NUMBER
            case ScalarPipeline(pipeline, aggregate):
                return ScalarPipeline(self._pipeline(pipeline), self._aggregate(aggregate)), NUMBER
        (left, of_left), (right, of_right) = self._scalar(node.left), self._scalar(node.right)
        self._numeric(node, of_left, of_right)
        constant = folded(node.op, left, right) if isinstance(left, Static) and isinstance(right, Static) else None
        return constant or ScalarOperation(node.op, left, right), NUMBER

    def _aggregate(self, node: Aggregate) -> Aggregate:
        if node.argument is None:
            return node
        argument, type_ = self._field(node.argument)
        if not _are_numeric(type_):
            self._refuse(node, f"aggregate field expressions must resolve to a number type: {text_of(node)}")
        if not _of_span(argument):
            self._refuse(node, f"aggregate field expressions must reference the span: {text_of(node)}")
        return Aggregate(node.function, argument)

    # ---- field expressions

    def _field(self, node: Field) -> tuple[Field, str]:
        """The expression and its type, DYNAMIC and NUMBER among them."""
        match node:
            case Static():
                return node, node.type
            case Attribute():
                return node, DYNAMIC
            case Intrinsic():
                self._no_parent((node,))
                return node, INTRINSIC_TYPES[node.name]
            case Unary():
                return self._unary(node)
        if node.op in _EQUAL and NIL in (node.left, node.right):
            return self._nil(node), "bool"
        return self._binary(node)

    def _no_parent(self, fields: tuple[Attribute | Intrinsic, ...]) -> None:
        for field in fields:
            if field == PARENT:
                self._refuse(field, "parent alone is only supported in parent = nil and parent != nil")

    def _unary(self, node: Unary) -> tuple[Field, str]:
        operand, type_ = self._field(node.operand)
        if not (_are_numeric(type_) if node.op == "-" else type_ in ("bool", DYNAMIC)):
            self._refuse(node, f"illegal operation for the given types: {text_of(node)}")
        if isinstance(operand, Static):
            return (negated(operand), type_) if node.op == "-" else (Static("bool", not operand.value), "bool")
        return Unary(node.op, operand), NUMBER if node.op == "-" else "bool"

    def _nil(self, node: Binary) -> Field:
        """`= nil` and `!= nil`, with nil on either side."""
        other = node.left if node.right == NIL else node.right
        fixed = isinstance(other, Intrinsic) and other != PARENT
        if node.op == "=" and (fixed or other == SERVICE_NAME):
            also = "" if fixed else ", nor can resource.service.name"
            self._refuse(node, f"{text_of(node)}: intrinsics cannot be nil{also}")
        if other == NIL:
            return Static("bool", False)
        if not isinstance(other, Attribute | Intrinsic):
            self._refuse(node, f"binary operations must operate on the same type: {text_of(node)}")
        return Binary(node.op, other, NIL)

    def _binary(self, node: Binary) -> tuple[Field, str]:
        (left, of_left), (right, of_right) = self._field(node.left), self._field(node.right)
        if DYNAMIC not in (of_left, of_right) and of_left != of_right and not _are_numeric(of_left, of_right):
            self._refuse(node, f"binary operations must operate on the same type: {text_of(node)}")
        if not all(node.op in _OPERATORS[type_] for type_ in (of_left, of_right) if type_ != DYNAMIC):
            self._refuse(node, f"illegal operation for the given types: {text_of(node)}")
        if node.op in _REGEX:
            self._regex(node)
        constant = folded(node.op, left, right) if isinstance(left, Static) and isinstance(right, Static) else None
        type_ = NUMBER if node.op in ARITHMETIC else "bool"
        return constant or Binary(node.op, left, right), constant.type if constant else type_

    def _regex(self, node: Binary) -> None:
        if not isinstance(node.right, Static):
            self._refuse(node, f"invalid regex: {text_of(node)}: it must be a string literal")
        wrong = self._regex_error(str(node.right.value))
        if wrong is not None:
            self._refuse(node, f"invalid regex: {text_of(node)}: {wrong}")

    # ---- metrics

    def _metrics(self, node: Metrics) -> Metrics:
        for stage in node.second:
            if isinstance(stage, Rank) and stage.count < 1:
                self._refuse(stage, f"limit must be greater than 0: {text_of(stage)}")
        if isinstance(node, MetricsMath):
            return replace(node, left=self._side(node.left), right=self._side(node.right))
        if isinstance(node.measure, Compare):
            if node.second:
                self._refuse(node.second[0], f"nothing can follow compare(): {text_of(node.second[0])}")
            return replace(node, pipeline=self._pipeline(node.pipeline), measure=self._compare(node.measure))
        return replace(node, pipeline=self._pipeline(node.pipeline), measure=self._metric(node.measure))

    def _side(self, side: Metrics | float) -> Metrics | float:
        if isinstance(side, MetricsPipeline) and isinstance(side.measure, Compare):
            self._refuse(side, "compare() cannot be calculated with")
        return side if isinstance(side, float) else self._metrics(side)

    def _metric(self, node: Metric) -> Metric:
        self._no_parent((*node.by, *((node.of,) if node.of else ())))
        most = BY_MAX_OF.get(node.function, BY_MAX)
        if len(node.by) > most:
            self._refuse(node, f"{node.function} can group by at most {most} attributes, not {len(node.by)}")
        if not all(0 <= quantile <= 1 for quantile in node.quantiles):
            self._refuse(node, f"quantiles must be between 0 and 1: {text_of(node)}")
        return node

    def _compare(self, node: Compare) -> Compare:
        if node.top < 1:
            self._refuse(node, f"compare() needs a number of values greater than 0: {text_of(node)}")
        if node.window is not None and not 0 < node.window[0] < node.window[1]:
            self._refuse(node, f"compare() needs a start greater than 0 and an end after it: {text_of(node)}")
        return replace(node, selection=self._filter(node.selection))


def _are_numeric(*types: str) -> bool:
    return all(type_ in (*NUMERIC, NUMBER, DYNAMIC) for type_ in types)


def _of_span(node: Field) -> bool:
    """Whether it depends on a span."""
    if isinstance(node, Binary):
        return _of_span(node.left) or _of_span(node.right)
    return _of_span(node.operand) if isinstance(node, Unary) else not isinstance(node, Static)

"""Generated queries are such that a checker lets them pass (section 4)."""

from __future__ import annotations

from hypothesis import given, settings

from pipeline.traceql.tree import (
    ARITHMETIC,
    COMPARISONS,
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
    MetricsMath,
    MetricsPipeline,
    Pipeline,
    Query,
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
from tests.pipeline.traceql.strategies import metrics_queries, searches

NUMERIC = {"int", "float", "duration"}
EQUALITY = {"=", "!="}
OPERATORS = {
    "number": {*ARITHMETIC, "=", "!=", "<", "<=", ">", ">="},
    "string": set(COMPARISONS),
    "bool": {"&&", "||", "=", "!="},
    "status": EQUALITY,
    "kind": EQUALITY,
    "nil": EQUALITY,
    "attribute": {*COMPARISONS, *ARITHMETIC, "&&", "||"},
}
MANY = settings(max_examples=200, deadline=None)


def type_of(field: Field) -> str:
    """Numbers are one type; an attribute is of any. Fails where the text has an error (4.1 to 4.7)."""
    match field:
        case Static(type_, _):
            return "number" if type_ in NUMERIC else type_
        case Attribute():
            return "attribute"
        case Intrinsic(name):
            return "number" if INTRINSIC_TYPES[name] in NUMERIC | {"int"} else INTRINSIC_TYPES[name]
        case Unary(op, operand):
            assert refers(operand), "constants are folded"
            assert type_of(operand) in {"attribute", "bool" if op == "!" else "number"}
            return "bool" if op == "!" else "number"
        case Binary(op, left, right):
            assert refers(field), "constants are folded"
            check_nil(left, op, right)
            check_operands(op, type_of(left), type_of(right))
            assert op not in ("=~", "!~") or isinstance(right, Static)
            return "number" if op in ARITHMETIC else "bool"


def check_nil(left: Field, op: str, right: Field) -> None:
    sides = [left, right]
    if Static("nil", None) in sides and op == "=":
        assert Attribute("resource", "service.name") not in sides
        assert not [one for one in sides if isinstance(one, Intrinsic) and one.name != "parent"]


def check_operands(op: str, left: str, right: str) -> None:
    types = {left, right} - {"attribute", "nil"} or {"attribute"}
    assert len(types) == 1
    assert op in OPERATORS[types.pop()]
    if "nil" in (left, right):
        assert op in EQUALITY


def refers(field: Field) -> bool:
    match field:
        case Static():
            return False
        case Unary(_, operand):
            return refers(operand)
        case Binary(_, left, right):
            return refers(left) or refers(right)
        case _:
            return True


def check_filter(stage: Filter) -> None:
    assert stage.condition == Static("bool", True) or type_of(stage.condition) in {"bool", "attribute"}


def check_scalar(scalar: Scalar) -> bool:
    """Whether it is about spans."""
    match scalar:
        case Static(type_, _):
            assert type_ in NUMERIC
            return False
        case Aggregate(_, argument):
            assert argument is None or (type_of(argument) in {"number", "attribute"} and refers(argument))
        case ScalarPipeline(pipeline, aggregate):
            check_pipeline(pipeline)
            check_scalar(aggregate)
        case ScalarOperation(_, left, right):
            assert check_scalar(left) | check_scalar(right)
    return True


def check_stage(stage: Stage) -> None:
    match stage:
        case Filter():
            check_filter(stage)
        case Wrapped(pipeline):
            assert len(pipeline.stages) > 1
            check_pipeline(pipeline)
        case SpansetOperation(_, left, right):
            check_stage(left)
            check_stage(right)
        case ScalarFilter(_, left, right):
            assert check_scalar(left) | check_scalar(right)
        case GroupBy(expression):
            type_of(expression)
            assert refers(expression)
        case Select(fields):
            assert fields
        case Coalesce():
            pass


def check_pipeline(pipeline: Pipeline) -> None:
    assert not isinstance(pipeline.stages[0], Coalesce)
    for stage in pipeline.stages:
        check_stage(stage)


def holds_pipelines(stage: Stage) -> bool:
    """Whether it has pipelines in brackets, which can only be the whole of a query (2)."""
    match stage:
        case Wrapped():
            return True
        case SpansetOperation(_, left, right):
            return holds_pipelines(left) or holds_pipelines(right)
        case ScalarFilter(_, left, right):
            return isinstance(left, ScalarPipeline) or isinstance(right, ScalarPipeline)
        case _:
            return False


@MANY
@given(searches())
def test_a_generated_search_is_well_typed(query: Query) -> None:
    assert isinstance(query.body, Pipeline)
    check_pipeline(query.body)

    assert len(query.body.stages) == 1 or not any(map(holds_pipelines, query.body.stages))


def check_metrics(body: MetricsPipeline | MetricsMath | float) -> None:
    match body:
        case MetricsMath(_, left, right):
            check_metrics(left)
            check_metrics(right)
        case MetricsPipeline(pipeline, measure, second):
            check_pipeline(pipeline)
            assert not any(map(holds_pipelines, pipeline.stages))
            if isinstance(measure, Compare):
                check_filter(measure.selection)
                assert not second
            else:
                assert len(measure.by) <= 4
                assert measure.of is None or type_of(measure.of) in {"number", "attribute"}


@MANY
@given(metrics_queries())
def test_a_generated_metrics_query_is_well_typed(query: Query) -> None:
    assert not isinstance(query.body, Pipeline)

    check_metrics(query.body)

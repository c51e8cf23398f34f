"""Trees as the parser makes them, for hypothesis: any of them is some query."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.traceql import tree
from pipeline.traceql.fields import NUMERIC
from pipeline.traceql.parser import (
    AGGREGATES,
    COUNTING,
    MATH,
    MEASURING,
    NUMBER_COMPARISONS,
    RANKS,
    SPANSET_OPERATORS,
    parse,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = (
    (st.integers(-9, 9) | INT64).map(lambda value: tree.Static("int", value))
    | FINITE.map(lambda value: tree.Static("float", value))
    | (st.integers(-(10**11), 10**11) | st.integers(1 - 2**63, 2**63 - 1)).map(lambda ns: tree.Static("duration", ns))
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
STATICS = st.one_of(
    NUMBERS,
    TEXTS.map(lambda value: tree.Static("string", value)),
    st.booleans().map(lambda value: tree.Static("bool", value)),
    st.sampled_from(tree.STATUSES).map(lambda value: tree.Static("status", value)),
    st.sampled_from(tree.KINDS).map(lambda value: tree.Static("kind", value)),
    st.just(tree.Static("nil", None)),
)
# Plain names, names that end where they should not, and any others
KEYS = st.sampled_from(
    ["a", "http.method", "a+1", "a b", "5", "span.x", "resource.x", "event.x", 'q"', "\\"]
) | TEXTS.filter(lambda name: bool(name) and not name.startswith("parent."))
ATTRIBUTES = st.builds(tree.Attribute, st.sampled_from(tree.SCOPES), KEYS) | st.builds(
    tree.Attribute, st.sampled_from(["", "span", "resource"]), KEYS, st.just(True)
)
FIELDS = ATTRIBUTES | st.sampled_from(sorted(tree.INTRINSIC_TYPES)).map(tree.Intrinsic)


def _unary(op: str, operand: tree.Field) -> tree.Field:
    """`-3` is a number to the parser, no operation."""
    number = isinstance(operand, tree.Static) and operand.type in NUMERIC
    return tree.Unary("!" if number else op, operand)


EXPRESSIONS: st.SearchStrategy[tree.Field] = st.recursive(
    STATICS | FIELDS,
    lambda inner: (
        st.builds(_unary, st.sampled_from("-!"), inner)
        | st.builds(
            tree.Binary, st.sampled_from([*tree.COMPARISONS, *tree.ARITHMETIC, *tree.SET_OPERATORS]), inner, inner
        )
    ),
    max_leaves=8,
)
FILTERS = st.builds(tree.Filter, EXPRESSIONS)
AGGREGATED = st.just(tree.Aggregate("count", None)) | st.builds(
    tree.Aggregate, st.sampled_from(AGGREGATES[1:]), EXPRESSIONS
)
OTHER_STAGES = st.builds(tree.GroupBy, EXPRESSIONS) | st.builds(
    tree.Select, st.lists(FIELDS, min_size=1, max_size=3).map(tuple)
)


@st.composite
def spansets(draw: st.DrawFn, depth: int = 2) -> tree.Spanset:
    """depth: how many operators and brackets are one in the other at most."""
    kind = draw(st.sampled_from(["filter", "operation", "wrapped"])) if depth else "filter"
    if kind == "operation":
        left, right = draw(spansets(depth - 1)), draw(spansets(depth - 1))
        return tree.SpansetOperation(draw(st.sampled_from(SPANSET_OPERATORS)), left, right)
    inner = draw(pipelines(depth - 1)) if kind == "wrapped" else tree.Pipeline((draw(FILTERS),))
    alone = inner.stages[0] if len(inner.stages) == 1 else None
    return alone if isinstance(alone, tree.Filter | tree.SpansetOperation) else tree.Wrapped(inner)


@st.composite
def scalars(draw: st.DrawFn, depth: int) -> tree.Scalar:
    """Numbers among them are constants, aggregates are of the spanset or of a pipeline of their own."""
    kind = draw(st.sampled_from(["number", "aggregate", *(["operation", "pipeline"] if depth else [])]))
    if kind == "operation":
        left, right = draw(scalars(depth - 1)), draw(scalars(depth - 1))
        return tree.ScalarOperation(draw(st.sampled_from(tree.ARITHMETIC)), left, right)
    if kind == "pipeline":
        return tree.ScalarPipeline(draw(pipelines(depth - 1)), draw(AGGREGATED))
    return draw(NUMBERS if kind == "number" else AGGREGATED)


@st.composite
def pipelines(draw: st.DrawFn, depth: int = 2) -> tree.Pipeline:
    """None begins with coalesce(); a pipeline in brackets is no stage, since its stages are."""
    stages: list[tree.Stage] = []
    for first in (True, False)[: draw(st.integers(1, 2))]:
        kind = draw(st.sampled_from(["spanset", "scalar", "other", "coalesce"]))
        if kind == "scalar":
            sides = draw(scalars(depth)), draw(scalars(depth))
            stages.append(tree.ScalarFilter(draw(st.sampled_from(NUMBER_COMPARISONS)), *sides))
        elif kind == "spanset":
            spanset = draw(spansets(depth))
            stages += spanset.pipeline.stages if isinstance(spanset, tree.Wrapped) else (spanset,)
        else:
            stages.append(draw(OTHER_STAGES) if first or kind == "other" else tree.Coalesce())
    return tree.Pipeline(tuple(stages))


BY = st.lists(FIELDS, max_size=3).map(tuple)
MEASURES = st.one_of(
    st.builds(tree.Metric, st.sampled_from(COUNTING), by=BY),
    st.builds(tree.Metric, st.sampled_from(MEASURING), FIELDS, by=BY),
    st.builds(
        tree.Metric, st.just("quantile_over_time"), FIELDS, st.lists(FINITE, min_size=1, max_size=3).map(tuple), BY
    ),
    st.builds(
        tree.Compare, FILTERS, st.integers(0, 2**63 - 1), st.none() | st.tuples(*[st.integers(0, 2**63 - 1)] * 2)
    ),
)
SECOND = st.lists(
    st.builds(tree.Rank, st.sampled_from(RANKS), st.integers(0, 2**63 - 1))
    | st.builds(tree.Threshold, st.sampled_from(NUMBER_COMPARISONS), FINITE),
    max_size=2,
).map(tuple)
MEASURED = st.builds(tree.MetricsPipeline, pipelines(), MEASURES, SECOND)


def _math(inner: st.SearchStrategy[tree.MetricsPipeline | tree.MetricsMath]) -> st.SearchStrategy[tree.MetricsMath]:
    operators = st.sampled_from(MATH)
    return st.builds(tree.MetricsMath, operators, inner, inner | FINITE, SECOND) | st.builds(
        tree.MetricsMath, operators, FINITE, inner, SECOND
    )


METRICS: st.SearchStrategy[tree.MetricsPipeline | tree.MetricsMath] = st.recursive(MEASURED, _math, max_leaves=3)
HINTS = st.lists(st.tuples(st.sampled_from(["sample", "exemplars", "with"]), STATICS), max_size=2).map(tuple)
QUERIES = st.builds(tree.Query, pipelines() | METRICS, HINTS)


def condition_of(text: str) -> tree.Field:
    """The condition of a query that is one filter."""
    body = parse(text).body
    assert isinstance(body, tree.Pipeline)
    (only,) = body.stages
    assert isinstance(only, tree.Filter)
    return only.condition

"""Hypothesis strategies for queries that a checker lets pass (section 4), about the worlds of worlds.py."""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import strategies as st

from pipeline.traceql.tree import (
    ARITHMETIC,
    STRUCTURAL_OPERATORS,
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
    Spanset,
    SpansetOperation,
    Stage,
    Static,
    Threshold,
    Unary,
    Wrapped,
)
from tests.pipeline.traceql.worlds import (
    DURATIONS_NS,
    FLOATS,
    INTS,
    NAMES,
    SERVICES,
    T0_NS,
    WORDS,
    WORLD_END_NS,
    S,
    span_id,
    trace_id,
)

T = TypeVar("T")
EQUALITY, ORDER, REGEX = ("=", "!="), ("<", "<=", ">", ">="), ("=~", "!~")
PATTERNS = ("x", "x.*", "[xy]", "(?i)x", ".+", ".*", "x|y", "(x|y)+", "..")
STRUCTURE = [prefix + op for op in STRUCTURAL_OPERATORS for prefix in ("", "!", "&")]


def often(*weighted: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of them, each as often as its number says."""
    return st.sampled_from([place for place, (weight, _) in enumerate(weighted) for _ in range(weight)]).flatmap(
        lambda place: weighted[place][1]
    )


def statics(type_: str, values: Any) -> st.SearchStrategy[Static]:
    return st.sampled_from([Static(type_, value) for value in values])


def intrinsics(*names: str) -> st.SearchStrategy[Intrinsic]:
    return st.sampled_from([Intrinsic(name) for name in names])


def comparisons(left: st.SearchStrategy[Any], ops: tuple[str, ...], right: st.SearchStrategy[Any]) -> Any:
    return st.builds(Binary, st.sampled_from(ops), left, right)


# ---- values

SCOPES_OF_SPANS = (("", False), ("", False), ("span", False), ("span", False), ("resource", False), ("span", True))
MORE_SCOPES = (
    ("", True),
    ("resource", True),
    ("event", False),
    ("event", False),
    ("link", False),
    ("instrumentation", False),
)


def scoped(name: str, scopes: tuple[tuple[str, bool], ...]) -> st.SearchStrategy[Attribute]:
    return st.sampled_from([Attribute(scope, name, parent) for scope, parent in scopes])


def anywhere(name: str) -> st.SearchStrategy[Attribute]:
    return often((3, scoped(name, SCOPES_OF_SPANS)), (1, scoped(name, MORE_SCOPES)))


INTEGERS, REALS = statics("int", INTS), statics("float", FLOATS)
LENGTHS = statics("duration", DURATIONS_NS)
NUMERALS = often((3, INTEGERS), (1, REALS))
TEXTS, BOOLS = statics("string", WORDS), statics("bool", (True, False))
NIL = st.just(Static("nil", None))
NUMBERS, STRINGS, FLAGS, ANYTHING = anywhere("n"), anywhere("s"), scoped("flag", SCOPES_OF_SPANS), anywhere("any")
SERVICE = st.sampled_from([Attribute("resource", "service.name"), Attribute("", "service.name")])
DURATION = st.just(Intrinsic("span:duration"))
CALCULATED = st.one_of(
    st.builds(Binary, st.sampled_from(ARITHMETIC[:5]), NUMBERS, st.one_of(NUMERALS, NUMBERS)),
    st.builds(Binary, st.sampled_from(ARITHMETIC[:5]), NUMERALS, NUMBERS),
    st.builds(Binary, st.just("^"), NUMBERS, statics("int", (0, 1, 2))),
    st.builds(Unary, st.just("-"), NUMBERS),
    st.builds(Binary, st.sampled_from("*/"), DURATION, often((2, statics("int", (1, 2))), (1, NUMBERS), (1, LENGTHS))),
    st.builds(Binary, st.sampled_from("*/"), NUMBERS, often((1, DURATION), (1, LENGTHS))),
)
# One value a span, for by(), aggregates, select() and metrics: not of events and links, of which a span may have many
GROUPING = often(
    (2, scoped("n", SCOPES_OF_SPANS)),
    (2, scoped("s", SCOPES_OF_SPANS)),
    (1, scoped("any", SCOPES_OF_SPANS)),
    (2, st.just(Attribute("resource", "service.name"))),
    (3, intrinsics("span:name", "span:status", "span:kind", "trace:rootName", "trace:id")),
)
MEASURED = often((2, scoped("n", SCOPES_OF_SPANS)), (1, scoped("any", SCOPES_OF_SPANS)), (2, DURATION))

# ---- conditions

TEXT_INTRINSICS = intrinsics(
    *("span:name", "span:statusMessage", "trace:rootName", "trace:rootService"),
    *("event:name", "instrumentation:name", "instrumentation:version"),
)
IDS = st.one_of(
    comparisons(intrinsics("span:id"), EQUALITY, statics("string", [span_id(n).hex() for n in (1, 2, 3)])),
    comparisons(
        intrinsics("span:parentID"), EQUALITY, statics("string", ["", "0" * 16, *(span_id(n).hex() for n in (1, 2))])
    ),
    comparisons(
        intrinsics("trace:id"),
        EQUALITY,
        statics("string", [trace_id(0).hex(), trace_id(1).hex().lstrip("0"), "0" + trace_id(1).hex().lstrip("0")]),
    ),
    comparisons(intrinsics("link:traceID"), EQUALITY, statics("string", [trace_id(n).hex() for n in (0, 1)])),
    comparisons(intrinsics("link:spanID"), EQUALITY, statics("string", [span_id(n).hex() for n in (1, 2)])),
)
OF_THE_TREE = st.one_of(
    comparisons(intrinsics("nestedSetParent"), ("<", ">="), statics("int", (0,))),
    comparisons(intrinsics("span:childCount"), EQUALITY + ORDER, statics("int", (0, 1, 2))),
    comparisons(intrinsics("parent"), EQUALITY, NIL),
)
COMPARISONS_OF_NUMBERS = often(
    (4, comparisons(NUMBERS, EQUALITY + ORDER, NUMERALS)),
    (1, comparisons(NUMERALS, EQUALITY + ORDER, NUMBERS)),
    (1, comparisons(NUMBERS, EQUALITY + ORDER, NUMBERS)),
    (2, comparisons(CALCULATED, EQUALITY + ORDER, NUMERALS)),
    (2, comparisons(DURATION, EQUALITY + ORDER, LENGTHS)),
    (1, comparisons(DURATION, EQUALITY + ORDER, often((2, NUMERALS), (1, NUMBERS)))),
    (1, comparisons(NUMBERS, EQUALITY + ORDER, often((1, LENGTHS), (1, DURATION)))),
    (1, comparisons(intrinsics("trace:duration", "event:timeSinceStart"), ORDER, LENGTHS)),
)
COMPARISONS_OF_TEXTS = often(
    (4, comparisons(STRINGS, EQUALITY + ORDER, TEXTS)),
    (2, comparisons(STRINGS, REGEX, statics("string", PATTERNS))),
    (1, comparisons(STRINGS, EQUALITY + ORDER, STRINGS)),
    (2, comparisons(TEXT_INTRINSICS, EQUALITY + ORDER, statics("string", (*NAMES, "bad", "lib", "e", "")))),
    (2, comparisons(intrinsics("span:name"), EQUALITY, statics("string", NAMES))),
    (1, comparisons(TEXT_INTRINSICS, REGEX, statics("string", (".*", "[gp].*", "e|f", "lib")))),
    (2, comparisons(SERVICE, EQUALITY, statics("string", SERVICES))),
    (1, comparisons(st.just(Attribute("resource", "service.name", parent=True)), EQUALITY, SERVICE)),
    (1, IDS),
)
COMPARISONS_OF_ANYTHING = often(
    (2, comparisons(ANYTHING, EQUALITY, st.one_of(TEXTS, INTEGERS, REALS, BOOLS))),
    (1, comparisons(st.one_of(TEXTS, INTEGERS, REALS), EQUALITY + ORDER, ANYTHING)),
    (1, comparisons(ANYTHING, ORDER, st.one_of(TEXTS, NUMERALS))),
    (1, comparisons(ANYTHING, REGEX, statics("string", PATTERNS))),
    (1, comparisons(ANYTHING, EQUALITY, st.one_of(NUMBERS, STRINGS, FLAGS))),
    (2, comparisons(st.one_of(ANYTHING, NUMBERS, STRINGS, FLAGS), EQUALITY, NIL)),
    (1, comparisons(TEXT_INTRINSICS, ("!=",), NIL)),
)
WORDS_OF_STATE = st.one_of(
    comparisons(intrinsics("span:status"), EQUALITY, statics("status", ("unset", "ok", "error"))),
    comparisons(intrinsics("span:kind"), EQUALITY, statics("kind", ("internal", "server", "client"))),
)
SIMPLE: st.SearchStrategy[Field] = often(
    (4, COMPARISONS_OF_NUMBERS),
    (4, COMPARISONS_OF_TEXTS),
    (2, COMPARISONS_OF_ANYTHING),
    (2, WORDS_OF_STATE),
    (1, OF_THE_TREE),
    (1, comparisons(FLAGS, EQUALITY, BOOLS)),
    (1, often((2, FLAGS), (1, ANYTHING))),
)
SAME_EVENT: st.SearchStrategy[Field] = st.builds(
    Binary,
    st.just("&&"),
    comparisons(scoped("n", (("event", False),)), EQUALITY + ORDER, INTEGERS),
    st.one_of(
        comparisons(scoped("s", (("event", False),)), EQUALITY, TEXTS),
        comparisons(intrinsics("event:name"), EQUALITY, statics("string", ("e", "f"))),
    ),
)
# Rather `||` than `&&`, which soon leaves nothing
CONDITIONS: st.SearchStrategy[Field] = often(
    (4, SIMPLE),
    (1, SAME_EVENT),
    (1, st.builds(Unary, st.just("!"), SIMPLE)),
    (1, st.builds(Binary, st.just("&&"), SIMPLE, SIMPLE)),
    (3, st.builds(Binary, st.just("||"), SIMPLE, SIMPLE)),
    (1, st.builds(Unary, st.just("!"), st.builds(Binary, st.sampled_from(("&&", "||")), SIMPLE, SIMPLE))),
    (
        1,
        st.builds(
            Binary,
            st.just("&&"),
            st.builds(Unary, st.just("!"), SIMPLE),
            st.builds(Binary, st.just("||"), SIMPLE, SIMPLE),
        ),
    ),
)

# ---- spansets

TRUE = Static("bool", True)
FILTERS: st.SearchStrategy[Filter] = often((19, st.builds(Filter, CONDITIONS)), (1, st.just(Filter(TRUE))))
# Sides of operators keep much, so that relations are found
WIDE: st.SearchStrategy[Filter] = st.builds(
    Filter,
    often(
        (2, comparisons(scoped("n", SCOPES_OF_SPANS[:4]), (">=", "<="), statics("int", (0, 1)))),
        (1, comparisons(scoped("s", SCOPES_OF_SPANS[:4]), ("!=",), TEXTS)),
        (1, comparisons(intrinsics("span:name"), ("!=",), statics("string", NAMES))),
        (1, comparisons(intrinsics("span:status"), ("!=",), statics("status", ("unset", "ok", "error")))),
        (1, st.builds(Unary, st.just("!"), SIMPLE)),
        (1, st.builds(Binary, st.just("||"), SIMPLE, SIMPLE)),
    ),
)
SIDES = often((1, FILTERS), (4, WIDE), (2, st.just(Filter(TRUE))))
OPERATORS = st.sampled_from(["&&", "||", *STRUCTURE])
OPERATIONS: st.SearchStrategy[Spanset] = st.builds(
    SpansetOperation, OPERATORS, often((5, SIDES), (1, st.builds(SpansetOperation, OPERATORS, SIDES, SIDES))), SIDES
)
SPANSETS: st.SearchStrategy[Spanset] = often((3, FILTERS), (3, OPERATIONS))

# ---- aggregates

ARGUMENTS: st.SearchStrategy[Field] = often(
    (3, scoped("n", SCOPES_OF_SPANS)),
    (3, DURATION),
    (1, st.builds(Binary, st.sampled_from("+-*"), scoped("n", SCOPES_OF_SPANS), INTEGERS)),
)
COUNT = st.just(Aggregate("count", None))
AGGREGATES: st.SearchStrategy[Aggregate] = often(
    (2, COUNT), (3, st.builds(Aggregate, st.sampled_from(("min", "max", "avg", "sum")), ARGUMENTS))
)
COUNTED = st.builds(ScalarFilter, st.sampled_from((*ORDER, ">", "!=", "=")), COUNT, statics("int", (1, 2, 3)))
OF_DURATION = st.builds(
    ScalarFilter,
    st.sampled_from(ORDER),
    st.builds(Aggregate, st.sampled_from(("min", "max", "avg", "sum")), DURATION),
    LENGTHS,
)
OF_NUMBERS = st.builds(ScalarFilter, st.sampled_from(EQUALITY + ORDER), AGGREGATES, NUMERALS)
TWICE: st.SearchStrategy[Scalar] = st.builds(
    ScalarOperation, st.sampled_from("*/+-"), AGGREGATES, statics("int", (0, 1, 2))
)
SCALAR_FILTERS = often(
    (3, COUNTED),
    (2, OF_DURATION),
    (1, OF_NUMBERS),
    (1, st.builds(ScalarFilter, st.sampled_from(ORDER), AGGREGATES, often((1, AGGREGATES), (1, TWICE)))),
    (1, st.builds(ScalarFilter, st.sampled_from(ORDER), statics("int", (0, 1, 2)), AGGREGATES)),
)

# ---- pipelines

GROUPS = st.builds(
    GroupBy, often((5, GROUPING), (1, CALCULATED), (1, SIMPLE.filter(lambda one: isinstance(one, Binary))))
)
SELECTS = st.builds(Select, st.lists(GROUPING, min_size=1, max_size=2, unique=True).map(tuple))
FIRST_STAGE: st.SearchStrategy[Stage] = often((27, SPANSETS), (2, SCALAR_FILTERS), (1, GROUPS))
STAGE: st.SearchStrategy[Stage] = often((3, SCALAR_FILTERS), (3, GROUPS), (1, SELECTS), (1, FILTERS), (1, OPERATIONS))
STAGE_OF_GROUPS: st.SearchStrategy[Stage] = often(
    (4, SCALAR_FILTERS), (1, GROUPS), (1, SELECTS), (1, FILTERS), (3, st.just(Coalesce()))
)
MORE_STAGES = {1: st.sampled_from((0, 0, 1)), 2: st.sampled_from((0, 0, 1, 1, 2))}


@st.composite
def pipelines(draw: st.DrawFn, more_max: int = 2) -> Pipeline:
    """No spanset operator behind a by() without coalesce() between them: there may be several spansets (7)."""
    stages: list[Stage] = [draw(FIRST_STAGE)]
    for _ in range(draw(MORE_STAGES[more_max])):
        stages.append(draw(STAGE_OF_GROUPS if is_grouped(stages) else STAGE))
    return Pipeline(tuple(stages))


def is_grouped(stages: list[Stage]) -> bool:
    groups = [place for place, stage in enumerate(stages) if isinstance(stage, GroupBy)]
    merges = [place for place, stage in enumerate(stages) if isinstance(stage, Coalesce)]
    return bool(groups) and max(groups) > max(merges, default=-1)


# Two stages at least: `( {} )` is nothing but `{}` in brackets
WRAPPED = st.builds(
    lambda first, *more: Wrapped(Pipeline((first, *more))), often((2, SIDES), (1, OPERATIONS)), SCALAR_FILTERS
) | st.builds(lambda first, *more: Wrapped(Pipeline((first, *more))), SIDES, GROUPS, SCALAR_FILTERS)
# Wrapped pipelines are the whole of a query: the grammar lets nothing follow them
OF_PIPELINES: st.SearchStrategy[Pipeline] = st.builds(
    lambda op, left, right: Pipeline((SpansetOperation(op, left, right),)),
    OPERATORS,
    WRAPPED,
    often((1, WRAPPED), (1, SIDES)),
)
COUNTS_OF_PIPELINES = st.builds(
    ScalarPipeline, st.builds(lambda one: Pipeline((one,)), SIDES), often((2, COUNT), (1, AGGREGATES))
)
COMPARED_PIPELINES: st.SearchStrategy[Pipeline] = st.builds(
    lambda op, left, right: Pipeline((ScalarFilter(op, left, right),)),
    st.sampled_from(EQUALITY + ORDER),
    COUNTS_OF_PIPELINES,
    often((2, COUNTS_OF_PIPELINES), (1, statics("int", (1, 2)))),
)


def searches() -> st.SearchStrategy[Query]:
    """Queries that find spansets."""
    return st.builds(Query, often((10, pipelines()), (2, OF_PIPELINES), (1, COMPARED_PIPELINES)))


# ---- metrics

BY: st.SearchStrategy[Any] = often(
    (2, st.just(())), (3, st.lists(GROUPING, min_size=1, max_size=2, unique=True).map(tuple))
)
QUANTILES = st.lists(st.sampled_from((0.0, 0.25, 0.5, 0.9, 0.99, 1.0)), min_size=1, max_size=2, unique=True).map(tuple)
METRICS: st.SearchStrategy[Metric] = often(
    (3, st.builds(Metric, st.sampled_from(("rate", "count_over_time")), by=BY)),
    (
        4,
        st.builds(
            Metric, st.sampled_from([f"{one}_over_time" for one in ("min", "max", "sum", "avg")]), of=MEASURED, by=BY
        ),
    ),
    (1, st.builds(Metric, st.just("histogram_over_time"), of=MEASURED, by=BY)),
    (1, st.builds(Metric, st.just("quantile_over_time"), of=MEASURED, quantiles=QUANTILES, by=BY)),
)
RANKS = st.builds(Rank, st.sampled_from(("topk", "bottomk")), st.integers(1, 3))
THRESHOLDS = st.builds(Threshold, st.sampled_from(EQUALITY + ORDER), st.sampled_from((-1.0, 0.0, 0.5, 1.0, 2.0)))
SECOND: st.SearchStrategy[Any] = often(
    (3, st.just(())), (2, st.lists(st.one_of(RANKS, THRESHOLDS), min_size=1, max_size=2).map(tuple))
)
WINDOWS = st.sampled_from((None, None, (T0_NS, T0_NS + 20 * S), (T0_NS + 10 * S, WORLD_END_NS)))
COMPARES = st.builds(Compare, FILTERS, top=st.sampled_from((1, 2, 10)), window=WINDOWS)
PLAIN_METRICS = st.builds(MetricsPipeline, pipelines(1), METRICS)
MATH = st.builds(
    MetricsMath,
    st.sampled_from("+-*/"),
    PLAIN_METRICS,
    often((2, PLAIN_METRICS), (1, st.sampled_from((0.0, 2.0, -0.5)))),
    SECOND,
)


HINTS = st.sampled_from(((), (), (), (("extrapolate", Static("bool", True)),)))


def metrics_queries() -> st.SearchStrategy[Query]:
    """Queries that measure. Where values are equal, ranks depend on no rounding: all held numbers are halves."""
    return st.builds(
        Query,
        often(
            (8, st.builds(MetricsPipeline, pipelines(1), METRICS, SECOND)),
            (2, st.builds(MetricsPipeline, pipelines(1), COMPARES)),
            (1, MATH),
        ),
        HINTS,
    )

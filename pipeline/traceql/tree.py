"""What a TraceQL query says, as a tree. Plain values: nothing here knows spans, columns or engines.

Names are canonical when a tree leaves the parser. When it leaves the checks, constants are folded too and nil stands to
the right, so equal questions are equal trees. None is higher than HEIGHT_MAX in cursor.py: who walks one may recurse.
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPES = ("", "span", "resource", "event", "link", "instrumentation")
STATUSES = ("unset", "ok", "error")
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "=~", "!~")
ARITHMETIC = ("+", "-", "*", "/", "%", "^")
SET_OPERATORS = ("&&", "||")
STRUCTURAL_OPERATORS = (">", "<", ">>", "<<", "~")
# Bare name -> the canonical, scoped one. Those without a bare name stand in SCOPED_INTRINSICS alone
BARE_INTRINSICS = {
    "duration": "span:duration",
    "name": "span:name",
    "status": "span:status",
    "statusMessage": "span:statusMessage",
    "kind": "span:kind",
    "traceDuration": "trace:duration",
    "rootName": "trace:rootName",
    "rootServiceName": "trace:rootService",
    "nestedSetLeft": "nestedSetLeft",
    "nestedSetRight": "nestedSetRight",
    "nestedSetParent": "nestedSetParent",
    "parent": "parent",
}
INTRINSIC_TYPES = {
    "span:duration": "duration",
    "span:name": "string",
    "span:status": "status",
    "span:statusMessage": "string",
    "span:kind": "kind",
    "span:id": "string",
    "span:parentID": "string",
    "span:childCount": "int",
    "trace:duration": "duration",
    "trace:rootName": "string",
    "trace:rootService": "string",
    "trace:id": "string",
    "event:name": "string",
    "event:timeSinceStart": "duration",
    "link:traceID": "string",
    "link:spanID": "string",
    "instrumentation:name": "string",
    "instrumentation:version": "string",
    "nestedSetLeft": "int",
    "nestedSetRight": "int",
    "nestedSetParent": "int",
    "parent": "nil",
}


# ---- field expressions: a value for one span


@dataclass(frozen=True, slots=True)
class Static:
    """A literal. type: int, float, duration (value in ns), string, bool, status, kind (value: the word), nil (None)."""

    type: str
    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Attribute:
    """scope: one of SCOPES, "" looks in the span, then in its resource. parent: of the parent span."""

    scope: str
    name: str
    parent: bool = False


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """name: a key of INTRINSIC_TYPES."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """op: `-` or `!`. A number's own sign is no operation: -3 is a Static."""

    op: str
    operand: Field


@dataclass(frozen=True, slots=True)
class Binary:
    """op: one of COMPARISONS, ARITHMETIC, SET_OPERATORS."""

    op: str
    left: Field
    right: Field


Field = Static | Attribute | Intrinsic | Unary | Binary


# ---- spansets


@dataclass(frozen=True, slots=True)
class Filter:
    """`{ condition }`; `{}` has the condition true."""

    condition: Field


@dataclass(frozen=True, slots=True)
class Wrapped:
    """`( pipeline )` as an operand of a spanset operator: of several stages, or of one that is no spanset."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class SpansetOperation:
    """op: `&&`, `||`, one of STRUCTURAL_OPERATORS, or one of those behind `!` or `&`."""

    op: str
    left: Spanset
    right: Spanset


Spanset = Filter | Wrapped | SpansetOperation


# ---- scalars: a value for one spanset


@dataclass(frozen=True, slots=True)
class Aggregate:
    """function: count, min, max, avg, sum; argument: None for count."""

    function: str
    argument: Field | None


@dataclass(frozen=True, slots=True)
class ScalarPipeline:
    """`( pipeline | aggregate )` as an operand of a scalar filter."""

    pipeline: Pipeline
    aggregate: Aggregate


@dataclass(frozen=True, slots=True)
class ScalarOperation:
    """op: one of ARITHMETIC."""

    op: str
    left: Scalar
    right: Scalar


Scalar = Static | Aggregate | ScalarPipeline | ScalarOperation


# ---- stages


@dataclass(frozen=True, slots=True)
class ScalarFilter:
    """Keeps the spansets for which the comparison holds. op: one of COMPARISONS without regexes."""

    op: str
    left: Scalar
    right: Scalar


@dataclass(frozen=True, slots=True)
class GroupBy:
    """`by(expression)`."""

    expression: Field


@dataclass(frozen=True, slots=True)
class Coalesce:
    """`coalesce()`."""


@dataclass(frozen=True, slots=True)
class Select:
    """`select(a, b)`."""

    fields: tuple[Attribute | Intrinsic, ...]


Stage = Spanset | ScalarFilter | GroupBy | Coalesce | Select


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in order, at least one."""

    stages: tuple[Stage, ...]


# ---- metrics


@dataclass(frozen=True, slots=True)
class Metric:
    """function: rate, count_over_time, min_over_time and so on. quantiles: of quantile_over_time alone."""

    function: str
    of: Attribute | Intrinsic | None = None
    quantiles: tuple[float, ...] = ()
    by: tuple[Attribute | Intrinsic, ...] = ()


@dataclass(frozen=True, slots=True)
class Compare:
    """window: start and end of the selection in Unix ns, where given."""

    selection: Filter
    top: int = 10
    window: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """function: topk or bottomk."""

    function: str
    count: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """A comparison of a series' points with a number; durations in seconds."""

    op: str
    value: float


@dataclass(frozen=True, slots=True)
class MetricsPipeline:
    """Spans of a pipeline, measured."""

    pipeline: Pipeline
    measure: Metric | Compare
    second: tuple[Rank | Threshold, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsMath:
    """op: + - * /; one side may be a number. second: stages behind the closing bracket."""

    op: str
    left: MetricsPipeline | MetricsMath | float
    right: MetricsPipeline | MetricsMath | float
    second: tuple[Rank | Threshold, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """hints: name and value in the order given."""

    body: Pipeline | MetricsPipeline | MetricsMath
    hints: tuple[tuple[str, Static], ...] = ()

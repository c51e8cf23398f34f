"""From a query's text to its tree. What the types of its parts allow is not looked at here: check.py."""

from __future__ import annotations

from dataclasses import replace

from pipeline.traceql.cursor import Places
from pipeline.traceql.fields import LEVELS, PREFIX_LEVELS, WORDS, FieldParser, above_for_right, is_number, negated
from pipeline.traceql.tokens import Token, nearest, shown, syntax_error, unexpected
from pipeline.traceql.tree import (
    ARITHMETIC,
    BARE_INTRINSICS,
    SET_OPERATORS,
    STRUCTURAL_OPERATORS,
    Aggregate,
    Attribute,
    Coalesce,
    Compare,
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
    Wrapped,
)

SPANSET_OPERATORS = (
    *SET_OPERATORS,
    *(f"{prefix}{operator}" for operator in STRUCTURAL_OPERATORS for prefix in ("", "!", "&")),
)
NUMBER_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
MATH = ("+", "-", "*", "/")
AGGREGATES = ("count", "avg", "min", "max", "sum")
COUNTING = ("rate", "count_over_time")
MEASURING = ("min_over_time", "max_over_time", "avg_over_time", "sum_over_time", "histogram_over_time")
METRICS = (*COUNTING, *MEASURING, "quantile_over_time", "compare")
RANKS = ("topk", "bottomk")
STAGES = ("by", "coalesce", "select")
SPANSET_LEVELS = {**dict.fromkeys(SPANSET_OPERATORS, 3), **dict.fromkeys(SET_OPERATORS, 2)}
_PIPELINE_LEVELS = LEVELS | SPANSET_LEVELS
SPANSETS = ("{", "(")  # what can begin an operand, for errors
SCALARS = ("number", "aggregate")
SIDES = ("number", "metrics in brackets")
FIRST = (*SPANSETS, "by", "select", *SCALARS)
LATER = (*SPANSETS, *STAGES, *SCALARS, "metrics function")

Metrics = MetricsPipeline | MetricsMath
Part = Stage | Scalar | Metrics  # what may stand between two `|`


def parse(text: str) -> Query:
    """The tree of a query. Raises BadQuestionError, which names line, column and what could stand there."""
    return parsed(text)[0]


def parsed(text: str) -> tuple[Query, Places]:
    """The tree, and where its nodes stand in the text."""
    parser = _Parser(text)
    return parser.query(), parser.places


class _Parser(FieldParser):
    """The half of the parser that is about spansets, stages and metrics."""

    def query(self) -> Query:
        at = self.token.at
        parts = self._parts()
        body = parts[0] if isinstance(parts[0], Metrics) else self.made(Pipeline(self._stages(parts)), at)
        hints: list[tuple[str, Static]] = []
        while self.accept("with"):
            hints += self._hints()
        if self.token.kind != "end":
            raise self.unexpected(*_following(parts[-1]), "with", "end of query")
        return self.made(Query(body, tuple(hints)), at)

    def _hints(self) -> list[tuple[str, Static]]:
        self.expect("(")
        found: list[tuple[str, Static]] = []
        while True:
            if self.token.kind != "word":
                raise self.unexpected("name of a hint")
            name = self.take().text
            self.expect("=")
            found.append((name, self.literal()))
            if not self.accept(","):
                self.expect(")", ",")
                return found

    # ---- what stands between `|`

    def _parts(self) -> list[Part]:
        """The parts of a pipeline. Where it is measured, the measured pipeline is the only one."""
        at = self.token.at
        parts = [self._part(first=True)]
        if isinstance(parts[0], Metrics):
            return [self._second(parts[0], at)]
        while self.stands("|"):
            self._only_last_is_scalar(parts)
            self.take()
            if self.stands(*METRICS):
                pipeline = self.made(Pipeline(self._stages(parts)), at)
                return [self._second(self.made(MetricsPipeline(pipeline, self._measure()), at), at)]
            parts.append(self._part(first=False))
        return parts

    def _only_last_is_scalar(self, parts: list[Part]) -> None:
        if isinstance(parts[-1], Scalar):
            example = "count() > 0" if parts[-1] == Aggregate("count", None) else None
            raise self.unexpected("comparison", "arithmetic operator", suggestion=example)

    def _stages(self, parts: list[Part]) -> tuple[Stage, ...]:
        """The parts, none of them a bare scalar or metrics; a pipeline in brackets of its own is part of this one."""
        self._only_last_is_scalar(parts)
        stages: list[Stage] = []
        for part in parts:
            assert not isinstance(part, Scalar | Metrics)
            stages += part.pipeline.stages if isinstance(part, Wrapped) else (part,)
        return tuple(stages)

    def _part(self, *, first: bool) -> Part:
        token = self.token
        if self.accept("by"):
            self.expect("(")
            expression = self.field()
            self.expect(")", "operator")
            return self.made(GroupBy(expression), token.at)
        if self.accept("select"):
            self.expect("(")
            return self.made(Select(self.names()), token.at)
        if not first and self.accept("coalesce"):
            self.expect("(")
            self.expect(")")
            return self.made(Coalesce(), token.at)
        part = self._expression(FIRST if first else LATER)
        if isinstance(part, Metrics) and not first:
            raise syntax_error(self.text, token.at, "unexpected metrics in brackets behind |", "{ ... } | rate()")
        return part

    def _expression(self, expecting: tuple[str, ...], above: int = 0) -> Part:
        """Operands of operators that bind tighter than `above`; what an operator means, its left operand says.

        expecting: what can begin here, for errors.
        """
        with self.deeper():
            at = self.token.at
            return self._operations(self._operand_of_pipeline(expecting), at, above)

    def _operations(self, left: Part, at: int, above: int) -> Part:
        while self.token.kind == "operator" and (level := _PIPELINE_LEVELS.get(self.token.text, 0)) > above:
            if not self._may_follow(left):
                break
            operator = self.take().text
            start = self.token
            operands = SPANSETS if isinstance(left, Spanset) else SCALARS if isinstance(left, Scalar) else SIDES
            right = self._expression(operands, above_for_right(operator, level))
            left = self.made(self._joined(operator, left, right, start), at)
        return left

    def _may_follow(self, left: Part) -> bool:
        if isinstance(left, Spanset):
            return self.stands(*SPANSET_OPERATORS)
        if isinstance(left, Scalar):
            return self.stands(*ARITHMETIC, *NUMBER_COMPARISONS)
        return isinstance(left, Metrics) and self.stands(*MATH)

    def _joined(self, operator: str, left: Part, right: Part, start: Token) -> Part:
        """start: where the right operand begins."""
        if isinstance(left, Spanset):
            if isinstance(right, Spanset):
                return SpansetOperation(operator, left, right)
            raise unexpected(self.text, start, SPANSETS)
        if isinstance(left, Scalar) and isinstance(right, Scalar):
            return (ScalarOperation if operator in ARITHMETIC else ScalarFilter)(operator, left, right)
        sides = [self._side(side, start) for side in (left, right)]
        if operator not in MATH or sides[1] is None or sides[0] is None:
            raise unexpected(self.text, start, SCALARS if isinstance(left, Scalar) else SIDES)
        return MetricsMath(operator, sides[0], sides[1])

    def _side(self, part: Part, start: Token) -> Metrics | float | None:
        if isinstance(part, Metrics):
            return part
        if not is_number(part):
            return None
        if part.type == "duration":
            raise syntax_error(
                self.text, start.at, "metrics cannot be calculated with durations, only with plain numbers"
            )
        return float(part.value or 0)

    # ---- operands

    def _operand_of_pipeline(self, expecting: tuple[str, ...]) -> Part:
        token = self.token
        if self.stands("{"):
            return self.braces()
        if self.stands("("):
            return self._bracket()
        if self.stands("-"):
            return self._negative()
        if self.stands(*AGGREGATES):
            return self._aggregate()
        if token.kind == "literal" or (token.kind == "word" and token.text in WORDS):
            return self.literal()
        raise self.unexpected(*expecting, suggestion=self._meant(expecting))

    def _meant(self, expecting: tuple[str, ...]) -> str | None:
        """What was probably meant by what cannot stand here."""
        token = self.token
        if self.stands(*RANKS) and "{" in expecting:
            return f"{{}} | rate() | {token.text}(5)"
        if self.stands(*METRICS, *STAGES) and expecting == FIRST:
            return f"{{}} | {token.text}()"
        if (token.kind == "field" or self.stands(*BARE_INTRINSICS)) and "{" in expecting:
            return f"{{ {shown(token.text)} ... }}"
        known = (
            *(stage for stage in STAGES if stage in expecting),
            *(AGGREGATES if "aggregate" in expecting else ()),
            *(METRICS if "metrics function" in expecting else ()),
        )
        return nearest(token.text, known) if token.kind == "word" else None

    def _bracket(self) -> Part:
        at = self.token.at
        self.take()
        parts = self._parts()
        self.expect(")", *_following(parts[-1]))
        last = parts[-1]
        if len(parts) == 1 and isinstance(last, Spanset | Scalar | Metrics):
            return last
        if not isinstance(last, Scalar):
            return self.made(Wrapped(self.made(Pipeline(self._stages(parts)), at)), at)
        if not isinstance(last, Aggregate):
            raise syntax_error(self.text, at, "a pipeline in brackets cannot end in arithmetic, only in one aggregate")
        return self.made(ScalarPipeline(self.made(Pipeline(self._stages(parts[:-1])), at), last), at)

    def _negative(self) -> Scalar:
        at, start = self.take().at, self.token
        operand = self._expression(SCALARS, PREFIX_LEVELS["-"])
        if not isinstance(operand, Scalar):
            raise unexpected(self.text, start, SCALARS)
        return self._minus(operand, at)

    def _minus(self, scalar: Scalar, at: int) -> Scalar:
        """Without a prefix, which scalars do not have: the first factor's sign changes, or there is one more: -1."""
        if is_number(scalar):
            return self.made(negated(scalar), at)
        if isinstance(scalar, ScalarOperation) and scalar.op in "*/%" and is_number(_first_factor(scalar)):
            return self.made(replace(scalar, left=self._minus(scalar.left, at)), at)
        return self.made(ScalarOperation("*", Static("int", -1), scalar), at)

    def _aggregate(self) -> Aggregate:
        token = self.take()
        self.expect("(")
        argument = None if token.text == "count" else self.field()
        self.expect(")", *(("operator",) if argument else ()))
        return self.made(Aggregate(token.text, argument), token.at)

    # ---- metrics

    def _measure(self) -> Metric | Compare:
        token = self.take()
        self.expect("(")
        if token.text == "compare":
            return self.made(self._compare(), token.at)
        of = None if token.text in COUNTING else self.name()
        quantiles: list[float] = []
        if token.text == "quantile_over_time":
            self.expect(",")
            quantiles = [self._plain_number()]
            while self.accept(","):
                quantiles.append(self._plain_number())
        self.expect(")", *((",",) if quantiles else ()))
        by: tuple[Attribute | Intrinsic, ...] = ()
        if self.accept("by"):
            self.expect("(")
            by = self.names()
        return self.made(Metric(token.text, of, tuple(quantiles), by), token.at)

    def _compare(self) -> Compare:
        selection = self.braces()
        top, window = 10, None
        if self.accept(","):
            top = self.integer()
            if self.accept(","):
                start = self.integer()
                self.expect(",")
                window = (start, self.integer())
        self.expect(")", ",")
        return Compare(selection, top, window)

    def _plain_number(self) -> float:
        token = self.token
        value = self.number()
        if value.type == "duration":
            raise unexpected(self.text, token, ("number",))
        return float(value.value or 0)

    def _second(self, metrics: Metrics, at: int) -> Metrics:
        """The metrics with the stages that follow."""
        found: list[Rank | Threshold] = []
        while self.stands(*NUMBER_COMPARISONS, "|"):
            found.append(self._rank() if self.accept("|") else self._threshold())
        return self.made(replace(metrics, second=(*metrics.second, *found)), at) if found else metrics

    def _rank(self) -> Rank:
        token = self.token
        if not self.stands(*RANKS):
            raise self.unexpected(*RANKS)
        self.take()
        self.expect("(")
        count = self.integer()
        self.expect(")")
        return self.made(Rank(token.text, count), token.at)

    def _threshold(self) -> Threshold:
        token = self.take()
        number = self.number()
        value = float(number.value or 0)
        return self.made(Threshold(token.text, value / 10**9 if number.type == "duration" else value), token.at)


def _following(part: Part) -> tuple[str, ...]:
    """What could stand behind a part, for errors."""
    if isinstance(part, Metrics):
        return ("comparison", "|")
    if isinstance(part, Scalar):
        return ("comparison", "arithmetic operator")
    return ("spanset operator", "|") if isinstance(part, Spanset) else ("|",)


def _first_factor(scalar: Scalar) -> Scalar:
    while isinstance(scalar, ScalarOperation) and scalar.op in "*/%":
        scalar = scalar.left
    return scalar

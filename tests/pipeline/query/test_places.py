"""Traces and queries, wherever the spans stand: in chunks, in live segments, in both.

Each operator meets each types of operands that it is about at each place; what it met is counted, and none may be
missing. Generated pairs of traces and query follow, over ranges of time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice, product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.query.search import SearchQuestion
from pipeline.traceql import tree
from pipeline.traceql.text import text_of
from tests.pipeline.query.cuts import PARTITIONS, TENANTS, Asked, Cut, Form, ask
from tests.pipeline.query.reference_spans import otlp
from tests.pipeline.query.test_traceql_reference import Found, answered, expected, rounded
from tests.pipeline.traceql.reference.met import MET, Cell
from tests.pipeline.traceql.reference.model import Event, Span, Trace
from tests.pipeline.traceql.strategies import searches
from tests.pipeline.traceql.worlds import AS_DRAWN, T0_NS, WORLD_END_NS, WORLD_START_NS, S, span_id, trace_id, worlds
from topics.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
MS = 10**6
WHOLE = (WORLD_START_NS, WORLD_END_NS)
FORM = Form(lambda spans: b"".join(map(otlp, spans)), lambda records: records)
PLACES = ("chunk", "live", "both")
Asking = list[tuple[tree.Query, tuple[int, int]]]


def cut(place: str, records: int) -> Cut:
    """In chunks there are two, in both a chunk and a segment."""
    last, middle = records - 1, (records - 1) // 2
    return {
        "chunk": Cut(chunks=[middle, last]),
        "live": Cut(segments=[middle, last]),
        "both": Cut(chunks=[middle], segments=[last]),
    }[place]


def compare(world: Settings, place: str, traces: list[Trace], queries: Asking) -> None:
    """The engine finds what the reference finds."""

    async def question(on: Asked) -> None:
        for query, range_ns in queries:
            assert isinstance(query.body, tree.Pipeline)
            found = await found_by(on, query.body, range_ns)
            assert rounded(found) == rounded(expected(query, traces, range_ns)), (text_of(query), range_ns)

    records = [[span] for trace in traces for span in trace]
    ask(world, records, dict.fromkeys(range(PARTITIONS), cut(place, len(records))), question, FORM)


async def found_by(on: Asked, pipeline: tree.Pipeline, range_ns: tuple[int, int]) -> Found:
    asked = SearchQuestion(query=pipeline, start_ns=range_ns[0], end_ns=range_ns[1], limit=100, span_set_spans=100)
    answer = await on.search.find(TENANTS, asked)
    assert answer.reasons == []
    return answered({hit.trace_id: hit.span_sets for hit in answer.traces})


# ---- every operator with every types

EQUALITY, ORDER, REGEX = ("=", "!="), ("<", "<=", ">", ">="), ("=~", "!~")
NUMBERS, CALCULATED = ("int", "float", "duration"), ("int", "float")
HELD: dict[str, tuple[Any, ...]] = {
    "int": (-2, 0, 1, 2, 3),
    "float": (-1.5, 0.5, 2.0),
    "mixed": (1, 2, 0.5, 2.0),
    "string": ("", "x", "xy", "X"),
    "bool": (True, False),
    "string[]": (["x"], ["x", "y"], ["", "xy"]),
    "int[]": ([1, 2], [3]),
    "float[]": ([0.5, 2.0], [3.0]),
    "bool[]": ([True, False], [False]),
    "opaque": ([], [1, "x"], b"x", {"x": 1}),
}
FIELDS: dict[str, tree.Field] = {
    **{type_: tree.Attribute("span", type_) for type_ in (*HELD, "nothing")},
    "duration": tree.Intrinsic("span:duration"),
    "status": tree.Intrinsic("span:status"),
    "kind": tree.Intrinsic("span:kind"),
}
LITERALS: dict[str, tree.Field] = {
    "int": tree.Static("int", 2),
    "float": tree.Static("float", 0.5),
    "duration": tree.Static("duration", 2),
    "string": tree.Static("string", "x"),
    "bool": tree.Static("bool", True),
    "status": tree.Static("status", "error"),
    "kind": tree.Static("kind", "server"),
    "nil": tree.Static("nil", None),
}
COMPARED: list[tuple[str, str, str]] = [
    *product(EQUALITY + ORDER, NUMBERS, NUMBERS),
    *product(EQUALITY + ORDER + REGEX, ("string", "string[]", "int", "nothing", "opaque"), ("string",)),
    *product(EQUALITY, ("bool", "bool[]", "string"), ("bool",)),
    *product(EQUALITY + ORDER, ("int[]", "float[]", "string", "nothing", "opaque"), ("int", "float")),
    *((op, type_, type_) for op, type_ in product(EQUALITY, ("status", "kind"))),
    *product(EQUALITY, (*(type_ for type_ in HELD if type_ != "mixed"), "nothing"), ("nil",)),
]
COMPUTED = list(product(tree.ARITHMETIC, NUMBERS, NUMBERS))
NEGATED = ("int", "float", "duration", "string", "nothing")
STRUCTURE = [prefix + op for prefix, op in product(("", "!", "&"), tree.STRUCTURAL_OPERATORS)]
FOLDED = list(product(("min", "max", "avg", "sum"), ("int", "float", "mixed", "duration")))
WANTED: list[Cell] = [
    *COMPARED,
    *COMPUTED,
    *(("-", type_) for type_ in NEGATED),
    *((op, "some") for op in (*tree.SET_OPERATORS, *STRUCTURE)),
    *(("fold", *one) for one in FOLDED),
]


def expressions() -> Iterator[tree.Field]:
    """For each cell one: what stands on the right is a literal where there is one, and a field too where that goes."""
    for op, left, right in COMPARED:
        yield tree.Binary(op, FIELDS[left], LITERALS[right])
        if op not in REGEX and right != "nil":
            yield tree.Binary(op, LITERALS[right], FIELDS[left])
            yield tree.Binary(op, FIELDS[left], FIELDS[right])
    for op, left, right in COMPUTED:
        yield tree.Binary(op, FIELDS[left], LITERALS[right])
        yield tree.Binary(op, FIELDS[left], FIELDS[right])
    yield from (tree.Unary("-", FIELDS[type_]) for type_ in NEGATED)


def queries() -> Iterator[tree.Pipeline]:
    """What an expression is of each span is told by the groups that it makes: several at once."""
    every = tree.Filter(tree.Static("bool", True))
    left = expressions()
    while some := tuple(islice(left, 10)):
        yield tree.Pipeline((every, *map(tree.GroupBy, some)))
    positive = tree.Filter(tree.Binary(">", FIELDS["int"], tree.Static("int", 0)))
    failed = tree.Filter(tree.Binary("=", FIELDS["status"], LITERALS["status"]))
    for op in (*tree.SET_OPERATORS, *STRUCTURE):
        yield tree.Pipeline((tree.SpansetOperation(op, positive, failed),))
    for function, type_ in FOLDED:
        aggregate = tree.Aggregate(function, FIELDS[type_])
        least, most = tree.Static("int", -100), tree.ScalarOperation("/", aggregate, tree.Static("int", 2))
        told = [tree.ScalarFilter(">", aggregate, least), tree.ScalarFilter(">", most, least)]
        yield tree.Pipeline((every, tree.GroupBy(FIELDS["kind"]), *told))


def typed_traces() -> list[Trace]:
    """Of each trace 20 spans, each with a value of most types; a tree."""
    chance, traces = Random(7), list[Trace]()
    for number in range(3):
        trace: Trace = []
        for at in range(20):
            parents = [one.span_id for one in trace if one.kind != "server"] or [b""]
            start_ns = T0_NS + number * S + at * MS
            one = Span(
                trace_id(number),
                span_id(at + 1),
                parent_id=b"" if at in (0, 9) else chance.choice(parents),
                kind=chance.choice(("internal", "server", "client")),
                status=chance.choice(tree.STATUSES),
                start_ns=start_ns,
                end_ns=start_ns + chance.choice((0, 1, 2, 5, MS)),
                attributes={type_: chance.choice(held) for type_, held in HELD.items() if chance.random() < 0.9},
                events=(Event(start_ns, "e"),),
            )
            trace.append(one)
        traces.append(trace)
    return traces


def test_every_operator_means_with_every_types_the_same_at_every_place(world: Settings) -> None:
    counted: dict[str, Counter[Cell]] = {}
    for place in PLACES:
        MET.clear()
        compare(world, place, typed_traces(), [(tree.Query(one), WHOLE) for one in queries()])
        counted[place] = Counter(MET)
    print(*table(counted), sep="\n")  # noqa: T201

    assert [(*cell, place) for cell in WANTED for place in PLACES if not counted[place][cell]] == []


def table(counted: dict[str, Counter[Cell]]) -> Iterator[str]:
    """How often each cell was met at each place."""
    yield f"{'':40}" + "".join(f"{place:>10}" for place in PLACES)
    for cell in sorted(set().union(*counted.values())):
        yield f"{' '.join(cell):40}" + "".join(f"{counted[place][cell]:>10}" for place in PLACES)


# ---- generated pairs

EXAMPLES, QUERIES = 4, 16  # worlds of each form and place, and queries of each world
RANGES = [WHOLE] * 3 + [(T0_NS + 5 * S, T0_NS + 20 * S), (T0_NS + 15 * S, WORLD_END_NS)]


@pytest.mark.parametrize("place", PLACES)
def test_a_query_finds_what_the_reference_finds_wherever_the_spans_stand(world: Settings, place: str) -> None:
    @settings(AS_DRAWN, max_examples=EXAMPLES, derandomize=True)  # the same each time
    @given(
        traces=worlds(),
        queries=st.lists(st.tuples(searches(), st.sampled_from(RANGES)), min_size=QUERIES, max_size=QUERIES),
    )
    def alike(traces: list[Trace], queries: Asking) -> None:
        compare(world, place, traces, queries)

    alike()

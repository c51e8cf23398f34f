"""Structure, groups, aggregates: what the stages of a pipeline leave of a trace (sections 6 to 8, deviations of 15)."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.traceql.tree import (
    Aggregate,
    Coalesce,
    GroupBy,
    ScalarFilter,
    ScalarOperation,
    ScalarPipeline,
    Select,
    SpansetOperation,
)
from tests.pipeline.traceql.by_hand import (
    ALWAYS,
    NONE,
    both,
    count,
    found,
    groups,
    having,
    intrinsic,
    named,
    ns,
    one,
    query,
    says,
    span,
    static,
    where,
    wrapped,
)
from tests.pipeline.traceql.reference.families import Family
from tests.pipeline.traceql.reference.search import search
from tests.pipeline.traceql.reference.spansets import SeveralSpansetsError

A = span("a")
#  root            lost (its parent was not received)
#  |- left         `- below
#  |   `- leaf
#  `- right
TREE = [
    one("root", 1),
    one("left", 2, parent=1),
    one("leaf", 3, parent=2),
    one("right", 4, parent=1),
    one("lost", 5, parent=99),
    one("below", 6, parent=5),
]


def keep(left: Any, op: str, right: Any) -> ScalarFilter:
    return ScalarFilter(op, scalar(left), scalar(right))


def scalar(value: Any) -> Any:
    """A number as a literal, anything else as it is."""
    return static(value)


def calculated(left: Any, op: str, right: Any) -> ScalarOperation:
    return ScalarOperation(op, scalar(left), scalar(right))


def of(function: str, argument: Any = A) -> Aggregate:
    return Aggregate(function, argument)


# ---- filters and set operators


def test_a_filter_drops_a_trace_of_which_nothing_is_left() -> None:
    """6."""
    assert search(query(where(), NONE), [TREE], *ALWAYS) == []


def test_a_later_filter_looks_at_what_the_earlier_one_left() -> None:
    """8."""
    assert found(TREE, named("root", "leaf"), named("leaf", "left")) == "leaf"


@pytest.mark.parametrize(
    ("left", "op", "right", "kept"),
    [
        (named("leaf"), "&&", named("root"), "root leaf"),
        (named("leaf"), "&&", named("leaf"), "leaf"),
        (named("leaf"), "&&", NONE, ""),
        (NONE, "&&", named("leaf"), ""),
        (named("leaf"), "||", named("root"), "root leaf"),
        (named("leaf"), "||", NONE, "leaf"),
        (NONE, "||", NONE, ""),
    ],
    ids=str,
)
def test_and_needs_both_sides_and_or_takes_what_there_is(left: Any, op: str, right: Any, kept: str) -> None:
    """7."""
    assert found(TREE, both(left, op, right)) == kept


# ---- structure


@pytest.mark.parametrize(
    ("left", "op", "right", "kept"),
    [
        (where(), ">", where(), "left leaf right below"),
        (where(), ">>", where(), "left leaf right below"),
        (where(), "<", where(), "root left lost"),
        (where(), "<<", where(), "root left lost"),
        (where(), "~", where(), "root left right lost"),
        (named("root"), ">", where(), "left right"),
        (named("root"), ">>", where(), "left leaf right"),
        (named("leaf"), "<", where(), "left"),
        (named("leaf"), "<<", where(), "root left"),
        (named("left"), "~", where(), "right"),
        (named("root"), ">>", NONE, ""),
        (NONE, ">>", where(), ""),
        (named("root"), "!>", where(), "root leaf lost below"),
        (named("root"), "!>>", where(), "root lost below"),
        (named("leaf"), "!<", where(), "root leaf right lost below"),
        (named("leaf"), "!<<", where(), "leaf right lost below"),
        (named("left"), "!~", where(), "root left leaf lost below"),
        (NONE, "!>", named("leaf", "root"), "root leaf"),
        (named("root"), "!>", NONE, ""),
        (named("root", "lost"), "&>", named("left", "leaf"), "root left"),
        (named("root", "lost"), "&>>", named("left", "leaf"), "root left leaf"),
        (named("leaf", "right"), "&<", named("root", "left"), "root left leaf right"),
        (named("leaf", "below"), "&<<", named("root"), "root leaf"),
        (named("left"), "&~", where(), "left right"),
        (named("left"), "&~", named("left"), ""),
    ],
    ids=str,
)
def test_a_structural_operator_finds_the_related_of_its_right_side(left: Any, op: str, right: Any, kept: str) -> None:
    """7; 15.4: below a span whose parent was not received too; 15.11: `&>>` and `&<<` miss nothing."""
    assert found(TREE, both(left, op, right)) == kept


def test_several_roots_are_siblings_also_those_whose_parent_was_not_received() -> None:
    """7, 15.4."""
    assert found(TREE, both(named("root"), "~", where())) == "lost"


def test_a_late_parent_joins_the_trees() -> None:
    """15.4."""
    assert found([*TREE, one("late", 99, parent=1)], both(named("root"), ">>", named("below"))) == "below"


def test_operators_nest_as_they_stand() -> None:
    """2: `{root} >> {left} > {}` asks first for what stands left."""
    assert found(TREE, both(both(named("root"), ">>", named("left")), ">", where())) == "leaf"


PAIR = [
    one("caller", 1),
    one("client", 2, parent=1, kind="client"),
    one("server", 2, parent=1, kind="server", start_ns=1100),
    one("work", 3, parent=2),
    one("call", 4, parent=2, kind="client"),
    one("answer", 5, parent=2, kind="server"),
]


@pytest.mark.parametrize(
    ("parent", "children"),
    [("client", "answer"), ("server", "work call"), ("caller", "client server")],
)
def test_a_client_and_a_server_of_one_id_are_told_apart_by_the_kind_of_the_child(parent: str, children: str) -> None:
    """7."""
    assert found(PAIR, both(named(parent), ">", where())) == children


def test_a_server_that_names_its_own_id_as_parent_hangs_below_the_client() -> None:
    """7: a span is never its own parent."""
    trace = [one("client", 2, kind="client"), one("server", 2, parent=2, kind="server")]

    assert found(trace, both(named("client"), ">", where())) == "server"


def test_a_span_is_not_its_own_parent_where_another_has_its_id() -> None:
    """7."""
    trace = [one("twin", 2, start_ns=5), one("server", 2, parent=2, kind="server", start_ns=1)]

    assert found(trace, both(named("twin"), ">", where())) == "server"


def test_many_spans_of_one_id_lose_nobody() -> None:
    """15.4: every span is in a tree."""
    trace = [one("a", 1), one("b", 1, start_ns=5), one("c", 1), one("child", 2, parent=1)]

    assert found(trace, both(where(), ">", where())) == "child"
    assert found(trace, both(named("b"), ">", where())) == "child"


def test_a_ring_of_spans_is_a_tree_below_its_earliest() -> None:
    """15.4."""
    ring = [
        one("second", 1, parent=2, start_ns=20),
        one("first", 2, parent=3, start_ns=10),
        one("third", 3, parent=1, start_ns=30),
        one("below", 4, parent=3),
        one("self", 5, parent=5),
    ]

    assert found(ring, says_root()) == "first self"
    assert found(ring, both(named("first"), ">>", where())) == "second third below"


def says_root() -> Any:
    return where(says(intrinsic("nestedSetParent"), "<", 0))


def test_nested_set_numbers_enclose_those_below() -> None:
    """3.2."""
    family = Family(TREE)
    numbers = {span.name: family.nested_set(span) for span in TREE}

    assert numbers["root"] == (1, 8, -1)
    assert numbers["left"] == (2, 5, 1)
    assert numbers["leaf"] == (3, 4, 2)
    assert numbers["right"] == (6, 7, 1)
    assert numbers["below"] == (10, 11, 9)


def test_a_wrapped_pipeline_lends_its_surviving_spans() -> None:
    """7."""
    many = wrapped(named("left", "right"), keep(count(), ">", 1))
    few = wrapped(named("left"), keep(count(), ">", 1))

    assert found(TREE, both(many, ">>", wrapped(named("leaf")))) == "leaf"
    assert found(TREE, both(few, ">>", wrapped(named("leaf")))) == ""


def test_a_spanset_operator_refuses_several_spansets() -> None:
    """7."""
    stages = where(), GroupBy(intrinsic("name")), both(where(), ">", where())

    with pytest.raises(SeveralSpansetsError):
        found(TREE, *stages)


# ---- groups


GROUPED = having(x={"a": 1, "b": "u"}, y={"a": 2, "b": "v"}, z={"a": 1, "b": "v"}, none={}, real={"a": 1.0})


def test_by_makes_one_spanset_a_value_and_nil_is_a_value() -> None:
    """8."""
    assert groups(GROUPED, where(), GroupBy(A)) == [
        ("x z", {"by(span.a)": 1}),
        ("y", {"by(span.a)": 2}),
        ("none", {"by(span.a)": None}),
        ("real", {"by(span.a)": 1.0}),
    ]


def test_by_after_by_refines_and_takes_expressions() -> None:
    """8."""
    stages = where(says(A, "!=", 1.0)), GroupBy(says(A, "*", 2)), GroupBy(span("b"))

    assert groups(GROUPED[:2], *stages) == [("y", {"by(span.a * 2)": 4, "by(span.b)": "v"})]
    assert [names for names, _ in groups(GROUPED, where(), GroupBy(span("b")), GroupBy(A))] == [
        "x",
        "y",
        "z",
        "none",
        "real",
    ]


def test_an_array_groups_as_its_only_element_or_as_nil() -> None:
    """9.3, taken for by() of spansets too."""
    trace = having(one={"a": ["x"]}, text={"a": "x"}, two={"a": ["x", "y"]}, none={})

    assert [names for names, _ in groups(trace, where(), GroupBy(A))] == ["one text", "two none"]


def test_a_filter_behind_by_drops_groups_and_keeps_what_was_said() -> None:
    """8."""
    assert groups(GROUPED, where(), GroupBy(A), named("y", "z")) == [
        ("z", {"by(span.a)": 1}),
        ("y", {"by(span.a)": 2}),
    ]


def test_coalesce_makes_one_spanset_and_forgets_what_was_said() -> None:
    """8."""
    stages = where(), GroupBy(A), keep(count(), "=", 1), Coalesce()

    assert groups(GROUPED, *stages) == [("y none real", {})]


def test_select_filters_nothing_and_shows_what_was_asked_for() -> None:
    """8."""
    (trace,) = search(query(named("x", "none"), Select((A, intrinsic("name")))), [GROUPED], *ALWAYS)

    shown = [{name: held.value for name, held in one.items()} for one in trace.spansets[0].selected]  # type: ignore[union-attr]

    assert shown == [{"span.a": 1, "name": "x"}, {"name": "none"}]


# ---- aggregates


NUMBERS = having(x={"a": 1, "b": -2}, y={"a": 4, "b": -4}, none={}, text={"a": "x"}, real={"b": 2.5})


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        (count(), 5),
        (of("min"), 1),
        (of("max"), 4),
        (of("sum"), 5),
        (of("avg"), 2.5),
        (of("min", span("b")), -4),
        (of("max", span("b")), 2.5),
        (of("avg", span("b")), -3.5 / 3),
        (of("sum", says(A, "*", 2)), 10),
        (of("max", intrinsic("duration")), 1000),
    ],
    ids=str,
)
def test_an_aggregate_skips_what_is_no_number_and_is_told(aggregate: Aggregate, value: float) -> None:
    """8; 15.11: also of negative numbers."""
    (group,) = groups(NUMBERS, where(), keep(aggregate, "=", value))

    assert list(group[1].values()) == [value]


def test_without_a_number_there_is_no_spanset() -> None:
    """8."""
    assert found(NUMBERS, named("none", "text"), keep(of("sum"), "<=", 0)) == ""
    assert found(NUMBERS, named("none", "text"), keep(of("sum"), "!=", 0)) == ""


def test_a_scalar_filter_may_stand_first_and_keeps_spansets() -> None:
    """2, 8: `count() > 3 | { .x }`."""
    stages = keep(count(), ">", 4), named("x")

    assert groups(NUMBERS, *stages) == [("x", {"count()": 5})]
    assert found(NUMBERS[:4], *stages) == ""


def test_a_scalar_filter_counts_group_by_group() -> None:
    """8."""
    assert groups(GROUPED, where(), GroupBy(A), keep(count(), ">", 1)) == [("x z", {"by(span.a)": 1, "count()": 2})]


SLOW = [one("slow", 1, end_ns=1900), one("quick", 2, end_ns=1100), one("other", 3, end_ns=1100)]


def test_aggregates_compare_with_each_other_and_calculate() -> None:
    """15.5: `max(duration) > 2 * avg(duration)`."""
    longest, mean = of("max", intrinsic("duration")), of("avg", intrinsic("duration"))

    assert groups(SLOW, keep(longest, ">", calculated(2, "*", mean))) == [
        ("slow quick other", {"max(duration)": 900, "avg(duration)": 367})
    ]
    assert found(SLOW, keep(longest, ">", calculated(3, "*", mean))) == ""


def test_a_literal_may_stand_left_of_an_aggregate() -> None:
    """15.5."""
    assert found(SLOW, keep(2, "<", count())) == "slow quick other"
    assert found(SLOW, keep(3, "<", count())) == ""


def test_durations_compare_with_plain_numbers_as_nanoseconds() -> None:
    """8."""
    longest = of("max", intrinsic("duration"))

    assert found(SLOW, keep(longest, ">", 899.5)) != ""
    assert found(SLOW, keep(longest, ">", ns(900))) == ""


def test_division_by_zero_among_aggregates_drops_the_spanset() -> None:
    """15.9."""
    assert found(SLOW, keep(calculated(count(), "/", 0), "!=", 1)) == ""


def test_pipelines_compare_with_each_other() -> None:
    """15.5: `({} | count()) > ({ ... } | count())` keeps the spans of the traces for which it holds."""
    everything, quick = wrapped(where()).pipeline, wrapped(named("quick", "none")).pipeline
    none = wrapped(NONE).pipeline
    all_of_them = ScalarPipeline(everything, count())

    assert found(SLOW, keep(all_of_them, ">", ScalarPipeline(quick, count()))) == "slow quick other"
    assert found(SLOW, keep(all_of_them, "=", ScalarPipeline(quick, count()))) == ""
    assert found(SLOW, keep(ScalarPipeline(none, count()), "=", 0)) == "slow quick other"
    assert found(SLOW, keep(ScalarPipeline(none, of("max")), "!=", 0)) == ""


# ---- what a search finds


def test_a_search_finds_the_newest_traces_first() -> None:
    """15.6; ties by ID."""
    traces = [[one("x", trace_id=bytes([id_]) * 16, start_ns=start)] for id_, start in ((1, 5), (3, 7), (2, 7), (4, 6))]

    found_ = search(query(where()), traces, *ALWAYS)

    assert [trace.trace_id[0] for trace in found_] == [2, 3, 4, 1]


@pytest.mark.parametrize(("start_ns", "end_ns", "hits"), [(0, 1899, 0), (0, 1900, 1), (2000, 9999, 1), (2001, 9999, 0)])
def test_a_trace_is_found_if_a_span_of_its_answer_overlaps_the_time_range(
    start_ns: int, end_ns: int, hits: int
) -> None:
    """12, 15.3."""
    trace = [one("early", 1, end_ns=1100), one("late", 2, start_ns=1900)]

    found_ = search(query(named("late")), [trace], start_ns, end_ns)

    assert len(found_) == hits


def test_a_found_trace_says_who_took_part() -> None:
    """11."""
    trace = [
        one("root", 1, resource={"service.name": "shop"}),
        one("x", 2, parent=1, status="error", resource={"service.name": "cart"}, end_ns=2500),
        one("y", 3, parent=1, resource={"service.name": "cart"}),
    ]

    (found_,) = search(query(named("x")), [trace], *ALWAYS)

    assert (found_.root_name, found_.root_service) == ("root", "shop")
    assert (found_.start_ns, found_.duration_ns) == (1000, 1500)
    assert found_.service_stats == {"shop": (1, 0), "cart": (2, 1)}


def test_an_operator_keeps_what_was_said_of_the_spanset_before() -> None:
    """8: nothing is said of it anew."""
    operation = SpansetOperation(">", named("root"), where())

    assert groups(TREE, keep(count(), "=", 6), operation) == [("left right", {"count()": 6})]

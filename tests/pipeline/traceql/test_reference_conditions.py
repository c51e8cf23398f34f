"""What one condition keeps: missing values, types, numbers, arrays, NOT, events (sections 3, 5 and 15)."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.traceql.tree import Attribute, Binary, Field, Static, Unary
from tests.pipeline.traceql.by_hand import (
    event,
    found,
    having,
    intrinsic,
    kind,
    link,
    no,
    ns,
    one,
    resource,
    says,
    span,
    status,
    unscoped,
    where,
)
from tests.pipeline.traceql.reference.model import Event, Link, Trace

A, B, FLAG = span("a"), span("b"), span("flag")
KINDS_OF_VALUES = having(
    int={"a": 1}, float={"a": 1.5}, string={"a": "1"}, true={"a": True}, false={"a": False}, bytes={"a": b"1"}, none={}
)


def keeps(trace: Trace, condition: Any) -> str:
    return found(trace, where(condition))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(A, "!=", 7), "int float"),
        (says(A, "!=", "x"), "string"),
        (says(A, "!~", "x"), "string"),
        (says(A, "!=", True), "false"),
        (says(A, "<", 7), "int float"),
        (says(A, "=", B), ""),
        (says(A, "!=", B), ""),
    ],
    ids=str,
)
def test_a_missing_value_or_another_type_is_no_match_also_under_not_equal(condition: Field, kept: str) -> None:
    """5.1, 5.2."""
    assert keeps(KINDS_OF_VALUES, condition) == kept


def test_nil_asks_whether_there_is_a_value() -> None:
    """5.1, 3.1; 5.11: bytes are neither."""
    assert keeps(KINDS_OF_VALUES, says(A, "=", None)) == "none"
    assert keeps(KINDS_OF_VALUES, says(A, "!=", None)) == "int float string true false"
    assert keeps(KINDS_OF_VALUES, says(None, "=", A)) == "none"


def test_nil_compared_with_nil_is_false_either_way() -> None:
    """4.7."""
    assert keeps(KINDS_OF_VALUES, says(None, "=", None)) == ""
    assert keeps(KINDS_OF_VALUES, says(None, "!=", None)) == ""


def test_nil_beside_other_conditions_loses_no_span() -> None:
    """15.11."""
    trace = having(x={"b": 1}, y={"a": 1, "b": 1}, z={})

    assert keeps(trace, says(says(A, "=", None), "&&", says(B, "=", 1))) == "x"


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(A, ">", 1), "c d"),
        (says(A, "=", 1), "a b"),
        (says(A, "=", 1.0), "a b"),
        (says(A, ">=", 1.5), "c d"),
        (says(1, "<", A), "c d"),
        (says(A, "=", B), "a d"),
        (says(A, "=", ns(2)), "d"),
    ],
    ids=str,
)
def test_numbers_compare_as_numbers(condition: Field, kept: str) -> None:
    """15.2; 15.11: also with the literal on the left."""
    trace = having(a={"a": 1, "b": 1.0}, b={"a": 1.0, "b": 2}, c={"a": 1.5}, d={"a": 2, "b": 2}, e={"a": "1"})

    assert keeps(trace, condition) == kept


def test_strings_compare_by_bytes_and_case() -> None:
    """5.4."""
    trace = having(upper={"a": "B"}, lower={"a": "b"}, umlaut={"a": "ä"}, wide={"a": "\uffee"}, beyond={"a": "😀"})

    assert keeps(trace, says(A, "=", "b")) == "lower"
    assert keeps(trace, says(A, "<", "b")) == "upper"
    assert keeps(trace, says(A, ">", "\uffee")) == "beyond"


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("GET", ""),
        ("GET.*", "get lines"),
        (".* /", "get"),
        ("(?i)get.*", "get lines small"),
        ("GET /|POST", "get post"),
    ],
)
def test_a_regex_matches_the_whole_text_over_newlines(pattern: str, kept: str) -> None:
    """5.5."""
    trace = having(get={"a": "GET /"}, post={"a": "POST"}, lines={"a": "GET\n/x"}, small={"a": "get"}, number={"a": 1})

    assert keeps(trace, says(A, "=~", pattern)) == kept


def test_a_regex_not_matched_needs_a_string_to_be_there() -> None:
    """5.1, 5.5."""
    trace = having(get={"a": "GET"}, post={"a": "POST"}, number={"a": 1}, none={})

    assert keeps(trace, says(A, "!~", "G.*")) == "post"


# ---- calculating


@pytest.mark.parametrize(
    ("left", "op", "right", "answer"),
    [
        (7, "+", 2, 9),
        (7, "/", 2, 3),
        (-7, "/", 2, -3),
        (-7, "%", 3, -1),
        (7, "/", 2.0, 3.5),
        (2, "^", 3, 8),
        (2, "^", -1, 0),
        (2.0, "^", -1, 0.5),
        (ns(3), "/", 2, 1.5),
        (7.5, "%", 2, 1.5),
    ],
)
def test_ints_stay_ints_and_everything_else_is_a_float(left: Any, op: str, right: Any, answer: Any) -> None:
    """5.6; 15.11: `^` is not reversed."""
    assert keeps(having(x={}), says(says(left, op, right), "=", answer)) == "x"


@pytest.mark.parametrize("op", ["/", "%"])
def test_division_by_zero_is_no_match_and_no_failure(op: str) -> None:
    """15.9."""
    trace = having(zero={"a": 0}, none={}, one={"a": 1}, float={"a": 0.0})

    assert keeps(trace, says(says(4, op, A), ">=", 0)) == "one"


@pytest.mark.parametrize("held", ["x", True, [1, 2], b"1"], ids=str)
def test_arithmetic_with_anything_but_numbers_is_no_match(held: Any) -> None:
    """5.10, 15.11: array arithmetic and `-x` of another type fail no query."""
    trace = having(odd={"a": held}, number={"a": 1})

    assert keeps(trace, says(says(A, "+", 1), "!=", 9)) == "number"
    assert keeps(trace, says(Unary("-", A), "<", 0)) == "number"


# ---- arrays


ARRAYS = having(
    xy={"a": ["x", "y"]}, y={"a": ["y"]}, alone={"a": "x"}, ints={"a": [1, 2]}, floats={"a": [2.5]}, empty={"a": []}
) + having(mixed={"a": [1, "x"]}, map={"a": {"x": 1}}, none={})


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(A, "=", "x"), "xy alone"),
        (says("x", "=", A), "xy alone"),
        (says(A, "=~", "[x]"), "xy alone"),
        (says(A, "!=", "x"), "y"),
        (says(A, "!~", "[x]"), "y"),
        (says(A, ">", 1), "ints floats"),
        (says(2, "<", A), "floats"),
        (says(A, "!=", 1), "floats"),
        (says(A, "<", "y"), "xy alone"),
        (says(A, "!=", None), "xy y alone ints floats"),
        (says(A, "=", None), "none"),
    ],
    ids=str,
)
def test_an_array_matches_by_any_element_and_differs_by_all(condition: Field, kept: str) -> None:
    """15.8; 5.11: empty, mixed and mapped values match nothing, neither nil nor not nil."""
    assert keeps(ARRAYS, condition) == kept


def test_an_array_of_bools_is_true_if_one_is() -> None:
    """5.11."""
    trace = having(some={"flag": [False, True]}, none={"flag": [False]}, yes={"flag": True}, text={"flag": "true"})

    assert keeps(trace, FLAG) == "some yes"


# ---- logic


FLAGS = having(yes={"a": True, "b": False}, no={"a": False, "b": True}, text={"a": "x", "b": True}, none={})


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (A, "yes"),
        (says(A, "&&", B), ""),
        (says(A, "||", B), "yes no text"),
        (says(A, "=", False), "no"),
        (no(A), "no text none"),
        (no(says(A, "=", True)), "no text none"),
        (no(says(A, "!=", True)), "yes text none"),
        (no(no(A)), "yes"),
        (no(says(A, "=", None)), "yes no text"),
    ],
    ids=str,
)
def test_not_keeps_what_the_condition_does_not(condition: Field, kept: str) -> None:
    """15.1; 5.8: an operand that is no bool is false; 15.11: `a || b` needs one of them."""
    assert keeps(FLAGS, condition) == kept


# ---- scopes


def test_an_unscoped_name_is_the_spans_then_the_resources() -> None:
    """3.1."""
    trace = [
        one("span", attributes={"a": 1}, resource={"a": 2}),
        one("resource", 2, resource={"a": 1}),
        one("odd", 3, attributes={"a": b""}, resource={"a": 1}),
    ]

    assert keeps(trace, says(unscoped("a"), "=", 1)) == "span resource"
    assert keeps(trace, says(resource("a"), "=", 1)) == "resource odd"
    assert keeps(trace, says(A, "=", 1)) == "span"


def test_an_unscoped_name_is_nil_where_span_or_resource_lacks_it() -> None:
    """3.1."""
    trace = [one("both", attributes={"a": 1}, resource={"a": 1}), one("span", 2, attributes={"a": 1}), one("none", 3)]

    assert keeps(trace, says(unscoped("a"), "=", None)) == "span none"
    assert keeps(trace, says(unscoped("a"), "!=", None)) == "both span"


def test_a_service_name_is_always_there() -> None:
    """3.1."""
    trace = [one("shop", resource={"service.name": "shop"}), one("none", 2)]

    assert keeps(trace, says(resource("service.name"), "=", "")) == "none"
    assert keeps(trace, says(resource("service.name"), "!=", None)) == "shop none"
    assert keeps(trace, says(resource("service.name"), "!=", "shop")) == "none"


PARENTS = [
    one("root", 1, attributes={"a": 1}, resource={"service.name": "shop"}),
    one("same", 2, parent=1, attributes={"a": 2}, resource={"service.name": "shop"}),
    one("other", 3, parent=2, resource={"service.name": "cart", "a": 5}),
    one("below", 4, parent=3),
    one("orphan", 5, parent=99, attributes={"a": 1}),
]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(Attribute("", "a", parent=True), ">=", 1), "same other below"),
        (says(Attribute("span", "a", parent=True), "!=", None), "same other"),
        (says(Attribute("resource", "a", parent=True), "=", 5), "below"),
        (says(Attribute("span", "a", parent=True), "=", None), "root below orphan"),
        (
            says(Attribute("resource", "service.name", parent=True), "!=", resource("service.name")),
            "other below",
        ),
        (says(intrinsic("parent"), "=", None), "root orphan"),
        (says(intrinsic("parent"), "!=", None), "same other below"),
    ],
    ids=str,
)
def test_the_parents_attributes_can_be_asked_for(condition: Field, kept: str) -> None:
    """15.5: no parent, no value; 15.4: a span whose parent was not received has none."""
    assert keeps(PARENTS, condition) == kept


EVENTS = [
    one("same", 1, events=(Event(1500, "e", {"a": 1, "b": 2}),)),
    one("apart", 2, events=(Event(1500, "e", {"a": 1}), Event(1600, "f", {"b": 2}))),
    one("bare", 3, events=(Event(1100, "e"),)),
    one("none", 4),
]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(event("a"), "=", 1), "same apart"),
        (says(event("b"), "=", 2), "same apart"),
        (says(says(event("a"), "=", 1), "&&", says(event("b"), "=", 2)), "same"),
        (says(says(event("a"), "=", 1), "||", says(event("b"), "=", 2)), "same apart"),
        (says(says(event("a"), "=", 1), "&&", says(intrinsic("event:name"), "=", "f")), ""),
        (says(event("a"), "=", None), "apart"),
        (says(event("a"), "!=", None), "same apart"),
        (says(says(event("a"), "=", None), "&&", says(event("b"), "=", 2)), "apart"),
        (no(says(event("a"), "=", 1)), "bare none"),
        (says(intrinsic("event:name"), "!=", "e"), "apart"),
        (says(intrinsic("event:timeSinceStart"), "<", ns(200)), "bare"),
    ],
    ids=str,
)
def test_several_event_conditions_hold_on_the_same_event(condition: Field, kept: str) -> None:
    """5.12, 15.10; 3.1: `event.a = nil` needs an event with attributes."""
    assert keeps(EVENTS, condition) == kept


def test_several_link_conditions_hold_on_the_same_link() -> None:
    """15.10."""
    to, other = Link(b"\2" * 16, b"\3" * 8, {"a": 1}), Link(b"\4" * 16, b"\5" * 8, {"b": 1})
    trace = [one("both", links=(to, other)), one("first", 2, links=(to,)), one("none", 3)]
    linked = says(intrinsic("link:traceID"), "=", "02" * 16)

    assert keeps(trace, linked) == "both first"
    assert keeps(trace, says(linked, "&&", says(link("a"), "=", 1))) == "both first"
    assert keeps(trace, says(linked, "&&", says(link("b"), "=", 1))) == ""
    assert keeps(trace, says(intrinsic("link:spanID"), "=", "05" * 8)) == "both"


def test_a_scope_has_name_version_and_attributes() -> None:
    """3.1, 3.2."""
    trace = [one("a", scope_name="lib", scope_version="2", scope_attributes={"a": 1}), one("b", 2)]

    assert keeps(trace, says(intrinsic("instrumentation:name"), "=", "lib")) == "a"
    assert keeps(trace, says(intrinsic("instrumentation:version"), "!=", "2")) == "b"
    assert keeps(trace, says(Attribute("instrumentation", "a"), "=", 1)) == "a"
    assert keeps(trace, says(Attribute("instrumentation", "b"), "=", None)) == "a"


# ---- intrinsics


FAMILY = [
    one("root", 1, status="ok", kind="server", start_ns=1000, end_ns=9000, resource={"service.name": "shop"}),
    one("child", 2, parent=1, status="error", status_message="bad", kind="client", start_ns=2000, end_ns=12000),
    one("later", 3, start_ns=3000, end_ns=3000),
]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (says(intrinsic("duration"), ">", ns(7999)), "root child"),
        (says(intrinsic("duration"), ">", 8000), "child"),
        (says(intrinsic("duration"), "<", 0.5), "later"),
        (says(intrinsic("name"), "=", "child"), "child"),
        (says(intrinsic("status"), "!=", status("ok")), "child later"),
        (says(intrinsic("kind"), "=", kind("client")), "child"),
        (says(intrinsic("statusMessage"), "=", ""), "root later"),
        (says(intrinsic("statusMessage"), "!=", None), "root child later"),
        (says(intrinsic("span:id"), "=", "0000000000000002"), "child"),
        (says(intrinsic("span:parentID"), "=", "0" * 16), "root later"),
        (says(intrinsic("span:parentID"), "=", ""), ""),
        (says(intrinsic("span:childCount"), ">", 0), "root"),
        (says(intrinsic("traceDuration"), "=", ns(11000)), "root child later"),
        (says(intrinsic("rootName"), "=", "root"), "root child later"),
        (says(intrinsic("rootServiceName"), "=", "shop"), "root child later"),
        (says(intrinsic("nestedSetParent"), "<", 0), "root later"),
        (says(intrinsic("nestedSetLeft"), ">", 0), "root child later"),
        (says(intrinsic("event:name"), "!=", None), ""),
    ],
    ids=str,
)
def test_intrinsics_are_what_the_span_and_its_trace_say(condition: Field, kept: str) -> None:
    """3.2; 15.3: of the whole trace."""
    assert keeps(FAMILY, condition) == kept


@pytest.mark.parametrize("literal", ["01" + "0" * 30, "1" + "0" * 30, "0001" + "0" * 30])
def test_leading_zeros_of_a_trace_id_do_not_count(literal: str) -> None:
    """3.2."""
    trace = [one("x", trace_id=b"\1" + b"\0" * 15)]

    assert keeps(trace, says(intrinsic("trace:id"), "=", literal)) == "x"
    assert keeps(trace, says(intrinsic("trace:id"), "!=", literal)) == ""


def test_words_of_status_and_kind_are_no_strings() -> None:
    """4: other types, so at run time no match (5.2)."""
    trace = [one("x", attributes={"a": "ok"}, status="ok")]

    assert keeps(trace, says(A, "=", status("ok"))) == ""
    assert keeps(trace, Binary("=", A, intrinsic("status"))) == ""
    assert keeps(trace, says(A, "=", Static("string", "ok"))) == "x"


def test_without_a_received_root_the_trace_has_no_name() -> None:
    """3.2, 15.4: an orphan is a root of its tree, but does not name the trace."""
    trace = [one("orphan", 2, parent=1)]

    assert keeps(trace, says(intrinsic("rootName"), "!=", "x")) == ""
    assert keeps(trace, says(intrinsic("nestedSetParent"), "<", 0)) == "orphan"


def test_the_earliest_of_several_roots_names_the_trace() -> None:
    """3.2."""
    trace = [one("late", 1, start_ns=5), one("early", 2, start_ns=3), one("twin", 3, start_ns=3)]

    assert keeps(trace, says(intrinsic("rootName"), "=", "early")) == "late early twin"

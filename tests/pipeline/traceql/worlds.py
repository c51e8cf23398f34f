"""Hypothesis strategy for small worlds of traces: few names and values, so that questions hit, and all that is odd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from pipeline.traceql.tree import STATUSES
from tests.pipeline.traceql.reference.model import Event, Link, Span, Trace

S, MS = 10**9, 10**6
# To shrink a world takes minutes
AS_DRAWN = settings(
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
T0_NS = 1_700_000_000 * S
# Around all that happens in a world
WORLD_START_NS, WORLD_END_NS = T0_NS - 10 * S, T0_NS + 100 * S
NAMES = ("get", "put", "db")
SERVICES = ("shop", "cart")
WORDS = ("x", "y", "xy", "X", "ok", "")
INTS = (-2, 0, 1, 2, 3)
FLOATS = (-1.5, 0.0, 0.5, 2.0)
DURATIONS_NS = (0, 1 * MS, 2 * MS, 5 * MS, 1 * S, 2 * S)
ARRAYS: tuple[list[Any], ...] = (["x"], ["x", "y"], ["", "xy"], [1, 2], [3], [0.5, 2.0], [True], [False, True], [False])
OPAQUE: tuple[Any, ...] = ([], [1, "x"], b"x", b"", {"x": 1})
TRACE_STATES = ("", "", "ot=th:8", "a=b,ot=rv:1;th:c;x:y", "ot=th:0", "ot=th:xx", "not=th:8", "ot=th:ffffffffffffffff")
LOST_ID = b"\xee" * 8

# Attribute name -> what it holds: `n` mostly numbers, `s` mostly strings, `flag` bools, `any` all there is
HELD: dict[str, tuple[Any, ...]] = {
    "n": (*INTS, *INTS, *INTS, *FLOATS, *FLOATS, "x", "2", True, [1, 2], b"x"),
    "s": (*WORDS, *WORDS, *WORDS, 1, False, ["x", "y"], {"x": 1}),
    "flag": (True, False),
    "any": (1, 2, 0.5, 2.0, "x", "y", True, False, *ARRAYS, *OPAQUE),
}
CHANCE, SAMPLED = Random(15), Random(16)
T = TypeVar("T")


def attributes(*names: str) -> dict[str, Any]:
    """Of each name three times in four some value."""
    return {name: CHANCE.choice(HELD[name]) for name in names if CHANCE.random() < 0.75}


def trace_id(number: int) -> bytes:
    """Of differing numbers of leading zeros, as hex digits."""
    return (0x1A0B << 8 * number | number).to_bytes(16, "big")


def span_id(number: int) -> bytes:
    """The same in each trace."""
    return number.to_bytes(8, "big")


def resource() -> dict[str, Any]:
    service = {} if CHANCE.random() < 0.1 else {"service.name": CHANCE.choice(SERVICES)}
    return {**service, **(attributes("n", "s", "any") if CHANCE.random() < 0.6 else {})}


def event() -> Event:
    time_ns = CHANCE.choice((0, MS, 2 * S))
    return Event(time_ns, CHANCE.choice(("", "e", "f")), attributes("n", "s", "any"))


def link() -> Link:
    return Link(trace_id(CHANCE.randrange(3)), span_id(CHANCE.randrange(1, 3)), attributes("n", "s"))


def scope() -> tuple[str, str, dict[str, Any]]:
    return CHANCE.choice(("", "lib", "other")), CHANCE.choice(("", "1", "2")), attributes("n", "s")


def some(make: Callable[[], T]) -> tuple[T, ...]:
    return tuple(make() for _ in range(CHANCE.choice((0, 1, 1, 2))))


def content() -> Span:
    """A span but for its IDs, which starts some milliseconds after 0."""
    start_ns = CHANCE.choice((0, 1, 7, 500, 1000, 9000)) * MS
    name, version, of_scope = scope()
    return Span(
        trace_id=b"",
        span_id=b"",
        name=CHANCE.choice(NAMES),
        kind=CHANCE.choice(("internal", "server", "client", "client", "producer", "consumer", "unspecified")),
        status=CHANCE.choice(STATUSES),
        status_message=CHANCE.choice(("", "", "bad")),
        start_ns=start_ns,
        end_ns=start_ns + CHANCE.choice(DURATIONS_NS),
        attributes=attributes("n", "s", "flag", "any"),
        resource=resource(),
        scope_name=name,
        scope_version=version,
        scope_attributes=of_scope,
        events=some(event),
        links=some(link),
        trace_state=SAMPLED.choice(TRACE_STATES),
    )


# Made once, from small to large: a span's content is one draw, which is fast and shrinks
CONTENTS = st.sampled_from(sorted((content() for _ in range(600)), key=lambda one: len(repr(one))))
PLACES = st.integers(0, 19)
SPANS_OF_A_TRACE = st.sampled_from((1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8))
TRACES_OF_A_WORLD = st.sampled_from((1, 2, 3, 4, 5, 6, 4, 5, 6))
FIRST_S = st.integers(0, 40)


def placed(one: Span, place: int, earlier: list[Span]) -> Span:
    """With IDs: a root, one whose parent is not there, the server of a client of the same ID, or below another."""
    own = span_id(len(earlier) + 1)
    if not earlier or place == 0:
        return replace(one, span_id=own)
    if place == 1:
        return replace(one, span_id=own, parent_id=LOST_ID)
    ids = [other.span_id for other in earlier]
    clients = [other for other in earlier if other.kind == "client" and ids.count(other.span_id) == 1]
    if place < 6 and clients:
        client = clients[0]
        return replace(
            one, span_id=client.span_id, kind="server", parent_id=(client.parent_id, client.span_id)[place % 2]
        )
    return replace(one, span_id=own, parent_id=ids[place % len(ids)])


@st.composite
def traces(draw: st.DrawFn, number: int = 0) -> Trace:
    """1 to 8 spans with IDs of their own, but for pairs of client and server. No rings: parents are earlier spans."""
    first_ns = T0_NS + draw(FIRST_S) * S
    trace: Trace = []
    for _ in range(draw(SPANS_OF_A_TRACE)):
        one = placed(draw(CONTENTS), draw(PLACES), trace)
        events = tuple(replace(each, time_ns=first_ns + each.time_ns) for each in one.events)
        start_ns, end_ns = first_ns + one.start_ns, first_ns + one.end_ns
        trace.append(replace(one, trace_id=trace_id(number), start_ns=start_ns, end_ns=end_ns, events=events))
    return trace


@st.composite
def worlds(draw: st.DrawFn) -> list[Trace]:
    """1 to 6 traces."""
    return [draw(each) for each in TRACES[: draw(TRACES_OF_A_WORLD)]]


TRACES = [traces(number) for number in range(6)]

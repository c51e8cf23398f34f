"""Counts of services and attributes: exact while they are few, bounded and never losing a span when they are many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.totals import NAME_CHARS_MAX, OTHERS, Totals, bounded
from tests.pipeline.store.test_catalog import entry

NAMES = st.sampled_from(["a", "b", "c", "d", OTHERS, "x" * (NAME_CHARS_MAX + 1)])
SERVICES = st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(1, 9), min_size=1, max_size=5), max_size=5)


def spans_in(services: dict[str, dict[str, int]]) -> int:
    return sum(sum(operations.values()) for operations in services.values())


@given(SERVICES, st.integers(1, 12))
def test_the_bound_keeps_the_sum_of_spans_and_the_most_frequent(
    services: dict[str, dict[str, int]], operations_max: int
) -> None:
    kept = bounded(services, operations_max)

    named = [(s, o) for s, operations in kept.items() for o in operations if OTHERS not in (s, o)]
    left_out = [
        spans
        for s, operations in services.items()
        for o, spans in operations.items()
        if (s, o) not in named and len(s + o) < NAME_CHARS_MAX and OTHERS not in (s, o)
    ]
    assert spans_in(kept) == spans_in(services)
    assert len(named) <= operations_max
    assert all(len(s) <= NAME_CHARS_MAX and len(o) <= NAME_CHARS_MAX for s, o in named)
    assert not left_out or not named or max(left_out) <= min(services[s][o] for s, o in named)


@given(SERVICES)
def test_a_bound_that_was_kept_is_kept_again_without_change(services: dict[str, dict[str, int]]) -> None:
    once = bounded(services, 4)

    assert bounded(once, 1000) == once


def test_totals_add_up_and_come_back_from_their_bytes() -> None:
    totals = Totals()
    for number in range(3):
        totals.add(entry(number))

    again = Totals(totals.to_json())

    assert again.services == {"web": {"GET /": 6}}
    assert again.attributes == {"span.http.route": 3}

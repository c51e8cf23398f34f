"""The deduplication window: what it has seen, and when it forgets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.partition.window import KEY_DTYPE, Keys, Window

SECOND = 1_000_000_000


def keys_of(*numbers: int) -> Keys:
    return np.array([(number * 7919, number) for number in numbers], dtype=KEY_DTYPE)


def test_a_key_is_held_after_it_was_added_and_not_before() -> None:
    window = Window(window_s=60, keys_max=1000)

    before = window.holds(keys_of(1, 2))
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0)

    assert before.tolist() == [False, False]
    assert window.holds(keys_of(1, 2)).tolist() == [True, False]


def test_keys_that_agree_in_one_half_are_told_apart() -> None:
    window = Window(window_s=60, keys_max=1000)

    window.add(np.array([(5, 1)], dtype=KEY_DTYPE), time_max_unix_ns=SECOND, last=0)

    assert window.holds(np.array([(5, 2), (6, 1), (5, 1)], dtype=KEY_DTYPE)).tolist() == [False, False, True]


def test_a_key_outlives_the_window_until_its_record_is_in_a_chunk() -> None:
    window = Window(window_s=60, keys_max=1000)
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0)
    window.add(keys_of(2), time_max_unix_ns=1000 * SECOND, last=1)

    window.forget(mark=0)
    unsealed = window.holds(keys_of(1, 2)).tolist()
    window.forget(mark=1)

    assert unsealed == [True, True]
    assert window.holds(keys_of(1, 2)).tolist() == [False, True]


def test_a_long_outage_does_not_empty_the_window() -> None:
    window = Window(window_s=60, keys_max=1000)
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0)

    window.forget(mark=1)  # the wall clock may be a day ahead; record time stands still

    assert window.holds(keys_of(1)).tolist() == [True]


def test_more_keys_than_the_limit_are_forgotten_oldest_first() -> None:
    window = Window(window_s=10**6, keys_max=3)
    for number in range(5):
        window.add(keys_of(10 * number, 10 * number + 1), time_max_unix_ns=SECOND, last=number)

    window.forget(mark=4)

    assert len(window) <= 3 + 2 * 4  # whole runs go, and a merged run is one
    assert window.holds(keys_of(40, 41)).all()


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=60))
def test_the_window_agrees_with_a_set(batches: list[list[int]]) -> None:
    window, seen = Window(window_s=10**6, keys_max=10**6), set[int]()

    for last, batch in enumerate(batches):
        asked = keys_of(*batch)
        held = window.holds(asked)
        assert held.tolist() == [number in seen for number in batch]
        fresh = list(dict.fromkeys(number for number in batch if number not in seen))
        window.add(keys_of(*fresh), time_max_unix_ns=last * SECOND, last=last)
        seen.update(fresh)

    assert len(window) == len(seen)


def test_many_small_batches_leave_few_runs() -> None:
    window = Window(window_s=10**6, keys_max=10**6)

    for last in range(1000):
        window.add(keys_of(*range(20 * last, 20 * last + 20)), time_max_unix_ns=SECOND, last=last)

    assert window.runs <= 24

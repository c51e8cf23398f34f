"""The deduplication window: what it has seen, and when it forgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.partition.window import KEY_DTYPE, Keys, Window

SECOND = 1_000_000_000


def keys_of(*numbers: int) -> Keys:
    return np.array([(number * 7919, number) for number in numbers], dtype=KEY_DTYPE)


def test_a_key_is_held_after_it_was_added_and_not_before() -> None:
    window = Window(window_s=60, keys_max=1000)

    before = window.holds(keys_of(1, 2))
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0, now_ns=0)

    assert before.tolist() == [False, False]
    assert window.holds(keys_of(1, 2)).tolist() == [True, False]


def test_keys_that_agree_in_one_half_are_told_apart() -> None:
    window = Window(window_s=60, keys_max=1000)

    window.add(np.array([(5, 1)], dtype=KEY_DTYPE), time_max_unix_ns=SECOND, last=0, now_ns=0)

    assert window.holds(np.array([(5, 2), (6, 1), (5, 1)], dtype=KEY_DTYPE)).tolist() == [False, False, True]


def test_a_key_outlives_the_window_until_its_record_is_in_a_chunk() -> None:
    window = Window(window_s=60, keys_max=1000)
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0, now_ns=0)
    window.add(keys_of(2), time_max_unix_ns=1000 * SECOND, last=1, now_ns=999 * SECOND)

    window.forget(mark=0, now_ns=999 * SECOND)
    unsealed = window.holds(keys_of(1, 2)).tolist()
    window.forget(mark=1, now_ns=999 * SECOND)

    assert unsealed == [True, True]
    assert window.holds(keys_of(1, 2)).tolist() == [False, True]


def test_a_long_outage_does_not_empty_the_window() -> None:
    window = Window(window_s=60, keys_max=1000)
    window.add(keys_of(1), time_max_unix_ns=SECOND, last=0, now_ns=0)

    window.forget(mark=1, now_ns=86_400 * SECOND)  # record time stands still

    assert window.holds(keys_of(1)).tolist() == [True]


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_jump_of_the_clock_that_writes_records_does_not_empty_the_window(jump_s: int) -> None:
    window = Window(window_s=60, keys_max=1000)
    times_s = (5000, 5001 + jump_s, 5002)  # the second one's clock was wrong
    for at, time_s in enumerate(times_s):
        window.add(keys_of(at), time_max_unix_ns=time_s * SECOND, last=at, now_ns=at * SECOND)
        window.forget(mark=at + 1, now_ns=at * SECOND)

    window.forget(mark=3, now_ns=59 * SECOND)

    assert window.holds(keys_of(0, 1, 2)).all()


def test_a_clock_that_was_ahead_and_is_right_again_leaves_a_window_that_forgets_in_its_time() -> None:
    window = Window(window_s=60, keys_max=1000)
    for at, time_s in enumerate((5000, 8600, 5100, 8700, 8800)):
        window.add(keys_of(at), time_max_unix_ns=time_s * SECOND, last=at, now_ns=(5000 + 100 * at) * SECOND)
    window.forget(mark=5, now_ns=8800 * SECOND)

    assert window.holds(keys_of(0, 1, 2, 3, 4)).tolist() == [False, False, False, False, True]


def test_more_keys_than_the_limit_are_forgotten_oldest_first() -> None:
    window = Window(window_s=10**6, keys_max=3)
    for number in range(5):
        window.add(keys_of(10 * number, 10 * number + 1), time_max_unix_ns=SECOND, last=number, now_ns=0)

    window.forget(mark=4, now_ns=0)

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
        window.add(keys_of(*fresh), time_max_unix_ns=last * SECOND, last=last, now_ns=0)
        seen.update(fresh)

    assert len(window) == len(seen)


def test_many_small_batches_leave_few_runs() -> None:
    window = Window(window_s=10**6, keys_max=10**6)

    for last in range(1000):
        window.add(keys_of(*range(20 * last, 20 * last + 20)), time_max_unix_ns=SECOND, last=last, now_ns=0)

    assert window.runs <= 24

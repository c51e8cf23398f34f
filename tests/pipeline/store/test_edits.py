"""Edits and checkpoints: folded in order, of two with one number one counts, golden files of each format stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import edit_log
from pipeline.store.edits import Added, Edit, EditState, Removed, checkpoint_number, edit_name, edit_number
from pipeline.store.manifest import edits_entry, edits_in_entry
from tests.pipeline.store.memory_store import T0, TOPIC, MemoryStore, entry_of, manifest_of
from tests.pipeline.store.test_manifest import COUNTS, ENTRIES
from topics.errors import FormatVersionError, MalformedRecordError, StoreUnavailableError

GOLDEN = Path(__file__).parent / "golden"
TEXTS = st.text(max_size=5)
REMOVED = st.builds(Removed, bucket=TEXTS, name=TEXTS, traces_name=TEXTS, filter_name=TEXTS, removed_unix_ns=COUNTS)
ADDED = st.builds(
    Added, first=COUNTS, last=COUNTS, record_time_max_unix_ns=COUNTS, written_unix_ns=COUNTS, chunk=ENTRIES
)
EDITS = st.builds(
    Edit,
    topic=TEXTS,
    partition=st.integers(0, 2000),
    sequence=COUNTS,
    token=TEXTS,
    worker=TEXTS,
    written_unix_ns=COUNTS,
    oldest=COUNTS,
    removed=st.lists(REMOVED, max_size=2).map(tuple),
    added=st.lists(ADDED, max_size=2).map(tuple),
)


def edit_of(
    sequence: int,
    token: str = "t",
    *,
    removed: tuple[Removed, ...] = (),
    added: tuple[Added, ...] = (),
    oldest: int = 0,
) -> Edit:
    return Edit(
        topic=TOPIC,
        partition=0,
        sequence=sequence,
        token=token,
        worker="http://127.0.0.1:6066",
        written_unix_ns=T0,
        oldest=oldest,
        removed=removed,
        added=added,
    )


def added_of(first: int, last: int, token: str) -> Added:
    chunk = entry_of(first, last, token=token)
    return Added(first=first, last=last, record_time_max_unix_ns=T0, written_unix_ns=T0, chunk=chunk)


def merging() -> Edit:
    """An edit with every field set: two chunks become one."""
    old = (Removed.of(entry_of(0, 9), T0), Removed.of(entry_of(10, 19), T0))
    return edit_of(1, removed=old, added=(added_of(0, 19, "merged"),), oldest=0)


def read(store: MemoryStore) -> EditState:
    return edit_log.read(store, TOPIC, 0)[1]


@given(EDITS)
def test_an_edit_comes_back_as_it_was_written(edit: Edit) -> None:
    assert Edit.from_json(edit.to_json()) == edit


@given(st.lists(st.tuples(st.lists(REMOVED, max_size=2), st.lists(ADDED, max_size=2), COUNTS), max_size=4))
def test_a_checkpoint_comes_back_as_it_was_written(
    changes: list[tuple[list[Removed], list[Added], int]],
) -> None:
    state = EditState()
    for number, (removed, added, oldest) in enumerate(changes):
        state = state.after(edit_of(number + 1, removed=tuple(removed), added=tuple(added), oldest=oldest))

    assert EditState.from_json(state.to_json()) == state


def test_what_version_1_wrote_of_edits_is_read_and_written_still() -> None:
    """SPANSTREAM_GOLDEN=write makes the files of a format anew: only before its first release."""
    edit = merging()
    state = EditState().after(edit)
    if os.environ.get("SPANSTREAM_GOLDEN") == "write":
        (GOLDEN / "edit-1.json").write_bytes(edit.to_json())
        (GOLDEN / "checkpoint-1.json").write_bytes(state.to_json())

    assert Edit.from_json((GOLDEN / "edit-1.json").read_bytes()) == edit
    assert EditState.from_json((GOLDEN / "checkpoint-1.json").read_bytes()) == state
    assert edit.to_json() == (GOLDEN / "edit-1.json").read_bytes()
    assert state.to_json() == (GOLDEN / "checkpoint-1.json").read_bytes()


def test_a_later_format_of_edits_is_refused_with_a_sentence() -> None:
    for kind, name in ((Edit, "edit-1.json"), (EditState, "checkpoint-1.json")):
        later = (GOLDEN / name).read_bytes().replace(b'"format":1', b'"format":2', 1)
        with pytest.raises(FormatVersionError, match="format 2, this version reads up to 1: upgrade"):
            kind.from_json(later)
        for nonsense in (b"", b"{}", b"[]", b"null", b'{"format":1}', b'{"format":"x"}', b"\xff"):
            with pytest.raises(MalformedRecordError):
                kind.from_json(nonsense)


def test_an_entry_says_that_a_partition_has_edits() -> None:
    assert edits_in_entry(edits_entry(7)) == 7
    assert edits_in_entry(manifest_of(0, 9).to_entry()) is None
    with pytest.raises(MalformedRecordError):
        edits_in_entry(b'{"format":1,"edits":"x"}')


def test_a_merged_chunk_stands_in_the_place_of_its_parts() -> None:
    state = EditState().after(merging())

    found = [state.chunks_of(manifest_of(first, first + 9)) for first in (0, 10, 20)]

    assert found == [(entry_of(0, 19, token="merged"),), (), (entry_of(20, 29),)]


def test_an_edit_counts_only_after_the_one_before_it() -> None:
    with pytest.raises(MalformedRecordError, match="edit 3 does not follow 1"):
        EditState().after(merging()).after(edit_of(3))


def test_of_two_edits_with_one_number_one_is_taken() -> None:
    store = MemoryStore()

    taken = [edit_log.put(store, edit_of(1, "a")), edit_log.put(store, edit_of(1, "b"))]

    assert taken == [True, False]
    assert edit_log.put(store, edit_of(1, "a"))  # put once more, after an answer that was lost on the way


def test_an_edit_whose_answer_was_lost_is_known_by_its_token() -> None:
    store = MemoryStore()
    store.answers_lost = 1

    assert edit_log.put(store, edit_of(1, "a"))
    assert read(store).sequence == 1


def test_an_edit_that_comes_below_a_checkpoint_counts_for_nothing() -> None:
    """Its writer slept while others went on and drew together: its number is free."""
    store, state = MemoryStore(), EditState()
    for number in range(1, 6):
        edit = edit_of(number)
        assert edit_log.put(store, edit)
        state = state.after(edit)
    edit_log.draw_together(store, TOPIC, 0, state)

    with pytest.raises(StoreUnavailableError, match="a later checkpoint"):
        edit_log.put(store, edit_of(2, "late", removed=(Removed.of(entry_of(0, 9), T0),)))

    assert read(store) == state


@pytest.mark.parametrize("more", [0, 1])
def test_an_edit_that_was_drawn_together_before_its_writer_looked_is_not_taken_for_refused(more: int) -> None:
    """Another owner read it and put a checkpoint at once: whoever took it for refused deleted what counts."""
    store = MemoryStore()
    mine = edit_of(1, "mine", removed=(Removed.of(entry_of(0, 9), T0),))
    put_if_absent = store.put_if_absent

    def put_and_drawn_together(bucket: str, name: str, data: bytes) -> None:
        put_if_absent(bucket, name, data)
        if name == mine.name:
            store.put_if_absent = put_if_absent  # type: ignore[method-assign]
            for number in range(2, 2 + more):
                assert edit_log.put(store, edit_of(number))
            edit_log.draw_together(store, TOPIC, 0, read(store))

    store.put_if_absent = put_and_drawn_together  # type: ignore[method-assign]
    if more:
        with pytest.raises(StoreUnavailableError):
            edit_log.put(store, mine)
    else:
        assert edit_log.put(store, mine)
    assert set(read(store).removed) == {entry_of(0, 9).name}


def test_edits_drawn_together_are_one_listing_and_two_reads() -> None:
    store, state = MemoryStore(), EditState()
    for number in range(1, 41):
        edit = edit_of(number, removed=(Removed.of(entry_of(number, number), T0),))
        edit_log.put(store, edit)
        state = state.after(edit)
        if number == 39:
            edit_log.draw_together(store, TOPIC, 0, state)
    store.listings, store.reads = 0, []

    found = read(store)

    assert (found, store.listings, len(store.reads)) == (state, 1, 2)
    assert [edit_number(name) or checkpoint_number(name) for name in store.names("manifests/")] == [39, 39, 40]


def test_a_listing_that_lacks_an_edit_is_made_again() -> None:
    store = MemoryStore()
    for number in (1, 2):
        edit_log.put(store, edit_of(number))
    del store.objects[store.buckets[0], edit_name(TOPIC, 0, 1)]

    with pytest.raises(StoreUnavailableError, match="change faster"):
        read(store)

    assert store.listings == edit_log.LISTINGS_MAX + 2  # each put looks for a checkpoint

"""Chunks are copied to the local disk where a question reads much of them, and never in the way of an answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.query.copies import Copies, Wanted
from pipeline.store.objects import ObjectStore
from pipeline.store.reach import Reach
from tests.pipeline.query.test_engine import run
from topics.errors import QueryTimeoutError, StoreUnavailableError
from topics.settings import StoreSettings


class FakeStore:
    """Objects of so many bytes; `gone` ones are not there. asked: every download."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.asked: list[str] = []
        self.away = False

    def download(self, _bucket: str, name: str, file: object) -> int | None:
        self.asked.append(name)
        if self.away:
            raise StoreUnavailableError("away")
        if name not in self.sizes:
            return None
        return file.write(b"x" * self.sizes[name])  # type: ignore[attr-defined,no-any-return]


def copies(tmp_path: Path, store: FakeStore, bytes_max: int) -> Copies:
    return Copies(tmp_path / "chunks", store, bytes_max, Reach(StoreSettings(), 1.0))  # type: ignore[arg-type]


def wanted(store: FakeStore, name: str, size: int) -> Wanted:
    store.sizes[name] = size
    return Wanted("bucket", name, size)


def test_a_copy_is_made_once_and_found_again(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)
    one = wanted(store, "a/b.parquet", 100)

    for _ in range(2):
        assert kept.hold([one], fetch=True, check=lambda: None) == {"s3://bucket/a/b.parquet"}
        assert kept.path(one).read_bytes() == b"x" * 100

    assert store.asked == ["a/b.parquet"]
    kept.close()


def test_a_copy_that_somebody_deleted_is_made_anew_and_meanwhile_the_store_is_read(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)
    one = wanted(store, "a/b.parquet", 100)
    kept.hold([one], fetch=True, check=lambda: None)
    shutil.rmtree(tmp_path / "chunks")

    held_by_another = kept.hold([one], fetch=True, check=lambda: None)
    kept.release([one.url])
    anew = kept.hold([one], fetch=True, check=lambda: None)

    assert (held_by_another, anew) == (set(), {one.url})
    assert kept.path(one).exists()
    kept.close()


def test_without_fetching_only_what_is_there_is_held(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)
    one, other = wanted(store, "one", 100), wanted(store, "other", 100)
    kept.hold([one], fetch=True, check=lambda: None)

    assert kept.hold([one, other], fetch=False, check=lambda: None) == {one.url}
    assert store.asked == ["one"]
    kept.close()


def test_what_is_held_stays_and_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 250)
    first, second, third = (wanted(store, name, 100) for name in ("first", "second", "third"))
    for one in (first, second):
        kept.hold([one], fetch=True, check=lambda: None)
    kept.release([first.url, second.url])
    kept.hold([second], fetch=True, check=lambda: None)

    kept.hold([third], fetch=True, check=lambda: None)
    kept.release([third.url])

    assert not kept.path(first).exists()
    assert kept.path(second).exists()
    assert kept.path(third).exists()
    assert kept.nbytes == 200
    kept.close()


def test_nothing_is_copied_that_finds_no_room_beside_what_is_held(tmp_path: Path) -> None:
    """However many chunks a question reads one after the other, the copies that it holds stay within the limit."""
    store = FakeStore()
    kept = copies(tmp_path, store, 250)
    many = [wanted(store, f"{number}", 100) for number in range(5)]

    held = [kept.hold([one], fetch=True, check=lambda: None) for one in many]

    assert [bool(urls) for urls in held] == [True, True, False, False, False]
    assert kept.nbytes == 200
    kept.release(held[0])
    assert kept.hold([many[2]], fetch=True, check=lambda: None) == {many[2].url}
    kept.release([many[2].url])
    assert kept.nbytes == 200
    kept.close()


def test_what_takes_more_than_half_of_the_room_is_not_copied(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)
    many = [wanted(store, f"{number}", 100) for number in range(6)]

    assert kept.hold(many, fetch=True, check=lambda: None) == set()
    assert store.asked == []
    kept.close()


@pytest.mark.parametrize("away", [False, True])
def test_an_object_that_cannot_be_copied_is_left_to_the_engine_and_tried_again(tmp_path: Path, away: bool) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)
    one = Wanted("bucket", "late", 100)
    store.away = away

    assert kept.hold([one], fetch=True, check=lambda: None) == set()
    kept.release([])
    store.away, store.sizes["late"] = False, 100
    assert kept.hold([one], fetch=True, check=lambda: None) == {one.url}
    kept.close()


def test_a_question_that_is_ended_waits_for_no_copy(tmp_path: Path) -> None:
    store = FakeStore()
    kept = copies(tmp_path, store, 1000)

    def ended() -> None:
        raise QueryTimeoutError("ended")

    with pytest.raises(QueryTimeoutError):
        kept.hold([wanted(store, "one", 10)], fetch=True, check=ended)
    kept.close()

    kept.release([])
    assert kept.hold([wanted(store, "one", 10)], fetch=False, check=lambda: None) == {"s3://bucket/one"}


def test_copies_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "chunks" / "bucket" / "old"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")

    copies(tmp_path, FakeStore(), 1000).close()

    assert not left.exists()


@pytest.mark.integration
def test_a_whole_object_comes_from_the_store_piece_by_piece(tmp_path: Path, store_settings: StoreSettings) -> None:
    store = ObjectStore(store_settings)
    store.ensure_buckets()
    content = bytes(range(256)) * 20_000
    store.put(store_settings.buckets[0], "large", content, "application/octet-stream")
    one = Wanted(store_settings.buckets[0], "large", len(content))

    found = run(lambda session: session.files([one], fetch=True)[one.url].read_bytes(), tmp_path, store_settings)

    assert found == content

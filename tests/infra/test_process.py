"""A child process starts, becomes ready, dies and is stopped as it promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.process import ChildProcess, Program
from tests.waiting import wait_until
from topics.errors import StackError

WAIT_FOREVER = "import signal; print('up', flush=True); signal.pause()"
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
Start = Callable[[str], ChildProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[ChildProcess] = []

    def start_python(code: str) -> ChildProcess:
        command = [sys.executable, "-c", code]
        child = ChildProcess(Program(name="sample", command=command, log_path=tmp_path / "log" / "sample.log"))
        children.append(child)
        child.start()
        return child

    yield start_python
    for child in children:
        child.kill()


def is_up(child: ChildProcess) -> bool:
    return b"up" in child.program.log_path.read_bytes()


def test_a_child_runs_until_it_is_stopped(start: Start) -> None:
    child = start(WAIT_FOREVER)
    child.wait_ready(lambda: is_up(child), timeout_s=10)

    went_by_itself = child.stop(timeout_s=10)

    assert went_by_itself
    assert not child.alive
    assert child.end() == "signal SIGTERM"
    assert not psutil.pid_exists(child.pid or 0)


def test_a_child_that_ignores_sigterm_is_killed_after_the_limit(start: Start) -> None:
    child = start(DEAF)
    child.wait_ready(lambda: is_up(child), timeout_s=10)

    went_by_itself = child.stop(timeout_s=0.2)

    assert not went_by_itself
    assert child.end() == "signal SIGKILL"


def test_a_kill_takes_what_the_child_started_too(start: Start) -> None:
    child = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {DEAF!r}])")
    child.wait_ready(lambda: is_up(child), timeout_s=10)
    (grandchild,) = psutil.Process(child.pid).children()

    child.kill()

    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_a_child_that_dies_before_it_is_ready_shows_the_end_of_its_log(start: Start) -> None:
    child = start("print('many words'); raise SystemExit('no disk left')")

    with pytest.raises(StackError, match=r"sample has ended \(exit code 1\)(.|\n)*no disk left"):
        child.wait_ready(lambda: False, timeout_s=10)


def test_a_child_that_is_not_ready_in_time_is_named(start: Start) -> None:
    child = start(WAIT_FOREVER)

    with pytest.raises(StackError, match=r"sample was not ready within 0\.1 s"):
        child.wait_ready(lambda: False, timeout_s=0.1)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = ChildProcess(Program(name="ghost", command=["/nowhere/ghost"], log_path=tmp_path / "ghost.log"))
    child.start()

    with pytest.raises(StackError, match="cannot run /nowhere/ghost: No such file"):
        child.wait_ready(lambda: False, timeout_s=10)


def test_a_child_sees_neither_our_ctrl_c_nor_our_input(start: Start) -> None:
    child = start(WAIT_FOREVER)

    assert os.getpgid(child.pid or 0) == child.pid != os.getpgrp()


def test_a_second_start_keeps_the_log_of_the_first(start: Start) -> None:
    child = start("print('first run')")
    wait_until(lambda: not child.alive)

    child.start()
    wait_until(lambda: not child.alive)

    kept = Path(f"{child.program.log_path}.1")
    assert kept.read_text() == "first run\n"


def test_stopping_what_never_ran_does_nothing(tmp_path: Path) -> None:
    child = ChildProcess(Program(name="idle", command=["true"], log_path=tmp_path / "idle.log"))

    assert child.stop(timeout_s=1)
    assert child.end() == "not started"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from infra.process import ChildProcess, Program
import signal, sys
log = Path({str(tmp_path)!r}, "child.log")
child = ChildProcess(Program(name="child", command=[sys.executable, "-c", {WAIT_FOREVER!r}], log_path=log))
child.start()
child.wait_ready(lambda: b"up" in log.read_bytes(), 10)
print(child.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))

        parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

"""The supervisor keeps real processes running, says what happens, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.process import ChildProcess, Program
from infra.supervisor import Role, Supervisor, read_run
from tests.waiting import wait_until
from topics.errors import StackError
from topics.settings import StackSettings

WAIT_FOREVER = "import signal; print('up', flush=True); signal.pause()"
NOTE_THE_STOP = """
import signal, sys
def note(*_):
    open({path!r}, "a").write({name!r} + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, note)
print("up", flush=True)
while True: signal.pause()
"""
STACK = StackSettings(restart_wait_max_s=0.05, stop_timeout_s=10.0, start_timeout_s=10.0)


class Watch:
    """A supervisor under test with what it said; `role` makes roles of small Python programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_path = folder / "run.json"
        self.said: list[str] = []
        self.supervisor = Supervisor(self.run_path, STACK, self.said.append, {"store": "minio"})

    def role(self, name: str, code: str = WAIT_FOREVER) -> Role:
        log_path = self.folder / f"{name}.log"
        child = ChildProcess(Program(name=name, command=[sys.executable, "-c", code], log_path=log_path))
        urls = {"http": f"http://127.0.0.1/{name}"}
        return Role(name=name, child=child, urls=urls, ready=lambda: b"up" in log_path.read_bytes())

    def until(self, condition: Callable[[], object]) -> None:
        def watched() -> object:
            self.supervisor.watch_once()
            return condition()

        wait_until(watched)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    watch.supervisor.stop()


def pids(watch: Watch) -> dict[str, int | None]:
    run = read_run(watch.run_path)
    assert run is not None
    return {process["role"]: process["pid"] for process in run["processes"]}


def test_run_json_names_each_role_with_its_pid_and_urls(watch: Watch) -> None:
    worker, querier = watch.role("worker 1"), watch.role("querier")

    watch.supervisor.start([worker, querier])

    run = read_run(watch.run_path)
    assert run is not None
    assert (run["format"], run["pid"], run["store"]) == (1, os.getpid(), "minio")
    assert [process["role"] for process in run["processes"]] == ["worker 1", "querier"]
    assert run["processes"][0] == {
        "role": "worker 1",
        "pid": worker.child.pid,
        "urls": {"http": "http://127.0.0.1/worker 1"},
        "log": str(watch.folder / "worker 1.log"),
        "restarts": 0,
    }


def test_a_run_that_cannot_be_noted_goes_on(watch: Watch) -> None:
    worker = watch.role("worker 1")
    watch.supervisor.start([worker])
    (watch.folder / "run.json.partial").mkdir()

    os.kill(worker.child.pid or 0, signal.SIGKILL)
    watch.until(lambda: any("was started again" in line for line in watch.said))

    assert worker.child.alive
    assert watch.said[-1] == f"{watch.run_path} cannot be written: Is a directory"


def test_a_role_that_is_killed_is_started_again_and_it_is_said(watch: Watch) -> None:
    worker, querier = watch.role("worker 1"), watch.role("querier")
    watch.supervisor.start([worker, querier])
    killed, other = worker.child.pid or 0, querier.child.pid

    os.kill(killed, signal.SIGKILL)
    watch.until(lambda: pids(watch)["worker 1"] not in (killed, None))

    assert worker.child.alive
    assert querier.child.pid == other
    assert watch.said[0].startswith("worker 1 has died (signal SIGKILL); it is started again in 0.05 s.")
    assert watch.said[1] == f"worker 1 was started again (pid {worker.child.pid})."


def test_a_dead_role_has_no_pid_while_it_waits(watch: Watch) -> None:
    role = watch.role("worker 1")
    watch.supervisor.start([role])

    role.child.kill()
    watch.supervisor.watch_once()

    assert pids(watch) == {"worker 1": None}


def test_the_waits_grow_up_to_the_limit_while_a_role_keeps_dying(tmp_path: Path) -> None:
    said: list[str] = []
    stack = StackSettings(restart_wait_max_s=1.2)
    supervisor = Supervisor(tmp_path / "run.json", stack, said.append)
    failing = ChildProcess(
        Program(name="sick", command=[sys.executable, "-S", "-c", "raise SystemExit(3)"], log_path=tmp_path / "log")
    )

    def deaths() -> list[str]:
        supervisor.watch_once()
        return [line.split(".\n")[0].split(". ")[0] for line in said if "has died" in line]

    supervisor.start([Role(name="sick", child=failing)])
    wait_until(lambda: len(deaths()) == 4, timeout_s=20)
    supervisor.stop()

    assert deaths() == [
        f"sick has died (exit code 3); it is started again in {wait} s" for wait in ("0.5", "1", "1.2", "1.2")
    ]


def test_a_role_that_lived_long_enough_waits_shortly_again(tmp_path: Path) -> None:
    said: list[str] = []
    watch = Watch(tmp_path)
    supervisor = Supervisor(watch.run_path, StackSettings(restart_wait_max_s=0.8), said.append)
    role = watch.role("worker 1")
    supervisor.start([role])

    def runs_again() -> bool:
        supervisor.watch_once()
        return role.child.alive

    for _ in range(2):
        role.child.kill()
        wait_until(runs_again)
    lived_since = time.monotonic()
    wait_until(lambda: time.monotonic() - lived_since > 0.9)

    role.child.kill()
    supervisor.watch_once()
    supervisor.stop()

    waits = [line.split(" again in ")[1].split(" s.")[0] for line in said if "has died" in line]
    assert waits == ["0.5", "0.8", "0.5"]


def test_all_roles_stop_in_reverse_order_and_run_json_goes(watch: Watch) -> None:
    order = watch.folder / "order"
    names = ["kafka", "worker", "receiver"]
    roles = [watch.role(name, NOTE_THE_STOP.format(path=str(order), name=name)) for name in names]
    watch.supervisor.start(roles)

    watch.supervisor.stop()

    assert order.read_text().split() == ["receiver", "worker", "kafka"]
    assert not any(role.child.alive for role in roles)
    assert not watch.run_path.exists()


def test_an_adopted_process_is_watched_and_stopped_as_the_others(watch: Watch) -> None:
    role = watch.role("kafka")
    role.child.start()
    role.child.wait_ready(role.ready, 10)
    first = role.child.pid

    watch.supervisor.adopt([role])
    role.child.kill()
    watch.until(lambda: role.child.alive)
    watch.supervisor.stop()

    assert role.child.pid != first
    assert not role.child.alive


def test_a_role_that_fails_at_the_start_is_an_error_with_its_log(watch: Watch) -> None:
    roles = [watch.role("worker 1"), watch.role("querier", "raise SystemExit('port 3200 is in use')")]

    with pytest.raises(StackError, match=r"querier has ended(.|\n)*port 3200 is in use"):
        watch.supervisor.start(roles)

    watch.supervisor.stop()
    assert not roles[0].child.alive


def test_run_watches_until_it_is_told_to_stop(watch: Watch) -> None:
    role = watch.role("worker 1")
    stop, killed = threading.Event(), 0

    def kill_then_stop() -> None:
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: role.child.pid != killed)
        stop.set()

    watch.supervisor.start([role])
    killed = role.child.pid or 0
    other = threading.Thread(target=kill_then_stop)
    other.start()
    watch.supervisor.run(stop)
    other.join()

    assert role.child.alive


def test_a_run_json_whose_supervisor_is_dead_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert read_run(path) is None

    path.write_text('{"pid": 1')
    assert read_run(path) is None

    dead = psutil.Popen([sys.executable, "-S", "-c", "pass"])
    dead.wait()
    path.write_text(f'{{"format": 1, "pid": {dead.pid}, "started_unix_s": 0, "processes": []}}')
    assert read_run(path) is None

"""Real receiver and querier processes for tests, and somebody who asks a querier all the time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from agents.commands.local_run import is_ready, variables_of
from agents.trace_answer import read_answer
from infra.ports import free_port
from pipeline.doors.tls import client_context, scheme
from tests.waiting import wait_until
from topics.settings import Settings

PAUSE_S = 0.05
Trace = tuple[bytes, frozenset[bytes]]  # its ID, those of its spans


@contextmanager
def querier(settings: Settings, folder: Path) -> Iterator[str]:
    """Its URL, once it is ready; ended at the end."""
    ports = {"http_port": free_port(), "grpc_port": free_port()}
    own = settings.querier.model_copy(update=ports | {"data_dir": folder / "querier"})
    with _process("serve", settings.model_copy(update={"querier": own}), folder, own.http_port) as url:
        yield url


@contextmanager
def receiver(settings: Settings, folder: Path) -> Iterator[str]:
    """Likewise."""
    own = settings.receiver.model_copy(update={"http_port": free_port(), "grpc_port": free_port()})
    with _process("receive", settings.model_copy(update={"receiver": own}), folder, own.http_port) as url:
        yield url


@contextmanager
def worker(settings: Settings, folder: Path) -> Iterator[str]:
    """Likewise."""
    own = settings.worker.model_copy(update={"port": free_port(), "data_dir": folder / "worker"})
    with _process("worker", settings.model_copy(update={"worker": own}), folder, own.port) as url:
        yield url


@contextmanager
def _process(command: str, settings: Settings, folder: Path, port: int) -> Iterator[str]:
    with (folder / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agents.cli", command],
            env=os.environ | variables_of(settings),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url, tls = f"{scheme(settings)}://127.0.0.1:{port}", client_context(settings)
    try:
        wait_until(lambda: is_ready(url, tls), 60, f"{command} is ready")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


class Asker(threading.Thread):
    """Asks for traces by ID, any that `sent` names at that moment, and compares.

    wrong: complete answers that are not exactly the trace; complete, partial: how many came.
    """

    def __init__(self, url: str, sent: Callable[[], Sequence[Trace]]) -> None:
        super().__init__(daemon=True)
        self._url, self._sent = url, sent
        self._stopped, self._random = threading.Event(), random.Random(5)
        self.complete = self.partial = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until stopped."""
        with httpx.Client(base_url=self._url, headers={"Accept": "application/protobuf"}, timeout=60) as client:
            while not self._stopped.wait(PAUSE_S):
                if traces := self._sent():
                    self._ask(client, *self._random.choice(traces))

    def _ask(self, client: httpx.Client, trace_id: bytes, span_ids: frozenset[bytes]) -> None:
        got = client.get(f"/api/v2/traces/{trace_id.hex()}")
        if got.status_code != 200:
            self.wrong.append(f"{trace_id.hex()}: {got.status_code} {got.text[:200]}")
            return
        answer = read_answer(got.content)
        if answer.partial:
            self.partial += 1
        elif Counter(answer.span_ids()) != Counter(span_ids):
            self.wrong.append(f"{trace_id.hex()}: {len(answer.span_ids())} of {len(span_ids)} spans")
        else:
            self.complete += 1

    def stop(self) -> None:
        """Returns when the answer under way has come."""
        self._stopped.set()
        self.join(60)


@contextmanager
def asking(url: str, sent: Callable[[], Sequence[Trace]]) -> Iterator[Asker]:
    """Somebody who asks as long as the block lasts."""
    asker = Asker(url, sent)
    asker.start()
    try:
        yield asker
    finally:
        asker.stop()

"""A Dask cluster: the only module that imports Dask, and what runs on its workers.

Whoever reaches a scheduler's port can run code on it, on its workers and on who asks them: Dask pickles.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import structlog
from distributed import Client, Worker, get_worker

from pipeline.query.chunk_tasks import Answer, Task, answer_to
from pipeline.query.engine import Engine
from pipeline.query.imports import do_without_pandas
from topics.errors import SpanstreamError
from topics.settings import load_settings

LOOK_S = 1.0  # so often it is seen who is there
CONNECT_S = 3.0  # longest wait for a connection
ANSWER_S = 10.0  # a scheduler that says nothing for so long is away
CANCELLED_LOOK_S = 0.2  # a worker looks so often whether somebody still waits
log = structlog.get_logger("querier")


class DaskCluster:
    """The workers of a scheduler, which may come and go, and so may the scheduler. Thread-safe."""

    def __init__(self, url: str, retries: int) -> None:
        """url: dask://host:port. retries: of a task that failed; that its worker died is no failure.

        The connection is made and kept in a thread. It is encrypted where Dask's own settings ask for that.
        """
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, once
        self._url = url
        scheme = "tls" if dask.config.get("distributed.comm.require-encryption") else "tcp"
        self._address = f"{scheme}://{url.removeprefix('dask://')}"
        self._retries = retries
        self._client: Client | None = None
        self._workers: Mapping[str, int] = {}
        self._state = ""
        self._ended, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="dask", daemon=True)
        self._thread.start()

    def workers(self) -> Mapping[str, int]:
        """Address -> tasks at a time; none where no scheduler or no worker is there. Does not block."""
        client = self._client
        return self._workers if client is not None and client.status == "running" else {}

    def ask(self, task: Task, worker: str) -> Future[Answer]:
        """Have it answered, by this worker while it lives. Cancelling the future cancels the task. Does not block."""
        client = self._client
        if client is not None and client.status == "running":
            with suppress(RuntimeError):  # it was closed at this moment, and its loop
                return asyncio.run_coroutine_threadsafe(self._answer(client, task, worker), client.loop.asyncio_loop)
        gone: Future[Answer] = Future()
        gone.set_exception(ConnectionError(f"no scheduler at {self._url}"))
        return gone

    def looked(self) -> None:
        """Returns when it was tried once to reach the scheduler."""
        self._looked.wait(CONNECT_S + ANSWER_S)

    def close(self) -> None:
        """Leave the scheduler."""
        self._ended.set()
        self._thread.join(LOOK_S)  # it may be trying to reach nobody
        if self._client is not None:
            self._client.close(CONNECT_S)

    async def _answer(self, client: Client, task: Task, worker: str) -> Answer:
        key = f"spanstream-{uuid.uuid4().hex}"
        future = client.submit(
            answer, task, key, key=key, workers=[worker], allow_other_workers=True, retries=self._retries
        )
        try:
            return await future
        finally:
            future.release()  # of a task that is not done, the scheduler hears that nobody wants it

    # ---- in the thread

    def _look_on(self) -> None:
        while not self._ended.is_set():
            try:
                self._workers = self._found()
                self._say("dask_reached" if self._workers else "dask_without_workers", workers=len(self._workers))
            except Exception as exc:  # whatever it is, questions go on without
                self._workers = {}
                self._say("dask_away", error=f"{type(exc).__name__}: {exc}"[:300])
            self._looked.set()
            self._ended.wait(LOOK_S)

    def _found(self) -> Mapping[str, int]:
        if self._client is None or self._client.status in ("closing", "closed"):
            self._client = None
            self._client = Client(self._address, timeout=CONNECT_S, set_as_default=False, name="spanstream")
        client = self._client
        found: Mapping[str, int] = client.sync(client.scheduler.ncores, callback_timeout=ANSWER_S)
        return found

    def _say(self, state: str, **more: object) -> None:
        if state == self._state:
            return
        self._state = state
        if state == "dask_reached":
            log.info(state, executor=self._url, **more)
            return
        help_ = "is querier.executor right? `spanstream dask up` starts a cluster on this machine"
        then = "until then this process's own threads read the chunks"
        log.warning(state, executor=self._url, **more, then=then, help=help_)


# ---- on a worker


async def answer(task: Task, key: str) -> Answer:
    """A task, on a Dask worker. key: the task's; when nobody waits for it any more, it is ended.

    Raises SettingsError where the worker's own settings are wrong.
    """
    worker = get_worker()
    work = asyncio.create_task(_engine(worker.local_directory).run(functools.partial(answer_to, task)))
    with suppress(TimeoutError):
        async with asyncio.timeout(task.seconds):
            while not (await asyncio.wait({work}, timeout=CANCELLED_LOOK_S))[0]:
                known = worker.state.tasks.get(key)
                if known is None or known.state == "cancelled":
                    break
    if not work.done():
        work.cancel()
        return Answer(error=("QueryTimeoutError", "nobody waits for this task any more"))
    try:
        return work.result()
    except SpanstreamError as exc:  # told, not raised: Dask would try again
        return Answer(error=(type(exc).__name__, str(exc)))


def dask_setup(process: Any) -> None:
    """Dask calls it in each process that preloads this module: a worker's first task waits for nothing.

    Such a worker is spanstream's alone: it does without pandas. Raises SettingsError where its settings are wrong.
    """
    if isinstance(process, Worker):
        do_without_pandas()
        _engine(process.local_directory)


@functools.cache
def _engine(folder: str) -> Engine:
    """The process's engine: the store's keys are the worker's own settings, what it writes stands in Dask's folder."""
    settings = load_settings()
    own = settings.querier.model_copy(update={"data_dir": Path(folder) / "spanstream"})
    return Engine(own, settings.store)

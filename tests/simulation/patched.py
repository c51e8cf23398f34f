"""Where the real modules get the simulation's clock, randomness, threads and, for most seeds, plain things."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

import structlog

import agents.worker
from pipeline.partition import batch
from pipeline.query import live, owners, tail, tail_rows
from pipeline.spans import from_otlp, validate
from pipeline.store import (
    catalog,
    catalog_feed,
    catalog_folder,
    chunk,
    commit,
    compaction,
    filter_groups,
    housekeeping,
    merge,
    tables,
)
from tests.simulation import plain

if TYPE_CHECKING:
    from tests.simulation.world import World


@contextmanager
def patched(world: World) -> Iterator[None]:
    """Within this, the real code is the world's."""
    scheduler = world.scheduler
    clock = SimpleNamespace(
        monotonic=lambda: scheduler.now_s + 1.0,
        time_ns=scheduler.time_ns,
        time=lambda: scheduler.time_ns() / 1e9,
        sleep=_no_sleep,
    )
    admin = SimpleNamespace(partition_count=lambda *_: len(world.kafka.logs), client_config=lambda *_: {})
    with ExitStack() as stack:

        def put(where: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(where, name, value))

        for module in (owners, live, tail, tail_rows, catalog_feed, compaction):
            put(module, "time", clock)
        put(catalog_feed, "admin", admin)
        for module in (commit, compaction, housekeeping):
            put(module, "secrets", SimpleNamespace(token_hex=lambda n: scheduler.rng.randbytes(n).hex()))
        put(compaction, "HALF", 1)  # a seed has few chunks of one tenant: any two are merged
        put(agents.worker, "release_memory", lambda **_: None)
        put(agents.worker, "log", Log(world.problems))
        if not world.real:
            _put_plain(world, put)
        structlog.configure(processors=[_drop])
        try:
            yield
        finally:
            structlog.reset_defaults()


def _put_plain(world: World, put: Callable[[Any, str, Any], None]) -> None:
    database = partial(plain.PlainDatabase, world.disk)
    for module in (tables, catalog):
        put(module, "Rdict", database)
    for module, name in ((tables, "_options"), (catalog_folder, "options")):
        put(module, name, lambda *_: None)
    for module in (tables, catalog, filter_groups):
        put(module, "WriteBatch", plain.PlainBatch)
    put(from_otlp, "decode", plain.decode)
    put(validate, "check", plain.check)
    put(batch, "indexes_of", plain.indexes_of)
    put(chunk, "encode_chunk", plain.encode_chunk)
    put(chunk, "read_chunk", plain.read_chunk)
    put(merge, "Part", plain.PlainPart)
    put(merge, "merge", plain.merge)


def _no_sleep(_seconds: float) -> NoReturn:
    raise AssertionError("nothing sleeps for real")


def _drop(*_: Any) -> NoReturn:
    raise structlog.DropEvent


class Log:
    """The worker's log: what it swallows with a traceback is a problem."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def exception(self, event: str, **_: Any) -> None:
        self._problems.append(f"{event}: {sys.exc_info()[1]!r}")

    def _ignore(self, event: str, **_: Any) -> None:
        pass

    info = warning = error = debug = _ignore

"""Chunks copied whole to the local disk: one request a chunk, where the engine would make one for each column of each
row group, some thousand for a question over millions of spans.
"""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline import telemetry
from pipeline.store.objects import ObjectStore
from pipeline.store.reach import Reach
from topics.errors import StoreUnavailableError

THREADS = 6
SHARE = 2  # what is missing is copied where it takes no more than a half of the room: of a month nothing is
WAIT_S = 0.2  # a question that is ended hears of it so soon
GLOB = frozenset("*?[")  # the engine would take a path with these as a pattern


class Wanted(NamedTuple):
    """An object. size: about, in bytes."""

    bucket: str
    name: str
    size: int

    @property
    def url(self) -> str:
        """Where the engine reads it in the store."""
        return f"s3://{self.bucket}/{self.name}"


class _Copy:
    """A file, there or on its way: `done` gives its size, None where it cannot be copied. planned: about that size."""

    def __init__(self, path: Path, planned: int) -> None:
        self.path, self.planned = path, planned
        self.done: Future[int | None] = Future()
        self.holders = 0

    @property
    def made(self) -> bool:
        return self.done.done() and self.done.result() is not None

    @property
    def size(self) -> int:
        return (self.done.result() or 0) if self.done.done() else self.planned


class Copies:
    """Files in `folder`, which is emptied first; up to `bytes_max`, the least recently used go first. Thread-safe.

    An object never changes, so neither does its copy. What a question holds stays until it lets go, and nothing is
    copied that would find no room beside it.
    """

    def __init__(self, folder: Path, store: ObjectStore, bytes_max: int, reach: Reach) -> None:
        self.reach = reach
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder.resolve()
        self._store = store
        self._bytes_max = 0 if GLOB & set(str(self._folder)) else bytes_max
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, "copy")

    def hold(self, wanted: Iterable[Wanted], *, fetch: bool, check: Callable[[], None]) -> set[str]:
        """The URLs of those of which there is a copy, at `path`, until `release`. fetch: make those that are missing.

        check: called while copies are waited for; what it raises ends the wait. A store that is away ends it as well:
        then there is what had been copied.
        """
        named = {one.url: one for one in wanted}
        with self._lock:
            self._forget_deleted(named)
            missing = [one for url, one in named.items() if url not in self._copies]
            if fetch and not self.reach.away and self._has_room(sum(one.size for one in missing)):
                self._begin(missing)
            held = {url: copy for url in named if (copy := self._copies.get(url)) is not None}
            for url, copy in held.items():
                copy.holders += 1
                self._copies.move_to_end(url)
        try:
            with suppress(StoreUnavailableError):
                for copy in held.values():
                    self._wait(copy, check)
        except BaseException:
            self.release(held)
            raise
        there = {url for url, copy in held.items() if copy.made and copy.path.exists()}
        self.release(held.keys() - there)
        return there

    def path(self, one: Wanted) -> Path:
        """Where its copy is."""
        return self._folder / one.bucket / one.name

    def release(self, urls: Iterable[str]) -> None:
        """Let go of them."""
        with self._lock:
            for url in urls:
                if (copy := self._copies.get(url)) is not None:
                    copy.holders -= 1
            self._make_room()

    def content(self, one: Wanted) -> bytes:
        """An object itself. Raises StoreUnavailableError, also where there is none."""
        found = self._store.get(one.bucket, one.name)
        if found is None:
            raise StoreUnavailableError(f"404: there is no {one.name}")
        return found

    @property
    def nbytes(self) -> int:
        """What the copies take."""
        with self._lock:
            return sum(copy.size for copy in self._copies.values())

    def close(self) -> None:
        """End what is being copied."""
        self.reach.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ---- with the lock held

    def _has_room(self, size: int) -> bool:
        held = sum(copy.size for copy in self._copies.values() if copy.holders)
        return size <= self._bytes_max // SHARE and held + size <= self._bytes_max

    def _begin(self, missing: Iterable[Wanted]) -> None:
        for one in missing:
            copy = self._copies[one.url] = _Copy(self.path(one), one.size)
            self._threads.submit(self._make, one, copy)

    def _forget_deleted(self, urls: Iterable[str]) -> None:
        """Somebody may have made room by hand."""
        for url in urls:
            copy = self._copies.get(url)
            if copy is not None and copy.done.done() and not copy.holders and not copy.path.exists():
                del self._copies[url]

    def _make_room(self) -> None:
        for url, copy in list(self._copies.items()):
            if copy.done.done() and not copy.holders and copy.done.result() is None:
                del self._copies[url]  # it may be there next time
        over = sum(copy.size for copy in self._copies.values()) - self._bytes_max
        for url, copy in list(self._copies.items()):
            if over <= 0:
                return
            if copy.done.done() and not copy.holders:
                over -= copy.size
                del self._copies[url]
                with suppress(OSError):
                    copy.path.unlink()

    # ---- without it

    def _wait(self, copy: _Copy, check: Callable[[], None]) -> None:
        while True:
            check()
            with suppress(TimeoutError):
                copy.done.result(WAIT_S)
                return
            self.reach.check()

    def _make(self, one: Wanted, copy: _Copy) -> None:
        size = None
        try:
            copy.path.parent.mkdir(parents=True, exist_ok=True)
            with copy.path.open("wb") as file:
                size = self._store.download(one.bucket, one.name, file)
        except (OSError, StoreUnavailableError):
            pass  # the engine asks the store itself, and says what is wrong
        finally:
            if size is None:
                with suppress(OSError):
                    copy.path.unlink()
            else:
                telemetry.COPIED_BYTES.inc(size)
            copy.done.set_result(size)

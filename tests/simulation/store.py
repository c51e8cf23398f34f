"""The buckets, and each process's connection to them: requests and answers travel, get lost, come late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.store.objects import ObjectInfo, ObjectStore
from tests.simulation.scheduler import Condition, Mutex, Process, Scheduler
from topics.errors import StoreConflictError, StoreUnavailableError
from topics.settings import StoreSettings

PAGE = 3  # objects of one page of a listing
REFUSED, LOST, LATE, ANSWER_LOST, CONFLICT, SLOW = "refused", "lost", "late", "answer lost", "conflict", "slow"
PUT_FAULTS = (REFUSED, LOST, LATE, ANSWER_LOST)
MANIFEST_FAULTS = (*PUT_FAULTS, CONFLICT)
READ_FAULTS = (REFUSED, LOST, SLOW)


class Buckets:
    """All objects. on_put: told of each object that begins to exist, before anybody can read it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.objects: dict[tuple[str, str], bytes] = {}
        self.on_put: Callable[[str, bytes], None] = lambda name, data: None
        self.on_remove: Callable[[str], None] = lambda name: None

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """An object, over whatever stands there."""
        self.on_put(name, data)
        self.objects[bucket, name] = data

    def remove(self, bucket: str, name: str) -> None:
        """An object, if it is there."""
        self.on_remove(name)
        self.objects.pop((bucket, name), None)

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> bool:
        """Of several writers one wins."""
        if (bucket, name) in self.objects:
            return False
        self.put(bucket, name, data)
        return True


class SimulatedStore(ObjectStore):
    """pipeline.store.objects.ObjectStore over the buckets, for one process.

    spoil: (what is asked, name) -> a fault, or "". Every call takes time twice: its request's and its answer's.
    """

    def __init__(
        self, settings: StoreSettings, buckets: Buckets, process: Process, spoil: Callable[[str, str], str]
    ) -> None:
        self.settings = settings
        self._buckets, self._process, self._spoil = buckets, process, spoil
        self._scheduler = buckets.scheduler
        self._probe: Any = Mutex(self._scheduler)
        self._conditional = None

    def put(self, bucket: str, name: str, data: bytes | memoryview, content_type: str) -> None:
        self._ask("put", name, lambda: self._buckets.put(bucket, name, bytes(data)))

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
        if not self._ask("put_if_absent", name, lambda: self._buckets.put_if_absent(bucket, name, data)):
            raise StoreConflictError(f"{name} exists")

    def put_file(self, bucket: str, name: str, path: Path, content_type: str) -> None:
        data = path.read_bytes()
        self._ask("put", name, lambda: self._buckets.put(bucket, name, data))

    def download(self, bucket: str, name: str, file: BinaryIO) -> int | None:
        content = self.get(bucket, name)
        return None if content is None else file.write(content)

    def get(self, bucket: str, name: str) -> bytes | None:
        found: bytes | None = self._ask("get", name, lambda: self._buckets.objects.get((bucket, name)))
        return found

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Each page is as the bucket is when it is asked for."""
        after = start_after
        while True:

            def page(after: str = after) -> list[str]:
                names = [n for b, n in self._buckets.objects if b == bucket and n.startswith(prefix) and n > after]
                return sorted(names)[:PAGE]

            names = self._ask("list", prefix, page)
            for name in names:
                yield ObjectInfo(name, 0, datetime.now(UTC))
            if len(names) < PAGE:
                return
            after = names[-1]

    def remove(self, bucket: str, name: str) -> None:
        self._ask("remove", name, lambda: self._buckets.remove(bucket, name))

    def close(self) -> None:
        pass

    def _ask(self, what: str, name: str, effect: Callable[[], Any]) -> Any:
        """Send a request whose effect is that; its answer. Raises StoreUnavailableError."""
        scheduler = self._scheduler
        fiber = scheduler.fiber
        assert fiber is not None, "the store is asked by threads only"
        if not self._process.alive:
            fiber.pause()  # raises Killed
        fault = self._spoil(what, name)
        if fault == CONFLICT:
            fiber.sleep(scheduler.rng.random() * 0.05)
            raise StoreConflictError(f"another put of {name} is under way")
        if fault in (REFUSED, LOST):
            fiber.sleep(scheduler.rng.random() * (0.05 if fault == REFUSED else self.settings.put_timeout_s))
            raise StoreUnavailableError(f"{what} {name}: {fault}")
        came = Condition(scheduler)
        if fault == LATE:  # a signed request is taken until it expires
            scheduler.after(scheduler.rng.random() * self.settings.put_timeout_s, effect)
            fiber.sleep(scheduler.rng.random() * 0.5)
            raise StoreUnavailableError(f"{what} {name}: {fault}")
        self._send(effect, came, slow=fault == SLOW)
        came.wait()
        if fault == ANSWER_LOST:
            raise StoreUnavailableError(f"{what} {name}: {fault}")
        return came.value

    def _send(self, effect: Callable[[], Any], came: Condition, *, slow: bool) -> None:
        """Whether the process dies meanwhile or not: what is on its way arrives, one time in two."""
        scheduler, process = self._scheduler, self._process
        reaches = scheduler.rng.random() < 0.5

        def arrive() -> None:
            if not process.alive and not reaches:
                return
            value = effect()
            scheduler.soon(lambda: came.set(value), process)

        scheduler.soon(arrive, most_s=10.0 if slow else 0.05)

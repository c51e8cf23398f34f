"""What a worker is given: Kafka, the store and threads. Protocols, so that all of a worker runs in a simulation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from pipeline.partition.batch import SourceRecord
from pipeline.partition.sealed import SealedRange
from pipeline.partition.window import Keys
from pipeline.store.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the store and Kafka say of a partition when it is assigned.

    newest: the newest manifest, whose catalog entry is sent again; None where there is none and the mark is 0.
    window: (keys, newest record time, last offset) of each stored range within the window, oldest first.
    """

    mark: int
    newest: Manifest | None
    window: list[tuple[Keys, int, int]]
    log_start: int
    committed: int | None


class Source(Protocol):
    """Kafka, as a worker needs it. Every call raises KafkaUnavailableError when Kafka does not answer in time."""

    def end(self, partition: int) -> int | None:
        """The offset after the partition's last record, as last heard; None: not yet heard."""

    async def seek(self, partition: int, offset: int) -> None: ...
    async def log_start(self, partition: int) -> int: ...
    async def committed(self, partition: int) -> int | None: ...
    async def next_record(self, partition: int, offset: int) -> int:
        """Offset of the first record at or after `offset`, as the log itself has it; its end where there is none."""

    async def send_entry(self, manifest: Manifest) -> None: ...
    async def send_dead(self, partition: int, record: SourceRecord, reason: str) -> None: ...


class Offsets(Protocol):
    """Where a partition stands in Kafka; called in threads. Raises KafkaUnavailableError."""

    def log_start(self, partition: int) -> int: ...
    def committed(self, partition: int) -> int | None: ...


class Ranges(Protocol):
    """The store, as a worker needs it; called in threads. Raises StoreUnavailableError, KafkaUnavailableError."""

    def assignment(self, partition: int, secret: bytes, keys_max: int) -> Assignment:
        """keys_max: most keys of the window, beyond those of the newest range."""

    def store(self, sealed: SealedRange, stop: threading.Event) -> Manifest | None:
        """Steps 1 and 2 of the commit. None when another attempt owns the range or `stop` was set."""


class Pools:
    """Threads for what must not hold the event loop: one to decode, one to seal, a few to read and write."""

    def __init__(self) -> None:
        self.decode = ThreadPoolExecutor(1, "decode")
        self.seal = ThreadPoolExecutor(1, "seal")
        self.read = ThreadPoolExecutor(4, "read")
        self.closed = False

    def close(self) -> None:
        """Start nothing more; what runs is abandoned, which is safe: nothing is stored without its manifest."""
        self.closed = True
        for pool in (self.decode, self.seal, self.read):
            pool.shutdown(wait=False, cancel_futures=True)

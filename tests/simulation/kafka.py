"""Kafka as the simulation has it: the keyed topic's partitions, the two other topics, and the consumer group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, TopicPartition

from tests.simulation.scheduler import Condition, Scheduler
from topics.spans_by_trace import TENANT_HEADER


class SpanKey(NamedTuple):
    """What tells one span from another."""

    tenant: str
    trace_id: bytes
    span_id: bytes
    kind: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a log. spans: those that are to be stored; none where the record is to be set aside (`bad`)."""

    value: bytes
    tenant: str | None
    time_ns: int
    spans: tuple[SpanKey, ...] = ()
    bad: bool = False

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        return [] if self.tenant is None else [(TENANT_HEADER, self.tenant.encode())]


@dataclass(slots=True)
class Log:
    """One partition: records by offset, None for an offset that is never delivered; `start`: the first one kept."""

    entries: list[Entry | None] = field(default_factory=list)
    start: int = 0
    changed: list[Callable[[], object]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry | None) -> int:
        self.entries.append(entry)
        for call in self.changed:
            call()
        return len(self.entries) - 1

    def next_record(self, offset: int) -> int:
        """Offset of the first record that is kept, at or after `offset`; the end where there is none."""
        kept = range(max(offset, self.start), self.end)
        return next((at for at in kept if self.entries[at] is not None), self.end)


class Member(Protocol):
    """A worker, as the group sees it."""

    name: str

    def on_assigned(self, generation: int, partitions: set[int]) -> None:
        """The group's answer: from now on it owns these."""


class Kafka:
    """The cluster. `refuses(what)` says whether a call is to fail; calls that are refused may have had their effect."""

    def __init__(self, scheduler: Scheduler, partitions: int) -> None:
        self.scheduler = scheduler
        self.logs = [Log() for _ in range(partitions)]
        self.entries: list[bytes] = []  # topic span_chunks
        self.dead: list[tuple[int, int, str]] = []  # partition, offset, reason
        self.told: list[Condition] = []  # who waits for an entry
        self.group = Group(self)
        self.committed: dict[int, int] = {}
        self.ran_ahead: set[int] = set()  # partitions whose committed offset was moved on by a fault

    def tell(self, entry: bytes) -> None:
        """A record on span_chunks."""
        self.entries.append(entry)
        waiting, self.told = self.told, []
        for condition in waiting:
            condition.set()


class Group:
    """The consumer group: who owns what. What it decides reaches each member when it does, if ever."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.owners: dict[int, str] = {}

    def join(self, member: Member) -> None:
        """A member, maybe one that was there before under this name."""
        self.members[member.name] = member
        self.rebalance()

    def leave(self, member: Member) -> None:
        """It left, or was not heard of for the session's time-out. It may not know."""
        if self.members.get(member.name) is member:
            del self.members[member.name]
            self.rebalance()

    def rebalance(self) -> None:
        """Deal the partitions anew."""
        self.generation += 1
        scheduler = self._kafka.scheduler
        names = sorted(self.members)
        partitions = range(len(self._kafka.logs))
        self.owners = {partition: scheduler.rng.choice(names) for partition in partitions} if names else {}
        for name in names:
            mine = {partition for partition, owner in self.owners.items() if owner == name}
            scheduler.soon(lambda n=name, g=self.generation, m=mine: self._deliver(n, g, m), most_s=1.0)

    def _deliver(self, name: str, generation: int, mine: set[int]) -> None:
        if generation == self.generation and (member := self.members.get(name)) is not None:
            member.on_assigned(generation, mine)

    def commit(self, member: Member, generation: int, partition: int, offset: int) -> bool:
        """Note how far a member is; refused where it is none, or of an earlier generation."""
        if self.members.get(member.name) is not member or generation != self.generation:
            return False
        if self.owners.get(partition) != member.name:
            return False
        self._kafka.committed[partition] = offset
        return True


class Message:
    """A record as both clients give it: confluent-kafka's by methods (here), Faust's by attributes (FaustMessage)."""

    def __init__(self, partition: int, offset: int, entry: Entry | None, error: KafkaError | None = None) -> None:
        self._partition, self._offset, self._entry, self._error = partition, offset, entry, error

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def value(self) -> bytes | None:
        return None if self._entry is None else self._entry.value

    def headers(self) -> list[tuple[str, bytes]]:
        return [] if self._entry is None else self._entry.headers


class EntryMessage:
    """A record of span_chunks."""

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value


class TailConsumer:
    """confluent_kafka.Consumer over the logs, as far as the reader of tails uses it."""

    def __init__(self, kafka: Kafka, fails: Callable[[str], None]) -> None:
        self._kafka, self._fails = kafka, fails
        self._at: dict[int, int] = {}

    def assign(self, places: list[TopicPartition]) -> None:
        self._fails("tail")
        self._at = {place.partition: place.offset for place in places}

    def unassign(self) -> None:
        self._at = {}

    def poll(self, timeout: float) -> Message | None:
        """The next record of any partition; at its end a message says so, once."""
        fiber = self._kafka.scheduler.fiber
        assert fiber is not None
        fiber.sleep(self._kafka.scheduler.rng.random() * 0.02)
        return self._next()

    def consume(self, count: int, timeout: float) -> list[Message]:
        """What is here already."""
        found = []
        while len(found) < min(count, 3) and (message := self._next()) is not None:
            found.append(message)
        return found

    def _next(self) -> Message | None:
        for partition, at in list(self._at.items()):
            log = self._kafka.logs[partition]
            if at < log.start:
                del self._at[partition]
                return Message(partition, at, None, KafkaError(KafkaError._AUTO_OFFSET_RESET))
            there = log.next_record(at)
            if there < log.end:
                self._at[partition] = there + 1
                return Message(partition, there, log.entries[there])
            del self._at[partition]
            return Message(partition, there, None, KafkaError(KafkaError._PARTITION_EOF))
        return None

    def close(self) -> None:
        pass


class FeedConsumer:
    """confluent_kafka.Consumer over span_chunks. behind: how long an entry may take."""

    def __init__(self, kafka: Kafka, fails: Callable[[str], None]) -> None:
        self._kafka, self._fails = kafka, fails
        self._at = 0

    def assign(self, places: list[TopicPartition]) -> None:
        self._at = max(0, places[0].offset)

    def consume(self, count: int, timeout: float) -> list[EntryMessage]:
        fiber, scheduler = self._kafka.scheduler.fiber, self._kafka.scheduler
        assert fiber is not None
        if self._at >= len(self._kafka.entries):
            condition = Condition(scheduler)
            self._kafka.told.append(condition)
            condition.wait()
        fiber.sleep(scheduler.rng.random() * scheduler.rng.choice([0.05, 0.05, 5.0]))
        self._fails("feed")
        taken = self._kafka.entries[self._at : self._at + scheduler.rng.randint(1, 3)]
        found = [EntryMessage(self._at + place, value) for place, value in enumerate(taken)]
        self._at += len(taken)
        return found

    def close(self) -> None:
        pass


class FaustMessage:
    """One delivery of a record, as Faust gives it: agents take it apart."""

    def __init__(self, partition: int, offset: int, entry: Entry) -> None:
        self.partition, self.offset = partition, offset
        self.value: bytes | None = entry.value
        self.key: bytes | None = None
        self.headers = entry.headers
        self.timestamp = entry.time_ns / 1e9


class FaustEvent:
    """A message in a stream."""

    def __init__(self, message: FaustMessage) -> None:
        self.message = message
        self.value: Any = message.value
        self.key: Any = None

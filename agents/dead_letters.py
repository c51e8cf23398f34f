"""Dead letters sent once more: to the inlet, each once, noted in Kafka itself.

What was sent again is noted as the committed offset of a group of its own, with what is ahead of it as that commit's
metadata: no table, no topic. A crash between Kafka's confirmation and the note sends up to AT_A_TIME letters twice;
the deduplication window removes their spans, as it does those of any sender that tries again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from topics import otlp_spans, spans_dead
from topics.admin import client_config
from topics.errors import KafkaUnavailableError, ReplayRefusedError
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

AT_A_TIME = 100  # letters sent before they are noted
NOTE_BYTES_MAX = 4000  # brokers take 4096 bytes of metadata
UNREADABLE = "unreadable:"  # of a batch that no client can read: its bytes are no record
SEARCH_S = 0.2
ORIGIN = (
    spans_dead.TOPIC_HEADER,
    spans_dead.PARTITION_HEADER,
    spans_dead.OFFSET_HEADER,
    spans_dead.REASON_HEADER,
)


@dataclass
class Noted:
    """The letters that were sent again: all below `below`, and those of `ahead`."""

    below: int = 0
    ahead: set[int] = field(default_factory=set)

    def __contains__(self, letter: object) -> bool:
        return isinstance(letter, int) and (letter < self.below or letter in self.ahead)

    def add(self, letters: Iterable[int], low: int) -> None:
        """Note letters; low: the first that Kafka still has, so that deleted ones do not keep the mark back."""
        self.ahead |= set(letters)
        self.below = max(self.below, low)
        while self.below in self.ahead:
            self.below += 1
        self.ahead = {letter for letter in self.ahead if letter > self.below}

    def text(self) -> str:
        """`ahead` as ranges: `3-5,9`."""
        pairs = itertools.groupby(enumerate(sorted(self.ahead)), key=lambda pair: pair[1] - pair[0])
        runs = [[letter for _, letter in run] for _, run in pairs]
        return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)

    @staticmethod
    def read(below: int, text: str) -> Noted:
        """What `text` wrote."""
        noted = Noted(max(0, below))
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            noted.ahead |= set(range(int(first), int(last or first) + 1))
        return noted


@dataclass
class Replayed:
    """What became of letters that were to be sent again."""

    sent: int = 0
    noted_before: int = 0
    refused: dict[int, str] = field(default_factory=dict)


def read(kafka: KafkaSettings, first: int, end: int) -> Iterator[Message]:
    """The letters from offset first up to end, without committing anything. Raises KafkaUnavailableError."""
    with _consumer(kafka) as consumer:
        consumer.assign([_place(kafka, first)])
        yield from _letters(kafka, consumer, first, end)


def noted(kafka: KafkaSettings) -> Noted:
    """Which letters were sent again. Raises KafkaUnavailableError."""
    with _consumer(kafka) as consumer:
        return _noted(kafka, consumer)


def replay(settings: Settings, letters: range | set[int], *, low: int) -> Replayed:
    """Send letters to the inlet again, each once; low: the first that Kafka still has.

    Raises KafkaUnavailableError, ReplayRefusedError.

    To the inlet whichever topic they came from: its agent brings each trace to its partition. What cannot be read
    there either becomes a new letter. Only one replay runs at a time: a member of a group does it.
    """
    kafka, done = settings.kafka, Replayed()
    producer = Producer(
        client_config(kafka)
        | {"acks": "all", "enable.idempotence": True, "compression.type": "zstd", "log_level": 2}
        | {"message.max.bytes": otlp_spans.TOPIC.message_bytes_max(settings)}
        | {"delivery.timeout.ms": int(max(kafka.request_timeout_s, 1) * 1000)}
    )
    with _consumer(kafka) as consumer:
        _join(kafka, consumer)
        known = _noted(kafka, consumer)
        consumer.seek(_place(kafka, min(letters)))
        found = _letters(kafka, consumer, min(letters), max(letters) + 1)
        wanted = (one for one in found if (one.offset() or 0) in letters)
        while portion := list(itertools.islice(wanted, AT_A_TIME)):
            sent = _send(kafka, producer, portion, (known, done))
            known.add(sent, low)
            _note(kafka, consumer, known)
            done.sent += len(sent)
    return done


def purge(kafka: KafkaSettings, end: int) -> int:
    """Delete the letters below `end` from Kafka for good; returns the first that is left."""
    client = AdminClient(client_config(kafka) | {"log_level": 2})
    try:
        asked = client.delete_records([_place(kafka, end)], request_timeout=kafka.request_timeout_s)
        return int(next(iter(asked.values())).result().low_watermark)
    except KafkaException as exc:
        raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {exc.args[0]}") from exc


def headers(message: Message) -> dict[str, str]:
    """A letter's headers as text."""
    pairs: Any = message.headers() or []
    return {name: (value or b"").decode(errors="replace") for name, value in pairs}


def _send(kafka: KafkaSettings, producer: Producer, portion: list[Message], told: tuple[Noted, Replayed]) -> list[int]:
    """Send what may be sent and wait for Kafka; the letters that it has. What is refused stays a letter."""
    known, done = told
    confirmed: list[int] = []
    problems: list[KafkaError] = []
    for letter in portion:
        offset = letter.offset() or 0
        if offset in known:
            done.noted_before += 1
            continue
        if reason := _why_not(letter):
            done.refused[offset] = reason
            continue

        def delivered(error: KafkaError | None, _message: Message, offset: int = offset) -> None:
            confirmed.append(offset) if error is None else problems.append(error)

        pairs: Any = letter.headers() or []
        own: Any = [(name, value) for name, value in pairs if name not in ORIGIN]
        try:
            inlet = full_name(otlp_spans.TOPIC, kafka)
            producer.produce(inlet, letter.value(), letter.key(), headers=own, on_delivery=delivered)
        except KafkaException as exc:
            done.refused[offset] = f"the inlet does not take it: {exc.args[0]}"
    producer.flush(kafka.request_timeout_s + 1)
    if problems or len(producer):
        raise KafkaUnavailableError(
            f"Kafka at {kafka.bootstrap_servers} did not confirm all: {problems[0] if problems else 'no answer'};"
            " call `spanstream dead replay` again: copies are removed within the deduplication window"
        )
    return confirmed


def _why_not(letter: Message) -> str:
    if headers(letter).get(spans_dead.REASON_HEADER, "").startswith(UNREADABLE):
        return "bytes of a batch that no client can read: `dead show --raw` writes them"
    if spans_dead.CUT_HEADER in headers(letter):
        return "it was too large for a letter, and only its first bytes are kept"
    return "" if letter.value() else "it has no value"


def _letters(kafka: KafkaSettings, consumer: Consumer, first: int, end: int) -> Iterator[Message]:
    deadline = time.monotonic() + kafka.request_timeout_s
    at = first
    try:
        while at < end:
            message = consumer.poll(SEARCH_S)
            if message is None:
                if time.monotonic() > deadline:
                    raise KafkaUnavailableError(f"Kafka gave nothing of offset {at} in {kafka.request_timeout_s:g} s")
                continue
            deadline = time.monotonic() + kafka.request_timeout_s
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return  # offsets before the end were deleted or are control records
                raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {error}")
            at = (message.offset() or 0) + 1
            if at <= end:
                yield message
    except KafkaException as exc:
        raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {exc.args[0]}") from exc


@contextmanager
def _consumer(kafka: KafkaSettings) -> Iterator[Consumer]:
    own = {"group.id": f"{kafka.group}-dead", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2}
    consumer = Consumer(client_config(kafka) | own | {"auto.offset.reset": "earliest"})
    try:
        yield consumer
    finally:
        consumer.close()


def _join(kafka: KafkaSettings, consumer: Consumer) -> None:
    """Become the group's member that holds the letters' one partition."""
    consumer.subscribe([full_name(spans_dead.TOPIC, kafka)])
    deadline = time.monotonic() + kafka.request_timeout_s
    while not consumer.assignment():
        consumer.poll(SEARCH_S)
        if time.monotonic() > deadline:
            raise ReplayRefusedError(
                f"the letters were not given to this replay within {kafka.request_timeout_s:g} s: another one runs, or"
                f" one was killed in the last minute (consumer group {kafka.group}-dead)"
            )


def _noted(kafka: KafkaSettings, consumer: Consumer) -> Noted:
    try:
        found = consumer.committed([_place(kafka)], timeout=kafka.request_timeout_s)[0]
    except KafkaException as exc:
        raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {exc.args[0]}") from exc
    return Noted.read(found.offset, found.metadata or "")


def _note(kafka: KafkaSettings, consumer: Consumer, known: Noted) -> None:
    text = known.text()
    if len(text) > NOTE_BYTES_MAX:
        raise ReplayRefusedError(
            "too many single letters were sent again to note them: send earlier ones, or purge them"
            " (`spanstream dead purge`); the last ones were sent and are not noted"
        )
    place = TopicPartition(full_name(spans_dead.TOPIC, kafka), 0, known.below, text)
    try:
        consumer.commit(offsets=[place], asynchronous=False)
    except KafkaException as exc:
        raise KafkaUnavailableError(
            f"what was sent again could not be noted ({exc.args[0]}): a next replay sends up to {AT_A_TIME} letters"
            " once more, whose copies are removed within the deduplication window"
        ) from exc


def _place(kafka: KafkaSettings, offset: int = 0) -> TopicPartition:
    return TopicPartition(full_name(spans_dead.TOPIC, kafka), 0, offset)

"""The producer that every process of ours writes with: idempotent, acks=all, zstd, answers as asyncio futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from topics.admin import client_config
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings
from topics.topic import Topic, full_name

POLL_S = 0.005
IDLE_POLL_S = 1.0
FLUSH_S = 0.2
_BY_KEY = -1  # librdkafka's RD_KAFKA_PARTITION_UA: the partitioner decides
Headers = Sequence[tuple[str, bytes | None]]


class RecordProducer:
    """Sends records and tells when Kafka has them. Belongs to the event loop that it was made in.

    Order within a partition is the order of `send`. A record whose future failed may still have been written: who
    sends again makes copies, which the workers remove. Memory is bounded by `queue_bytes_max`: beyond it `send`
    fails at once.

    Confirmations are fetched every 5 ms while records are under way: a thread that waits for them would cost 0.15 us of
    CPU a span in turns of the interpreter's lock.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        linger_s: float = 0.005,
        ack_timeout_s: float = 10.0,
        message_bytes_max: int = 4 << 20,
        queue_bytes_max: int = 64 << 20,
    ) -> None:
        self._kafka = kafka
        self._loop = asyncio.get_running_loop()
        self._config = client_config(kafka) | {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "zstd",
            "compression.level": 1,  # level 3 costs 0.4 us a span more and saves 4 % on the wire
            "partitioner": "murmur2",
            "linger.ms": linger_s * 1000,
            "delivery.timeout.ms": int(max(ack_timeout_s, linger_s + 1) * 1000),
            "message.max.bytes": message_bytes_max,
            "batch.size": max(1_000_000, message_bytes_max),
            "queue.buffering.max.kbytes": max(1, queue_bytes_max >> 10),
            "log_level": 2,  # an absent broker is told by failing futures, not on stderr
        }
        self._fatal = False
        self._producer = self._connect()
        self._waiting = False  # records are under way: the timer is the short one
        self._timer = self._loop.call_later(IDLE_POLL_S, self._poll)

    def send(
        self, topic: Topic, partition: int | None, key: bytes | None, value: bytes | None, headers: Headers
    ) -> asyncio.Future[int]:
        """Queue one record; the future gives its offset once all in-sync replicas have it.

        partition None: by murmur2 of the key. The future fails with KafkaUnavailableError when the queue is full or
        Kafka has not confirmed within `ack_timeout_s`.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        try:
            self._producer.produce(
                full_name(topic, self._kafka),
                value=value,
                key=key,
                headers=list(headers),
                partition=_BY_KEY if partition is None else partition,
                on_delivery=self._on_delivery(future),
            )
        except BufferError:
            future.set_exception(KafkaUnavailableError("the queue to Kafka is full: Kafka is away or too slow"))
        except KafkaException as exc:
            future.set_exception(KafkaUnavailableError(f"Kafka refused the record: {exc.args[0]}"))
        if not self._waiting:
            self._waiting = True
            self._timer.cancel()
            self._timer = self._loop.call_later(POLL_S, self._poll)
        return future

    async def flush(self, timeout_s: float) -> int:
        """Wait until every record is confirmed or has failed, at most `timeout_s`. Returns how many are still open."""
        self._producer.flush(0)  # do not linger
        deadline_s = self._loop.time() + timeout_s
        while self.pending() and self._loop.time() < deadline_s:
            await asyncio.sleep(POLL_S)
            self._producer.poll(0)
        return self.pending()

    def pending(self) -> int:
        """Records queued or on their way."""
        return len(self._producer)

    def close(self) -> None:
        """End: records not yet confirmed are given up and their futures fail. Call `flush` before."""
        self._timer.cancel()
        self._waiting = True  # no send starts the timer again
        self._end(self._producer)

    def _connect(self) -> Producer:
        return Producer(self._config | {"error_cb": self._on_error})

    def _on_error(self, error: KafkaError) -> None:
        # A fatal error ends an idempotent producer for good: the next poll starts another one.
        self._fatal = self._fatal or error.fatal()

    def _on_delivery(self, future: asyncio.Future[int]) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if future.done():
                return
            if error is None and offset is not None:
                future.set_result(offset)
            else:
                future.set_exception(KafkaUnavailableError(_sentence(error)))

        return delivered

    def _poll(self) -> None:
        """Fetch what was confirmed meanwhile; without records under way, what librdkafka has to say of its brokers."""
        self._producer.poll(0)
        if self._fatal:
            dead, self._producer, self._fatal = self._producer, self._connect(), False
            self._end(dead)
        self._waiting = self.pending() > 0
        self._timer = self._loop.call_later(POLL_S if self._waiting else IDLE_POLL_S, self._poll)

    def _end(self, producer: Producer) -> None:
        producer.purge()
        producer.flush(FLUSH_S)


def _sentence(error: KafkaError | None) -> str:
    if error is not None and error.code() == KafkaError.INVALID_TIMESTAMP:
        return f"Kafka refused the record for its time: set this machine's clock, or the brokers' ({error.str()})"
    return f"Kafka did not confirm the record: {error}"

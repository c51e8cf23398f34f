"""Which record of a partition comes next: tells what is there from what a consumer did not deliver."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from topics.admin import client_config
from topics.errors import KafkaUnavailableError
from topics.settings import KafkaSettings

POLL_S = 0.1
FETCH_BYTES_MAX = 64 << 10


class NextRecord:
    """Asks with a consumer that joins nothing, kept between questions. Thread-safe; every question blocks."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None

    def offset(self, partition: int, start: int) -> int:
        """Offset of the first record at or after `start`; the end of the log where there is none.

        Control records and what was compacted away or deleted are no records. Raises KafkaUnavailableError.
        """
        with self._lock:
            if self._consumer is None:
                self._consumer = self._connect()
            try:
                return self._found(self._consumer, partition, start)
            except KafkaException as error:
                raise KafkaUnavailableError(f"{self._topic} {partition}: {error.args[0]}") from error
            finally:
                self._consumer.unassign()

    def _found(self, consumer: Consumer, partition: int, start: int) -> int:
        timeout_s = self._kafka.request_timeout_s
        deadline_s = time.monotonic() + timeout_s
        consumer.assign([TopicPartition(self._topic, partition, start)])
        while time.monotonic() < deadline_s:
            message = consumer.poll(POLL_S)
            if message is None or (message.topic(), message.partition()) != (self._topic, partition):
                continue
            if message.error() is None or message.error().code() == KafkaError._PARTITION_EOF:
                found: int = message.offset()
                return found
        raise KafkaUnavailableError(f"{self._topic} {partition}: nothing was read from {start} within {timeout_s} s")

    def _connect(self) -> Consumer:
        return Consumer(
            client_config(self._kafka)
            | {
                "group.id": f"{self._kafka.group}-next",  # never joined, nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_uncommitted",  # as the workers read
                "check.crcs": True,  # damaged gzip makes librdkafka spin for ever
                "fetch.wait.max.ms": 20,
                "max.partition.fetch.bytes": FETCH_BYTES_MAX,
                "queued.min.messages": 1,
                "log_level": 2,  # an absent broker is told by our errors, not on stderr
            }
        )

    def close(self) -> None:
        """Leave the cluster."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

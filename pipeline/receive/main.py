"""The receiver process: OTLP in, records on Kafka, an answer only when Kafka has them."""

from __future__ import annotations

import asyncio
import time

import structlog

from pipeline.allocator import keep_freed_memory, started
from pipeline.doors.listening import check_listening
from pipeline.doors.tls import server_tls
from pipeline.drops import DROPS
from pipeline.http_server import HttpServer, bind
from pipeline.receive.batch import Batcher
from pipeline.receive.grpc import GrpcReceiver
from pipeline.receive.http import HttpReceiver
from pipeline.receive.ingest import Ingest
from pipeline.spans.wire import CutLimits
from topics.admin import partition_count
from topics.errors import KafkaUnavailableError, SettingsError
from topics.producer import RecordProducer
from topics.settings import ReceiverSettings, Settings
from topics.spans_by_trace import TOPIC
from topics.topic import is_missing

WAIT_FOR_KAFKA_S = 1.0
READY_SECONDS = 2.0

log = structlog.get_logger("receiver")


class Receiver:
    """One receiver: start, then stop. A stop loses nothing that was acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ingest = Ingest(settings)
        DROPS.tenants_max = settings.limits.counted_tenants_max
        self._producer: RecordProducer | None = None
        self._kafka_problem: str | None = None
        self._kafka_asked_s = -READY_SECONDS
        self.opened = asyncio.Event()
        """Set when Kafka has answered and requests are taken; before, they get 503."""
        self.http_port = 0
        self.grpc_port = 0

    async def start(self) -> None:
        """Listen on both ports, and take spans as soon as Kafka answers. Raises SettingsError when a port is taken."""
        receiver = self._settings.receiver
        check_listening(self._settings, "receiver.host", receiver.host)
        self._tls = server_tls(self._settings)
        listener = bind(receiver.host, receiver.http_port, "receiver.http_port")
        self.http_port = listener.getsockname()[1]
        self._grpc = GrpcReceiver(self._ingest, receiver, self._tls)
        try:
            await self._grpc.start()
        except RuntimeError as exc:
            listener.close()
            raise SettingsError(f"receiver.grpc_port {receiver.grpc_port} on {receiver.host} is taken: {exc}") from exc
        self.grpc_port = self._grpc.port
        self._http = self._http_server(receiver)
        self._serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        await self._http.up.wait()
        self._opening = asyncio.create_task(self._open())
        log.info("listening", http_port=self.http_port, grpc_port=self.grpc_port)

    async def stop(self) -> None:
        """Refuse further requests, give those under way their answer, then end. Bounded by `stop_timeout_s`."""
        timeout_s = self._settings.receiver.stop_timeout_s
        self._opening.cancel()
        self._ingest.close("it is stopping")
        self._http.should_exit = True
        await asyncio.gather(self._grpc.stop(timeout_s), self._serving)
        left = 0
        if self._producer is not None:
            left = await self._producer.flush(timeout_s)
            self._producer.close()
        log.info("stopped", records_not_confirmed=left)

    def inflight_bytes(self) -> int:
        """Bytes of requests not yet answered."""
        return self._ingest.inflight.bytes

    async def _open(self) -> None:
        """Ask until Kafka answers and has the topic, then take requests."""
        receiver, told = self._settings.receiver, ""
        while (partitions := await self._partitions()) == 0:
            if self._kafka_problem != told:
                told = self._kafka_problem or ""
                log.warning("waiting_for_kafka", error=told)
            self._ingest.closed_because = told
            await asyncio.sleep(WAIT_FOR_KAFKA_S)
        self._producer = RecordProducer(
            self._settings.kafka,
            linger_s=receiver.linger_s,
            ack_timeout_s=receiver.ack_timeout_s,
            message_bytes_max=receiver.record_bytes_max + (64 << 10),
            queue_bytes_max=2 * receiver.inflight_bytes_max,
        )
        limits = CutLimits(
            record_bytes_max=receiver.record_bytes_max,
            attribute_bytes_max=self._settings.limits.attribute_bytes_max,
            output_bytes_max=receiver.inflight_bytes_max,
        )
        self._ingest.open(Batcher(self._producer, receiver, limits, partitions))
        self.opened.set()
        log.info("taking spans", partitions=partitions)

    async def _partitions(self) -> int:
        """How many partitions the topic has; 0, and `_kafka_problem` says why, while that is not known."""
        try:
            count = await asyncio.to_thread(partition_count, self._settings, TOPIC)
        except KafkaUnavailableError as exc:
            self._kafka_problem = str(exc)
            return 0
        self._kafka_problem = None if count else is_missing(TOPIC, self._settings.kafka)
        return count

    def _http_server(self, receiver: ReceiverSettings) -> HttpServer:
        return HttpServer(
            HttpReceiver(self._ingest, receiver, self._missing),
            interface="asgi3",
            proxy_headers=False,
            backlog=1024,
            limit_concurrency=receiver.connections_max,
            timeout_keep_alive=int(receiver.idle_timeout_s) or 1,
            timeout_graceful_shutdown=int(receiver.stop_timeout_s) or 1,
            tls=self._tls,
        )

    def _missing(self) -> str | None:
        """Why spans cannot be taken. Kafka is asked behind the scenes, every 2 s at most."""
        if self._ingest.closed_because is None and time.monotonic() - self._kafka_asked_s > READY_SECONDS:
            self._kafka_asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._partitions())
        return self._ingest.closed_because or self._kafka_problem


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Receive until `stop` is set. Who calls chooses the event loop (uvloop costs a third less CPU) and the signals."""
    keep_freed_memory()
    receiver = Receiver(settings)
    await receiver.start()
    started()
    await stop.wait()
    await receiver.stop()

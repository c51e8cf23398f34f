"""A receiver's HTTP application in process, before a Kafka that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.receive.batch import Batcher
from pipeline.receive.http import HttpReceiver
from pipeline.receive.ingest import Ingest
from pipeline.spans.wire import CutLimits
from topics.errors import KafkaUnavailableError
from topics.settings import LimitSettings, ReceiverSettings, Settings
from topics.topic import Topic


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio."""
    return "asyncio"


class PlayedKafka:
    """Confirms, fails or keeps silent, as the test says."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.tenants: list[bytes | None] = []
        self.behaviour = "confirms"

    def send(
        self,
        topic: Topic,
        partition: int | None,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> asyncio.Future[int]:
        """As RecordProducer.send."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.values.append(value)
        self.tenants.append(dict(headers)["X-Scope-OrgID"])
        if self.behaviour == "confirms":
            future.set_result(0)
        elif self.behaviour == "fails":
            future.set_exception(KafkaUnavailableError("Kafka did not confirm the record"))
        return future

    def data(self) -> TracesData:
        """All that was sent."""
        return TracesData.FromString(b"".join(self.values))


class ReceiverInProcess:
    """The ASGI application and a client for it."""

    def __init__(self, limits: LimitSettings | None = None, **changes: object) -> None:
        receiver = ReceiverSettings(**({"batch_wait_s": 0.001, "ack_timeout_s": 0.2} | changes))  # type: ignore[arg-type]
        self.kafka = PlayedKafka()
        self.ingest = Ingest(Settings(receiver=receiver, limits=limits or LimitSettings()))
        cut_limits = CutLimits(
            record_bytes_max=receiver.record_bytes_max, attribute_bytes_max=65_536, output_bytes_max=64 << 20
        )
        self.ingest.open(Batcher(self.kafka, receiver, cut_limits, 4))
        app = HttpReceiver(self.ingest, receiver, lambda: self.ingest.closed_because)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver")

    async def post(self, body: bytes, content_type: str = "application/x-protobuf", **headers: str) -> httpx.Response:
        """One export request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/v1/traces", content=body, headers={"content-type": content_type} | named)

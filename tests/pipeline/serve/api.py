"""The HTTP API in process: a topic in memory, no worker, nothing stored but what a test stores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvloop

from pipeline.query.questions import Kafka, Questions
from pipeline.serve.app import make_app
from pipeline.serve.querier import Querier
from tests.pipeline.query.world import LiveServer, MemoryStored, MemoryTail, OneSpan, otlp
from tests.waiting import wait_until_async
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, QuerierSettings, ReceiverSettings, Settings, StoreSettings

PARTITIONS = 2
T = TypeVar("T")


@dataclass(slots=True)
class World:
    """What a test may change before it asks."""

    settings: Settings
    stored: MemoryStored
    tail: MemoryTail
    owners: dict[int, str]
    server: LiveServer

    def send(self, spans: Sequence[OneSpan]) -> None:
        """Write the spans to the topic, a record each."""
        for span in spans:
            log = self.tail.log.setdefault(partition_of(span.trace_id, PARTITIONS), {})
            log[len(log)] = otlp([span])


def settings_of(
    tmp_path: Path, *, store: StoreSettings | None = None, multitenancy: bool = False, **querier: object
) -> Settings:
    return Settings(
        kafka=KafkaSettings(partitions=PARTITIONS),
        store=store or StoreSettings(),
        receiver=ReceiverSettings(multitenancy=multitenancy),
        querier=QuerierSettings(data_dir=tmp_path, threads=1, **querier),  # type: ignore[arg-type]
    )


def with_questions(
    settings: Settings, prepare: Callable[[World], None], test: Callable[[Questions, World], Awaitable[T]]
) -> T:
    """Ask without HTTP."""

    async def main() -> T:
        world = World(settings, MemoryStored(), MemoryTail(settings, PARTITIONS), {}, LiveServer())
        await world.server.start()
        prepare(world)
        kafka = Kafka(partitions=lambda: PARTITIONS, owners=lambda: dict(world.owners), tail=lambda _count: world.tail)
        questions = Questions(settings, world.stored, kafka)
        questions.start()
        try:
            await wait_until_async(lambda: not any(word in questions.missing() for word in ("Kafka", "looked at")))
            return await test(questions, world)
        finally:
            await questions.close()
            await world.server.stop()

    return asyncio.run(main())


def with_api(
    settings: Settings, prepare: Callable[[World], None], test: Callable[[httpx.AsyncClient, World], Awaitable[T]]
) -> T:
    """Ask the API, in process."""

    async def asked(questions: Questions, world: World) -> T:
        transport = httpx.ASGITransport(make_app(questions, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://querier") as client:
            return await test(client, world)

    return with_questions(settings, prepare, asked)


def with_querier(
    settings: Settings,
    spans: Sequence[OneSpan],
    test: Callable[[Querier, Questions], Awaitable[None]],
    questions_of: type[Questions] = Questions,
) -> None:
    """A querier that listens, over a topic in memory."""

    async def main() -> None:
        world = World(settings, MemoryStored(), MemoryTail(settings, PARTITIONS), {}, LiveServer())
        world.send(spans)
        kafka = Kafka(partitions=lambda: PARTITIONS, owners=dict, tail=lambda _count: world.tail)
        questions = questions_of(settings, world.stored, kafka)
        querier = Querier(settings, questions)
        await querier.start()
        try:
            await wait_until_async(lambda: not any(word in questions.missing() for word in ("Kafka", "looked at")))
            await test(querier, questions)
        finally:
            await querier.stop()

    uvloop.run(main())  # as the command does


def ports(tmp_path: Path, **changes: Any) -> Settings:
    return settings_of(tmp_path, http_port=0, grpc_port=0, **changes)

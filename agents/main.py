"""The worker process: everything it runs is joined here, started in order and stopped in reverse.

`spanstream worker` runs it; `faust -A agents.main worker` does too, with Faust's own options.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import faust
import structlog
from tenacity import Retrying, retry_if_exception_type, wait_exponential

from agents.app import SpanstreamApp, make_app, worker_url
from agents.housework import Housework
from agents.index_agent import attach_index
from agents.rekey import attach_rekey
from agents.sink_agent import attach_sink
from agents.source import KafkaOffsets, KafkaSource, StoreRanges
from agents.table_endpoint import TableEndpoint
from agents.worker import Worker
from pipeline.allocator import reuse_memory
from pipeline.clocks import own_clocks
from pipeline.drops import DROPS
from pipeline.http_server import bind
from pipeline.store.objects import ObjectStore
from pipeline.store.tables import Tables
from topics import admin, spans_by_trace
from topics.errors import KafkaUnavailableError
from topics.settings import Settings, load_settings
from topics.topic import full_name

log = structlog.get_logger(__name__)
TICK_S = 0.5
STOP_TIMEOUT_S = 15.0
SECRET_BYTES = 32
ASSIGNOR = "faust"  # the name of its partition assignor, as Kafka knows it
Answer = TypeVar("Answer")


def build(settings: Settings) -> SpanstreamApp:
    """The Faust app of a worker, complete. Waits for Kafka: the keyed topic says how many partitions there are."""
    topic = full_name(spans_by_trace.TOPIC, settings.kafka)
    partitions = _when_kafka_answers(partial(_partitions, settings, topic))
    DROPS.tenants_max = settings.limits.counted_tenants_max
    _when_kafka_answers(partial(admin.refuse_shared_group, settings, ASSIGNOR))
    app = make_app(settings)
    store = ObjectStore(settings.store)
    source = KafkaSource(app, settings, topic)
    worker = Worker(
        settings,
        topic=topic,
        partitions=partitions,
        source=source,
        ranges=StoreRanges(
            settings,
            store,
            topic=topic,
            partitions=partitions,
            worker_url=worker_url(settings),
            offsets=KafkaOffsets(settings),
            clock_ns=time.time_ns,
        ),
        tables=Tables(settings.worker.data_dir / "tables", rocksdb_bytes=settings.worker.rocksdb_bytes),
        secret=os.urandom(SECRET_BYTES),  # of this process: the window is made anew with every assignment
        clocks=own_clocks(),
    )
    endpoint = TableEndpoint(
        worker,
        partial(asyncio.to_thread, admin.group_owners, settings),
        worker_url(settings),
        settings,
    )
    app.routes = endpoint.routes()
    attach_rekey(app, settings, source, partitions)
    attach_index(app, settings, worker)
    attach_sink(app, worker)
    _attach_life(app, worker, endpoint, source)
    _attach_housework(app, Housework(settings, worker, store, source, worker_url(settings)))
    return app


def _attach_housework(app: faust.App, housework: Housework) -> None:
    every_s = housework.settings.housekeeping.every_s
    if every_s:
        app.timer(interval=every_s)(housework.tick)

    async def stopping(_app: faust.App, **_: Any) -> None:
        housework.close()

    app.on_before_shutdown.connect(stopping, weak=False)


def _attach_life(app: faust.App, worker: Worker, endpoint: TableEndpoint, source: KafkaSource) -> None:
    """Assignments, the half-second tick, and the stop in reverse order."""

    async def assigned(_app: faust.App, assigned: set[Any], **_: Any) -> None:
        await worker.assigned({tp.partition for tp in assigned if tp.topic == worker.topic})

    async def stopping(_app: faust.App, **_: Any) -> None:
        await worker.close()
        await endpoint.close()
        await source.close()

    app.on_partitions_assigned.connect(assigned, weak=False)
    app.on_before_shutdown.connect(stopping, weak=False)
    app.timer(interval=TICK_S)(worker.tick)


def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT. What is acknowledged is stored; its next owner reads the rest again."""
    reuse_memory()
    app = build(_with_free_port(settings))
    runner = _Runner(app, loglevel=settings.log.level, quiet=True, override_logging=False, redirect_stdouts=False)
    runner.spinner = None  # it would steer a terminal, and the log's first line
    runner.execute_from_commandline()


class _Runner(faust.Worker):
    """Faust's, which waits for all that it stops: a store or a Kafka that hangs would keep it for minutes."""

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        at_last = threading.Timer(STOP_TIMEOUT_S, _end)
        at_last.daemon = True
        at_last.start()
        super()._schedule_shutdown(number)


def _end() -> None:
    """As if it were killed, which a worker may be at any time."""
    log.warning("stopped_without_waiting", waited_s=STOP_TIMEOUT_S)
    os._exit(0)


def _with_free_port(settings: Settings) -> Settings:
    """The settings with a port that can be had: Faust would find out after it has joined, and say so by a traceback.

    The port is a part of the worker's name, so that any free one (0) is chosen here. Raises SettingsError.
    """
    worker = settings.worker
    with bind(worker.host, worker.port, "worker.port") as listener:
        port = listener.getsockname()[1]
    return settings.model_copy(update={"worker": worker.model_copy(update={"port": port})})


def _partitions(settings: Settings, topic: str) -> int:
    if count := admin.partition_count(settings, spans_by_trace.TOPIC):
        return count
    raise KafkaUnavailableError(f"topic {topic} does not exist: create it with `spanstream topics ensure`")


def _when_kafka_answers(ask: Callable[[], Answer]) -> Answer:
    for attempt in Retrying(
        retry=retry_if_exception_type(KafkaUnavailableError),
        wait=wait_exponential(multiplier=0.5, max=10),
        reraise=True,
    ):
        with attempt:
            try:
                return ask()
            except KafkaUnavailableError as error:
                log.warning("waiting_for_kafka", error=str(error))
                raise
    raise AssertionError("the retry loop ends by its return")


def __getattr__(name: str) -> Any:
    """`app`, for `faust -A agents.main`: made when it is asked for, so that importing this module does no work."""
    if name == "app":
        return build(load_settings())
    raise AttributeError(name)

"""Questions whose chunks workers of a real Dask cluster look through: the same answers, whatever dies or is broken."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from structlog.testing import capture_logs

from agents.commands.dask import DaskRun
from infra.minio import StorePlan
from infra.process import ChildProcess
from pipeline import telemetry
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunk_tasks import Task
from pipeline.query.dask_cluster import DaskCluster
from pipeline.query.executor import Executor, OwnThreads
from pipeline.query.explained import Watch
from pipeline.query.identifiers import Intrinsic
from pipeline.query.intervals import Intervals
from pipeline.query.metrics import Metrics, MetricsQuestion
from pipeline.query.search import Search, SearchQuestion
from pipeline.query.spread import Spread, executor_of
from pipeline.query.tags import Among, Tags
from pipeline.spans import schema
from pipeline.store.objects import ObjectStore
from pipeline.traceql.check import check
from pipeline.traceql.parser import parse
from tests.pipeline.query.cuts import CELLS_MAX, HOUR_NS, PARTITIONS, TENANTS, Asked, Cut, ask
from tests.pipeline.query.test_traceql import SHOP
from tests.pipeline.query.world import T0
from tests.waiting import wait_until, wait_until_async
from topics.errors import QueryTooLargeError, SettingsError
from topics.settings import KafkaSettings, QuerierSettings, Settings, StackSettings, StoreSettings, load_settings

pytestmark = pytest.mark.integration
S = 10**9
IN_CHUNKS = dict.fromkeys(range(PARTITIONS), Cut(chunks=[0, 1, 2]))  # several of each partition
EVERYTHING = (0, 2**64 - 1)
LIVE = schema.empty_table().select(["trace_id"])


@pytest.fixture(scope="module")
def run(minio_server: StorePlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskRun]:
    minio = minio_server
    store = StoreSettings(endpoint=minio.endpoint, access_key=minio.access_key, secret_key=minio.secret_key)
    settings = Settings(store=store, stack=StackSettings(data_dir=tmp_path_factory.mktemp("dask")))
    with DaskRun(settings, print, workers=2, host="127.0.0.1", port=0) as started:
        yield started


@pytest.fixture
def settings(store_settings: StoreSettings, tmp_path: Path) -> Settings:
    querier = QuerierSettings(data_dir=tmp_path, threads=1, memory_bytes_max=200 << 20, executor_batch_spans=1)
    return Settings(store=store_settings, kafka=KafkaSettings(partitions=PARTITIONS), querier=querier)


@pytest.fixture
def cluster(run: DaskRun) -> Iterator[DaskCluster]:
    """Two workers; those that a test killed are started again."""
    for role in run.roles:
        role.child.start()
    found = DaskCluster(run.url, retries=1)
    try:
        wait_until(lambda: len(found.workers()) == 2, 60)
        yield found
    finally:
        found.close()


# ---- questions


def questions_to(on: Asked, executor: Executor) -> list[Callable[[], Awaitable[Any]]]:
    """A search, a metric and a tag's values, of a querier that knows nothing yet."""
    cache = ChunkCache(1 << 20, executor)
    engine, catalog, snapshots = on.engine, on.stored, on.snapshots
    finder = Search(catalog, snapshots, engine, reach_ns=HOUR_NS, cache=cache)
    measurer = Metrics(catalog, snapshots, engine, reach_ns=HOUR_NS, cells_max=CELLS_MAX, cache=cache)
    tags = Tags(catalog, snapshots, engine, cache)

    async def search() -> Any:
        found = await finder.find(TENANTS, SearchQuestion(query=checked("{ .code > 0 }"), tags={}))
        return [(one.trace_id, one.start_unix_ns) for one in found.traces], sorted(found.reasons)

    async def metric() -> Any:
        query = checked("{} | rate() by (resource.service.name)")
        found = await measurer.measure(TENANTS, MetricsQuestion(query=query, intervals=Intervals(T0 - S, 2 * S, 1)))
        values = [value.tolist() for value in found.series.values]
        return sorted(zip(map(str, found.series.labels), map(str, values), strict=True)), sorted(found.reasons)

    async def values() -> Any:
        found = await tags.values(TENANTS, Intrinsic("name"), Among(EVERYTHING), 100)  # no entry lists them
        return found.values, sorted(found.reasons)

    return [search, metric, values]


def checked(text: str) -> Any:
    return check(parse(text), lambda _: None).body


async def answers(on: Asked, executor: Executor) -> list[Any]:
    return [await question() for question in questions_to(on, executor)]


def fallbacks() -> dict[str, float]:
    """By reason, those that there were."""
    samples = [one for metric in telemetry.EXECUTOR_FALLBACKS.collect() for one in metric.samples]
    return {one.labels["reason"]: one.value for one in samples if one.name.endswith("_total") and one.value}


def tasks_answered() -> float:
    return float(telemetry.EXECUTOR_TASKS._value.get())


@pytest.fixture(autouse=True)
def nothing_counted() -> None:
    telemetry.EXECUTOR_FALLBACKS.clear()


def under_way(run: DaskRun) -> dict[int, int]:
    """Tasks that the scheduler has given to a worker, by the worker's process."""
    with Client(run.url.replace("dask", "tcp"), set_as_default=False) as client:
        return {_pid_of(run, address): len(keys) for address, keys in client.processing().items() if keys}


def _pid_of(run: DaskRun, address: str) -> int:
    port = int(address.rpartition(":")[2])
    for role in run.roles:
        log = role.child.program.log_path.read_text()
        if f"Listening to:      tcp://127.0.0.1:{port}" in log and role.child.pid is not None:
            return role.child.pid
    raise AssertionError(address)


def a_worker(run: DaskRun, number: int = 1) -> ChildProcess:
    return run.roles[number].child


def pid(child: ChildProcess) -> int:
    assert child.pid is not None
    return child.pid


# ---- the same answers


def test_a_cluster_gives_the_answers_that_own_threads_give(settings: Settings, cluster: DaskCluster) -> None:
    async def question(on: Asked) -> None:
        before = tasks_answered()
        own = await answers(on, OwnThreads())
        assert own[0][0]
        assert len(own[1][0]) == 3
        assert len(own[2][0]) == 6
        assert tasks_answered() == before

        assert await answers(on, Spread(cluster, settings.querier)) == own
        chunks = sum(len(manifest.chunks) for manifest in on.stored.manifests)
        assert tasks_answered() - before >= 2 * chunks  # one a chunk and question; not all have the attribute

    ask(settings, SHOP, IN_CHUNKS, question)
    assert fallbacks() == {}


def test_who_looks_on_sees_the_chunks_that_workers_read(settings: Settings, cluster: DaskCluster) -> None:
    async def seen(on: Asked, executor: Executor) -> dict[str, Any]:
        finder = Search(on.stored, on.snapshots, on.engine, reach_ns=HOUR_NS, cache=ChunkCache(1 << 20, executor))
        watch = Watch()
        await finder.find(TENANTS, SearchQuestion(query=checked("{ .code > 0 }"), tags={}), watch=watch)
        told: dict[str, Any] = watch.told(100)["chunks"]
        return told

    async def question(on: Asked) -> None:
        own = await seen(on, OwnThreads())
        assert own["read"]
        assert await seen(on, Spread(cluster, settings.querier)) == own

    ask(settings, SHOP, IN_CHUNKS, question)
    assert fallbacks() == {}


def test_a_broken_chunk_is_named_as_own_threads_name_it(settings: Settings, cluster: DaskCluster) -> None:
    async def question(on: Asked) -> None:
        bad = on.stored.manifests[0].chunks[0]
        ObjectStore(settings.store).put(bad.bucket, bad.name, b"no parquet at all", "application/octet-stream")
        own = await answers(on, OwnThreads())
        assert all(bad.name in reasons[0] for _, reasons in own[:2])

        assert await answers(on, Spread(cluster, settings.querier)) == own

    ask(settings, SHOP, IN_CHUNKS, question)
    assert fallbacks().keys() == {"unreadable"}


def test_a_question_that_reads_too_many_bytes_is_refused_by_both(settings: Settings, cluster: DaskCluster) -> None:
    few = settings.querier.model_copy(update={"query_chunk_bytes_max": 1024})

    async def question(on: Asked) -> None:
        for executor in (OwnThreads(), Spread(cluster, few)):
            for asked in questions_to(on, executor):
                with pytest.raises(QueryTooLargeError, match=r"querier\.query_chunk_bytes_max"):
                    await asked()

    ask(settings.model_copy(update={"querier": few}), SHOP, IN_CHUNKS, question)


def test_a_worker_killed_in_the_middle_costs_a_retry_and_not_the_answer(
    settings: Settings, cluster: DaskCluster, run: DaskRun
) -> None:
    async def question(on: Asked) -> None:
        own = await answers(on, OwnThreads())
        os.kill(pid(a_worker(run)), signal.SIGSTOP)  # what it was given stays under way
        asking = asyncio.create_task(answers(on, Spread(cluster, settings.querier)))
        await wait_until_async(lambda: asyncio.to_thread(lambda: under_way(run).get(pid(a_worker(run)))), 20)
        assert not asking.done()
        a_worker(run).kill()
        assert await asking == own

    ask(settings, SHOP, IN_CHUNKS, question)
    assert fallbacks() == {}  # the other worker answered


def test_a_worker_that_hangs_costs_a_bounded_wait(settings: Settings, cluster: DaskCluster, run: DaskRun) -> None:
    impatient = settings.querier.model_copy(update={"executor_wait_s": 0.5})

    async def question(on: Asked) -> None:
        own = await answers(on, OwnThreads())
        os.kill(pid(a_worker(run, 2)), signal.SIGSTOP)
        try:
            assert await answers(on, Spread(cluster, impatient)) == own
        finally:
            os.kill(pid(a_worker(run, 2)), signal.SIGCONT)

    ask(settings, SHOP, IN_CHUNKS, question)
    assert fallbacks().keys() == {"late"}


# ---- ends


def test_a_question_that_is_cancelled_takes_its_tasks_along(
    settings: Settings, cluster: DaskCluster, run: DaskRun
) -> None:
    workers = [a_worker(run, number) for number in (1, 2)]

    async def question(on: Asked) -> None:
        for worker in workers:
            os.kill(pid(worker), signal.SIGSTOP)
        try:
            asking = asyncio.create_task(answers(on, Spread(cluster, settings.querier)))
            await wait_until_async(lambda: asyncio.to_thread(under_way, run), 20)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await wait_until_async(lambda: asyncio.to_thread(lambda: not under_way(run)), 10)
        finally:
            for worker in workers:
                os.kill(pid(worker), signal.SIGCONT)

    ask(settings, SHOP, IN_CHUNKS, question)


def task(text: str, seconds: float = 60) -> Task:
    return Task.of((), (text, []), LIVE, seconds)


ENDLESS = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b WHERE (a.range * b.range) % 7 = 8"


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
def test_a_worker_stops_what_nobody_waits_for(cluster: DaskCluster, run: DaskRun, how: str) -> None:
    workers = sorted(cluster.workers())  # each does one task at a time
    seconds = 2 if how == "timeout" else 60
    endless = [cluster.ask(task(ENDLESS, seconds), worker) for worker in workers]
    wait_until(lambda: len(under_way(run)) == len(workers))
    if how == "cancelled":
        for one in endless:
            one.cancel()

    quick = cluster.ask(task("SELECT count(*) AS n FROM {live}"), workers[0])

    assert quick.result(20).table().column("n").to_pylist() == [0]


def test_what_cannot_succeed_is_told_and_not_tried_again(cluster: DaskCluster) -> None:
    worker = min(cluster.workers())

    answer = cluster.ask(task("SELECT nothing FROM {live}"), worker).result(20)

    assert answer.error is not None
    assert answer.error[0] == "BinderException"


def test_a_statement_that_needs_too_much_memory_says_so_as_in_own_threads(cluster: DaskCluster) -> None:
    worker = min(cluster.workers())

    answer = cluster.ask(task("SELECT list(range) FROM range(1000000000)"), worker).result(60)

    assert answer.error is not None
    assert answer.error[0] == QueryTooLargeError.__name__


# ---- settings


@pytest.mark.parametrize("wrong", ["dask", "dask://127.0.0.1", "http://127.0.0.1:8786", "tcp://a:1", "dask://a:x"])
def test_an_address_that_is_none_is_named(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"querier\.executor is .* must be"):
        load_settings({"querier.executor": wrong})


def test_an_address_where_nobody_answers_is_said_and_own_threads_answer(settings: Settings) -> None:
    querier = settings.querier.model_copy(update={"executor": "dask://127.0.0.1:1"})

    async def question(on: Asked) -> None:
        executor = executor_of(querier)
        await asyncio.to_thread(executor.looked)
        try:
            assert await answers(on, executor) == await answers(on, OwnThreads())
        finally:
            executor.close()

    with capture_logs() as logs:
        ask(settings, SHOP, IN_CHUNKS, question)

    (said,) = [one for one in logs if one["event"].startswith("dask")]
    assert (said["event"], said["executor"]) == ("dask_away", "dask://127.0.0.1:1")
    assert "querier.executor" in said["help"]
    assert fallbacks().keys() == {"away"}


def test_without_dask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "pipeline.query.dask_cluster")

    with pytest.raises(SettingsError, match=r"no package distributed: pip install 'spanstream\[dask\]'"):
        executor_of(QuerierSettings(executor="dask://127.0.0.1:8786"))


# ---- last: what it ends, the next test would have to start again


def test_a_scheduler_that_goes_is_a_counted_detour_now_and_later(
    settings: Settings, cluster: DaskCluster, run: DaskRun
) -> None:
    async def question(on: Asked) -> None:
        own, spread = await answers(on, OwnThreads()), Spread(cluster, settings.querier)
        os.kill(pid(a_worker(run)), signal.SIGSTOP)
        asking = asyncio.create_task(answers(on, spread))
        await wait_until_async(lambda: asyncio.to_thread(lambda: under_way(run).get(pid(a_worker(run)))), 30)
        run.roles[0].child.kill()
        assert await asking == own
        assert fallbacks()["away"]  # an answer that was being fetched may have failed before that was known

        counted = fallbacks()["away"]
        assert await answers(on, spread) == own
        assert fallbacks()["away"] > counted

    ask(settings, SHOP, IN_CHUNKS, question)
    for role in run.roles:
        role.child.kill()

"""One seed's world: what there is, what is sent, what is asked, and what goes wrong meanwhile."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.store.manifest import Manifest
from tests.simulation import plain
from tests.simulation.faults import Faults
from tests.simulation.invariants import CHECK_EVERY, Invariants, Violation
from tests.simulation.kafka import Entry, Kafka, SpanKey
from tests.simulation.querier import SimulatedQuerier
from tests.simulation.scheduler import EPOCH_NS, Process, Scheduler
from tests.simulation.store import Buckets
from tests.simulation.workers import SimulatedWorker
from topics.errors import SpanstreamError
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, QuerierSettings, Settings, StoreSettings, WorkerSettings
from topics.spans_by_trace import DEFAULT_TENANT

REAL_EVERY = 50  # seeds: the real Parquet, DuckDB, RocksDB and OTLP decoder
MERGING_EVERY = 3  # such a seed has a short window and short waits, so that chunks are old soon
TENANTS = ("shop", "bank", DEFAULT_TENANT)
SESSION_S = 5.0
CLOCK_OFF_S = 800.0  # a store refuses what is signed 15 minutes off
SETTLE_S, SETTLE_STEPS = 400.0, 30_000
FOLDERS = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class World:
    """Workers, a querier, Kafka and the buckets, made and driven by a seed."""

    def __init__(self, seed: int, *, without: frozenset[int] = frozenset(), records_max: int = 10_000) -> None:
        self.seed, self.records_max = seed, records_max
        self.real = seed % REAL_EVERY == 0
        self.topic = "spans_by_trace"
        self.scheduler = Scheduler(seed)
        self.rng = random.Random(f"load {seed}")
        self.kafka = Kafka(self.scheduler, self.rng.choice([2, 2, 3]))
        self.buckets = Buckets(self.scheduler)
        self.faults = Faults(seed, without)
        self.settings = self._settings()
        merging = seed % MERGING_EVERY == 0
        if merging:
            self.settings = _that_merges(self.settings)
        self.window_ns = int(self.settings.worker.window_s * 1e9)
        self.tick_s = self.rng.choice([0.5, 1.0, 2.0])
        self.sweep_every_s = self.rng.choice([3.0, 8.0, 1000.0])
        self.sweep_every_s = 3.0 if merging else self.sweep_every_s
        self.folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=FOLDERS))
        self.disk: plain.Disk = {}
        self.problems: list[str] = []
        self.history: list[str] = []
        self.broken: dict[Process, list[Callable[[], None]]] = defaultdict(list)
        self.dead: list[Process] = []
        self.asking = 0
        self.sent: list[tuple[int, SpanKey]] = []
        self.workers: dict[str, SimulatedWorker] = {}
        self.clocks_off_ns: Counter[str] = Counter()  # worker -> how far its wall clock is ahead
        self.invariants = Invariants(self)
        self.faults.note = self.note

    def _settings(self) -> Settings:
        rng = self.rng
        worker = WorkerSettings(
            seal_age_s=rng.choice([2.0, 5.0, 15.0]),
            seal_spans=rng.choice([4, 12, 500_000]),
            segments_max=rng.choice([2, 8, 20]),
            drop_grace_s=rng.choice([0.0, 1.0, 5.0]),
            window_s=rng.choice([10.0, 900.0, 900.0]),
            take_gather_s=rng.choice([0.0, 0.2]),
        )
        if rng.random() < 0.2:
            worker = worker.model_copy(update={"live_bytes_max": 0})  # RocksDB holds the rows
        return Settings(
            kafka=KafkaSettings(partitions=len(self.kafka.logs)),
            store=StoreSettings(
                buckets=("sim-a", "sim-b"), put_timeout_s=rng.choice([2.0, 10.0]), retry_wait_max_s=2.0
            ),
            worker=worker,
            querier=QuerierSettings(catalog_refresh_s=rng.choice([3.0, 30.0]), live_timeout_s=3.0),
        )

    # ---- its life

    def run(self) -> None:
        """From the first record to the moment when all is stored and known. Raises Violation."""
        random.seed(self.seed)
        self._start()
        while self.scheduler.now_s < self.duration_s or self.asking:
            self._step()
        self._settle()

    def close(self) -> None:
        """Free everything."""
        for one in (*self.workers.values(), self.querier):
            if one.process.alive:
                self._kill(one)
        for process in self.dead:
            process.bury()
        shutil.rmtree(self.folder, ignore_errors=True)

    def note(self, text: str) -> None:
        """A line of the history that is printed when a promise is broken."""
        self.history.append(f"{self.scheduler.now_s:9.3f} s  step {self.scheduler.steps:6}  {text}")

    def _start(self) -> None:
        self.querier = SimulatedQuerier(self)
        for number in range(self.rng.choice([2, 2, 3])):
            self._start_worker(f"w{number}")
        self.duration_s = self.rng.choice([20.0, 40.0, 80.0])
        at_s = 0.0
        for _ in range(min(self.records_max, self.rng.choice([12, 25, 40]))):
            at_s += self.rng.expovariate(1 / 2) if self.rng.random() < 0.3 else 0.02
            if at_s < self.duration_s:
                self.scheduler.after(at_s, self._send)
        for _ in range(self.rng.choice([4, 8])):
            self.scheduler.after(self.rng.random() * self.duration_s, self.ask)
        if self.rng.random() < 0.3:
            self.scheduler.after(self.rng.random() * self.duration_s, self._restart_querier)

    def _step(self) -> None:
        if not self.scheduler.step():
            raise Violation("stuck: nothing will ever happen again")
        if self.scheduler.steps % CHECK_EVERY == 0:
            self.invariants.look()

    def _settle(self) -> None:
        """Nothing goes wrong any more: all that is not lost is stored in the end, committed, known and found."""
        self.faults.active = False
        self.clocks_off_ns.clear()
        self.note("faults end")
        until_s, until_steps = self.scheduler.now_s + SETTLE_S, self.scheduler.steps + SETTLE_STEPS
        while left := self.invariants.settled():
            self._step()
            if self.scheduler.now_s > until_s or self.scheduler.steps > until_steps:
                raise Violation(f"stuck: {left}")
        traces = sorted({(span.tenant, span.trace_id) for _, span in self.sent})
        for tenant in TENANTS:
            self.ask(tenant=tenant, exactly=True)
        for tenant, trace_id in self.rng.sample(traces, min(4, len(traces))):
            self.ask(tenant=tenant, trace_id=trace_id, exactly=True)
        while self.asking:
            self._step()
        self.invariants.dead_letters()
        self.invariants.look()

    # ---- what is sent

    def _send(self) -> None:
        """A record, now and then one that cannot be stored; it is acknowledged at once."""
        rng, partitions = self.rng, len(self.kafka.logs)
        partition, draw = rng.randrange(partitions), rng.random()
        tenant = rng.choice(TENANTS)
        spans = [self._span(tenant, partition) for _ in range(rng.choice([1, 1, 2, 4]))]
        named = None if tenant == DEFAULT_TENANT and rng.random() < 0.5 else tenant
        bad = draw < 0.08
        if draw < 0.03:
            spans.append(SpanKey(tenant, self._trace_id((partition + 1) % partitions), rng.randbytes(8), 1))
        elif draw < 0.06:
            named = "no/tenant"
        value = b"\xff\xffgarbage" if 0.06 <= draw < 0.08 else otlp(spans, self.scheduler.time_ns())
        if not bad:
            self.sent += [(partition, span) for span in spans]
        entry = Entry(value, named, self.scheduler.time_ns(), () if bad else tuple(spans), bad)
        offset = self.kafka.logs[partition].append(entry)
        self.note(f"record {offset} of partition {partition}: {len(spans)} spans{' to be set aside' * bad}")
        if rng.random() < 0.05:
            self.kafka.logs[partition].append(None)

    def _span(self, tenant: str, partition: int) -> SpanKey:
        """A new one, or a copy of one that was sent before."""
        mine = [span for at, span in self.sent if at == partition and span.tenant == tenant]
        if mine and self.rng.random() < 0.25:
            return self.rng.choice(mine)
        kind = self.rng.choice([1, 2, 3])
        return SpanKey(tenant, self._trace_id(partition), self.rng.randrange(1, 2**63).to_bytes(8, "big"), kind)

    def _trace_id(self, partition: int) -> bytes:
        """One of a few traces of a partition; tenants have the same ones."""
        return self.rng.choice(trace_ids(partition, len(self.kafka.logs)))

    # ---- what is asked

    def ask(self, tenant: str = "", trace_id: bytes | None = None, *, exactly: bool = False) -> None:
        """A question; its answer is compared with what was acknowledged when it was asked."""
        if not tenant:
            traces = sorted({(span.tenant, span.trace_id) for _, span in self.sent})
            if not traces or not self.querier.process.alive:
                return
            tenant, some = self.rng.choice(traces)
            trace_id = some if self.rng.random() < 0.5 else None
        self.asking += 1
        self.scheduler.steps += 1
        self.querier.process.spawn(self._answer(tenant, trace_id, exactly), "question")

    async def _answer(self, tenant: str, trace_id: bytes | None, exactly: bool) -> None:
        querier, wanted = self.querier, self.invariants.asked(tenant, trace_id)
        what = f"{tenant} {'everything' if trace_id is None else trace_id.hex()} asked at {self.scheduler.now_s:.3f} s"
        self.note(what)
        try:
            if trace_id is None:
                answer = await querier.everything(tenant)
            else:
                answer = await querier.trace(tenant, trace_id)
        except SpanstreamError as error:
            if exactly or not self.faults.struck:
                raise
            self.invariants.answers["refused"] += 1
            self.note(f"{what}: {error!r}")
            self.asking -= 1
            return
        self.asking -= 1
        self.note(f"{what}: {len(answer.spans)} spans {answer.reasons}")
        try:
            self.invariants.answered(what, wanted, answer, tenant)
            if exactly and answer.reasons and not self.invariants.lost:
                raise Violation(f"{what}: PARTIAL though all is well: {answer.reasons}")
        except Violation as error:
            self.problems.append(str(error))

    def excuse(self, reasons: list[str]) -> bool:
        """Whether a querier that has just been started may say so."""
        return any("not been listed yet" in reason for reason in reasons)

    def query(self, content: bytes, text: str, values: Sequence[Any], given: Mapping[str, pa.Table]) -> pa.Table:
        """Run a statement over one object."""
        if not self.real:
            return plain.query(content, text, values, given)
        path = self.folder / "chunk.parquet"
        path.write_bytes(content)
        with duckdb.connect() as connection:
            return connection.execute(text, [str(path), *values[1:]]).to_arrow_table()

    # ---- what goes wrong with processes; a worker and one of its partitions

    def crash(self, worker: SimulatedWorker, _partition: int) -> None:
        """kill -9; the group finds out after the session's time-out, or when it is there again."""
        self._kill(worker)
        self.scheduler.after(self.rng.random() * SESSION_S, lambda: self.kafka.group.leave(worker))
        self.scheduler.after(self.rng.random() * 8, partial(self._start_worker, worker.name))

    def stop(self, worker: SimulatedWorker, _partition: int) -> None:
        """SIGSTOP, and SIGCONT later: after the session's time-out it is a zombie."""
        if worker.process.stopped:
            return
        for_s = self.rng.choice([0.5, 3.0, 12.0, 25.0])
        worker.process.stop()
        if for_s > SESSION_S:
            self.scheduler.after(SESSION_S, lambda: self.kafka.group.leave(worker))

        def go_on() -> None:
            if worker.process.alive:
                worker.process.go_on()
                if for_s > SESSION_S:
                    self.scheduler.after(self.rng.random() * 5, partial(self._join, worker))

        self.scheduler.after(for_s, go_on)

    def expel(self, worker: SimulatedWorker, _partition: int) -> None:
        """The group does not hear of it any more, and it does not know."""
        self.kafka.group.leave(worker)
        self.scheduler.after(self.rng.random() * 15, partial(self._join, worker))

    def rebalance(self, _worker: SimulatedWorker, _partition: int) -> None:
        """The group deals its partitions anew."""
        self.kafka.group.rebalance()

    def retention(self, _worker: SimulatedWorker, partition: int) -> None:
        """Kafka deletes the oldest records, stored or not."""
        log = self.kafka.logs[partition]
        if log.end > log.start + 1:
            log.start = self.rng.randint(log.start + 1, log.end)
            self.note(f"the log of partition {partition} begins at {log.start}")

    def ahead(self, _worker: SimulatedWorker, partition: int) -> None:
        """The committed offset runs ahead of what is stored."""
        log, committed = self.kafka.logs[partition], self.kafka.committed.get(partition, 0)
        if committed < log.end:
            self.kafka.ran_ahead.add(partition)
            self.kafka.committed[partition] = self.rng.randint(committed + 1, log.end)

    def clock_set(self, worker: SimulatedWorker, _partition: int) -> None:
        """Somebody sets the machine's clock, back or forward; every other one is right again."""
        wrong = not self.clocks_off_ns[worker.name]
        self.clocks_off_ns[worker.name] = int(self.rng.uniform(-CLOCK_OFF_S, CLOCK_OFF_S) * 1e9) * wrong

    def _join(self, worker: SimulatedWorker) -> None:
        if worker.process.stopped:
            self.scheduler.after(1.0, partial(self._join, worker))
        elif worker.process.alive:
            self.kafka.group.join(worker)

    def _start_worker(self, name: str) -> None:
        self.workers[name] = SimulatedWorker(self, name)
        self.kafka.group.join(self.workers[name])

    def _restart_querier(self) -> None:
        if not self.asking:
            self._kill(self.querier)
            self.querier = SimulatedQuerier(self)

    def _kill(self, dies: SimulatedWorker | SimulatedQuerier) -> None:
        dies.process.kill()
        dies.unlock()
        self.dead.append(dies.process)
        for call in self.broken.pop(dies.process, []):
            call()

    # ---- for others

    def object(self, name: str) -> bytes | None:
        """An object in any bucket."""
        held = (self.buckets.objects.get((bucket, name)) for bucket in self.settings.store.buckets)
        return next(filter(None, held), None)

    def told(self, manifest: Manifest) -> None:
        """A manifest's entry reached the topic of entries."""
        self.kafka.tell(manifest.to_entry())


def otlp(spans: Sequence[SpanKey], time_ns: int) -> bytes:
    """One record's value."""
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for one in spans:
        kind: Any = one.kind
        scope.spans.append(
            Span(
                trace_id=one.trace_id,
                span_id=one.span_id,
                name="op",
                kind=kind,
                start_time_unix_nano=EPOCH_NS,
                end_time_unix_nano=EPOCH_NS + 1000,
            )
        )
    content: bytes = data.SerializeToString()
    return content


@cache
def trace_ids(partition: int, partitions: int) -> list[bytes]:
    """Some traces of a partition."""
    every = (random.Random(number).randbytes(16) for number in range(100))
    return [one for one in every if partition_of(one, partitions) == partition][:4]


def _that_merges(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "store": settings.store.model_copy(update={"put_timeout_s": 2.0}),
            "worker": settings.worker.model_copy(update={"window_s": 3.0, "seal_age_s": 2.0, "seal_spans": 12}),
        }
    )

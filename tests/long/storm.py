"""Workers that join, leave, die and hang beyond their session, under load; queries all the time."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.store.objects import ObjectStore
from tests.long.figures import Figure
from tests.queriers import asking, querier
from tests.test_kill_and_rebalance import SPANS_A_RECORD, Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin
from topics.settings import Settings

STORM_S = float(os.environ.get("STORM_S", "180"))
SPANS_PER_S = 5000
HANG_S = 9.0  # the tests' workers have a session of 6 s
EVENT_EVERY_S = 6.0
WORKERS_MAX = 4
RECOVERS_WITHIN_S = 180


class Storm:
    """What happens to the workers, one event at a time."""

    def __init__(self, workers: Workers, seed: int) -> None:
        self._workers, self._rng = workers, random.Random(seed)
        self._names = (f"worker-{number}" for number in itertools.count())
        self._hung: dict[str, float] = {}
        self.met: Counter[str] = Counter()

    def step(self) -> None:
        """Wake who hung long enough; then one joins, leaves, dies or hangs."""
        self.wake(after_s=HANG_S)
        awake = [name for name in self._workers.running if name not in self._hung]
        event = self._rng.choice(("join", "leave", "die", "hang"))
        if len(awake) <= 1 or (event == "join" and len(self._workers.running) < WORKERS_MAX):
            event = "join"
            self._workers.start(next(self._names))
        elif event == "leave":
            self._workers.end(self._rng.choice(awake), signal.SIGTERM)
        elif event == "hang":
            name = self._rng.choice(awake)
            self._workers.running[name].send_signal(signal.SIGSTOP)
            self._hung[name] = time.monotonic()
        else:
            event = "die"
            self._workers.kill(self._rng.choice(awake))
        self.met[event] += 1

    def wake(self, after_s: float) -> None:
        """Let the hung go on: zombies that believe that they own their partitions."""
        for name, since in list(self._hung.items()):
            if time.monotonic() - since > after_s:
                self._workers.running[name].send_signal(signal.SIGCONT)
                del self._hung[name]


def figures(settings: Settings, folder: Path) -> Iterator[Figure]:
    """Lost, doubled and wrong answers; how long the last ones take to store everything."""
    store = ObjectStore(settings.store)
    store.ensure_buckets()
    admin.ensure(settings)
    load = Load(settings)
    with Workers(settings, folder, seal_spans=20_000) as workers, querier(settings, folder) as url:
        storm = Storm(workers, 3)
        with asking(url, lambda: load.traces) as asker:
            until, next_event = time.monotonic() + STORM_S, 0.0
            while time.monotonic() < until:
                began = time.monotonic()
                if began >= next_event:
                    storm.step()
                    next_event = began + EVENT_EVERY_S
                load.send(SPANS_PER_S // SPANS_A_RECORD)
                load.send_again(2)
                time.sleep(max(0.0, 1 - (time.monotonic() - began)))
            storm.wake(after_s=0)
            if not workers.running:
                workers.start("last")
            ended = workers.ended_by_themselves()
            began = time.monotonic()
            wait_until(lambda: everything_is_stored(store, settings), RECOVERS_WITHIN_S, "everything is stored")
            recovered_s = time.monotonic() - began
        print("storm:", dict(storm.met), f"{asker.complete} complete, {asker.partial} partial answers")  # noqa: T201
        print(*asker.wrong[:5], sep="\n", flush=True)  # noqa: T201
    stored = stored_span_ids(store, settings)
    yield Figure("storm: wrong answers", len(asker.wrong), "answers", 0)
    yield Figure("storm: workers that ended by themselves", len(ended), "workers", 0)
    yield Figure("storm: no complete answer", int(asker.complete == 0), "runs", 0)
    yield Figure(f"storm: lost of {len(load.sent)} spans", sum((Counter(load.sent) - stored).values()), "spans", 0)
    yield Figure("storm: doubled spans", sum((stored - Counter(load.sent)).values()), "spans", 0)
    yield Figure("storm: kinds of events not met", 4 - len(storm.met), "kinds", 0)
    yield Figure("storm: seconds to recover", recovered_s, "s", RECOVERS_WITHIN_S)
    store.close()

"""A worker and a querier whose every request to the store may meet a fault, and then a store that is away."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.store.objects import ObjectStore
from tests.long.figures import Figure
from tests.metrics import metric
from tests.pipeline.store.faulty import ALL_FAULTS, CUT, REFUSED, faulty
from tests.queriers import asking, querier
from tests.test_kill_and_rebalance import SPANS_A_RECORD, Load
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored, stored_span_ids
from topics import admin
from topics.settings import Settings

FAULTY_S = float(os.environ.get("STORE_FAULTY_S", "120"))
AWAY_S = float(os.environ.get("STORE_AWAY_S", "600"))
AWAY_SPANS_PER_S = 2000
ONE_IN = 4
RECOVERS_WITHIN_S = 180
OPEN_BYTES_MAX = 2 << 30
NO_ANSWER = "503 what is in the store alone is left out"  # true then: two requests in a row hung
UNANSWERED_PERCENT_MAX = 5.0


def figures(settings: Settings, folder: Path) -> Iterator[Figure]:
    """Lost, doubled and wrong; tries an upload; how long it takes to recover."""
    direct = ObjectStore(settings.store)
    direct.ensure_buckets()
    admin.ensure(settings)
    rng = random.Random(1)
    faults = [fault for fault in ALL_FAULTS if fault != CUT]  # lying about its length is no fault of a network
    with faulty(settings.store) as (proxy, found):
        behind = found.model_copy(update={"put_timeout_s": 5.0, "get_timeout_s": 5.0, "retry_wait_max_s": 2.0})
        proxy.timed_out_s = 5.5
        own = settings.model_copy(update={"store": behind})
        load = Load(settings)
        with Workers(own, folder, store=behind) as workers, querier(own, folder) as url:
            worker = workers.start("one")
            proxy.start_over(lambda *_: rng.choice(faults) if rng.randrange(ONE_IN) == 0 else "")
            until = time.monotonic() + FAULTY_S
            with asking(url, lambda: load.traces) as asker:
                while time.monotonic() < until:
                    load.send(20)
                    load.send_again(2)
                    time.sleep(0.5)
                puts = Counter(path.split("?")[0] for method, path in proxy.seen if method == "PUT")
                counted = metric(worker, "spanstream_store_faults_total")
                proxy.start_over(lambda *_: "")
                began = time.monotonic()
                wait_until(lambda: everything_is_stored(direct, settings), RECOVERS_WITHIN_S, "everything is stored")
            unanswered = [one for one in asker.wrong if NO_ANSWER in one]
            wrong = [one for one in asker.wrong if NO_ANSWER not in one]
            print(*wrong[:5], f"{asker.complete} complete, {asker.partial} partial", sep="\n", flush=True)  # noqa: T201
            yield Figure("store faults: wrong answers", len(wrong), "answers", 0)
            share = 100 * len(unanswered) / max(1, asker.complete + asker.partial)
            yield Figure("store faults: answered that the store does not answer", share, "%", UNANSWERED_PERCENT_MAX)
            yield Figure("store faults: seconds to recover", time.monotonic() - began, "s", RECOVERS_WITHIN_S)
            yield Figure("store faults: tries of one upload", max(puts.values(), default=0), "tries", 30)
            yield Figure("store faults: no fault counted by the worker", int(counted == 0), "runs", 0)
            yield from _away(load, (worker, direct, settings), proxy)
    stored = stored_span_ids(direct, settings)
    yield Figure("store faults: lost spans", sum((Counter(load.sent) - stored).values()), "spans", 0)
    yield Figure("store faults: doubled spans", sum((stored - Counter(load.sent)).values()), "spans", 0)
    direct.close()


def _away(load: Load, parts: tuple[str, ObjectStore, Settings], proxy: object) -> Iterator[Figure]:
    """The store answers nothing for AWAY_S at AWAY_SPANS_PER_S."""
    worker, direct, settings = parts
    proxy.start_over(lambda *_: REFUSED)  # type: ignore[attr-defined]
    until, held, opened = time.monotonic() + AWAY_S, 0.0, 0.0
    while time.monotonic() < until:
        began = time.monotonic()
        load.send(AWAY_SPANS_PER_S // SPANS_A_RECORD)
        held = max(held, metric(worker, "spanstream_worker_held_bytes"))
        opened = max(opened, metric(worker, "spanstream_worker_open_bytes"))
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    proxy.start_over(lambda *_: "")  # type: ignore[attr-defined]
    began = time.monotonic()
    wait_until(lambda: everything_is_stored(direct, settings), 2 * RECOVERS_WITHIN_S, "what waited is stored")
    yield Figure(
        f"store away {AWAY_S:g} s: held in memory", held / 2**20, "MB", settings.worker.memory_bytes_max / 2**20
    )
    yield Figure(f"store away {AWAY_S:g} s: not stored yet", opened / 2**20, "MB", OPEN_BYTES_MAX / 2**20)
    yield Figure(f"store away {AWAY_S:g} s: seconds to recover", time.monotonic() - began, "s", 2 * RECOVERS_WITHIN_S)

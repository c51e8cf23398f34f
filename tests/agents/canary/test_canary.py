"""The canary on real parts: what is there is found at every age, what is not is named with its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from agents.canary import run
from agents.canary.known import Known
from agents.canary.run import Canary, Plan
from agents.canary.stages import reader_of
from agents.canary.state import State
from agents.commands.canary import canary
from agents.commands.querier import Querier
from pipeline.store.objects import ObjectStore
from tests.queriers import querier, receiver
from tests.waiting import wait_until
from tests.workers import Workers, everything_is_stored
from topics import admin
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
NOWHERE = "http://127.0.0.1:9"


class Parts:
    """A receiver, a worker and a querier, and the lines that canaries said."""

    def __init__(self, settings: Settings, otlp_url: str, querier_url: str) -> None:
        self.settings, self.otlp_url, self.querier_url = settings, otlp_url, querier_url
        self.said: list[str] = []

    @contextmanager
    def canary(
        self, *ages_s: float, state: Path | None = None, otlp_url: str = "", fresh_s: float = 20
    ) -> Iterator[Canary]:
        plan = Plan(every_s=0.5, ages_s=ages_s, fresh_s=fresh_s)
        with Querier(self.querier_url) as asked:
            in_kafka = reader_of(self.settings.kafka)
            yield Canary(plan, otlp_url or self.otlp_url, asked, State(state, 100), in_kafka, self.said.append)


@pytest.fixture
def parts(kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path) -> Iterator[Parts]:
    settings = Settings(kafka=kafka_settings, store=store_settings)
    admin.ensure(settings)
    with Workers(settings, tmp_path) as workers, receiver(settings, tmp_path) as otlp:
        workers.start("one")
        with querier(settings, tmp_path) as url:
            yield Parts(settings, otlp, url)


def test_a_canary_finds_what_is_there_and_names_where_the_rest_went(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = ObjectStore(parts.settings.store), tmp_path / "state" / "canary.json"

    # what is there: live at once, from its chunk later, found after a restart of the canary as well
    with parts.canary(0, 0.1, 3600, state=file) as first:
        pending = first.write()
        assert pending is not None
        first.look(pending)
        first.look(pending)
        assert (first.told.wrong.total(), parts.said) == (0, [])
        assert 0 < first.told.fresh_s_max < 10
    where = httpx.get(f"{parts.querier_url}/api/where/{pending.known.trace_id.hex()}").json()
    assert {place["kind"] for place in where["places"]} <= {"live", "kafka", "store"}
    wait_until(lambda: everything_is_stored(store, parts.settings), 60)

    # known to be in Kafka, by the canary's own look
    partition = partition_of(pending.known.trace_id, parts.settings.kafka.partitions)
    in_kafka = reader_of(parts.settings.kafka)
    assert in_kafka(partition, pending.known) == 0
    assert in_kafka(partition, Known(5, time.time_ns())) is None

    # its chunk goes: the state that another canary reads leads to it, and the line names the chunk
    wait_until(lambda: _stands_in_chunk(parts, pending.known), 30)
    for bucket in store.buckets:
        for one in list(store.list(bucket, "chunks/")):
            store.remove(bucket, one.name)
    (tmp_path / "another").mkdir()
    with querier(parts.settings, tmp_path / "another") as url:  # the first may have the chunk in memory
        beside = Parts(parts.settings, parts.otlp_url, url)
        with beside.canary(0, 0.1, 0.2, state=file) as second:
            assert [one.seed for one in second.state.pending] == [pending.seed]
            second.look(second.state.pending[0])
            assert second.state.pending == []
    assert second.told.wrong.total() >= 1
    assert any("by_id" in line and "at chunk" in line for line in beside.said), beside.said

    # a receiver that does not answer
    monkeypatch.setattr(run, "SEND_ATTEMPTS", 1)
    with parts.canary(0, otlp_url=NOWHERE) as third:
        third.once()
    assert ["missing at receiver" in line for line in parts.said] == [True]

    # the loop writes and looks until it is stopped
    with parts.canary(0, 0.3) as fourth:
        thread = threading.Thread(target=fourth.run)
        thread.start()
        wait_until(lambda: fourth.told.checks >= 2 + 2 * 8, 60)
        fourth.stop.set()
        thread.join(30)
    assert not fourth.told.wrong
    store.close()


def test_the_command_ends_with_one_where_a_trace_is_missing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--once", "--ages", "0s,1s", "--fresh", "20s", "--querier-url", parts.querier_url, "--json"]
    kafka = ["--kafka-bootstrap-servers", parts.settings.kafka.bootstrap_servers]

    good = CliRunner().invoke(canary, [*words, *kafka, "--otlp-url", parts.otlp_url])
    monkeypatch.setattr(run, "SEND_ATTEMPTS", 1)
    bad = CliRunner().invoke(canary, [*words, *kafka, "--otlp-url", NOWHERE])

    assert good.exit_code == 0, good.stderr
    assert '"checks": 9' in good.stdout
    assert bad.exit_code == 1
    assert "missing at receiver" in bad.stderr


def _stands_in_chunk(parts: Parts, known: Known) -> bool:
    document = httpx.get(f"{parts.querier_url}/api/where/{known.trace_id.hex()}").json()
    return [place["kind"] for place in document["places"]] == ["store"]

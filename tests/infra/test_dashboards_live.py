"""Dashboards and alert rules against the real /metrics, of processes that had spans, odd ones too, and questions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from agents.canary.known import Known
from agents.commands.local_run import variables_of
from infra.ports import free_port
from tests.infra.test_dashboards import METRIC, expressions
from tests.metrics import metric
from tests.queriers import querier, receiver, worker
from tests.waiting import wait_until
from topics import admin, spans_by_trace
from topics.settings import KafkaSettings, Settings, StoreSettings, WorkerSettings
from topics.topic import full_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
# Labelled ones of which there is no sample before something breaks: their names stand there all the same
ONLY_WHERE_SOMETHING_BREAKS = {
    "spanstream_worker_waits_total",
    "spanstream_querier_partial_answers_total",
    "spanstream_canary_missing_total",
}
LOOKS = 5  # of a canary at one trace: sent, by ID, by search, by tag names and values
BY = re.compile(r"by \(([^)]*)\) \((?:rate|increase)\((\w+)")
WHERE = re.compile(r"(\w+)\{(\w+)[=!]")


class Exposed:
    """What processes say: family names, and of each sample's name the labels that it has."""

    def __init__(self) -> None:
        self.families: set[str] = set()
        self.labels: dict[str, set[str]] = {}

    def read(self, process: str, url: str) -> None:
        """Of the samples those that are the process's own: it exposes the others' names, too, and never counts them."""
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
            ends = ("", "_total", "_bucket", "_count", "_sum")
            self.families |= {family.name + end for end in ends}
            for sample in family.samples:
                if sample.name.startswith(f"spanstream_{process}_"):
                    self.labels.setdefault(sample.name, set()).update(sample.labels)


@contextmanager
def canary(settings: Settings, otlp_url: str, querier_url: str) -> Iterator[str]:
    """Its metrics' URL, once it has looked at a trace."""
    port = free_port()
    words = ["--every", "1h", "--ages", "0s", "--otlp-url", otlp_url, "--querier-url", querier_url]
    process = subprocess.Popen(
        [sys.executable, "-m", "agents.cli", "canary", *words, "--metrics-port", str(port)],
        env=os.environ | variables_of(settings),
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _count(url, "spanstream_canary_checks_total") >= LOOKS, 60, "the canary has looked")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _count(url: str, name: str) -> float:
    try:
        return metric(url, name)
    except OSError:
        return 0


@pytest.fixture
def exposed(kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path) -> Exposed:
    settings = Settings(kafka=kafka_settings, store=store_settings, worker=WorkerSettings(seal_age_s=1))
    admin.ensure(settings)
    with ExitStack() as stack:
        urls = {
            "receiver": stack.enter_context(receiver(settings, tmp_path)),
            "worker": stack.enter_context(worker(settings, tmp_path)),
            "querier": stack.enter_context(querier(settings, tmp_path)),
        }
        urls["canary"] = stack.enter_context(canary(settings, urls["receiver"], urls["querier"]))
        _send_odd_spans(settings, urls["receiver"])
        httpx.get(f"{urls['querier']}/api/search", params={"q": "{}"}).raise_for_status()
        for name in ("spanstream_worker_dead_records_total", "spanstream_worker_stored_spans_total"):
            wait_until(lambda name=name: _count(urls["worker"], name) > 0, 60, name)  # type: ignore[misc]
        found = Exposed()
        for process, url in urls.items():
            found.read(process, url)
        return found


def _send_odd_spans(settings: Settings, url: str) -> None:
    """A span without an ID, which is rejected, and a record that is no OTLP, which is set aside."""
    request = Known(3, 1_700_000_000 * 10**9).request()
    request.resource_spans[0].scope_spans[0].spans[0].span_id = bytes(8)
    headers = {"content-type": "application/x-protobuf"}
    httpx.post(f"{url}/v1/traces", content=request.SerializeToString(), headers=headers).raise_for_status()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(full_name(spans_by_trace.TOPIC, settings.kafka), b"no OTLP")
    assert producer.flush(30) == 0


def test_every_metric_and_label_that_is_asked_for_is_exposed_by_the_process_that_counts_it(exposed: Exposed) -> None:
    asked = [(where, name, expression) for where, expression in expressions() for name in METRIC.findall(expression)]
    assert {name.split("_")[1] for _, name, _ in asked} == {"receiver", "worker", "querier", "canary"}

    for where, name, expression in asked:
        assert name in exposed.families, where
        assert name in exposed.labels.keys() | ONLY_WHERE_SOMETHING_BREAKS, f"{where}: no sample of {name}"
        wanted = {label.strip() for labels, of in BY.findall(expression) if of == name for label in labels.split(",")}
        wanted |= {label for of, label in WHERE.findall(expression) if of == name}
        assert wanted <= exposed.labels.get(name, wanted), where

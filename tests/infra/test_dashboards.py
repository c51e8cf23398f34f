"""Dashboards and alert rules ask for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from pipeline import telemetry
from tests.pages import ROOT
from topics.settings import Settings

DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
YAML = sorted([*(ROOT / "infra" / "grafana").rglob("*.yaml"), *(ROOT / "infra" / "prometheus").glob("*.yml")])
METRIC = re.compile(r"\bspanstream_\w+")


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel and rule."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
    alerts = yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yml").read_text())
    yield from ((rule["alert"], rule["expr"]) for group in alerts["groups"] for rule in group["rules"])


def asked_metrics() -> set[str]:
    return {name for _, expression in expressions() for name in METRIC.findall(expression)}


def defined() -> dict[str, MetricWrapperBase]:
    """Every name that a metric of ours has in Prometheus."""
    found: dict[str, MetricWrapperBase] = {}
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            for one in metric.describe():
                ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(one.type, [""])
                found |= {one.name + end: metric for end in ends}
    return found


def test_every_metric_asked_for_is_defined() -> None:
    assert len(asked_metrics()) > 20
    assert not asked_metrics() - defined().keys()


def test_labels_that_are_summed_by_are_the_metrics_own() -> None:
    known = defined()
    for where, expression in expressions():
        for labels, inner in re.findall(r"sum by \(([^)]*)\) \((?:rate|increase)\((\w+)", expression):
            own = {*known[inner]._labelnames, "le"}
            assert {label.strip() for label in labels.split(",")} <= own, where


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_what_is_written_in_yaml_parses(path: Path) -> None:
    assert yaml.safe_load(path.read_text())


def test_scraped_ports_are_those_of_the_settings() -> None:
    settings = Settings()
    scraped = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    source, _ = yaml.safe_load(
        (ROOT / "infra" / "grafana" / "provisioning" / "datasources" / "spanstream.yaml").read_text()
    )["datasources"]

    ports = [int(job["static_configs"][0]["targets"][0].rpartition(":")[2]) for job in scraped]

    assert ports == [settings.receiver.http_port, settings.worker.port, settings.querier.http_port]
    assert source["url"].endswith(f":{settings.querier.http_port}")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    for path in DASHBOARDS:
        panels: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert len(set(cells)) == len(cells)

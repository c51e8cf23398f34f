"""Alert rules and dashboards are PromQL, and name labels that their metrics have."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.test_dashboards import defined, expressions

OF_PROMETHEUS = {"job", "instance", "le"}  # labels that its scraping and its histograms add
PARTS = ("expr", "lhs", "rhs", "vector_selector")


@functools.cache
def promql() -> Any:
    """The parser; it has no types."""
    return importlib.import_module("promql_parser")


def parsed(expression: str) -> Any:
    """Raises ValueError for what is no PromQL. Grafana's variables stand for a duration."""
    return promql().parse(expression.replace("$__rate_interval", "5m").replace("$__range", "1h"))


def nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for part in [*(getattr(tree, name, None) for name in PARTS), *(getattr(tree, "args", None) or [])]:
        if part is not None:
            yield from nodes(part)


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda text: text[:40])
def test_an_expression_parses_and_names_labels_of_its_metrics(where: str, expression: str) -> None:
    found = list(nodes(parsed(expression)))
    selectors = [one for one in found if isinstance(one, promql().VectorSelector)]
    own = {name: {*defined()[name]._labelnames} for name in (one.name for one in selectors) if name in defined()}

    for one in selectors:
        if one.name in own:
            assert {matcher.name for matcher in one.matchers.matchers} - {"__name__"} <= own[one.name] | OF_PROMETHEUS
    grouped = [one.modifier for one in found if isinstance(one, promql().AggregateExpr) and one.modifier]
    asked = {label for one in grouped for label in one.labels}
    assert asked <= OF_PROMETHEUS.union(*own.values()), where


def test_what_is_no_promql_is_found() -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed("sum by (job (rate(up[5m]))")

"""The queries of the dashboard and of the alert rules parse, and ask for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from penstock.telemetry import metrics
from prometheus_client import Counter, Gauge, Histogram

PROJECT = Path(__file__).resolve().parents[2]
DASHBOARD = PROJECT / "infra/grafana/dashboards/penstock.json"
RULES = PROJECT / "infra/prometheus/rules.yml"
_SCRAPED = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
"""Metrics that Prometheus and its client add by themselves."""


def _series() -> dict[str, set[str]]:
    """Every time series of the catalogue with its labels."""
    found = {name: set(labels) for name, labels in _SCRAPED.items()}
    for constant in metrics.__all__:
        metric = getattr(metrics, constant)
        labels = {*metric._labelnames, "job", "instance"}
        if isinstance(metric, Counter):
            found[f"{metric._name}_total"] = labels
        elif isinstance(metric, Gauge):
            found[metric._name] = labels
        else:
            assert isinstance(metric, Histogram), constant
            found |= {f"{metric._name}_count": labels, f"{metric._name}_sum": labels}
            found[f"{metric._name}_bucket"] = {*labels, "le"}
    return found


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _queries() -> dict[str, str]:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    queries = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in _panels(dashboard)
        for target in panel["targets"]
    }
    rules = yaml.safe_load(RULES.read_text("utf-8"))
    return queries | {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


QUERIES = _queries()


def _selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric's name with the labels it is filtered by, from the parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    for child in ("expr", "lhs", "rhs", "vector_selector"):
        if (found := getattr(node, child, None)) is not None:
            yield from _selectors(found)
    for argument in getattr(node, "args", None) or []:
        yield from _selectors(argument)


def _grouped(query: str) -> set[str]:
    """The labels a query groups by, which all its metrics must have."""
    return {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_asks_for_what_exists(title: str) -> None:
    # Grafana fills these in before Prometheus sees the query.
    query = QUERIES[title].replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$service", ".*")
    series = _series()
    asked = list(_selectors(promql_parser.parse(query)))
    assert asked
    for name, labels in asked:
        assert name in series, f"no metric {name} in penstock/telemetry/metrics.py"
        assert labels | _grouped(query) <= series[name], f"{name} has only the labels {sorted(series[name])}"


def test_a_metric_that_does_not_exist_would_be_found() -> None:
    ((name, labels),) = _selectors(promql_parser.parse('sum by (x) (rate(penstock_nothing_total{code="a"}[1m]))'))
    assert (name, labels) == ("penstock_nothing_total", {"code"})
    assert name not in _series()


def test_every_metric_of_the_catalogue_is_on_the_dashboard() -> None:
    shown = " ".join(QUERIES.values())
    unseen = [name for name in metrics.__all__ if getattr(metrics, name)._name not in shown]
    assert unseen == []


def test_panels_have_ids_of_their_own_and_the_datasource_that_is_provisioned() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    sources = yaml.safe_load((PROJECT / "infra/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["datasource"]["uid"] for panel in _panels(dashboard)} == {sources["datasources"][0]["uid"]}

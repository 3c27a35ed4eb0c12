"""What a route's canary is as an experiment: its guards, its arms, and what makes another one of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.canaries import CANARY, STABLE, CanaryExperiment, canary_experiment, canary_name
from penstock.config.kinds import Canary, Route, Target
from penstock.config.plane import ConfigPlane
from pydantic import ValidationError

STABLE_TARGET = Target(backend="openai", model="stable", base_url="http://127.0.0.1:1/v1")
TRIED = Target(backend="openai", model="tried", base_url="http://127.0.0.1:2/v1")

OTHER = TRIED.model_copy(update={"model": "other"})


def a_route(**changes: Any) -> Route:
    fields: dict[str, Any] = {"target": TRIED, "share": 0.1}
    canary = Canary(**fields | changes)
    return Route(name="default", targets=(STABLE_TARGET,), canary=canary)


def of(route: Route) -> CanaryExperiment:
    experiment = canary_experiment(route)
    assert experiment is not None
    return experiment


def arm(experiment: CanaryExperiment, unit: str) -> str:
    found = experiment.arm_of(unit)
    return found.name if found is not None else ""


def test_bounds_become_guards() -> None:
    route = a_route(
        max_latency_ms=200, latency_limit_ms=9_000, max_cost=0.001, cost_limit=0.5,
        max_score_loss={"answer.groundedness": 0.05}, max_error_rate=0.03,
    )  # fmt: skip
    guards = {metric.name: (metric.better, metric.margin, metric.upper_bound) for metric in of(route).metrics}
    assert guards == {
        "failed": ("lower", 0.03, 1.0),
        "model_ms": ("lower", 200.0, 9_000.0),
        "cost": ("lower", 0.001, 0.5),
        "answer.groundedness": ("higher", 0.05, 1.0),
    }
    assert {metric.role for metric in of(route).metrics} == {"guard"}
    assert of(a_route(max_error_rate=None)).metrics == ()
    assert canary_experiment(Route(name="plain", targets=(STABLE_TARGET,))) is None


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"max_latency_ms": 9_000, "latency_limit_ms": 9_000}, "max_latency_ms: is as large as latency_limit_ms"),
        ({"max_cost": 2.0}, "max_cost: is as large as cost_limit"),
        ({"max_score_loss": {"groundedness": 0.1}}, "is no score: write subject.name"),
        ({"max_score_loss": {"answer.groundedness": 1.0}}, "must be from 0 to below 1"),
    ],
)
def test_bounds_that_nothing_could_exceed_are_refused(changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValidationError, match=cause):
        a_route(**changes)


@pytest.mark.parametrize(
    "changes", [{"salt": "again"}, {"share": 0.2}, {"target": OTHER}, {"max_error_rate": 0.5}, {"alpha": 0.01}]
)
def test_whatever_of_a_canary_changes_another_one_is_on_trial(changes: dict[str, Any]) -> None:
    assert of(a_route(**changes)).design != of(a_route()).design


def test_what_else_the_route_changes_leaves_the_trial_as_it_is() -> None:
    changed = a_route().model_copy(update={"targets": (Target(backend="extractive", model="x"),), "deadline_s": 3.0})
    assert of(changed).design == of(a_route()).design


@given(st.floats(0.01, 0.49), st.floats(0.0, 0.5), st.text(max_size=5))
def test_a_larger_share_takes_nobody_away_from_the_canary(share: float, more: float, user: str) -> None:
    small, large = of(a_route(share=share)), of(a_route(share=min(0.5, share + more)))
    unit = small.unit_of(user, None, "r", "team")
    assert unit == large.unit_of(user, None, "r", "team")
    if arm(small, unit) == CANARY:
        assert arm(large, unit) == CANARY


def test_the_share_is_kept_and_another_salt_draws_others() -> None:
    first, again = of(a_route()), of(a_route(salt="again"))
    units = [first.unit_of(f"u{n}", None, "", "team") for n in range(4_000)]
    drawn = Counter(arm(first, unit) for unit in units)
    assert drawn[CANARY] / len(units) == pytest.approx(0.1, abs=0.02)
    assert drawn[STABLE] / len(units) == pytest.approx(0.4, abs=0.03), "four times as many are enough to compare with"
    assert set(drawn) == {CANARY, STABLE, ""}
    half = of(a_route(share=0.5))
    assert {arm(half, unit) for unit in units} == {CANARY, STABLE}
    both = sum(arm(first, unit) == arm(again, unit) == CANARY for unit in units)
    assert both / len(units) == pytest.approx(0.01, abs=0.006)
    assert first.unit_of("ada", None, "", "a") != first.unit_of("ada", None, "", "b"), "users of two teams are two"


def test_the_plane_has_a_canary_as_long_as_its_route_does() -> None:
    plane = ConfigPlane.of([a_route()])
    name = canary_name("default")
    assert plane.experiment(name) == of(a_route())
    assert [each.name for each in plane.canaries()] == [name]
    assert plane.experiments("platform") == [], "nobody wrote it down"
    plane.put("default", a_route(salt="again"))
    assert plane.experiment(name) == of(a_route(salt="again"))
    plane.put("default", Route(name="default", targets=(STABLE_TARGET,)))
    assert plane.experiment(name) is None
    plane.put("default", a_route())
    plane.withdraw("routes", "default")
    assert plane.canaries() == []

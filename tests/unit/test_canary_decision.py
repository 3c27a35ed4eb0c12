"""When a canary is taken back: fast where it fails, hardly ever where it keeps within its bounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.canaries import CANARY, takes_back
from penstock.contracts.records import Observation

from services.evaluation.experiments.advice import advice, state_of
from services.evaluation.experiments.command_report import page
from services.evaluation.experiments.command_show import described
from services.evaluation.experiments.matching import NOTHING_MATCHED, Matched, control_came, trial_came
from services.evaluation.experiments.reading import Found
from tests.unit.canary_cases import a_canary, calls
from tests.unit.experiment_cases import NOW, Log, an_observation

LATER = NOW + timedelta(days=1)


def asked_until_taken_back(experiment: Any, observations: Iterator[Observation]) -> int | None:
    """Requests that the canary had got when it was taken back; None where it never was."""
    log, asked = Log(experiment), 0
    for observation in observations:
        asked += observation.arm == CANARY
        log.take([observation])
        if log.told():
            (event,) = log.told()
            assert takes_back(event, experiment)
            return asked
    return None


@pytest.mark.parametrize(
    ("failing", "typical", "most"), [(1.0, 20, 30), (0.3, 60, 120), (0.1, 250, 500)], ids=["all", "0.3", "0.1"]
)
def test_a_canary_that_fails_is_taken_back_soon(failing: float, typical: int, most: int) -> None:
    """Beside stable targets that fail one call in a hundred."""
    experiment = a_canary()
    asked = [
        asked_until_taken_back(experiment, calls(experiment, 5 * most, failing=failing, seed=seed)) for seed in range(5)
    ]
    found = [each for each in asked if each is not None]
    assert len(found) == len(asked)
    assert float(np.median(found)) <= typical
    assert max(found) <= most


def test_few_users_who_ask_often_are_enough_where_every_call_fails() -> None:
    experiment = a_canary()
    asked = asked_until_taken_back(experiment, calls(experiment, 400, failing=1.0, users=200))
    assert asked is not None
    assert asked <= 40


def matched(trial: np.ndarray[Any, Any], failed: np.ndarray[Any, Any], margin: float) -> Matched:
    """Return the bet after all outcomes; its wealth on the way is kept at its highest."""
    state, highest = NOTHING_MATCHED, 0.0
    for is_trial, has_failed in zip(trial.tolist(), failed.tolist(), strict=True):
        state = (trial_came if is_trial else control_came)(state, has_failed, margin, 4)
        highest = max(highest, state.wager.log_wealth)
    return msgspec.structs.replace(state, wager=msgspec.structs.replace(state.wager, log_wealth=highest))


def taken_back(stable: float, canary: float, alpha: float, streams: int) -> float:
    """Return the share of streams in which the bet ever says that the canary fails 2 % more: looked at after every call."""
    taken = 0
    for seed in range(streams):
        dice = np.random.default_rng(seed)
        trial = dice.random(1_500) < 0.2
        failed = dice.random(1_500) < np.where(trial, canary, stable)
        taken += matched(trial, failed, 0.02).wager.log_wealth >= -np.log(alpha)
    return taken / streams


@pytest.mark.parametrize(("stable", "canary"), [(0.01, 0.01), (0.01, 0.03), (0.2, 0.22)])
def test_a_canary_within_its_bound_is_hardly_ever_taken_back_however_often_one_looks(
    stable: float, canary: float
) -> None:
    """At 20 %, so that few streams are enough to see a test that rejects more often."""
    alpha, streams = 0.2, 120
    # Two standard errors above what is allowed.
    assert taken_back(stable, canary, alpha, streams) <= alpha + 2 * (alpha * (1 - alpha) / streams) ** 0.5
    assert taken_back(stable, canary + 0.15, alpha, 20) >= 0.9, "the same streams tell one that is far beyond it"


def test_arms_that_come_in_bursts_are_matched_all_the_same() -> None:
    """The canary's calls take longer, so the others' come first, many at once, and then its own."""
    experiment = a_canary(share=0.5)
    observations = list(calls(experiment, 60, failing=1.0))
    bursts = [sorted(observations[n : n + 15], key=lambda each: each.arm == CANARY) for n in range(0, 60, 15)]
    assert Log(experiment).take([each for burst in bursts for each in burst]).told()


def test_one_users_failures_count_once() -> None:
    """All requests of some users fail, whichever target they get: that is not the target's doing."""
    experiment = a_canary()
    units = {f"u{n}": experiment.arm_of(experiment.unit_of(f"u{n}", None, "")).name for n in range(60)}  # type: ignore[union-attr]
    unlucky = next(user for user, arm in units.items() if arm == CANARY)
    log = Log(experiment)
    for number in range(600):
        user = unlucky if number % 10 == 0 else f"u{number % 60}"
        failed = float(user == unlucky)
        log.take([an_observation(experiment, number, user, {"failed": failed}, source="completions")])
    assert log.told() == []
    assert log.state is not None
    assert log.state.matched[0].wager.count <= sum(arm == CANARY for arm in units.values())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.floats(0.0, 0.9))
def test_every_outcome_is_matched_once_or_waits(outcomes: list[tuple[bool, bool]], margin: float) -> None:
    state = NOTHING_MATCHED
    for trial, failed in outcomes:
        state = (trial_came if trial else control_came)(state, failed, margin, 3)
    assert not (state.trials and (state.groups or state.came))
    pairs = state.wager.count
    assert pairs <= min(sum(trial for trial, _ in outcomes), sum(not trial for trial, _ in outcomes))
    assert state.wager.mean <= (1 - margin) / (1 + margin) + 1e-9


def test_a_slower_canary_is_taken_back_by_its_latency_and_a_like_one_is_not() -> None:
    experiment = a_canary(max_error_rate=None, max_latency_ms=100, latency_limit_ms=10_000)
    slow = [
        msgspec.structs.replace(o, values={name: v * (3 if o.arm == CANARY else 1) for name, v in o.values.items()})
        for o in calls(experiment, 1_500, failing=0.0, stable=0.0)
    ]
    (event,) = Log(experiment).take(slow).told()
    assert (event.metric, event.decision) == ("model_ms", "worse")
    assert event.interval[0] > 100
    assert Log(experiment).take(calls(experiment, 1_500, failing=0.0, stable=0.0)).told() == []


def test_what_is_told_of_a_canary() -> None:
    experiment = a_canary()
    log = Log(experiment).take(calls(experiment, 120, failing=1.0), through_bytes=True)
    (event,), (alert,) = log.told(), log.alerts()
    assert (event.tenant_id, event.experiment, event.metric) == ("platform", "canary:default", "failed")
    assert event.p_value <= experiment.alpha
    assert event.means[CANARY] == 1.0
    assert alert.title == "Canary tried of route default is taken back: failed"
    assert "another salt" in alert.suggested_action
    assert "always-valid p-value" in alert.description
    assert state_of(experiment, log.state, LATER) == "taken back"
    assert "tried was taken back for failed" in advice(experiment, log.state, LATER)[0]
    data = described(Found(experiment, log.state, tuple(log.told())), LATER)
    assert [arm["what"] for arm in data["arms"]] == ["the stable targets", "target tried"]
    assert data["ratio"] is None
    assert "tried was taken back for failed" in page(data, LATER)
    assert [(one["metric"], one["decision"]) for one in data["comparisons"]] == [("failed", "worse")]


def test_advice_on_a_canary_that_stays() -> None:
    experiment = a_canary(max_error_rate=0.1)
    assert "Nothing was observed" in advice(experiment, None, LATER)[0]
    short = Log(experiment).take(calls(experiment, 60, failing=0.0, stable=0.0)).state
    assert "not yet certain of failed" in advice(experiment, short, LATER)[0]
    long = Log(experiment).take(calls(experiment, 2_500, failing=0.0, stable=0.0)).state
    assert "keeps within every bound" in advice(experiment, long, LATER)[0]
    assert state_of(experiment, long, LATER) == "running"


def test_another_design_and_a_canary_that_is_gone_decide_nothing() -> None:
    experiment = a_canary()
    observations = list(calls(experiment, 120, failing=1.0))
    for now in (a_canary(salt="again"), None):
        log = Log(now)
        assert log.take(observations).told() == []
        assert log.state is None

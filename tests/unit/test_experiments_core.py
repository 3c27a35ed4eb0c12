"""The agent of experiments: what it adds up, what it decides, and that it says everything once."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.config.kinds import Arm, Metric
from penstock.contracts.records import Observation

from services.evaluation.experiments.clusters import BUCKETS
from services.evaluation.experiments.comparison import Levels, compare, levels
from services.evaluation.experiments.decisions import units_by_arm
from services.evaluation.experiments.state import Standing
from tests.unit.experiment_cases import NOW, Log, an_experiment, an_observation, requests

RUNNING = an_experiment()


def without_places(state: Standing | None) -> Standing:
    """A state without what depends on the order: where it began, and what was decided on the way."""
    assert state is not None
    return msgspec.structs.replace(state, evidence=None, told=(), p_values=(), ratio_p_value=1.0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.randoms(use_true_random=False), seed=st.integers(0, 99))
def test_the_order_of_observations_changes_no_statistic(order: random.Random, seed: int) -> None:
    observations = requests(RUNNING, 60, seed=seed, users=25)
    shuffled = order.sample(observations, len(observations))
    one, other = Log(RUNNING).take(observations), Log(RUNNING).take(shuffled)
    # Of an arm's units each counts once, whichever of its requests came first.
    assert without_places(one.state) == without_places(other.state)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_state_that_was_stored_goes_on_as_if_it_never_was(seed: int) -> None:
    observations = requests(RUNNING, 150, seed=seed, better=0.1)
    kept, stored = Log(RUNNING).take(observations), Log(RUNNING).take(observations, through_bytes=True)
    assert msgspec.msgpack.encode(kept.state) == msgspec.msgpack.encode(stored.state)
    assert kept.emits == stored.emits


def test_means_are_those_of_requests_and_costs_are_added_up_by_request() -> None:
    observations = requests(RUNNING, 500, users=80)
    # A call that was given up: its cost comes beside that of the answer.
    again = [an_observation(RUNNING, n, "u1", {"cost": 1e-3}, event_id=f"again{n}", source="costs") for n in range(40)]
    state = Log(RUNNING).take(observations + again).state
    assert state is not None
    for index, metric in enumerate(RUNNING.metrics):
        found = compare(state, RUNNING, 1, index, Levels(0.0, 0.05))
        for arm, mean in (("control", found.control), ("large", found.mean)):
            mine = [o for o in observations + again if o.arm == arm]
            values = [o.values[metric.name] for o in mine if metric.name in o.values]
            results = sum(o.source == "llm-results" for o in mine)
            assert mean == pytest.approx(sum(values) / (results if metric.name == "cost" else len(values)), rel=1e-9)
    assert sum(state.requests) == 500


def test_values_beyond_the_bounds_count_as_the_bounds() -> None:
    latency = an_experiment(metrics=(Metric(name="latency_ms", lower_bound=100, upper_bound=1_000),))
    values = (-5.0, 50.0, 100.0, 500.0, 1_000.0, 1e12)
    state = Log(latency).take(an_observation(latency, n, "u", {"latency_ms": v}) for n, v in enumerate(values)).state
    assert state is not None
    found = compare(state, latency, 1, 0, Levels(0.0, 0.05))
    assert (found.mean or found.control) == pytest.approx(sum(min(max(v, 100), 1000) for v in values) / 6)


def test_the_error_is_that_of_users_not_of_requests() -> None:
    """Ten times the requests of the same users make no user more sure."""
    experiment = an_experiment(metrics=(Metric(name="answer.quality"),))
    dice = np.random.default_rng(5)
    levels_of = {f"u{n}": float(dice.uniform(0.2, 0.8)) for n in range(400)}

    def half_width(times: int) -> float:
        users = [user for user in levels_of for _ in range(times)]
        observations = (
            an_observation(experiment, n, user, {"answer.quality": levels_of[user]}) for n, user in enumerate(users)
        )
        state = Log(experiment).take(observations).state
        assert state is not None
        found = compare(state, experiment, 1, 0, Levels(0.0, 0.05))
        assert found.low is not None
        assert found.high is not None
        return (found.high - found.low) / 2

    assert half_width(10) > 0.8 * half_width(1)


def test_a_better_arm_is_told_once_with_the_figures_and_where_to_look() -> None:
    log = Log(RUNNING).take(requests(RUNNING, 1_200, better=0.15))
    (event,) = [event for event in log.told() if event.metric == "answer.groundedness"]
    assert (event.decision, event.arm, event.control) == ("better", "large", "control")
    low, high = event.interval
    assert 0 < low < event.difference < high
    assert low < 0.15 < high
    assert event.means["large"] - event.means["control"] == pytest.approx(event.difference)
    assert event.confidence == 1 - levels(RUNNING).comparison
    assert event.p_value <= levels(RUNNING).comparison
    assert event.evidence[0].first_offset == 0
    assert event.evidence[0].last_offset < log.offset
    assert log.alerts() == []
    assert {e.decision for e in log.told()} == {"better"}, "cost and latency do not differ"


def test_a_harmed_guard_alerts_and_a_difference_within_its_margin_does_not() -> None:
    fine = Log(RUNNING).take(requests(RUNNING, 1_500, slower=150))
    assert fine.told() == []
    harmed = Log(RUNNING).take(requests(RUNNING, 1_500, slower=900))
    (event,) = harmed.told()
    (alert,) = harmed.alerts()
    assert (event.decision, event.metric) == ("worse", "latency_ms")
    assert event.interval[0] > 300
    assert (alert.kind, alert.name, alert.severity) == ("quality", "experiment_guard_harmed", "critical")
    assert "300 was allowed" in alert.description
    assert alert.evidence == event.evidence
    assert alert.event_id != event.event_id


def test_arms_that_are_alike_are_told_to_be_within_the_margin() -> None:
    coarse = an_experiment(metrics=(Metric(name="answer.groundedness", margin=0.2),))
    (event,) = Log(coarse).take(requests(coarse, 1_500)).told()
    assert event.decision == "no_difference"
    assert -0.2 < event.interval[0] < 0 < event.interval[1] < 0.2
    assert Log(an_experiment(metrics=(Metric(name="answer.groundedness"),))).take(requests(coarse, 1_500)).told() == []


def test_arms_that_never_failed_are_not_yet_known_to_be_alike() -> None:
    """No failure among 60 requests leaves up to one in twenty possible."""
    failures = an_experiment(metrics=(Metric(name="completed", margin=0.02),))
    all_fine = [an_observation(failures, n, f"u{n}", {"completed": 1.0}) for n in range(3_000)]
    assert Log(failures).take(all_fine[:100]).told() == []
    (event,) = Log(failures).take(all_fine).told()
    assert event.decision == "no_difference"
    assert event.evidence[0].last_offset > 300


def test_arms_are_each_compared_with_the_control() -> None:
    three = an_experiment(
        arms=(Arm(name="control"), Arm(name="large", route="large"), Arm(name="huge", route="huge")),
        metrics=(Metric(name="answer.groundedness"),),
    )
    observations = [
        msgspec.structs.replace(
            o, values={k: min(1.0, v + (0.2 if o.arm == "huge" else 0)) for k, v in o.values.items()}
        )
        for o in requests(three, 1_500)
    ]
    assert [(e.arm, e.decision) for e in Log(three).take(observations).told()] == [("huge", "better")]
    assert levels(three).comparison * 2 + levels(three).ratio == pytest.approx(three.alpha)


# -- the ratio of the arms -------------------------------------------------------------------------------------------


def lost(observations: list[Observation], share: float) -> list[Observation]:
    """Without so many of the users of the second arm."""
    return [o for o in observations if o.arm == "control" or int(o.unit[8:12], 16) / 0xFFFF >= share]


def test_lost_units_of_an_arm_are_told_and_end_all_decisions() -> None:
    experiment = an_experiment(metrics=(Metric(name="answer.groundedness"),))
    observations = lost(requests(experiment, 2_500, users=2_000, better=0.02), 0.4)
    improved = [
        msgspec.structs.replace(o, values={k: min(1.0, v + 0.3 * (o.arm == "large")) for k, v in o.values.items()})
        for o in observations
    ]
    log = Log(experiment).take(observations)
    (event,) = log.told()
    (alert,) = log.alerts()
    assert (event.decision, event.metric, alert.name) == ("sample_ratio_mismatch", "", "sample_ratio_mismatch")
    assert event.p_value <= levels(experiment).ratio
    assert event.units["large"] < 0.75 * event.units["control"]
    assert "By the weights it should be control 50.0%, large 50.0%" in alert.description
    before = len(log.told())
    assert len(log.take(improved).told()) == before


def test_a_user_who_comes_often_counts_once() -> None:
    experiment = an_experiment()
    users = [f"u{n}" for n in range(50)]
    dice = random.Random(3)
    often = [u for u in users if experiment.arm_of(experiment.unit_of(u, None, "")).name == "large"][:3]  # type: ignore[union-attr]
    sent = users + often * 500
    dice.shuffle(sent)
    log = Log(experiment).take(an_observation(experiment, n, user, {}) for n, user in enumerate(sent))
    assert log.state is not None
    assert sum(log.state.units) == 50
    assert log.told() == []


def test_units_are_counted_within_a_few_percent_in_places_of_a_fixed_number() -> None:
    experiment = an_experiment()
    log = Log(experiment).take(an_observation(experiment, n, f"u{n}", {}) for n in range(8_000))
    assert log.state is not None
    units = units_by_arm(log.state, experiment)
    assert sum(units.values()) == pytest.approx(8_000, rel=0.01)
    assert log.told() == []
    assert len(msgspec.msgpack.encode(log.state)) < 8_192 + 3 * 2 * 2 * 8 * BUCKETS + 500


# -- designs and ends ------------------------------------------------------------------------------------------------


def test_another_design_begins_anew_and_late_events_of_the_old_one_count_for_nothing() -> None:
    changed = an_experiment(salt="2")
    log = Log(RUNNING).take(requests(RUNNING, 50))
    state = log.state
    log.experiment = changed
    assert log.take(requests(RUNNING, 50)).state is state
    log.experiment = None
    assert log.take(requests(RUNNING, 50)).state is state
    log.experiment = an_experiment(team="research")
    assert log.take(requests(RUNNING, 50)).state is state


def test_pausing_and_another_end_go_on_with_what_is_known() -> None:
    log = Log(RUNNING).take(requests(RUNNING, 50))
    log.experiment = an_experiment(paused=True, share=0.5, ends_at=NOW + timedelta(days=9))
    log.take([an_observation(RUNNING, 99, "u1", {"answer.groundedness": 1.0}, source="evaluations")])
    assert log.state is not None
    assert log.state.evidence.last_offset == 150


def ended(at: timedelta, **changes: Any) -> Observation:
    return an_observation(RUNNING, 5_000, "u1", {}, event_id="tick", arm="", unit="", occurred_at=NOW + at, **changes)


def test_an_experiment_that_is_over_undecided_is_told_once_and_may_be_opened_again() -> None:
    ends = an_experiment(ends_at=NOW + timedelta(seconds=100))
    log = Log(ends).take(requests(ends, 100)).take([ended(timedelta(seconds=99))])
    assert log.told() == []
    log.take([ended(timedelta(seconds=100)), ended(timedelta(seconds=101), request_id="other")])
    assert [event.decision for event in log.told()] == ["ended"]
    late = [msgspec.structs.replace(o, event_id=f"late-{o.event_id}") for o in requests(ends, 1_200, better=0.3)]
    assert len(log.take(late).told()) == 1, "what is over decides nothing"
    log.experiment = an_experiment(ends_at=NOW + timedelta(days=1))
    assert [event.decision for event in log.take(late).told()] == ["ended", "better"]


def test_one_that_was_decided_does_not_end_undecided() -> None:
    ends = an_experiment(ends_at=NOW + timedelta(seconds=1_200))
    log = Log(ends).take(requests(ends, 1_200, better=0.3)).take([ended(timedelta(hours=1))])
    assert [event.decision for event in log.told()] == ["better"]


def test_costs_are_not_compared_where_a_call_has_no_price() -> None:
    cheaper = an_experiment(metrics=(Metric(name="cost", better="lower", upper_bound=0.01),))
    observations = [
        msgspec.structs.replace(o, values={k: v / 4 if o.arm == "large" else v for k, v in o.values.items()})
        for o in requests(cheaper, 800)
    ]
    assert [e.decision for e in Log(cheaper).take(observations).told()] == ["better"]
    unpriced = an_observation(cheaper, 9_999, "u1", {"cost.unpriced": 1.0}, source="costs")
    assert Log(cheaper).take([unpriced, *observations]).told() == []

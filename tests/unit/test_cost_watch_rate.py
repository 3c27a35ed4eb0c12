"""The rate of spending: loops and leaked keys are found within minutes; rhythm, dear calls and late calls are none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.contracts.records import Alert

from services.evaluation.core.cost_rules import CostWatchRules, SpendRateRules
from services.evaluation.core.cost_watch import CostWatch
from services.evaluation.core.spend_bins import Call
from services.evaluation.core.spend_rate import SpendRate, observe
from tests.unit.cost_watch_cases import MODEL_KEY, MONDAY, TEAM_KEY, Watched, cost, office, steady, traffic

WEEK = timedelta(days=7)
THURSDAY_NOON = MONDAY + timedelta(days=10, hours=12)


@cache
def _history(rate: Any, until: datetime) -> tuple[dict[str, CostWatch], int]:
    watched = Watched()
    watched.feed(traffic(rate, MONDAY, until - MONDAY, seed=1))
    assert not watched.alerts, watched.alerts[0]
    return watched.states, watched.offset


def after(rate: Any, until: datetime = THURSDAY_NOON, rules: CostWatchRules | None = None) -> Watched:
    """Return a watch that knows the team from MONDAY to ``until``, in which nothing alerts."""
    watched = Watched(rules)
    states, watched.offset = _history(rate, until)
    watched.states = dict(states)
    return watched


@pytest.mark.parametrize(
    ("rate", "times", "at_most"),
    [(steady, 3, 40), (steady, 10, 6), (office, 3, 40), (office, 10, 6)],
)
def test_a_rise_is_found_within_minutes_for_the_model_and_the_team(rate: Any, times: float, at_most: int) -> None:
    watched = after(rate)
    alerts = watched.feed(traffic(rate, THURSDAY_NOON, timedelta(hours=1), seed=2, times=times))
    first = {key: now for now, key, _ in reversed(watched.alerts)}
    assert set(first) == {TEAM_KEY, MODEL_KEY}
    for now in first.values():
        assert now - THURSDAY_NOON < timedelta(minutes=at_most)
    assert len({alert.fingerprint for alert in alerts}) == 2
    assert {alert.labels["model"] for alert in alerts} == {"", "large"}


def test_the_alert_says_what_a_person_on_call_needs() -> None:
    watched = after(steady)
    costs = list(traffic(steady, THURSDAY_NOON, timedelta(minutes=30), seed=3, times=10))
    begun = watched.offset
    alert = next(each for each in watched.feed(costs) if each.labels["model"] == "large")
    assert (alert.kind, alert.name, alert.status, alert.tenant_id) == ("cost", "spend_rate_anomaly", "firing", "acme")
    assert alert.severity in ("warning", "critical")
    assert alert.figures["ratio"] > 2
    assert alert.figures["deviations"] >= SpendRateRules().deviations
    window, baseline = alert.evidence
    assert (window.topic, window.partition) == (baseline.topic, baseline.partition) == ("costs", 3)
    # The window may reach back before the rise; the baseline is the week before it, up to the window.
    assert begun - 120 < window.first_offset <= window.last_offset < begun + len(costs)
    assert baseline.first_offset < baseline.last_offset == window.first_offset - 1
    assert baseline.last_offset - baseline.first_offset > 5 * 1440
    dearest = {each.request_id: each.amount or Decimal(0) for each, _ in costs}
    assert 1 <= len(alert.sample_requests) <= 5
    told = [dearest[each] for each in alert.sample_requests if each in dearest]
    assert told == sorted(told, reverse=True)
    assert "`penstock ledger report --team acme --by model,tag:feature" in alert.suggested_action
    assert "penstock budgets show acme" in alert.suggested_action
    assert alert.runbook == "services/alerting/runbooks/cost.md"


def test_the_spending_it_names_is_that_of_its_evidence() -> None:
    watched = after(steady)
    costs = list(traffic(steady, THURSDAY_NOON, timedelta(minutes=40), seed=3, times=10))
    begun = watched.offset
    alert = watched.feed(costs)[0]
    window = alert.evidence[0]
    inside = [
        each for number, (each, _) in enumerate(costs, begun) if window.first_offset <= number <= window.last_offset
    ]
    total = sum((each.amount or Decimal(0) for each in inside), Decimal(0))
    if window.first_offset >= begun:
        assert f"spent {total.normalize():f} USD" in alert.description
        assert alert.figures["calls"] == len(inside)
    else:
        assert alert.figures["spent"] >= float(total)


def test_it_resolves_with_the_same_fingerprint_when_the_rate_is_back() -> None:
    watched = after(steady)
    end = THURSDAY_NOON + timedelta(minutes=40)
    firing = watched.feed(traffic(steady, THURSDAY_NOON, timedelta(minutes=40), seed=4, times=10))
    back = watched.feed(traffic(steady, end, timedelta(hours=3), seed=5))
    assert {alert.status for alert in firing} == {"firing"}
    assert {alert.status for alert in back} - {"firing"} == {"resolved"}
    resolved = [(now, alert) for now, _, alert in watched.alerts if alert.status == "resolved"]
    assert {alert.fingerprint for _, alert in resolved} == {alert.fingerprint for alert in firing}
    assert len(resolved) == 2
    assert all(now - end < timedelta(hours=1) for now, _ in resolved)


def test_a_rise_that_goes_on_is_told_again_once_an_hour_at_most() -> None:
    watched = after(steady)
    watched.feed(traffic(steady, THURSDAY_NOON, timedelta(hours=5), seed=6, times=5))
    told = [now for now, key, alert in watched.alerts if key == MODEL_KEY and alert.severity == "warning"]
    assert 4 <= len(told) <= 5
    assert all(later - earlier >= timedelta(hours=1) for earlier, later in itertools.pairwise(told))


def test_what_grows_worse_is_told_at_once() -> None:
    watched = after(steady)
    watched.feed(traffic(steady, THURSDAY_NOON, timedelta(minutes=30), seed=6, times=4))
    worse = THURSDAY_NOON + timedelta(minutes=30)
    watched.feed(traffic(steady, worse, timedelta(minutes=20), seed=7, times=20))
    severities = [(alert.severity, now) for now, key, alert in watched.alerts if key == MODEL_KEY]
    assert [severity for severity, _ in severities] == ["warning", "critical"]
    assert severities[1][1] - worse < timedelta(minutes=10)


def test_a_rise_that_stays_a_day_is_the_usual_from_then_on() -> None:
    rules = CostWatchRules()
    watched = after(steady)
    watched.feed(traffic(steady, THURSDAY_NOON, timedelta(hours=26), seed=8, times=4))
    last = [alert for _, key, alert in watched.alerts if key == MODEL_KEY][-1]
    moments = [now for now, key, _ in watched.alerts if key == MODEL_KEY]
    assert last.status == "resolved"
    assert "new level" in last.title
    assert moments[-1] - THURSDAY_NOON < rules.spend_rate.accept_after + timedelta(hours=1)


def test_nights_weekends_and_monday_mornings_are_no_alert_after_a_week() -> None:
    watched = after(office, MONDAY + WEEK)
    assert watched.feed(traffic(office, MONDAY + WEEK, 2 * WEEK, seed=9)) == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_daylight_saving_is_no_alert(hours: int) -> None:
    begin = MONDAY + 2 * WEEK

    def moved(hour: datetime) -> float:
        return office(hour + timedelta(hours=hours))

    watched = after(office, begin)
    assert watched.feed(traffic(moved, begin, timedelta(days=5), seed=10)) == []


def test_the_first_monday_after_a_start_at_the_weekend_is_no_alert_within_the_busiest_rate_seen() -> None:
    watched = Watched()
    start = MONDAY + timedelta(days=2)
    assert watched.feed(traffic(office, start, timedelta(days=6), seed=11)) == []


def test_one_dear_call_of_a_slow_team_is_no_alert() -> None:
    def slow(hour: datetime) -> float:
        return 0.05

    watched = after(slow)
    dear = [(cost(THURSDAY_NOON, "400", number=1), THURSDAY_NOON)]
    assert watched.feed(dear) == []
    assert watched.feed(traffic(slow, THURSDAY_NOON, timedelta(hours=6), seed=12)) == []


def test_calls_that_grow_dearer_are_a_rise_as_well() -> None:
    watched = after(steady)
    calls = traffic(steady, THURSDAY_NOON, timedelta(hours=2), seed=13)
    alerts = watched.feed((msgspec.structs.replace(each, amount=(each.amount or 0) * 10), now) for each, now in calls)
    assert {alert.name for alert in alerts} == {"spend_rate_anomaly"}


def test_nothing_is_judged_before_a_day_of_history() -> None:
    watched = Watched()
    start = MONDAY + timedelta(hours=8)
    watched.feed(traffic(steady, start, timedelta(hours=10), seed=14))
    assert watched.feed(traffic(steady, start + timedelta(hours=10), timedelta(hours=2), seed=15, times=20)) == []


def test_a_backlog_worked_off_at_once_is_no_rise() -> None:
    watched = after(steady)
    end = THURSDAY_NOON + timedelta(minutes=50)
    held = list(traffic(steady, THURSDAY_NOON, timedelta(minutes=50), seed=16))
    # The pipeline stood still: all calls are accounted at their admission, made and written within a minute.
    caught_up = [
        (
            msgspec.structs.replace(each, accounted_at=each.occurred_at, occurred_at=end),
            end + timedelta(milliseconds=10 * number),
        )
        for number, (each, _) in enumerate(held)
    ]
    assert watched.feed(caught_up) == []
    assert watched.feed(traffic(steady, end + timedelta(minutes=1), timedelta(hours=6), seed=17)) == []


def test_late_calls_leave_no_hole_that_makes_the_usual_look_like_a_rise() -> None:
    watched = Watched()
    rng = np.random.default_rng(18)
    calls = list(traffic(steady, MONDAY, timedelta(days=8), seed=18))
    late = [(each, now + timedelta(minutes=float(rng.uniform(0, 25)))) for each, now in calls]
    assert watched.feed(sorted(late, key=lambda each: each[1])) == []
    rate = watched.states[MODEL_KEY].rate
    in_order = Watched()
    in_order.feed(calls)
    expected = in_order.states[MODEL_KEY].rate
    assert rate.profile is not None
    assert expected.profile is not None
    assert rate.rates[0] == pytest.approx(expected.rates[0], rel=0.1)


def test_a_producers_clock_in_the_future_does_not_move_the_present() -> None:
    watched = after(steady)
    odd = cost(THURSDAY_NOON + timedelta(days=3650), "0.01", number=1)
    assert watched.feed([(odd, THURSDAY_NOON)]) == []
    rate = watched.states[MODEL_KEY].rate
    assert rate.minutes[-1].number == int(THURSDAY_NOON.timestamp() // 60)


def test_a_pause_of_ten_days_is_learned_from_in_bounded_time_and_alerts_nothing() -> None:
    watched = after(steady)
    back = THURSDAY_NOON + timedelta(days=10)
    assert [each.status for each in watched.feed(traffic(steady, back, timedelta(minutes=5), seed=19))] == []


def test_answers_from_a_cache_that_move_the_present_on_make_no_rise_of_what_came_before() -> None:
    watched = after(steady)
    now = THURSDAY_NOON + timedelta(hours=2)
    free = cost(now, "0", kind="cached", number=1)
    late = [(cost(THURSDAY_NOON - timedelta(seconds=number), "0.01", number=number), now) for number in range(2, 5)]
    assert watched.feed([(free, now), *late]) == []
    assert watched.states[MODEL_KEY].rate.episode is None


def test_too_small_a_rise_in_money_is_no_alert() -> None:
    rules = CostWatchRules(spend_rate=replace(SpendRateRules(), least_excess=1000.0))
    watched = after(steady, rules=rules)
    assert watched.feed(traffic(steady, THURSDAY_NOON, timedelta(hours=1), seed=2, times=10)) == []


def test_order_within_the_lateness_bound_changes_no_sum() -> None:
    """What is kept by minute and by five minutes is the same in any order; only the cap follows the order of the calls."""
    rng = np.random.default_rng(20)
    minute = int(MONDAY.timestamp() // 60)
    calls = [Call(minute + int(rng.integers(0, 14)), Decimal("0.01"), number, f"r{number}") for number in range(300)]

    def run(order: list[Call]) -> SpendRate:
        state = SpendRate()
        # Enough calls before, so that the unit and the cap are set.
        for number in range(60):
            state, _ = observe(state, Call(minute - 1, Decimal("0.01"), number, "w"), SpendRateRules(), MONDAY)
        for call in order:
            state, _ = observe(state, call, SpendRateRules(), MONDAY)
        return state

    first, second = run(calls), run([calls[index] for index in rng.permutation(len(calls))])
    for one, other in ((first.minutes, second.minutes), (first.fives, second.fives)):
        assert [(each.number, each.amount, each.calls, each.first, each.last) for each in one] == [
            (each.number, each.amount, each.calls, each.first, each.last) for each in other
        ]
        assert [each.capped for each in one] == pytest.approx([each.capped for each in other])


def test_alerts_carry_the_logs_time() -> None:
    watched = after(steady)
    watched.feed(traffic(steady, THURSDAY_NOON, timedelta(minutes=20), seed=3, times=10))
    alerts: list[tuple[datetime, Alert]] = [(now, alert) for now, _, alert in watched.alerts]
    assert alerts
    assert all(alert.occurred_at == now for now, alert in alerts)

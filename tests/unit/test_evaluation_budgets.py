"""Alerts of budgets: at which cost, once, with which evidence and forecast."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from penstock.bus import Message
from penstock.config.kinds import Budget, Team
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, Context, Cost
from penstock.money import bucket_of, window_of

from services.evaluation.core.cost_rules import CostWatchRules
from services.evaluation.core.forecast import forecast, hour_of
from services.evaluation.core.spend import spending
from tests.unit.stateful_fakes import CODEC

NOW = datetime(2026, 3, 14, 15, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def cost(number: int, amount: str, after: timedelta = timedelta(), **fields: Any) -> Cost:
    at = NOW + after
    return Cost(
        event_id=event_id("t", "cost", number), request_id=f"r{number}", tenant_id="t", causation_id="", occurred_at=at,
        accounted_at=at, context=Context(requested_at=at, **fields), model="m", priced=True, amount=Decimal(amount),
    )  # fmt: skip


def alerts(costs: Sequence[Cost], *budgets: Budget, teams: Sequence[Team] | None = None) -> list[Alert]:
    """What the processor alerts about; ``teams``: the configuration at each cost."""
    states: dict[str, Any] = {}
    found = []
    for number, record in enumerate(costs):
        team = teams[number] if teams else Team(name="t", budgets=budgets)
        logic = spending(lambda name, team=team: team, CostWatchRules())  # type: ignore[misc]
        for key, event in logic.route(record, Message("costs", 2, 100 + number, 0, b"k", b"v"), states.get):
            states[key or ""], emits = logic.step(states.get(key or ""), event, record.occurred_at)
            found += [emit.record for emit in emits if isinstance(emit.record, Alert)]
    assert all(CODEC.decode("alerts", CODEC.encode("alerts", alert)) == alert for alert in found)
    assert len({alert.event_id for alert in found}) == len(found)
    return found


def daily(limit: str = "10", **fields: Any) -> Budget:
    return Budget(name="daily", limit=Decimal(limit), **fields)


def test_each_threshold_alerts_once_when_it_is_reached() -> None:
    amounts = ["4.9", "0.1", "1", "2", "1.999999999999", "1E-12", "5"]
    found = alerts([cost(n, amount) for n, amount in enumerate(amounts)], daily(mode="soft"))
    assert [(a.labels["threshold"], a.severity, a.labels["mode"]) for a in found] == [
        ("0.5", "warning", "soft"), ("0.8", "warning", "soft"), ("1.0", "critical", "soft"),
    ]  # fmt: skip
    assert len({alert.fingerprint for alert in found}) == 3
    assert "spent 5 of 10 USD" in found[0].description
    assert [a.sample_requests for a in found] == [["r1"], ["r3"], ["r5"]]


def test_the_evidence_is_every_cost_of_the_window_so_far() -> None:
    found = alerts([cost(0, "9", -24 * HOUR), cost(1, "1"), cost(2, "1"), cost(3, "3")], daily(alerts=(0.5,)))
    (yesterday, today) = found
    assert [(e.topic, e.partition, e.first_offset, e.last_offset) for e in today.evidence] == [("costs", 2, 101, 103)]
    assert [(e.first_offset, e.last_offset) for e in yesterday.evidence] == [(100, 100)]
    assert (today.figures["spent"], today.figures["calls"]) == (5.0, 3.0)


def test_one_call_over_several_thresholds_alerts_with_the_highest() -> None:
    found = alerts([cost(0, "7"), cost(1, "7")], Budget(name="monthly", window="month", limit=Decimal(1)))
    assert [(a.labels["window"], a.labels["threshold"]) for a in found] == [("month", "1.0")]


def test_each_window_and_each_subject_has_its_budget_to_itself() -> None:
    each = Budget(name="each", per="user", limit=Decimal(1), alerts=(1.0,))
    costs = [
        cost(0, "0.9", -24 * HOUR, user_id="ada"), cost(1, "0.9", user_id="ada"), cost(2, "0.9", user_id="alan"),
        cost(3, "0.1", -24 * HOUR, user_id="ada"), cost(4, "0.1"),
    ]  # fmt: skip
    (found,) = alerts(costs, each)
    assert (found.labels["subject"], found.labels["per"], found.labels["budget"]) == ("ada", "user", "each")
    assert "User 'ada' of team t has spent 1 of 1 USD in the day from 2026-03-13" in found.description


def test_budgets_of_models_keys_and_tags_count_their_own() -> None:
    budgets = [
        Budget(name="model", per="model", match=("m",), limit=Decimal(1), alerts=(1.0,)),
        Budget(name="other", per="model", match=("x",), limit=Decimal(1), alerts=(1.0,)),
        Budget(name="key", per="key", limit=Decimal(1), alerts=(1.0,)),
        Budget(name="feature", per="tag", tag="feature", limit=Decimal(1), alerts=(1.0,)),
    ]
    found = alerts([cost(0, "1", key_id="k1", tags={"feature": "chat"})], *budgets)
    assert [(a.labels["budget"], a.labels["subject"]) for a in found] == [
        ("model", "m"), ("key", "k1"), ("feature", "chat"),
    ]  # fmt: skip
    assert "Tag feature 'chat' of team t" in found[2].title


def test_a_rolling_budget_alerts_again_when_the_first_time_is_out_of_the_window() -> None:
    rolling = Budget(name="r", window="rolling", hours=24, limit=Decimal(10), alerts=(0.5,))
    steps = [(0, "6"), (1, "1"), (24, "1"), (25, "1"), (26, "6")]
    found = alerts([cost(n, amount, hours * HOUR) for n, (hours, amount) in enumerate(steps)], rolling)
    # At 25 h the first six dollars are out; the sum is 3 then, 9 at 26 h.
    assert [(a.sample_requests[0], a.figures["spent"]) for a in found] == [("r0", 6.0), ("r4", 8.0)]
    assert [(e.first_offset, e.last_offset) for e in found[1].evidence] == [(102, 104)]
    assert "in the last 24 hours" in found[0].description


def test_a_limit_that_is_lowered_alerts_at_the_next_cost_and_one_that_is_raised_later() -> None:
    def at(limit: str) -> Team:
        return Team(name="t", budgets=(daily(limit, alerts=(0.5,)),))

    costs = [cost(n, "1") for n in range(6)]
    found = alerts(costs, teams=[at("10"), at("10"), at("4"), at("4"), at("12"), at("12")])
    assert [(a.sample_requests[0], a.figures["budget"]) for a in found] == [("r2", 4.0), ("r5", 12.0)]


def test_costs_that_complete_a_window_that_is_over_say_so() -> None:
    late = cost(0, "9", -48 * HOUR)
    (found,) = alerts([Cost(**{**{f: getattr(late, f) for f in late.__struct_fields__}, "occurred_at": NOW})], daily())
    assert "The window is over" in found.description
    assert found.labels["forecast_exhaustion"] == "not within this window"
    assert "hours_left" not in found.figures


def test_the_forecast_stands_in_description_labels_and_figures() -> None:
    # 15 hours into the day, half of it spent: 3 hours more than the day has.
    (found,) = alerts([cost(0, "5")], daily(alerts=(0.5,)))
    assert found.labels["forecast_exhaustion"] == "not within this window"
    assert found.figures["usd_per_hour"] == pytest.approx(1 / 3)
    assert (
        "At the rate of the last 15.0 hours, 0.333333 USD an hour, it will be used up not within" in found.description
    )
    (found,) = alerts([cost(0, "7.5")], daily(alerts=(0.5,)))
    assert found.labels["forecast_exhaustion"] == "2026-03-14T20:00:00+00:00"
    assert found.figures["hours_left"] == pytest.approx(5.0)
    assert "it will be used up at 2026-03-14 20:00 UTC, in 5.0 hours" in found.description
    (found,) = alerts([cost(0, "12")], daily(alerts=(0.5,)))
    assert found.figures["hours_left"] == 0
    assert "The budget is used up." in found.description


def test_a_month_is_forecast_by_its_last_24_hours() -> None:
    monthly = Budget(name="monthly", window="month", limit=Decimal(100), alerts=(0.5,))
    costs = [cost(0, "26", -10 * 24 * HOUR), cost(1, "12", -10 * HOUR), cost(2, "12")]
    (found,) = alerts(costs, monthly)
    # 24 dollars since 16:00 of the day before, which is 23 hours; 50 are left.
    assert found.figures["usd_per_hour"] == pytest.approx(24 / 23)
    assert found.figures["hours_left"] == pytest.approx(50 / 24 * 23)


def by_hour(amounts: dict[int, str]) -> dict[int, Decimal]:
    return {hour_of(NOW) + hour: Decimal(amount) for hour, amount in amounts.items()}


def test_a_rolling_forecast_knows_what_goes_out_of_the_window() -> None:
    rolling = Budget(name="r", window="rolling", hours=24, limit=Decimal(100))
    window = window_of(rolling, NOW)
    first = bucket_of(rolling, NOW)
    # Steady: a dollar an hour fills the window to 25 at most, however long it goes on.
    steady = {first + hour: Decimal(1) for hour in range(-24, 1)}
    assert forecast(rolling, window, NOW, steady, steady).exhausted_at is None
    # Twenty dollars an hour for two hours: 40 of 100 are spent, nothing of it goes out before.
    steep = by_hour({-1: "20", 0: "20"})
    ahead = forecast(rolling, window, NOW + HOUR, steep, steep)
    assert ahead.rate == Decimal(40) / 23
    assert ahead.exhausted_at is None
    tight = Budget(name="r", window="rolling", hours=24, limit=Decimal(50))
    assert forecast(tight, window, NOW + HOUR, steep, steep).exhausted_at == NOW + HOUR + 5.75 * HOUR


def test_a_window_that_has_just_begun_is_no_division_by_zero() -> None:
    midnight = NOW.replace(hour=0)
    budget = daily()
    ahead = forecast(budget, window_of(budget, midnight), midnight, {0: Decimal(1)}, {hour_of(midnight): Decimal(1)})
    assert ahead.rate == 60
    assert ahead.exhausted_at == midnight + timedelta(minutes=9)

"""Live sums that trail, run ahead or differ; Redis' counters beside the ledger, and what repairs them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Cost
from penstock.ledger.comparison import Comparison
from penstock.ledger.rebuild import Ledger, Series
from penstock.ledger.repair import plan_repair
from penstock.ledger.verification import Verification
from penstock.money import bucket_of, from_pico, window_of
from penstock.money.counters import Balance, Counter, Hold, Reservation, counter_name

from tests.unit.ledger_books import NOW, TEAM, Log, entry, sums, team_spend

DIGIT = Decimal("0.000000000001")
MONTHLY = Budget(name="monthly", window="month", limit=Decimal(100))
USERS = Budget(name="users", per="user", window="rolling", hours=48, limit=Decimal(10))
SOFT = Budget(name="soft", limit=Decimal(1), mode="soft")


def books() -> Log:
    """Twenty days of costs up to the present."""
    log = Log()
    log.config[-1] = entry(Team(name=TEAM, budgets=(MONTHLY, USERS, SOFT)))
    for number, cost in enumerate(log.costs):
        at = NOW - timedelta(hours=3 * (len(log.costs) - number))
        log.costs[number] = msgspec.structs.replace(cost, accounted_at=at, occurred_at=at)
    return log


def verified(log: Log, costs: Iterable[Cost]) -> Verification:
    verification = log.verification()
    for event in log.written(costs):
        verification.cost(event)
    return verification


def counters_of(costs: Iterable[Cost]) -> list[Counter]:
    """What Redis must hold, worked out from each cost alone."""
    spent: dict[tuple[str, str, str], dict[int, Decimal]] = {}
    for cost in costs:
        assert cost.accounted_at is not None
        for budget, value in ((MONTHLY, ""), (USERS, cost.context.user_id or "")):
            if not cost.amount:
                continue
            key = (budget.name, window_of(budget, cost.accounted_at).id, value)
            buckets = spent.setdefault(key, {})
            bucket = bucket_of(budget, cost.accounted_at)
            buckets[bucket] = buckets.get(bucket, Decimal(0)) + cost.amount
    return [
        Counter(TEAM, budget, window, value, {bucket: Balance(amount) for bucket, amount in buckets.items()})
        for (budget, window, value), buckets in spent.items()
    ]


def compared(
    log: Log, counters: list[Counter], reservations: Mapping[str, list[Reservation]] | None = None
) -> Comparison:
    comparison = Comparison(verified(log, log.costs), NOW)
    comparison.redis(counters, reservations or {})
    return comparison


def changed(counter: Counter, bucket: int, balance: Balance) -> Counter:
    return Counter(counter.team, counter.budget, counter.window_id, counter.value, {**counter.buckets, bucket: balance})


def test_counters_that_agree() -> None:
    log = books()
    comparison = compared(log, counters_of(log.costs))
    assert list(comparison.faults()) == []
    assert not comparison.trails
    assert comparison.counters_compared == 1 + len({cost.context.user_id for cost in log.costs})


@pytest.mark.parametrize("by", [DIGIT, -DIGIT])
def test_a_digit_in_a_bucket_is_named(by: Decimal) -> None:
    log = books()
    counters = counters_of(log.costs)
    (index,) = [n for n, one in enumerate(counters) if one.value == "u1"]
    newest = max(counters[index].buckets)
    counters[index] = changed(counters[index], newest, Balance(counters[index].buckets[newest].spent + by))
    (fault,) = compared(log, counters).faults()
    assert (fault.kind, fault.difference) == ("counter", by)
    assert f"team {TEAM}, budget users of 'u1', rolling-48h" in fault.where
    assert "--repair" in fault.cause


def test_buckets_that_no_longer_count_are_not_compared() -> None:
    log = books()
    counters = counters_of(log.costs)
    (index,) = [n for n, one in enumerate(counters) if one.value == "u1"]
    assert min(counters[index].buckets) < bucket_of(USERS, NOW) - 24
    counters[index] = changed(counters[index], min(counters[index].buckets), Balance(Decimal(5)))
    assert list(compared(log, counters).faults()) == []


def test_a_lost_counter_is_named_and_one_of_a_soft_budget_is_not_missed() -> None:
    log = books()
    (fault,) = compared(log, [one for one in counters_of(log.costs) if one.budget != "monthly"]).faults()
    assert (fault.kind, f"team {TEAM}, budget monthly, month 2026-11" in fault.where) == ("no_counter", True)


def test_a_budget_that_begins_in_mid_window_is_told_with_its_remedy() -> None:
    log = books()
    log.config[-1] = entry(Team(name=TEAM, budgets=(MONTHLY, USERS)), NOW - timedelta(hours=9))
    half = counters_of(log.costs[-3:])
    causes = [fault.cause for fault in compared(log, half).faults()]
    assert causes
    assert all("in mid-window" in cause and "--repair" in cause for cause in causes)


def test_reserved_is_what_open_reservations_hold() -> None:
    log = books()
    counters = counters_of(log.costs)
    (index,) = [n for n, one in enumerate(counters) if one.budget == "monthly"]
    held = changed(counters[index], 0, Balance(counters[index].buckets[0].spent, Decimal("0.5")))
    counters[index] = held
    name = counter_name(TEAM, held.budget, held.window_id, held.value)
    open_ = Reservation("r", "0", None, (Hold(name, 0, Decimal("0.5")),))
    assert list(compared(log, counters, {TEAM: [open_]}).faults()) == []
    comparison = compared(log, counters)
    assert comparison.trails
    (fault,) = comparison.faults()
    assert (fault.kind, fault.where, fault.difference) == ("reserved", name, Decimal("0.5"))
    # A moment later the two were read at one instant: that proves it.
    comparison.redis(counters, {TEAM: [open_]})
    assert list(comparison.faults()) == []


def test_a_limit_that_is_exceeded_by_a_digit() -> None:
    log = books()
    counters = counters_of(log.costs)
    (index,) = [n for n, one in enumerate(counters) if one.budget == "monthly"]
    one = counters[index]
    rest = MONTHLY.limit - one.spent
    name = counter_name(TEAM, one.budget, one.window_id, one.value)
    for reserved, kinds in ((rest, []), (rest + DIGIT, ["over_limit"])):
        counters[index] = changed(one, 0, Balance(one.spent, reserved))
        faults = list(
            compared(log, counters, {TEAM: [Reservation("r", "0", None, (Hold(name, 0, reserved),))]}).faults()
        )
        assert [fault.kind for fault in faults] == kinds
        assert all(fault.difference == DIGIT for fault in faults)


def test_counters_nobody_asks_are_left_alone() -> None:
    log = books()
    strange = Counter(TEAM, "old", "2026-11", "", {0: Balance(Decimal(3))})
    other_window = Counter(TEAM, "monthly", "2026-11-20", "", {0: Balance(Decimal(3))})
    comparison = compared(log, [*counters_of(log.costs), strange, other_window])
    assert list(comparison.faults()) == []
    assert comparison.unlike == 2


# -- while traffic runs ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_live_sums_of_any_moment_agree_in_the_end(seed: int) -> None:
    """The ledger is read to some offset, team-spend and Redis stand at others; each step one side moves on."""
    rng = random.Random(seed)
    log = books()
    events = log.written(log.costs)
    read, live, settled = (rng.randrange(len(events) + 1) for _ in range(3))
    verification = log.verification()
    for event in events[:read]:
        verification.cost(event)
    comparison = Comparison(verification, NOW)

    def show() -> None:
        for record in sums(prefix(log, live)):
            comparison.live(record)
        comparison.redis(counters_of(log.costs[:settled]), {})

    show()
    comparison.start()
    for _ in range(1000):
        if comparison.is_ahead:
            here = max(read, live, settled)
            for event in events[read:here]:
                comparison.grown(verification.cost(event))
            read = here
        if not comparison.trails:
            break
        live, settled = (min(len(events), place + rng.randrange(3)) for place in (live, settled))
        show()
    assert list(comparison.faults()) == []


def prefix(log: Log, length: int) -> Ledger:
    return verified(log, log.costs[:length]).ledger


def test_a_sum_that_never_catches_up_is_behind_and_one_beyond_the_log_ahead() -> None:
    log = books()
    for length, word in ((len(log.costs) - 1, "has not counted every cost"), (len(log.costs), "not on the log")):
        comparison = Comparison(verified(log, log.costs if length < len(log.costs) else log.costs[:-1]), NOW)
        for record in sums(prefix(log, length)):
            comparison.live(record)
        comparison.start()
        assert comparison.trails == ("counted every" in word)
        # The last cost is the first of its user: that window is not there yet.
        assert {fault.kind for fault in comparison.faults()} <= {"window", "no_window"}
        faults = [fault for fault in comparison.faults() if fault.kind == "window"]
        assert len(faults) >= 5
        assert all(word in fault.cause for fault in faults)
        assert Series(TEAM, "month") in prefix(log, length).series()


# -- repair ----------------------------------------------------------------------------------------------------------------


def test_the_plan_restores_what_was_lost_and_nothing_else() -> None:
    log = books()
    right = counters_of(log.costs)
    verification = verified(log, log.costs)
    assert plan_repair(verification.ledger, verification.budgets, right, NOW) == []
    lost = [one for one in right if one.value != "u1"]
    (plan,) = plan_repair(verification.ledger, verification.budgets, lost, NOW)
    (change,) = plan.changes
    (of,) = [one for one in right if one.value == "u1"]
    live = of.since(bucket_of(USERS, NOW) - 24).spent
    assert change.counter == counter_name(TEAM, "users", "rolling-48h", "u1")
    assert (change.before, change.after) == (Decimal(0), live)
    # The whole team is named, so that nothing that was right is set to nothing.
    whole: dict[tuple[str, str], dict[int, Decimal]] = {}
    for subject, amounts in plan.spent.items():
        for at, amount in amounts.items():
            assert at.tzinfo is UTC
            buckets = whole.setdefault((subject.budget.name, subject.value), {})
            buckets[bucket_of(subject.budget, at)] = amount
    for one in right:
        first = bucket_of(USERS, NOW) - 24 if one.budget == "users" else 0
        counting = {bucket: each.spent for bucket, each in one.buckets.items() if bucket >= first}
        assert whole.get((one.budget, one.value), {}) == counting


def test_what_was_never_spent_is_set_to_nothing() -> None:
    log = books()
    verification = verified(log, [])
    counters = counters_of(log.costs)
    (plan,) = plan_repair(verification.ledger, verification.budgets, counters, NOW)
    assert {change.after for change in plan.changes} == {from_pico(0)}


def test_windows_are_told_as_people_read_them() -> None:
    log = books()
    ledger = prefix(log, len(log.costs))
    record = team_spend(ledger, Series(TEAM, "day"), datetime(2026, 11, 19, tzinfo=UTC).toordinal())
    wrong = msgspec.structs.replace(record, output_tokens=record.output_tokens + 5)
    comparison = Comparison(verified(log, log.costs), NOW)
    for each in sums(ledger):
        comparison.live(each)
    comparison.live(wrong)
    comparison.start()
    (fault,) = comparison.faults()
    assert fault.where == f"team {TEAM}, day 2026-11-19"
    assert fault.ledger == f"output_tokens {record.output_tokens}"
    assert fault.live == f"output_tokens {record.output_tokens + 5}"
    assert fault.difference == 0

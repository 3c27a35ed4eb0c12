"""One thing is wrong on the log: verification names it, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from penstock.bus.types import Message
from penstock.config.kinds import Team
from penstock.config.prices import Price
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import Completion, Context, Cost
from penstock.ledger.comparison import Comparison
from penstock.ledger.faults import FAULTS, Fault
from penstock.ledger.rebuild import Ledger
from penstock.ledger.recomputation import calls_of

from tests.unit.ledger_books import NOW, SMALL, START, TEAM, Log, a_price, completion, entry, ms, sums

DIGIT = Decimal("0.000000000001")
replace = msgspec.structs.replace


def test_books_in_order_agree() -> None:
    log = Log()
    assert log.verify() == []
    kinds = {cost.kind for cost in log.costs}
    assert kinds == {"abandoned", "completion", "cached", "cancelled", "judge", "embedding"}
    assert sum(not cost.priced for cost in log.costs) == 1


def test_repeats_change_nothing() -> None:
    log = Log()
    log.costs += log.costs[3:9]
    log.sources += log.sources[3:9]
    assert log.verify() == []


def test_costs_older_than_kinds_attempts_and_savings_are_right_without_them() -> None:
    log = Log()
    for index, source in enumerate(log.sources[:24]):
        if isinstance(source, Completion) and not source.cached_by:
            log.sources[index] = replace(source, context=replace(source.context, admitted_at=None))
            (call,) = calls_of(log.sources[index], 0)
            price = call.price(log.verification().prices, ms(source.occurred_at))
            log.costs[index] = replace(
                call.priced(price), kind="completion", attempt=0, saved={}, accounted_at=None, response_model=None
            )
    recount(log)
    assert log.verify() == []
    log.costs[23] = more(log.costs[23])
    recount(log)
    assert [fault.kind for fault in log.verify()] == ["other_amount"]


def changed(index: int, **changes: object) -> Callable[[Log], None]:
    def change(log: Log) -> None:
        log.costs[index] = replace(log.costs[index], **changes)

    return change


def more(cost: Cost) -> Cost:
    return replace(cost, amount=(cost.amount or 0) + DIGIT, input_amount=(cost.input_amount or 0) + DIGIT)


def a_digit_more(log: Log) -> None:
    log.costs[4] = more(log.costs[4])
    recount(log)


def recount(log: Log) -> None:
    """The live sums are those of the costs as they are."""
    ledger = Ledger(log.verification().budgets.budgets)
    for cost in log.costs:
        ledger.add(cost)
    log.live = sums(ledger)


def repriced(index: int, price: Price) -> Callable[[Log], None]:
    """The cost at another price: right sums, wrong price."""

    def change(log: Log) -> None:
        (call,) = calls_of(log.sources[index], 0)
        log.costs[index] = call.priced(price)
        recount(log)

    return change


def forged(log: Log) -> None:
    log.costs.append(replace(log.costs[0], event_id=str(uuid.uuid4()), causation_id="nobody"))
    recount(log)


def forgotten(log: Log) -> None:
    del log.costs[7]
    recount(log)


def of_nothing(log: Log) -> None:
    """A cost with the identity that pricing would give to a call; the call is not there."""
    del log.sources[6]


def unpriced(log: Log) -> None:
    cost = log.costs[5]
    log.costs[5] = replace(
        cost, priced=False, price_version=None, amount=None, input_amount=None, output_amount=None, compute_amount=None,
        saved={},
    )  # fmt: skip
    recount(log)


def other_team(log: Log) -> None:
    log.costs[5] = replace(log.costs[5], tenant_id="research")
    recount(log)


def conflict(log: Log) -> None:
    log.costs.append(more(log.costs[2]))


def wrong_saving(log: Log) -> None:
    (index,) = [index for index, cost in enumerate(log.costs) if cost.kind == "cached"]
    log.costs[index] = replace(log.costs[index], saved={"semantic_cache": Decimal(9)})
    recount(log)


def live_digit(log: Log) -> None:
    (index,) = [n for n, each in enumerate(log.live) if each.window == "month" and each.budget_name is None]
    log.live[index] = replace(log.live[index], amount=log.live[index].amount + DIGIT)


def live_call(log: Log) -> None:
    (index,) = [n for n, each in enumerate(log.live) if each.window == "rolling-168h"]
    log.live[index] = replace(log.live[index], calls=log.live[index].calls + 1)


def live_lost(log: Log) -> None:
    log.live.remove(next(each for each in log.live if each.budget_name == "monthly"))


UNHEARD = a_price("small", input_cost_per_token="0.0000009", output_cost_per_token="0.0000006")
TAMPERED: dict[str, tuple[Callable[[Log], None], str, str]] = {
    "an amount": (a_digit_more, "other_amount", "r4 "),
    "a price nobody published": (repriced(3, UNHEARD), "unknown_price", "r3 "),
    "a price that was over": (repriced(19, SMALL), "other_price", "r19 "),
    "no price where there is one": (unpriced, "other_price", "r5 "),
    "a cost by another": (forged, "underived", "r0 "),
    "a call without cost": (forgotten, "no_cost", "r7 "),
    "a cost without call": (of_nothing, "no_call", "r6 "),
    "another team": (other_team, "other_call", "r5 of team research"),
    "other content": (conflict, "conflict", "r2 "),
    "a saving": (wrong_saving, "other_saving", "r21 "),
    "a live amount": (live_digit, "window", f"team {TEAM}, month 2026-11"),
    "a live number of calls": (live_call, "window", f"team {TEAM}, rolling-168h"),
    "a live window gone": (live_lost, "no_window", f"team {TEAM}, budget monthly, month 2026-11"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_each_fault_is_named_and_nothing_else(name: str) -> None:
    tamper, kind, where = TAMPERED[name]
    log = Log()
    tamper(log)
    faults = [fault for fault in log.verify() if not (name == "a cost by another" and fault.kind == "no_call")]
    assert [fault.kind for fault in faults] == [kind], faults
    assert where in f"{faults[0].where} "
    assert faults[0].cause
    assert faults[0].description == FAULTS[kind]


def test_the_difference_is_told_to_the_digit() -> None:
    log = Log()
    a_digit_more(log)
    live_digit(log)
    amounts = {fault.kind: fault.difference for fault in log.verify()}
    assert amounts == {"other_amount": -DIGIT, "window": DIGIT}


def test_a_cost_that_comes_while_calls_are_read_is_waited_for() -> None:
    log = Log()
    late = log.costs[7:9]
    del log.costs[7:9]
    assert log.verify(later=late) == []
    wrong = [more(late[0]), late[1]]
    kinds = {fault.kind for fault in log.verify(later=wrong)}
    assert "other_amount" in kinds


def test_what_cannot_be_decoded_is_a_fault_told_once() -> None:
    verification = Log().verification()
    for _ in range(2):
        verification.undecodable(
            Message("costs", 1, 17, 0, b"", b"x"), Undecodable("wrong_magic_byte", "costs: nonsense")
        )
    assert list(verification.faults()) == [Fault("undecodable", "costs/1/17", cause="costs: nonsense")]


def test_a_price_published_between_the_call_and_its_pricing_may_be_known_or_not() -> None:
    """The call at 2 s, the cost at 2.05 s: a price published in the same minute counts, or not."""
    log = Log()
    rush = a_price("small", input_cost_per_token="0.5", output_cost_per_token="0.5", effective_from=START)
    log.config.append(entry(rush, START + timedelta(seconds=30)))
    faults = log.verify()
    # Every later call had to be priced with it; the first might not.
    assert {fault.kind for fault in faults} == {"other_price"}
    assert not [fault for fault in faults if " r0 " in f" {fault.where} ".replace("request ", " ")]


def test_calls_that_retention_has_cut_are_not_missed() -> None:
    log = Log()
    del log.sources[:6]
    assert {fault.kind for fault in log.verify()} == {"no_call"}
    log.first_source = 4711
    assert log.verify() == []


def test_windows_older_than_the_log_are_not_compared() -> None:
    log = Log()
    log.costs = log.costs[10:]
    log.sources = log.sources[10:]
    log.first_cost = 4711
    assert {fault.kind for fault in log.verify()} <= {"no_call"}
    log.first_cost = 0
    assert "window" in {fault.kind for fault in log.verify()}


def test_a_budget_known_in_mid_window_has_its_costs_from_then_on() -> None:
    log = Log()
    before = [event for event in log.config if event.topic != "config-teams"]
    (team,) = [event for event in log.config if event.topic == "config-teams"]
    log.config = [*before, entry(Team.model_validate_json(team.record.content), START + timedelta(hours=12))]
    log.live = [
        replace(each, calls=each.calls - 2, amount=each.amount / 2) if each.budget_name == "monthly" else each
        for each in log.live
    ]
    assert log.verify() == []
    # More than what came before it cannot be missing.
    log.live = [replace(each, calls=1) if each.budget_name == "monthly" else each for each in log.live]
    assert [fault.kind for fault in log.verify()] == ["window"]


def test_a_window_of_a_budget_that_has_just_been_published_is_waited_for() -> None:
    """Its costs came within the minute in which evaluation may have learned of the budget, or not."""
    log = Log()
    (team,) = [event for event in log.config if event.topic == "config-teams"]
    first = min(cost.occurred_at for cost in log.costs)
    log.costs = [cost for cost in log.costs if cost.occurred_at < first + timedelta(seconds=30)]
    for since, waits in ((first - timedelta(seconds=10), True), (first + timedelta(seconds=40), False)):
        log.config[-1] = entry(Team.model_validate_json(team.record.content), since)
        verification = log.verification()
        for event in log.written(log.costs):
            verification.cost(event)
        comparison = Comparison(verification, NOW)
        recount(log)
        for record in log.live:
            if record.budget_name is None:
                comparison.live(record)
        comparison.start()
        assert comparison.trails == waits
        # It may never come, and that is right.
        assert list(comparison.faults()) == []


def test_costs_older_than_their_newer_fields_agree() -> None:
    log = Log(sources=[completion(1, context=Context(requested_at=START))])
    log.costs[0] = replace(log.costs[0], accounted_at=None, compute_amount=None)
    assert log.verify() == []

"""Prices to costs, costs to spend: exact to the last digit, whatever the order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import Emit, Message
from penstock.config.kinds import Price, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, Completion, Context, Cost, TeamSpend, Usage

from services.evaluation.core.pricing import price_call, pricing
from services.evaluation.core.spend import TooLate, spending

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
CODEC = Codec.offline(Catalogue.load())


def completion(
    model: str = "m",
    *,
    tokens: tuple[int, int, int] = (1000, 100, 0),
    at: datetime = NOW,
    number: int = 0,
    team: str = "t",
) -> Completion:
    prompt, answer, cached = tokens
    return Completion(
        event_id=event_id("test", "completion", number), request_id=f"r{number}", tenant_id=team, occurred_at=at,
        causation_id="", context=Context(requested_at=at), messages=[], model=model, backend="openai",
        usage=Usage(input_tokens=prompt, output_tokens=answer, cached_input_tokens=cached),
    )  # fmt: skip


def price(model: str = "m", **fields: Any) -> Price:
    return Price(model=model, **{"input_cost_per_token": "0.00000015", "output_cost_per_token": "0.0000006", **fields})


def message(topic: str, offset: int = 0) -> Message:
    return Message(topic, 0, offset, int(NOW.timestamp() * 1000), b"k", b"v")


def drive(logic: Any, topic: str, records: Sequence[Any], state: dict[str, Any] | None = None) -> list[Emit]:
    """Run ``logic`` over records as the shell does; ``state`` keeps what it leaves."""
    states = {} if state is None else state
    out: list[Emit] = []
    for offset, record in enumerate(records):
        where = message(topic, offset)
        for key, event in logic.route(record, where, states.get):
            now = record.occurred_at
            after, emits = logic.step(states.get(key), event, now)
            out += emits
            if key is not None:
                states[key] = after
    return out


def records_of(emits: Sequence[Emit], kind: type[Any]) -> list[Any]:
    return [emit.record for emit in emits if isinstance(emit.record, kind)]


def test_a_call_is_priced_by_hand() -> None:
    cost = price_call(completion(tokens=(1234, 567, 0)), price())
    assert cost.input_amount == Decimal("0.000185100000")
    assert cost.output_amount == Decimal("0.000340200000")
    assert cost.amount == Decimal("0.000525300000")
    assert cost.priced
    assert cost.price_version == price().version


def test_cached_tokens_cost_what_the_price_says_else_the_same() -> None:
    call = completion(tokens=(1000, 0, 400))
    assert price_call(call, price(cache_read_input_token_cost="0.00000001")).amount == Decimal("0.000094")
    assert price_call(call, price()).amount == Decimal("0.00015")
    assert price_call(call, price(cache_read_input_token_cost="0")).amount == Decimal("0.00009")


def test_the_cost_carries_the_time_of_the_call_and_an_identity_of_its_own() -> None:
    call = completion(at=NOW - timedelta(days=3))
    cost = price_call(call, price())
    assert (cost.occurred_at, cost.request_id, cost.causation_id) == (call.occurred_at, "r0", call.event_id)
    assert cost.event_id == price_call(call, None).event_id != call.event_id


def test_the_price_in_force_at_the_call_applies() -> None:
    old, new = price(), price(input_cost_per_token="0.000001", effective_from=NOW)
    plane = ConfigPlane.of([old, new])
    emits = drive(pricing(plane.price), "completions", [completion(at=NOW - timedelta(microseconds=1)), completion()])
    assert [cost.price_version for cost in records_of(emits, Cost)] == [old.version, new.version]


def test_a_model_without_price_is_unpriced_never_zero_and_alerts_once_an_hour() -> None:
    logic = pricing(ConfigPlane.of([price()]).price)
    minutes = [0, 1, 59, 60, 61]
    calls = [completion("other", at=NOW + timedelta(minutes=m), number=n) for n, m in enumerate(minutes)]
    emits = drive(logic, "completions", calls)
    costs = records_of(emits, Cost)
    assert [(cost.priced, cost.amount, cost.price_version) for cost in costs] == [(False, None, None)] * 5
    alerts = records_of(emits, Alert)
    assert [alert.figures["calls"] for alert in alerts] == [1.0, 3.0]
    assert alerts[0].fingerprint == alerts[1].fingerprint
    assert alerts[0].event_id != alerts[1].event_id
    assert all(CODEC.encode(emit.topic, emit.record) for emit in emits)


def test_a_failed_call_without_tokens_raises_no_alert() -> None:
    emits = drive(pricing(ConfigPlane.of([]).price), "completions", [completion("other", tokens=(0, 0, 0))])
    assert [type(emit.record) for emit in emits] == [Cost]


@given(
    prompt=st.integers(0, 2_000_000),
    answer=st.integers(0, 200_000),
    share=st.floats(0, 1),
    prices=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
)
def test_every_amount_is_exact_and_survives_the_wire(
    prompt: int, answer: int, share: float, prices: tuple[int, int, int]
) -> None:
    cached = int(prompt * share)
    each = [Decimal(p).scaleb(-12) for p in prices]
    priced = price(input_cost_per_token=each[0], output_cost_per_token=each[1], cache_read_input_token_cost=each[2])
    cost = price_call(completion(tokens=(prompt, answer, cached)), priced)
    assert cost.input_amount is not None
    assert cost.output_amount is not None
    assert Fraction(cost.input_amount) == Fraction((prompt - cached) * prices[0] + cached * prices[2], 10**12)
    assert Fraction(cost.output_amount) == Fraction(answer * prices[1], 10**12)
    assert cost.amount == cost.input_amount + cost.output_amount
    assert CODEC.decode("costs", CODEC.encode("costs", cost)) == cost


def costs(amounts: Sequence[str | None], days: Sequence[int] | None = None, team: str = "t") -> list[Cost]:
    return [
        Cost(
            event_id=event_id(team, "cost", n), request_id=f"r{n}", tenant_id=team, causation_id="",
            occurred_at=NOW + timedelta(days=days[n] if days else 0), context=Context(requested_at=NOW), model="m",
            priced=amount is not None, amount=None if amount is None else Decimal(amount),
            usage=Usage(input_tokens=10, output_tokens=1),
        )
        for n, amount in enumerate(amounts)
    ]  # fmt: skip


def newest(emits: Sequence[Emit]) -> dict[str, TeamSpend]:
    return {emit.key: emit.record for emit in emits if isinstance(emit.record, TeamSpend)}


def test_spend_is_kept_by_day_and_month_of_the_calls() -> None:
    emits = drive(
        spending(lambda name: None), "costs", costs(["0.1", "0.2", None, "0.000000000003"], days=[0, -1, 0, -20])
    )
    spend = newest(emits)
    assert {key: (s.amount, s.calls, s.unpriced_calls) for key, s in spend.items()} == {
        "t/day/2026-03-14": (Decimal("0.1"), 2, 1),
        "t/day/2026-03-13": (Decimal("0.2"), 1, 0),
        "t/day/2026-02-22": (Decimal("3E-12"), 1, 0),
        "t/month/2026-03-01": (Decimal("0.3"), 3, 1),
        "t/month/2026-02-01": (Decimal("3E-12"), 1, 0),
    }
    assert spend["t/month/2026-03-01"].input_tokens == 30
    assert all(CODEC.decode(e.topic, CODEC.encode(e.topic, e.record)) == e.record for e in emits)


def test_the_sum_does_not_depend_on_the_order() -> None:
    rng = random.Random(3)
    amounts = [str(Decimal(rng.randrange(1, 10**11)).scaleb(-12)) for _ in range(300)]
    days = [rng.randrange(-40, 1) for _ in amounts]
    made = costs(amounts, days)
    team = spending(lambda name: None)
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    drive(team, "costs", made, first)
    drive(team, "costs", rng.sample(made, len(made)), second)
    assert first == second
    assert sum(total.amount for total in first["t"].days.values()) == sum(map(Decimal, amounts))


def test_each_threshold_alerts_once_when_it_is_crossed() -> None:
    team = Team(name="t", daily_budget=Decimal(10), budget_alerts=(0.5, 0.8, 1.0))
    emits = drive(spending(lambda name: team), "costs", costs(["4.9", "0.1", "1", "2", "1.999999999999", "1E-12", "5"]))
    alerts = records_of(emits, Alert)
    assert [(a.labels["threshold"], a.severity) for a in alerts] == [
        ("0.5", "warning"), ("0.8", "warning"), ("1.0", "critical"),
    ]  # fmt: skip
    assert len({alert.fingerprint for alert in alerts}) == 3
    assert "spent 5 of 10 USD" in alerts[0].description
    assert [a.sample_requests for a in alerts] == [["r1"], ["r3"], ["r5"]]
    assert all(CODEC.encode(emit.topic, emit.record) for emit in emits)


def test_one_call_over_several_thresholds_alerts_with_the_highest() -> None:
    team = Team(name="t", monthly_budget=Decimal(1))
    alerts = records_of(drive(spending(lambda name: team), "costs", costs(["7"])), Alert)
    assert [(a.labels["window"], a.labels["threshold"]) for a in alerts] == [("month", "1.0")]


def test_a_new_day_has_its_budget_to_itself() -> None:
    team = Team(name="t", daily_budget=Decimal(1), budget_alerts=(1.0,))
    emits = drive(spending(lambda name: team), "costs", costs(["0.9", "0.9", "0.1"], days=[-1, 0, -1]))
    assert [a.labels["window"] for a in records_of(emits, Alert)] == ["day"]
    assert newest(emits)["t/day/2026-03-13"].budget == Decimal(1)


def test_windows_are_closed_after_a_quarter_and_what_comes_later_is_refused() -> None:
    state: dict[str, Any] = {}
    drive(spending(lambda name: None), "costs", costs(["1"] * 200, days=list(range(200))), state)
    assert len(state["t"].days) == 93
    assert len(state["t"].months) <= 5
    with pytest.raises(TooLate, match="rebuild the totals"):
        drive(spending(lambda name: None), "costs", costs(["1"], days=[100]), state)

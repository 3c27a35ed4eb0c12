"""Calls to costs: every kind, at the price in force, exact to the last digit, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import Emit, Message
from penstock.config.kinds import Price
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, Completion, Context, Cost, DocumentIndexed, Timings, Usage

from services.evaluation.core.pricing import Calls, price_completion, price_document, price_embedding, pricing

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
CODEC = Codec.offline(Catalogue.load())


def completion(
    model: str = "m",
    *,
    tokens: tuple[int, int, int] = (1000, 100, 0),
    at: datetime = NOW,
    number: int = 0,
    team: str = "t",
    **fields: Any,
) -> Completion:
    prompt, answer, cached = tokens
    made = Completion(
        event_id=event_id("test", "completion", number), request_id=f"r{number}", tenant_id=team, occurred_at=at,
        causation_id="", context=Context(requested_at=at), messages=[], model=model, backend="openai",
        usage=Usage(input_tokens=prompt, output_tokens=answer, cached_input_tokens=cached),
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def price(model: str = "m", **fields: Any) -> Price:
    return Price(model=model, **{"input_cost_per_token": "0.00000015", "output_cost_per_token": "0.0000006", **fields})


def priced(call: Completion, *prices: Price) -> Cost:
    return price_completion(call, ConfigPlane.of(prices).price)


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


CALL = Decimal("0.00021")
"""What a call of 1000 and 100 tokens costs at the price above."""

KINDS = [
    ({}, "completion", CALL, {}),
    ({"attempt": 1}, "repeat", CALL, {}),
    ({"finish_reason": "cancelled"}, "cancelled", CALL, {}),
    ({"finish_reason": "cancelled", "attempt": 1}, "cancelled", CALL, {}),
    ({"finish_reason": "content_filter"}, "completion", CALL, {}),
    ({"kind": "judge"}, "judge", CALL, {}),
    ({"kind": "shadow", "attempt": 1}, "shadow", CALL, {}),
    ({"kind": "abandoned", "attempt": 1, "finish_reason": "cancelled"}, "abandoned", CALL, {}),
    ({"cached_by": "exact", "kind": "cached"}, "cached", Decimal(0), {"exact_cache": CALL}),
    ({"cached_by": "semantic"}, "cached", Decimal(0), {"semantic_cache": CALL}),
    ({"kind": "something new"}, "completion", CALL, {}),
    ({"error": "the line broke"}, "completion", CALL, {}),
    ({"error": "no answer", "usage": Usage()}, "completion", Decimal(0), {}),
    ({"reduced_input_tokens": 40}, "completion", CALL, {"prompt_reduction": Decimal("0.000006")}),
]


@pytest.mark.parametrize(("fields", "kind", "amount", "saved"), KINDS, ids=lambda value: str(value)[:40])
def test_every_kind_of_call_is_booked(
    fields: dict[str, Any], kind: str, amount: Decimal, saved: dict[str, Decimal]
) -> None:
    cost = priced(completion(**fields), price())
    assert (cost.kind, cost.amount, cost.saved, cost.priced) == (kind, amount, saved, True)
    assert cost.attempt == fields.get("attempt", 0)
    shares = (cost.amount, cost.input_amount, cost.output_amount, cost.compute_amount, *cost.saved.values())
    assert all(share is not None and share.as_tuple().exponent == -12 for share in shares)
    assert CODEC.decode("costs", CODEC.encode("costs", cost)) == cost


def test_a_call_is_priced_by_hand() -> None:
    cost = priced(completion(tokens=(1234, 567, 0)), price())
    assert str(cost.input_amount) == "0.000185100000"
    assert str(cost.output_amount) == "0.000340200000"
    assert str(cost.compute_amount) == "0E-12"
    assert str(cost.amount) == "0.000525300000"
    assert cost.price_version == price().version


def test_cached_tokens_cost_what_the_price_says_else_the_same() -> None:
    call = completion(tokens=(1000, 0, 400))
    cheaper = priced(call, price(cache_read_input_token_cost="0.00000001"))
    assert (cheaper.amount, cheaper.saved) == (Decimal("0.000094"), {"prefix_cache": Decimal("0.000056")})
    same = priced(call, price())
    assert (same.amount, same.saved) == (Decimal("0.00015"), {})
    assert priced(call, price(cache_read_input_token_cost="0")).amount == Decimal("0.00009")


@pytest.mark.parametrize(
    ("compute_us", "priced_us", "amount"),
    [(None, 2_000_000, "0.000600000000"), (500_001, 500_001, "0.000150000300"), (0, 0, "0E-12")],
)
def test_a_price_by_the_second_takes_the_accelerators_time_else_the_calls(
    compute_us: int | None, priced_us: int, amount: str
) -> None:
    call = completion(timings=Timings(model_us=2_000_000, compute_us=compute_us))
    cost = priced(call, Price(model="m", input_cost_per_second="0.0003"))
    assert (cost.compute_us, str(cost.compute_amount), str(cost.amount)) == (priced_us, amount, amount)
    # Without such a rate the time is no part of the cost.
    assert priced(call, price()).compute_us == 0


def test_the_model_of_the_route_is_priced_and_the_one_that_answered_where_that_has_no_price() -> None:
    call = completion("m-2026-01-01", request_model="m")
    own, dated = price(), price("m-2026-01-01", input_cost_per_token="0.1")
    for prices, version in [((own, dated), own.version), ((dated,), dated.version), ((), None)]:
        cost = priced(call, *prices)
        assert (cost.price_version, cost.model, cost.response_model) == (version, "m", "m-2026-01-01")
    assert priced(completion("m-2026-01-01"), dated).model == "m-2026-01-01"


def test_a_cost_counts_at_the_admission_of_its_request_and_else_at_its_call() -> None:
    admitted = NOW - timedelta(hours=9)
    call = completion(context=Context(requested_at=NOW, admitted_at=admitted))
    assert priced(call, price()).accounted_at == admitted
    assert priced(completion(), price()).accounted_at == NOW


def test_the_cost_carries_the_time_of_the_call_and_an_identity_of_its_own() -> None:
    call = completion(at=NOW - timedelta(days=3))
    cost = priced(call, price())
    assert (cost.occurred_at, cost.request_id, cost.causation_id) == (call.occurred_at, "r0", call.event_id)
    assert cost.event_id == priced(call).event_id != call.event_id


def test_embedding_a_question_is_a_cost_of_its_own() -> None:
    call = completion(embedder="e", embedding_tokens=40, context=Context(requested_at=NOW, user_id="ada"))
    embedder = Price(model="e", mode="embedding", input_cost_per_token="0.00000002")
    plane = ConfigPlane.of([price(), embedder])
    answer, embedding = records_of(drive(pricing(plane.price), "completions", [call]), Cost)
    assert answer.kind == "completion"
    assert (embedding.kind, embedding.model, str(embedding.amount)) == ("embedding", "e", "8.00000E-7")
    assert embedding.context.user_id == "ada"
    assert embedding.usage == Usage(input_tokens=40)
    assert len({answer.event_id, embedding.event_id, call.event_id}) == 3
    assert price_embedding(completion(), plane.price) is None


def test_embedding_a_document_is_a_cost_of_its_team() -> None:
    document = DocumentIndexed(
        event_id="d", request_id="upload", tenant_id="t", occurred_at=NOW, causation_id="", document_id="doc",
        status="indexed", embedder="e", embedded_tokens=500,
    )  # fmt: skip
    plane = ConfigPlane.of([Price(model="e", mode="embedding", input_cost_per_token="0.00000002")])
    (cost,) = records_of(drive(pricing(plane.price), "documents-indexed", [document]), Cost)
    assert (cost.kind, cost.tenant_id, cost.accounted_at, cost.amount) == ("embedding", "t", NOW, Decimal("0.00001"))
    unchanged = msgspec.structs.replace(document, status="unchanged", embedded_tokens=0)
    assert price_document(unchanged, plane.price) is None
    assert drive(pricing(plane.price), "documents-indexed", [unchanged]) == []


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
    assert {cost.compute_amount for cost in costs} == {None}
    alerts = records_of(emits, Alert)
    assert [alert.figures["calls"] for alert in alerts] == [1.0, 3.0]
    assert alerts[0].fingerprint == alerts[1].fingerprint
    assert alerts[0].event_id != alerts[1].event_id
    assert all(CODEC.encode(emit.topic, emit.record) for emit in emits)


def test_an_unpriced_model_and_an_unpriced_embedder_of_one_call_are_two_alerts() -> None:
    call = completion("other", embedder="e", embedding_tokens=3)
    emits = drive(pricing(ConfigPlane.of([]).price), "completions", [call])
    alerts = records_of(emits, Alert)
    assert sorted(alert.labels["model"] for alert in alerts) == ["e", "other"]
    assert len({alert.event_id for alert in alerts}) == 2


def test_a_failed_call_without_tokens_raises_no_alert() -> None:
    failed = completion("other", usage=Usage(), error="away")
    emits = drive(pricing(ConfigPlane.of([]).price), "completions", [failed])
    assert [type(emit.record) for emit in emits] == [Cost]


def test_the_partitions_cursor_moves_with_every_call_so_that_none_is_priced_again() -> None:
    state: dict[str, Any] = {}
    logic = pricing(ConfigPlane.of([price()]).price)
    drive(logic, "completions", [completion(number=0)], state)
    before = state["cursor"]
    drive(logic, "completions", [completion(number=1)], state)
    # The shell keeps the offset with a state that is another object than before.
    assert state["cursor"] is not before
    assert state["cursor"].costs == 2
    (routed,) = [event for key, event in logic.route(completion(), message("completions"), state.get) if key]
    assert isinstance(routed, Calls)


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
    own = price(input_cost_per_token=each[0], output_cost_per_token=each[1], cache_read_input_token_cost=each[2])
    cost = priced(completion(tokens=(prompt, answer, cached)), own)
    assert cost.input_amount is not None
    assert cost.output_amount is not None
    assert Fraction(cost.input_amount) == Fraction((prompt - cached) * prices[0] + cached * prices[2], 10**12)
    assert Fraction(cost.output_amount) == Fraction(answer * prices[1], 10**12)
    assert cost.amount == cost.input_amount + cost.output_amount
    assert sum(cost.saved.values(), Decimal(0)) == Decimal(max(0, cached * (prices[0] - prices[2]))).scaleb(-12)
    assert CODEC.decode("costs", CODEC.encode("costs", cost)) == cost

"""The most that a request can cost: never less than what it can become on its way to the model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Budget, Canary, Policy, Price, Retrieval, Route, ScannerRule, Shadow, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Context, Cost, GroundedRequest, LlmResult, Message, Passage, Usage
from penstock.money import charge, pico
from penstock.money.bounds import BYTES_A_TOKEN

from services.guardrails.masking import Stretch, mask_texts
from services.inference.prompt import prompt_of
from services.intake.bounds import EMBEDDING, Call, Unpriced, calls_of, holds_of, total
from services.intake.settlement import Charge, InvalidAmount, Release, charge_of, release_of

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
EMBEDDER = "embedder"
PLAIN = Policy(name="plain")
CHEAP = Target(backend="openai", model="cheap", base_url="http://127.0.0.1:1/v1", timeout_s=10)
DEAR = Target(backend="openai", model="dear", base_url="http://127.0.0.1:1/v1", timeout_s=10)
TIMED = Target(backend="vllm", model="timed", timeout_s=10)
PRICES = ConfigPlane.of(
    [
        Price(model="cheap", input_cost_per_token=Decimal("1e-12"), output_cost_per_token=Decimal("1e-6")),
        Price(model="dear", input_cost_per_token=Decimal("3e-12"), output_cost_per_token=Decimal("3e-6")),
        Price(
            model="dear",
            input_cost_per_token=Decimal("5e-12"),
            output_cost_per_token=Decimal(0),
            effective_from=NOW + timedelta(hours=2),
        ),
        Price(model="timed", input_cost_per_second=Decimal("0.001")),
        Price(model=EMBEDDER, mode="embedding", input_cost_per_token=Decimal("1e-12")),
    ]
)
BARE = Route(name="bare", targets=(CHEAP,), retrieval=Retrieval(enabled=False))


def a_message(content: str, role: str = "user") -> Message:
    return Message(role=role, content=content)


def bound(messages: list[Message], route: Route, policy: Policy | None = PLAIN, **changes: Any) -> Mapping[str, Call]:
    given: dict[str, Any] = {"output_tokens": 0, "since": NOW, "until": NOW + timedelta(hours=1)} | changes
    calls = calls_of(messages, route, policy, prices=PRICES, embedder=EMBEDDER, **given)
    return {call.slot: call for call in calls}


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=60)), min_size=1, max_size=5),
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60)), max_size=4),
)
def test_the_prompt_that_inference_sends_is_within_the_bound(
    spoken: list[tuple[str, str]], found: list[tuple[str, str]]
) -> None:
    messages = [Message(role=role, content=text, name="ann") for role, text in spoken]
    passages = [Passage(passage_id="p", document_id="d", title=title, text=text, score=1.0) for title, text in found]
    attached = sum(len((title + text).encode()) for title, text in found)
    # As retrieval attaches them: within the bytes of the budget.
    budget = max(1, -(-attached // BYTES_A_TOKEN))
    route = Route(name="r", targets=(CHEAP,), retrieval=Retrieval(top_k=4, token_budget=budget))
    request = GroundedRequest(
        event_id="e", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="", context=Context(requested_at=NOW),
        messages=messages, passages=passages,
    )  # fmt: skip
    # The price of a prompt token is one unit, so the bound is in tokens.
    assert prompt_of(request).size <= bound(messages, route)["0"].worst["cheap"]


def test_a_byte_is_a_token_and_the_template_is_counted() -> None:
    one, two = bound([a_message("é")], BARE)["0"], bound([a_message("é" * 101)], BARE)["0"]
    assert two.worst["cheap"] - one.worst["cheap"] == 200
    assert one.worst["cheap"] > 2


@pytest.mark.parametrize("action", ["pseudonymise", "mask", "hash"])
def test_replacing_finds_makes_no_text_longer_than_the_bound(action: str) -> None:
    # The shortest addresses there are, each another one, so that each has a number or a hash of its own.
    letters = "abcdefghijklmnopqrstuvwxyz"
    finds = [f"{a}@{b}.{c}o" for a in letters for b in letters for c in letters][:12_000]
    text = " ".join(finds)
    starts = itertools.accumulate((len(find) + 1 for find in finds[:-1]), initial=0)
    stretches = [
        Stretch(0, start, start + len(find), "EMAIL_ADDRESS", 1.0, action)
        for start, find in zip(starts, finds, strict=True)
    ]
    (masked,) = mask_texts([text], stretches, "", b"key").texts
    policy = Policy.model_validate({"name": "m", "input": {"pii": {"action": action}}})
    plain = bound([a_message(text)], BARE)["0"].worst["cheap"]
    assert len(masked) > 2 * len(text)
    assert len(masked) - len(text) <= bound([a_message(text)], BARE, policy)["0"].worst["cheap"] - plain


def test_only_what_is_enforced_replaces_and_an_unknown_policy_may() -> None:
    text = [a_message("a@b.co " * 10)]
    plain = bound(text, BARE)["0"].worst["cheap"]
    watching = Policy(name="w", input={"pii": ScannerRule(action="mask", mode="shadow")})
    assert bound(text, BARE, watching)["0"].worst["cheap"] == plain
    assert bound(text, BARE, None)["0"].worst["cheap"] >= plain + 5 * 70


def test_a_policy_that_asks_again_reserves_a_second_call_with_the_first_answer_in_its_prompt() -> None:
    schema = {"type": "object", "description": "x" * 500}
    asking = Policy(
        name="a",
        output={"format": ScannerRule(action="ask_again", json_schema=schema), "pii": ScannerRule(action="mask")},
    )
    question = "what? " * 50
    calls = bound([a_message("You answer.", "system"), a_message(question)], BARE, asking, output_tokens=100)
    assert list(calls) == ["0", "1"]
    more = calls["1"].worst["cheap"] - calls["0"].worst["cheap"]
    assert more >= len(question) + 100 + len(str(schema))
    shadow = Policy(name="s", output={"refusal": ScannerRule(action="ask_again", mode="shadow")})
    assert list(bound([a_message("hi")], BARE, shadow)) == ["0"]


def test_every_answer_that_is_asked_for_is_reserved() -> None:
    asking = Policy(name="a", output={"refusal": ScannerRule(action="ask_again")})
    one, three = (
        bound([a_message("hi")], BARE, asking, output_tokens=100, answers=answers, schema="x" * 10)
        for answers in (1, 3)
    )
    rest = bound([a_message("hi")], BARE, asking, output_tokens=100, answers=0, schema="x" * 10)
    for slot in ("0", "1"):
        generated = one[slot].worst["cheap"] - rest[slot].worst["cheap"]
        assert generated > 0
        assert three[slot].worst["cheap"] == rest[slot].worst["cheap"] + 3 * generated


def test_every_price_in_force_until_the_last_call_has_ended_counts() -> None:
    route = Route(name="r", targets=(DEAR,), retrieval=Retrieval(enabled=False))
    text = [a_message("x" * 1000)]
    now = bound(text, route, output_tokens=10)["0"].worst["dear"]
    # The later price: dearer prompts, free answers. The dearer of both wholes counts, for each request.
    assert now == bound(text, route, output_tokens=10, until=NOW + timedelta(minutes=114))["0"].worst["dear"]
    long = [a_message("x" * 20_000_000)]
    assert bound(long, route, until=LATER)["0"].worst["dear"] > bound(long, route)["0"].worst["dear"]
    # Two hours less the 40 s that a call of the target may last.
    assert (
        bound(long, route, until=NOW + timedelta(hours=2, seconds=-39))["0"].worst["dear"]
        == (bound(long, route, until=LATER)["0"].worst["dear"])
    )


def test_a_price_that_has_just_ended_or_begun_counts() -> None:
    route = Route(name="r", targets=(DEAR,), retrieval=Retrieval(enabled=False))
    text = [a_message("x")]
    after = NOW + timedelta(hours=2, minutes=1)
    # The earlier price charges for the answer, the later one does not.
    assert bound(text, route, output_tokens=1000, since=after, until=LATER)["0"].worst["dear"] >= 3_000_000 * 1000
    assert bound(text, route, output_tokens=1000, since=after + timedelta(minutes=5), until=LATER)["0"].worst[
        "dear"
    ] < (3_000_000)
    new = Price(
        model="new", input_cost_per_token=Decimal("1e-12"), output_cost_per_token=Decimal(0), effective_from=NOW
    )
    target = Target(backend="openai", model="new", base_url="http://127.0.0.1:1/v1")
    only = Route(name="r", targets=(target,), retrieval=Retrieval(enabled=False))
    (call,) = calls_of(text, only, PLAIN, 0, ConfigPlane.of([new]), NOW, LATER, embedder="none")
    assert call.worst["new"] > 0


def test_time_is_bounded_by_every_try_of_a_call() -> None:
    route = Route(name="r", targets=(TIMED,), retrieval=Retrieval(enabled=False))
    worst = bound([a_message("x")], route)["0"].worst["timed"]
    price = PRICES.price("timed", NOW)
    assert price is not None
    assert pico(charge(price, Usage(), 3 * 10_000_000).total) <= worst <= pico(Decimal("0.001")) * 60


def test_the_embedding_of_a_question_is_reserved_where_it_has_a_price() -> None:
    route = Route(name="r", targets=(CHEAP,), retrieval=Retrieval(token_budget=10))
    calls = bound([a_message("you are", "system"), a_message("why? " * 10)], route)
    assert calls[EMBEDDING].worst.keys() == {EMBEDDER}
    assert calls[EMBEDDING].worst[EMBEDDER] >= 50
    # Of a long question only its ends are embedded.
    assert bound([a_message("x" * 1_000_000)], route)[EMBEDDING].worst[EMBEDDER] < 40_000
    assert EMBEDDING not in bound([a_message("why?")], BARE)
    unknown = calls_of([a_message("why?")], route, PLAIN, 0, PRICES, NOW, LATER, embedder="unpriced")
    assert [call.slot for call in unknown] == ["0"]


def test_a_canary_and_shadows_are_part_of_the_worst_case() -> None:
    text = [a_message("x" * 100)]
    dear = bound(text, Route(name="d", targets=(DEAR,), retrieval=Retrieval(enabled=False)), output_tokens=10)["0"]
    timed = bound(text, Route(name="t", targets=(TIMED,), retrieval=Retrieval(enabled=False)), output_tokens=10)["0"]
    asking = Policy(name="a", output={"refusal": ScannerRule(action="ask_again")})
    route = BARE.model_copy(
        update={"canary": Canary(target=DEAR, share=0.1), "shadows": (Shadow(target=TIMED, share=0.1),)}
    )
    calls = bound(text, route, asking, output_tokens=10)
    assert calls["0"].worst["dear"] == dear.worst["dear"]
    assert calls["0"].worst["timed"] == timed.worst["timed"]
    # Shadows answer beside the first call alone; the canary may be asked again.
    assert calls["1"].worst.keys() == {"cheap", "dear"}
    coming = Target(backend="openai", model="coming", base_url="http://127.0.0.1:1/v1")
    for tried in ({"canary": Canary(target=coming, share=0.1)}, {"shadows": (Shadow(target=coming, share=0.1),)}):
        with pytest.raises(Unpriced, match="coming"):
            bound(text, BARE.model_copy(update=tried))


def test_a_target_without_a_price_now_is_named() -> None:
    coming = Target(backend="openai", model="coming", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(Unpriced, match="model 'coming' has no price"):
        bound([a_message("x")], Route(name="r", targets=(CHEAP, coming), retrieval=Retrieval(enabled=False)))


def test_each_counter_holds_every_target_that_counts_in_it() -> None:
    budgets = [
        Budget(name="all", limit=Decimal(1)),
        Budget(name="models", per="model", limit=Decimal(1)),
        Budget(name="ann", per="user", match=("ann",), limit=Decimal(1)),
        Budget(name="bob", per="user", match=("bob",), limit=Decimal(1)),
        Budget(name="feature", per="tag", tag="feature", limit=Decimal(1)),
        Budget(name="soft", limit=Decimal(1), mode="soft"),
    ]
    calls = [Call("0", {"cheap": 10, "dear": 30}), Call("1", {"cheap": 20, "dear": 15}), Call(EMBEDDING, {"e": 1})]
    context = Context(requested_at=NOW, user_id="ann", tags={"feature": "chat"})
    held = {(hold.subject.budget.name, hold.subject.value): hold.amounts for hold in holds_of(budgets, context, calls)}
    # A target that breaks off is paid for, as is the next one.
    every = {"0": 40, "1": 35, EMBEDDING: 1}
    assert held == {
        ("all", ""): every,
        ("models", "cheap"): {"0": 10, "1": 20},
        ("models", "dear"): {"0": 30, "1": 15},
        ("models", "e"): {EMBEDDING: 1},
        ("ann", "ann"): every,
        ("feature", "chat"): every,
    }
    assert total(calls) == Decimal("76e-12")


TEAM = Team(
    name="t", budgets=(Budget(name="all", limit=Decimal(1)), Budget(name="soft", limit=Decimal(1), mode="soft"))
)


def a_cost(**changes: Any) -> Cost:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r1", "tenant_id": "t", "occurred_at": LATER, "causation_id": "e1",
        "context": Context(requested_at=NOW, admitted_at=NOW), "model": "m", "priced": True,
        "amount": Decimal("0.000000000001"), "accounted_at": NOW,
    }  # fmt: skip
    return Cost(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "slot"),
    [
        ({}, "0"),
        ({"kind": "repeat", "attempt": 1}, "1"),
        ({"kind": "cached"}, "0"),
        ({"kind": "cancelled"}, "0"),
        ({"kind": "embedding"}, EMBEDDING),
        ({"kind": "embedding", "context": Context(requested_at=NOW)}, None),
        ({"kind": "judge"}, "0"),
        ({"kind": "judge", "attempt": 1}, "1"),
        ({"kind": "shadow"}, "0"),
        ({"kind": "abandoned"}, "0"),
        ({"kind": "shadow", "context": Context(requested_at=NOW)}, None),
    ],
)
def test_a_cost_settles_the_slot_of_its_call(changes: dict[str, Any], slot: str | None) -> None:
    charged = charge_of(a_cost(**changes), TEAM)
    assert isinstance(charged, Charge)
    assert (charged.slot, charged.amount, charged.at) == (slot, 1, NOW)
    assert [subject.budget.name for subject in charged.subjects] == ["all"]


@pytest.mark.parametrize(("kind", "part"), [("completion", False), ("abandoned", True), ("shadow", True)])
def test_what_stands_beside_the_answer_leaves_its_slot(kind: str, part: bool) -> None:
    charged = charge_of(a_cost(kind=kind), TEAM)
    assert charged is not None
    assert charged.part is part


def test_what_is_not_priced_or_not_limited_charges_nothing() -> None:
    assert charge_of(a_cost(priced=False, amount=None), TEAM) is None
    assert charge_of(a_cost(), Team(name="t", budgets=TEAM.budgets[1:])) is None
    assert charge_of(a_cost(), None) is None


@pytest.mark.parametrize("amount", ["-0.000000000001", "1000000000000.000000000001", "0.0000000000001", "NaN"])
def test_an_amount_that_cannot_be_charged_is_refused(amount: str) -> None:
    with pytest.raises(InvalidAmount):
        charge_of(a_cost(amount=Decimal(amount)), TEAM)


def a_result(**changes: Any) -> LlmResult:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r1", "tenant_id": "t", "occurred_at": LATER, "causation_id": "e1",
        "context": Context(requested_at=NOW), "status": "completed", "calls": 1,
    }  # fmt: skip
    return LlmResult(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "at_once"),
    [
        ({}, True),
        ({"stage": "guardrails", "status": "blocked", "calls": 0}, True),
        ({"stage": "guardrails", "status": "expired", "calls": 1}, True),
        ({"stage": "guardrails", "status": "expired", "calls": 0}, False),
        ({"stage": "retrieval", "status": "expired", "calls": 0}, False),
        ({"stage": "inference", "status": "failed", "calls": 1}, False),
        ({"stage": "intake", "status": "rejected", "calls": 0}, False),
    ],
)
def test_an_end_that_another_delivery_may_belie_gives_back_later(changes: dict[str, Any], at_once: bool) -> None:
    released = release_of(a_result(**changes), TEAM)
    assert released == Release("t", "r1", changes.get("calls", 1), at_once)


def test_a_result_that_does_not_say_its_calls_gives_nothing_back() -> None:
    assert release_of(a_result(calls=None), TEAM) is None
    assert release_of(a_result(), None) is None

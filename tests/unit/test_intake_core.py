"""Admission as a table: requests in, decisions and events out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import (
    Price,
    Prompt,
    PromptMessage,
    PromptVariable,
    Retrieval,
    Route,
    RouteSampling,
    Target,
    Team,
)
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import (
    AdmittedRequest,
    Context,
    Cost,
    LlmRequest,
    Message,
    Refusal,
    Sampling,
    Status,
)

from services.intake.core import (
    Claim,
    Decision,
    Limits,
    content_hash,
    identifiable,
    judge,
    nano_usd,
    refusal,
    settled,
    step,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MODEL = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
PLANE = ConfigPlane.of(
    [
        Team(name="support", allowed_routes=("default", "slow", "prompted"), policy="strict", daily_budget=Decimal(1)),
        Team(name="research", default_route="slow"),
        Route(
            name="default",
            targets=(MODEL,),
            retrieval=Retrieval(token_budget=1000),
            sampling=RouteSampling(temperature=0.2, max_completion_tokens=100, stop=("END",)),
        ),
        Route(name="slow", targets=(MODEL,), retrieval=Retrieval(enabled=False), policy="minimal", deadline_s=5),
        Route(name="prompted", targets=(MODEL,), retrieval=Retrieval(enabled=False), prompt="greet"),
        Route(name="secret", targets=(Target(backend="extractive", model="unpriced"),)),
        Prompt(
            name="greet",
            template=(PromptMessage(role="system", content="You greet {{who}}."),),
            variables={"who": PromptVariable(description="whom", max_length=10)},
        ),
        Price(model="m", input_cost_per_token=Decimal("1e-7"), output_cost_per_token=Decimal("2e-7")),
    ]
)
LIMITS = Limits(max_prompt_bytes=1000, max_messages=3)


def a_request(**changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": "e1", "request_id": "r1", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
        "messages": [Message(role="user", content="hello")],
    }  # fmt: skip
    return LlmRequest(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"tenant_id": "nobody"}, "unknown_team", "penstock config apply"),
        ({"route": "nowhere"}, "unknown_route", "nowhere"),
        ({"route": "secret"}, "route_not_allowed", "allowed_routes"),
        ({"messages": []}, "no_messages", "name a prompt"),
        ({"messages": [Message(role="boss", content="x")]}, "invalid_role", r"messages\[0\]"),
        ({"messages": [Message(role="user", content="x")] * 4}, "too_many_messages", "3 allowed"),
        ({"messages": [Message(role="user", content="é" * 501)]}, "prompt_too_large", "1,002 bytes"),
        ({"prompt_name": "missing"}, "unknown_prompt", "missing"),
        ({"prompt_name": "greet", "prompt_label": "nope"}, "unknown_prompt", "nope"),
        ({"prompt_name": "greet"}, "invalid_prompt_variables", "who"),
        ({"prompt_name": "greet", "prompt_variables": {"who": "x" * 11}}, "invalid_prompt_variables", "10 are allowed"),
        ({"sampling": Sampling(temperature=3.0)}, "invalid_temperature", "from 0 to 2"),
        ({"sampling": Sampling(top_p=-0.1)}, "invalid_top_p", "from 0 to 1"),
        ({"sampling": Sampling(max_completion_tokens=0)}, "invalid_max_completion_tokens", "at least 1"),
        ({"deadline_at": NOW - timedelta(seconds=1)}, "expired", "had passed"),
    ],
)
def test_what_cannot_be_admitted_says_why(changes: dict[str, Any], code: str, words: str) -> None:
    judgement = judge(a_request(**changes), PLANE, LIMITS, NOW)
    assert judgement.code == code
    assert judgement.status is (Status.EXPIRED if code == "expired" else Status.REJECTED)
    (emit,) = step(judgement, Claim(Decision.REFUSED), NOW)
    assert isinstance(emit.record, Refusal)
    assert emit.topic == "refusals"
    assert emit.record.request_id == "r1"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(emit.record.reason)


def test_an_admitted_request_carries_what_the_configuration_says() -> None:
    judgement = judge(a_request(conversation_id="c1", tags={"feature": "chat"}), PLANE, LIMITS, NOW)
    (emit,) = step(judgement, Claim(Decision.ADMITTED), NOW)
    record = emit.record
    assert isinstance(record, AdmittedRequest)
    assert (emit.topic, emit.key) == ("requests-admitted", "c1")
    assert record.context.policy_name == "strict"
    assert record.context.tags == {"feature": "chat"}
    assert record.sampling == Sampling(temperature=0.2, max_completion_tokens=100, stop=["END"])
    # 5 bytes of prompt and 1000 tokens of passages at 1e-7, 100 tokens of answer at 2e-7.
    assert record.reserved_cost == Decimal("1e-7") * 1005 + Decimal("2e-7") * 100


def test_the_teams_default_route_the_routes_policy_and_deadline_apply() -> None:
    context = judge(a_request(tenant_id="research"), PLANE, LIMITS, NOW).context
    assert (context.route, context.policy_name) == ("slow", "minimal")
    assert context.deadline_at == NOW + timedelta(seconds=5)


def test_a_prompt_is_rendered_before_the_messages_and_named() -> None:
    judgement = judge(a_request(route="prompted", prompt_variables={"who": "{{who}}"}), PLANE, LIMITS, NOW)
    assert [m.content for m in judgement.messages] == ["You greet {{who}}.", "hello"]
    # What a user may have typed stands in the system's message: guardrails are told.
    (emit,) = step(judgement, Claim(Decision.ADMITTED), NOW)
    assert isinstance(emit.record, AdmittedRequest)
    assert emit.record.inserted == ["{{who}}"]
    assert judgement.context.prompt_name == "greet"
    assert judgement.context.prompt_version == PLANE.version("prompts", "greet@production")


@pytest.mark.parametrize("decision", [Decision.DUPLICATE, Decision.CONFLICT])
def test_a_second_send_leads_to_nothing(decision: Decision) -> None:
    assert step(judge(a_request(), PLANE, LIMITS, NOW), Claim(decision), NOW) == []


def test_a_rate_limited_request_is_told_when_to_come_back() -> None:
    (emit,) = step(judge(a_request(), PLANE, LIMITS, NOW), Claim(Decision.RATE_LIMITED, 2.25), NOW)
    assert isinstance(emit.record, Refusal)
    assert (emit.record.code, emit.record.status) == ("rate_limited", "rejected")
    assert "in 2.2 s" in emit.record.reason


def test_a_replay_gives_the_same_events() -> None:
    judgement = judge(a_request(), PLANE, LIMITS, NOW)
    assert step(judgement, Claim(Decision.ADMITTED), NOW) == step(judgement, Claim(Decision.ADMITTED), NOW)


@pytest.mark.parametrize("changes", [{"request_id": ""}, {"request_id": "a b"}, {"event_id": ""}, {"tenant_id": ""}])
def test_what_cannot_be_told_apart_is_a_dead_letter(changes: dict[str, str]) -> None:
    assert identifiable(a_request(**changes))
    assert identifiable(a_request()) is None


def test_two_sends_of_one_request_have_one_hash_and_other_content_has_another() -> None:
    again = a_request(event_id="e2", occurred_at=NOW + timedelta(seconds=9))
    assert content_hash(a_request()) == content_hash(again)
    assert content_hash(a_request()) != content_hash(a_request(messages=[Message(role="user", content="other")]))


@given(st.decimals(min_value=0, max_value=1_000_000, places=12))
def test_reservations_round_up_never_down(amount: Decimal) -> None:
    nano = nano_usd(amount)
    assert Decimal(nano) / 10**9 >= amount
    assert Decimal(nano - 1) / 10**9 < amount


def a_cost(**changes: Any) -> Cost:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r1", "tenant_id": "support", "occurred_at": NOW, "causation_id": "e1",
        "context": Context(requested_at=NOW), "model": "m", "priced": True, "amount": Decimal("0.0000000001"),
    }  # fmt: skip
    return Cost(**fields | changes)


def test_settlement_takes_the_cost_nothing_for_a_refusal_and_waits_for_a_price() -> None:
    ended = refusal(a_request(), Context(requested_at=NOW), Status.FAILED, "c", "r", NOW)
    assert settled(a_cost()) == 1
    assert settled(ended) == 0
    assert settled(a_cost(priced=False, amount=None)) is None

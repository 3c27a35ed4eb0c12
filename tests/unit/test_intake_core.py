"""Admission as a table: requests in, decisions and events out."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from penstock.config.kinds import (
    Budget,
    Policy,
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
    Alert,
    LlmRequest,
    LogRange,
    Message,
    Refusal,
    RequestConflict,
    Sampling,
    Status,
    ToolCall,
)

from services.intake.core import (
    Claim,
    Decision,
    Limits,
    Refused,
    content_hash,
    identifiable,
    judge,
    step,
)
from services.intake.exceeded import Exceeded

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MODEL = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
DAILY = Budget(name="daily", limit=Decimal(1))
SOFT = Budget(name="watched", window="month", limit=Decimal(1), mode="soft")
JUDGES = Budget(name="judges", per="tag", tag="purpose", match=("judge",), limit=Decimal("0.5"))
ORIGIN = LogRange(topic="llm-requests", partition=1, first_offset=7, last_offset=7)
PLANE = ConfigPlane.of(
    [
        Team(
            name="support",
            allowed_routes=("default", "slow", "prompted"),
            policy="strict",
            allowed_policies=("strict", "gone"),
            budgets=(DAILY, SOFT),
        ),
        Team(name="careful", budgets=(DAILY, JUDGES)),
        Team(name="research", default_route="slow"),
        Team(name="gambler", default_route="secret", budgets=(SOFT,)),
        Team(name="miser", default_route="secret", budgets=(DAILY,)),
        Policy(name="strict"),
        Policy(name="minimal"),
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
LIMITS = Limits(max_prompt_bytes=1000, max_messages=3, max_context_bytes=200, max_schema_bytes=400)


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
        ({"user_id": "é" * 101}, "context_too_large", "202 bytes.*200 allowed"),
        ({"tags": {"feature": "x" * 190, "k": "v" * 3}}, "context_too_large", "201 bytes"),
        ({"prompt_name": "missing"}, "unknown_prompt", "missing"),
        ({"prompt_name": "greet", "prompt_label": "nope"}, "unknown_prompt", "nope"),
        ({"prompt_name": "greet"}, "invalid_prompt_variables", "who"),
        ({"prompt_name": "greet", "prompt_variables": {"who": "x" * 11}}, "invalid_prompt_variables", "10 are allowed"),
        ({"sampling": Sampling(temperature=3.0)}, "invalid_temperature", "from 0 to 2"),
        ({"sampling": Sampling(top_p=-0.1)}, "invalid_top_p", "from 0 to 1"),
        ({"sampling": Sampling(max_completion_tokens=0)}, "invalid_max_completion_tokens", "at least 1"),
        ({"sampling": Sampling(response_format="[1]")}, "invalid_response_format", "JSON object"),
        ({"sampling": Sampling(response_format="{")}, "invalid_response_format", "JSON object"),
        (
            {"sampling": Sampling(response_format='{"a": "' + "x" * 400 + '"}')},
            "response_format_too_large",
            "400 allowed",
        ),
        ({"sampling": Sampling(top_p=0.0)}, "invalid_top_p", "set temperature to 0"),
        ({"sampling": Sampling(stop=["a", ""])}, "invalid_stop", "an empty string"),
        ({"sampling": Sampling(stop=["a"] * 17)}, "invalid_stop", "17 strings"),
        ({"sampling": Sampling(stop=["é" * 513])}, "invalid_stop", "1,026 bytes"),
        ({"sampling": Sampling(n=0)}, "invalid_n", "from 1 to 8"),
        ({"sampling": Sampling(n=9)}, "invalid_n", "from 1 to 8"),
        ({"sampling": Sampling(top_logprobs=21)}, "invalid_top_logprobs", "from 0 to 20"),
        ({"sampling": Sampling(frequency_penalty=2.5)}, "invalid_frequency_penalty", "from -2 to 2"),
        ({"sampling": Sampling(presence_penalty=float("nan"))}, "invalid_presence_penalty", "from -2 to 2"),
        ({"sampling": Sampling(top_k=0)}, "invalid_top_k", "at least 1"),
        ({"sampling": Sampling(min_p=1.5)}, "invalid_min_p", "from 0 to 1"),
        ({"sampling": Sampling(regex="(?=a)b")}, "invalid_regex", "no look-around"),
        ({"sampling": Sampling(regex=r"\p{L}{1,900}")}, "invalid_regex", "too large"),
        ({"sampling": Sampling(regex="")}, "invalid_regex", "is empty"),
        ({"sampling": Sampling(regex="a", response_format="{}")}, "invalid_regex", "leave one of them out"),
        ({"sampling": Sampling(regex="a" * 2049)}, "regex_too_large", "2,049 bytes"),
        ({"purpose": "shadow"}, "unknown_purpose", "serve, judge, evaluation"),
        ({"priority": "urgent"}, "unknown_priority", "'urgent'.*interactive, standard, batch"),
        ({"policy_name": "minimal"}, "policy_not_allowed", "its allowed_policies are: strict, gone"),
        ({"policy_name": "gone"}, "unknown_policy", "no policy 'gone'"),
        ({"tenant_id": "research", "policy_name": "strict"}, "policy_not_allowed", "allowed_policies are: none"),
        ({"deadline_at": NOW - timedelta(seconds=1)}, "expired", "had passed"),
        ({"tenant_id": "miser"}, "unpriced_model", "'unpriced' has no price.*penstock prices import"),
    ],
)
def test_what_cannot_be_admitted_says_why(changes: dict[str, Any], code: str, words: str) -> None:
    judgement = judge(a_request(**changes), PLANE, LIMITS, NOW)
    assert judgement.refused is not None
    assert judgement.refused.code == code
    assert judgement.refused.status is (Status.EXPIRED if code == "expired" else Status.REJECTED)
    (emit,) = step(judgement, Claim(Decision.REFUSED, refused=judgement.refused), ORIGIN, NOW)
    assert isinstance(emit.record, Refusal)
    assert emit.topic == "refusals"
    assert emit.record.request_id == "r1"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(emit.record.reason)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    judgement = judge(a_request(sampling=Sampling(response_format='{"a":' * 5000)), PLANE, Limits(), NOW)
    assert judgement.refused is not None
    assert judgement.refused.code == "invalid_response_format"


def test_what_a_request_asks_of_the_model_reaches_it() -> None:
    asked = Sampling(
        n=8,
        top_logprobs=0,
        regex="(yes|no)",
        frequency_penalty=-2.0,
        presence_penalty=2.0,
        top_k=1,
        min_p=0.0,
        stop=["."],
    )
    judgement = judge(a_request(sampling=asked, stream=True), PLANE, LIMITS, NOW)
    assert judgement.refused is None
    route = PLANE.route(judgement.context.route)
    assert route is not None
    assert judgement.sampling == msgspec.structs.replace(
        asked,
        temperature=route.sampling.temperature,
        max_completion_tokens=route.sampling.max_completion_tokens,
        seed=route.sampling.seed,
    )


def test_an_admitted_request_carries_what_the_configuration_says() -> None:
    judgement = judge(a_request(conversation_id="c1", tags={"feature": "chat"}, key_id="key-7"), PLANE, LIMITS, NOW)
    admitted_at = NOW - timedelta(microseconds=1)
    (emit,) = step(judgement, Claim(Decision.ADMITTED, admitted_at), ORIGIN, NOW)
    record = emit.record
    assert isinstance(record, AdmittedRequest)
    assert (emit.topic, emit.key) == ("requests-admitted", "c1")
    assert record.context.policy_name == "strict"
    assert record.context.tags == {"feature": "chat"}
    assert record.sampling == Sampling(temperature=0.2, max_completion_tokens=100, stop=["END"])
    assert record.context.key_id == "key-7"
    assert record.context.admitted_at == admitted_at
    assert record.reserved_cost == judgement.reserve is not None


def test_the_teams_default_route_the_routes_policy_and_deadline_apply() -> None:
    context = judge(a_request(tenant_id="research"), PLANE, LIMITS, NOW).context
    assert (context.route, context.policy_name) == ("slow", "minimal")
    assert context.deadline_at == NOW + timedelta(seconds=5)


def test_a_prompt_is_rendered_before_the_messages_and_named() -> None:
    judgement = judge(a_request(route="prompted", prompt_variables={"who": "{{who}}"}), PLANE, LIMITS, NOW)
    assert [m.content for m in judgement.messages] == ["You greet {{who}}.", "hello"]
    # What a user may have typed stands in the system's message: guardrails are told.
    (emit,) = step(judgement, Claim(Decision.ADMITTED), ORIGIN, NOW)
    assert isinstance(emit.record, AdmittedRequest)
    assert emit.record.inserted == ["{{who}}"]
    assert judgement.context.prompt_name == "greet"
    assert judgement.context.prompt_version == PLANE.version("prompts", "greet@production")


def test_a_second_send_leads_to_nothing_and_one_of_other_content_is_told() -> None:
    judgement = judge(a_request(conversation_id="c1", key_id="key-7"), PLANE, LIMITS, NOW)
    assert step(judgement, Claim(Decision.DUPLICATE), ORIGIN, NOW) == []
    (emit,) = step(judgement, Claim(Decision.CONFLICT), ORIGIN, NOW)
    # No refusal: it would end the request whose request_id this is.
    assert (emit.topic, emit.key) == ("request-conflicts", "c1")
    assert isinstance(emit.record, RequestConflict)
    assert (emit.record.request_id, emit.record.causation_id, emit.record.key_id) == ("r1", "e1", "key-7")
    assert "request_id of its own" in emit.record.reason


def test_a_replay_gives_the_same_events() -> None:
    judgement = judge(a_request(), PLANE, LIMITS, NOW)
    assert step(judgement, Claim(Decision.ADMITTED), ORIGIN, NOW) == step(
        judgement, Claim(Decision.ADMITTED), ORIGIN, NOW
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": ""}, {"request_id": "a b"}, {"request_id": "a\n"}, {"event_id": ""}, {"tenant_id": ""},
        # Its claim would stand among the counters of the team support.
        {"tenant_id": "support}:budget:daily:2026-01-05:"},
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_a_dead_letter(changes: dict[str, str]) -> None:
    assert identifiable(a_request(**changes))
    assert identifiable(a_request()) is None


def test_two_sends_of_one_request_have_one_hash_and_other_content_has_another() -> None:
    again = a_request(event_id="e2", occurred_at=NOW + timedelta(seconds=9))
    assert content_hash(a_request()) == content_hash(again)
    assert content_hash(a_request()) != content_hash(a_request(messages=[Message(role="user", content="other")]))


def test_a_deadline_and_a_credential_are_no_content_and_the_order_of_tags_is_none() -> None:
    asked = a_request(tags={"a": "1", "b": "2"}, deadline_at=NOW, key_id="key-7")
    again = a_request(tags={"b": "2", "a": "1"}, deadline_at=NOW + timedelta(seconds=1), key_id="key-8")
    assert content_hash(asked) == content_hash(again)
    assert content_hash(asked) != content_hash(a_request(tags={"a": "2", "b": "1"}))
    # What is left out counts like what is written at its default; what is inside other parts counts, too.
    assert content_hash(a_request(route="default", sampling=Sampling())) == content_hash(a_request())
    assert content_hash(a_request(sampling=Sampling(n=2))) != content_hash(a_request())
    written, read = (a_request(sampling=Sampling(temperature=value)) for value in (0, 0.0))
    assert content_hash(written) == content_hash(read) != content_hash(a_request())
    called = Message(role="user", content="hello", tool_calls=[ToolCall(id="c", name="f")])
    assert content_hash(a_request(messages=[called])) != content_hash(a_request())


def test_a_hard_budget_gives_the_model_the_bound_that_was_reserved() -> None:
    asked = a_request(route="slow", tenant_id="support")
    limited = judge(asked, PLANE, LIMITS, NOW)
    assert limited.sampling.max_completion_tokens == LIMITS.default_max_completion_tokens
    assert [hold.subject.budget for hold in limited.holds] == [DAILY]
    free = judge(a_request(tenant_id="research"), PLANE, LIMITS, NOW)
    assert free.sampling.max_completion_tokens is None
    assert free.holds == []


def test_targets_that_are_asked_one_after_another_are_held_for_together() -> None:
    def held(*targets: Target) -> tuple[int, Decimal | None]:
        route = Route(name="default", targets=targets, retrieval=Retrieval(enabled=False), policy="minimal")
        price = Price(model="m", input_cost_per_token=Decimal("1e-7"), output_cost_per_token=Decimal("2e-7"))
        plane = ConfigPlane.of([Team(name="support", budgets=(DAILY,)), route, Policy(name="minimal"), price])
        judgement = judge(a_request(), plane, LIMITS, NOW)
        return judgement.holds[0].amounts["0"], judgement.reserve

    one, reserve = held(MODEL)
    two, both = held(MODEL, MODEL.model_copy(update={"name": "second"}))
    assert two == 2 * one
    assert reserve is not None
    assert both == 2 * reserve


def test_a_model_without_a_price_is_let_through_where_budgets_are_soft() -> None:
    judgement = judge(a_request(tenant_id="gambler"), PLANE, LIMITS, NOW)
    assert judgement.refused is None
    assert judgement.reserve is None


def test_a_replay_after_the_deadline_is_the_same_event_and_one_that_lost_its_team_is_refused() -> None:
    request = a_request(deadline_at=NOW + timedelta(seconds=1))
    claim = Claim(Decision.ADMITTED, NOW)
    (first,) = step(judge(request, PLANE, LIMITS, NOW), claim, ORIGIN, NOW)
    (late,) = step(judge(request, PLANE, LIMITS, NOW + timedelta(hours=1)), claim, ORIGIN, NOW)
    assert isinstance(first.record, AdmittedRequest)
    assert isinstance(late.record, AdmittedRequest)
    assert (late.record.event_id, late.record.messages) == (first.record.event_id, first.record.messages)
    (lost,) = step(judge(request, ConfigPlane(), LIMITS, NOW), claim, ORIGIN, NOW)
    assert isinstance(lost.record, Refusal)
    assert lost.record.code == "unknown_team"


def test_a_refusal_is_replayed_as_it_was_though_the_configuration_has_changed() -> None:
    claim = Claim(Decision.REFUSED, NOW, refused=Refused(Status.REJECTED, "unknown_route", "there was none"))
    (emit,) = step(judge(a_request(), PLANE, LIMITS, NOW), claim, ORIGIN, NOW)
    assert isinstance(emit.record, Refusal)
    assert (emit.record.code, emit.record.reason) == ("unknown_route", "there was none")


FULL = Exceeded(
    "daily", "user 'ann'", "on 2026-01-05 (UTC)", NOW.replace(hour=0) + timedelta(days=1),
    limit=10**12, spent=10**12 - 1, reserved=1, needed=2_000_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("over", "remedy"),
    [
        (FULL, "send it again after 2026-01-06T00:00:00+00:00"),
        (dataclasses.replace(FULL, spent=0, reserved=10**12), "when requests under way have ended"),
        (dataclasses.replace(FULL, needed=2 * 10**12), "fewer max_completion_tokens"),
    ],
)
def test_a_request_over_budget_is_told_the_figures_and_what_to_do(over: Exceeded, remedy: str) -> None:
    (emit,) = step(judge(a_request(), PLANE, LIMITS, NOW), Claim(Decision.OVER_BUDGET, NOW, exceeded=over), ORIGIN, NOW)
    assert isinstance(emit.record, Refusal)
    assert (emit.record.code, emit.record.status) == ("over_budget", "rejected")
    assert "budget 'daily' of team 'support' for user 'ann' allows 1 USD on 2026-01-05 (UTC)" in emit.record.reason
    assert remedy in emit.record.reason
    if over is FULL:
        assert "0.999999999999 USD is spent, 0.000000000001 USD is reserved" in emit.record.reason
        assert "may cost up to 0.000002 USD" in emit.record.reason


def test_the_first_refusal_of_a_budget_alerts_with_evidence_and_a_replay_gives_the_same() -> None:
    judgement = judge(a_request(), PLANE, LIMITS, NOW)
    claim = Claim(Decision.OVER_BUDGET, NOW, exceeded=FULL, alert=True)
    refused, told = step(judgement, claim, ORIGIN, NOW)
    assert (refused.topic, told.topic) == ("refusals", "alerts")
    assert isinstance(told.record, Alert)
    assert (told.record.name, told.record.kind, told.record.severity) == ("budget_exhausted", "cost", "critical")
    assert told.key == told.record.fingerprint
    assert told.record.evidence == [ORIGIN]
    assert told.record.sample_requests == ["r1"]
    assert told.record.labels == {"team": "support", "budget": "daily", "subject": "user 'ann'"}
    assert step(judgement, claim, ORIGIN, NOW) == [refused, told]


def test_a_request_for_a_judge_says_so_in_its_context_and_keeps_the_schema_of_its_answer() -> None:
    schema = '{"type": "object"}'
    judgement = judge(
        a_request(purpose="judge", policy_name="strict", route="slow", sampling=Sampling(response_format=schema)),
        PLANE,
        LIMITS,
        NOW,
    )
    assert judgement.refused is None
    assert (judgement.context.purpose, judgement.context.policy_name) == ("judge", "strict")
    assert judgement.sampling.response_format == schema
    assert judge(a_request(), PLANE, LIMITS, NOW).context.purpose == "serve"


@pytest.mark.parametrize("priority", ["interactive", "standard", "batch"])
def test_the_priority_travels_in_the_context_and_is_part_of_what_was_asked(priority: str) -> None:
    request = a_request(priority=priority)
    judgement = judge(request, PLANE, LIMITS, NOW)
    assert judgement.refused is None
    assert judgement.context.priority == priority
    assert (content_hash(request) == content_hash(a_request())) == (priority == "standard")


def test_a_refusal_of_an_unknown_priority_is_one_of_the_standard() -> None:
    assert judge(a_request(priority="urgent"), PLANE, LIMITS, NOW).context.priority == "standard"


def test_a_refusal_of_an_unknown_purpose_counts_as_traffic() -> None:
    assert judge(a_request(purpose="shadow"), PLANE, LIMITS, NOW).context.purpose == "serve"


def test_the_schema_of_the_answer_is_reserved_as_part_of_the_prompt() -> None:
    plain, with_schema = (
        judge(a_request(sampling=Sampling(response_format=schema)), PLANE, LIMITS, NOW)
        for schema in (None, '{"type":  "object"}')
    )
    assert plain.reserve is not None
    assert with_schema.reserve is not None
    assert with_schema.reserve - plain.reserve == 19 * Decimal("1e-7")


def test_judges_have_a_budget_of_their_own_by_their_tag() -> None:
    tags = {"purpose": "judge", "rubric": "helpfulness"}
    judged = judge(a_request(tenant_id="careful", purpose="judge", tags=tags), PLANE, LIMITS, NOW)
    served = judge(a_request(tenant_id="careful"), PLANE, LIMITS, NOW)
    assert [(hold.subject.budget.name, hold.subject.value) for hold in judged.holds] == [
        ("daily", ""), ("judges", "judge"),
    ]  # fmt: skip
    assert [hold.subject.budget.name for hold in served.holds] == ["daily"]
    assert {hold.needed for hold in judged.holds} == {hold.needed for hold in served.holds}

"""What a team may ask for, and how a request that has to wait is told."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock.config.kinds import Arm, Canary, Experiment, Metric, Policy, Retrieval, Route, Shadow, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import (
    Context,
    LlmRequest,
    LlmResult,
    LogRange,
    Message,
    Refusal,
    Sampling,
    ToolCall,
    Usage,
)
from penstock.money.bounds import BYTES_A_TOKEN

from services.guardrails.releasing import released_refusal
from services.intake.core import Claim, Decision, Judgement, Limits, judge, step
from services.intake.settlement import Finish, finish_of, release_of
from services.intake.team_limits import estimated_tokens

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ORIGIN = LogRange(topic="llm-requests", partition=1, first_offset=7, last_offset=7)
LIMITED = Team(
    name="limited",
    allowed_models=("small", "other"),
    requests_per_minute=1200,
    tokens_per_minute=2000,
    max_concurrent=3,
    max_prompt_tokens=100,
    max_deadline_s=30,
    priorities=("standard", "batch"),
)


def a_target(model: str) -> Target:
    return Target(name=model, backend="openai", model=model, base_url="http://127.0.0.1:1/v1")


def a_route(name: str, *models: str, **fields: Any) -> Route:
    return Route(name=name, targets=tuple(map(a_target, models)), retrieval=Retrieval(enabled=False), **fields)


ROUTES = (
    a_route("default", "small", "other"),
    a_route("large", "small", "large"),
    a_route("shadowed", "small", shadows=(Shadow(target=a_target("large"), share=0.5),)),
    a_route("slow", "small", deadline_s=60),
    a_route("quick", "small", deadline_s=5),
)


def a_plane(*entries: Any, team: Team = LIMITED) -> ConfigPlane:
    return ConfigPlane.of([team, Policy(name="default"), *ROUTES, *entries])


def a_request(**changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": "e1", "request_id": "r1", "tenant_id": "limited", "occurred_at": NOW, "causation_id": "",
        "messages": [Message(role="user", content="hello")], "sampling": Sampling(max_completion_tokens=50),
    }  # fmt: skip
    return LlmRequest(**fields | changes)


def judged(request: LlmRequest, plane: ConfigPlane | None = None, place: str = "") -> Judgement:
    return judge(request, plane or a_plane(), Limits(), NOW, place)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"priority": "interactive"}, "priority_not_allowed", "its priorities are: standard, batch"),
        ({"route": "large"}, "model_not_allowed", "'large', which team 'limited' may not use.*small, other"),
        (
            {"messages": [Message(role="user", content="é" * 201)]},
            "prompt_too_many_tokens",
            "about 101 tokens.*the 100",
        ),
        (
            {"sampling": Sampling(n=2, max_completion_tokens=1000)},
            "too_many_tokens",
            "2,002 tokens.*the 2,000 a minute",
        ),
    ],
)
def test_what_the_team_may_not_ask_for_is_refused_for_good(changes: dict[str, Any], code: str, words: str) -> None:
    refused = judged(a_request(**changes)).refused
    assert refused is not None
    assert (refused.code, refused.retry_after_ms) == (code, None)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(refused.reason)


def test_what_is_just_within_the_limits_is_admitted_and_a_team_without_them_has_none() -> None:
    fits = a_request(messages=[Message(role="user", content="x" * 400)], sampling=Sampling(max_completion_tokens=1900))
    assert judged(fits).refused is None
    assert judged(fits).tokens == 2000
    unlimited = a_plane(team=Team(name="limited"))
    for changes in ({"priority": "interactive"}, {"route": "large"}, {"sampling": Sampling(n=8)}):
        assert judged(a_request(**changes), unlimited).refused is None


def test_judges_need_no_priority_of_the_team() -> None:
    interactive = a_plane(team=Team(name="limited", priorities=("interactive",)))
    for changes, code in (
        ({"purpose": "judge"}, None),
        ({}, "priority_not_allowed"),
        ({"purpose": "judge", "priority": "batch"}, "priority_not_allowed"),
    ):
        refused = judged(a_request(**changes), interactive).refused
        assert (refused and refused.code) == code


def test_a_shadow_may_be_any_model_and_a_canary_may_not() -> None:
    assert judged(a_request(route="shadowed")).refused is None
    canary = Canary(target=a_target("large"), share=0.1)
    route = a_route("default", "small", canary=canary)
    refused = judged(a_request(), a_plane(route)).refused
    assert refused is not None
    assert refused.code == "model_not_allowed"


def test_an_experiment_that_leads_to_a_model_of_others_does_not_end_the_request() -> None:
    arms = (Arm(name="control"), Arm(name="large", route="large"))
    experiment = Experiment(name="models", team="limited", arms=arms, metrics=(Metric(name="feedback.rating"),))
    plane = a_plane(experiment, team=LIMITED)
    by_arm = {
        judged(a_request(request_id=f"r{number}"), plane).context.experiments.get("models") for number in range(40)
    }
    assert by_arm == {None, "control"}


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 30),
        ({"route": "slow"}, 30),
        ({"route": "quick"}, 5),
        ({"deadline_at": NOW + timedelta(seconds=40)}, 30),
        ({"deadline_at": NOW + timedelta(seconds=20)}, 20),
        ({"occurred_at": NOW - timedelta(seconds=10)}, 20),
        # A clock that is ahead.
        ({"occurred_at": NOW + timedelta(days=1)}, 30),
    ],
)
def test_no_request_waits_longer_than_its_team_may(changes: dict[str, Any], seconds: float) -> None:
    assert judged(a_request(**changes)).context.deadline_at == NOW + timedelta(seconds=seconds)


def test_all_that_stands_in_a_prompt_is_estimated_at_a_quarter_of_its_bytes() -> None:
    called = Message(role="assistant", content="", tool_calls=[ToolCall(id="c1", name="find", arguments='{"a": 1}')])
    messages = [Message(role="user", content="é" * 8, name="ann"), called]
    # 16 + 3 bytes, 2 + 4 + 8 of the call; 14 of the tools and 2 of the schema.
    assert estimated_tokens(messages, Sampling(tools='[{"a": "bcd"}]', response_format="{}")) == 13
    assert estimated_tokens([], Sampling()) == 0
    assert BYTES_A_TOKEN > 4  # what bounds a cost is not what is likely


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision.RATE_LIMITED, "over the team's 1,200 requests per minute; send it again in 2.250 s"),
        (
            Decision.TOKEN_RATE_LIMITED,
            "2,000 tokens per minute, with about 52 for this request; send it again in 2.250 s",
        ),
        (Decision.TOO_MANY_CONCURRENT, "the team's 3 concurrent requests are all under way; send it again in 2.250 s"),
    ],
)
def test_a_request_that_has_to_wait_is_told_how_long_through_to_its_result(decision: Decision, words: str) -> None:
    (emit,) = step(judged(a_request()), Claim(decision, retry_after_ms=2250), ORIGIN, NOW)
    assert isinstance(emit.record, Refusal)
    assert (emit.record.code, emit.record.status, emit.record.retry_after_ms) == (str(decision), "rejected", 2250)
    assert words in emit.record.reason
    result = released_refusal(emit.record, NOW)
    assert (result.code, result.retry_after_ms) == (str(decision), 2250)


def test_two_sends_of_one_event_that_have_to_wait_are_two_refusals_and_a_replay_is_none() -> None:
    def refusal(place: str) -> str:
        (emit,) = step(judged(a_request(), place=place), Claim(Decision.RATE_LIMITED, retry_after_ms=1), ORIGIN, NOW)
        return emit.record.event_id

    assert refusal("llm-requests/0/1") == refusal("llm-requests/0/1") != refusal("llm-requests/0/2")
    for_good = judged(a_request(route="large"))
    claim = Claim(Decision.REFUSED, NOW, refused=for_good.refused)
    one, other = (
        step(dataclasses.replace(for_good, place=place), claim, ORIGIN, NOW)[0].record.event_id for place in ("a", "b")
    )
    assert one == other


def a_result(**changes: Any) -> LlmResult:
    fields: dict[str, Any] = {
        "event_id": "e9", "request_id": "r1", "tenant_id": "limited", "occurred_at": NOW, "causation_id": "e8",
        "context": Context(requested_at=NOW), "status": "completed", "calls": 1,
    }  # fmt: skip
    return LlmResult(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"usage": Usage(input_tokens=30, output_tokens=12)}, 42),
        ({"calls": 0, "status": "blocked"}, 0),
        # What the call took is not known: the estimate stays.
        ({}, None),
        ({"calls": None}, None),
    ],
)
def test_the_end_of_a_request_frees_its_place_and_says_what_it_took(
    changes: dict[str, Any], tokens: int | None
) -> None:
    assert finish_of(a_result(**changes)) == Finish("limited", "r1", tokens)


def test_a_send_that_has_to_wait_frees_nothing_of_the_one_that_is_under_way() -> None:
    told = a_result(status="rejected", stage="intake", code="rate_limited", retry_after_ms=1000, calls=0)
    assert finish_of(told) is None
    assert release_of(told, LIMITED) is None
    # One that was admitted and then lost what it needs held something.
    assert finish_of(a_result(status="rejected", stage="intake", calls=0)) is not None

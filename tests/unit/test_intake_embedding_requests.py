"""Requests for vectors at admission: what they must be, and what is held for them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from penstock.config.kinds import Budget, Policy, Price, Retrieval, Route, ScannerRule, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import LlmRequest, Message, Sampling, Status

from services.intake.bounds import EMBEDDING, Unpriced, embedding_calls
from services.intake.core import Judgement, Limits, judge

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
EMBEDDER = "all-MiniLM-L6-v2"
PRICE = Price(model=EMBEDDER, mode="embedding", input_cost_per_token=Decimal("1e-9"))
PLAIN = Policy(name="plain")
ENTRIES = [
    Team(name="support", policy="plain", budgets=(Budget(name="daily", limit=Decimal(1)),)),
    Team(name="narrow", policy="plain", allowed_models=("m",)),
    Team(name="open", policy="plain", allowed_models=("m", EMBEDDER), default_route="prompted"),
    PLAIN,
    Route(
        name="default",
        # No price: it is not what is called.
        targets=(Target(backend="openai", model="dear", base_url="http://127.0.0.1:1/v1"),),
    ),
    Route(
        name="prompted", prompt="greet", deadline_s=5, retrieval=Retrieval(enabled=False),
        targets=(Target(backend="openai", model="other", base_url="http://127.0.0.1:1/v1"),),
    ),
]  # fmt: skip
PLANE = ConfigPlane.of([*ENTRIES, PRICE])
LIMITS = Limits()


def texts(*contents: str) -> list[Message]:
    return [Message(role="user", content=content) for content in contents]


def judged(plane: ConfigPlane = PLANE, limits: Limits = LIMITS, **changes: Any) -> Judgement:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
        "purpose": "embed", "messages": texts("one", "two"), **changes,
    }  # fmt: skip
    return judge(LlmRequest(**fields), plane, limits, NOW)


def test_what_is_embedded_holds_the_embedders_price_and_no_models() -> None:
    judgement = judged(sampling=Sampling(max_completion_tokens=7, n=3))
    assert judgement.refused is None
    assert [message.content for message in judgement.messages] == ["one", "two"]
    (hold,) = judgement.holds
    # Each text as many tokens as bytes (with its role's), and two for its window.
    [call] = embedding_calls(judgement.messages, PLAIN, EMBEDDER, PLANE, NOW, NOW)
    assert dict(hold.amounts) == {EMBEDDING: call.all}
    assert call.all >= (3 + 2) * 2 * 1000
    # Nothing is generated, so nothing is counted for it.
    assert judgement.sampling == Sampling()
    assert judgement.tokens <= 2 * 10


def test_the_bound_covers_what_guardrails_make_of_the_texts() -> None:
    hashing = Policy(name="hashing", input={"pii": ScannerRule(action="hash")})
    plain = embedding_calls(texts("x" * 1000), PLAIN, EMBEDDER, PLANE, NOW, NOW)[0].all
    hashed = embedding_calls(texts("x" * 1000), hashing, EMBEDDER, PLANE, NOW, NOW)[0].all
    assert plain < hashed
    # One window of 254 tokens has two more than its text.
    assert plain >= (1000 + 2 * 4) * 1000


def test_an_embedder_without_a_price_is_refused_only_where_a_budget_is_hard() -> None:
    unpriced = ConfigPlane.of(ENTRIES)
    with pytest.raises(Unpriced, match=EMBEDDER):
        embedding_calls(texts("x"), PLAIN, EMBEDDER, unpriced, NOW, NOW)
    refused = judged(unpriced).refused
    assert refused is not None
    assert (refused.code, EMBEDDER in refused.reason) == ("unpriced_model", True)
    assert judged(unpriced, tenant_id="open").refused is None


def test_the_routes_prompt_is_not_rendered_and_its_deadline_holds() -> None:
    judgement = judged(tenant_id="open")
    assert judgement.refused is None
    assert judgement.context.prompt_name is None
    assert judgement.context.deadline_at is not None
    assert (judgement.context.deadline_at - NOW).total_seconds() == 5


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"tenant_id": "narrow"}, "model_not_allowed", EMBEDDER),
        ({"prompt_name": "greet"}, "invalid_prompt", "prompt_name"),
        ({"stream": True}, "invalid_stream", "stream"),
        ({"messages": []}, "no_messages", "message of the user"),
        ({"messages": texts("x") * 4}, "too_many_inputs", "4 texts are more than the 3"),
        ({"messages": [Message(role="system", content="x")]}, "invalid_role", "messages[0] is of 'system'"),
        ({"messages": texts("x", "")}, "invalid_input", "messages[1]"),
        ({"messages": texts("x" * 101)}, "input_too_large", "more than the 100"),
    ],
)
def test_what_cannot_be_embedded_says_why(changes: dict[str, Any], code: str, words: str) -> None:
    refused = judged(limits=Limits(max_inputs=3, max_embedding_bytes=100), **changes).refused
    assert refused is not None
    assert (refused.status, refused.code) == (Status.REJECTED, code)
    assert words in refused.reason

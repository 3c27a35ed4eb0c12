"""Results become chat completions and errors that OpenAI's own client reads."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from penstock.contracts.records import Alternative, LlmResult, Passage, TokenLogprob, ToolCall, Usage

from services.edge.core import RESULT_STATUSES, error_of, is_answer, kept_back
from services.edge.openai_replies import completion_of, status_of
from services.edge.protocol import Standing
from tests.unit.edge_results import TICKET, ended, result

QUESTION: Any = [{"role": "user", "content": "How long?"}]


def client_of(answers: list[httpx2.Response]) -> openai.OpenAI:
    """Return OpenAI's client, that is given ``answers`` one after the other."""
    transport = httpx2.MockTransport(lambda _: answers.pop(0))
    return openai.OpenAI(api_key="k", base_url="http://edge/v1", http_client=httpx2.Client(transport=transport))


def answer_of(told: LlmResult) -> httpx2.Response:
    """Return what the edge answers."""
    if is_answer(told):
        return httpx2.Response(200, content=msgspec.json.encode(completion_of(told, TICKET)))
    error = error_of(told)
    return httpx2.Response(error.status, content=error.body(), headers=error.headers())


def read(told: LlmResult) -> Any:
    return client_of([answer_of(told)]).chat.completions.create(model="support", messages=QUESTION)


def test_an_answer_is_a_completion_with_its_usage_and_where_it_comes_from() -> None:
    passage = Passage(passage_id="p-1", document_id="d-1", title="Returns", source="returns.md", text="40", score=0.9)
    cache = {"cached_by": "semantic", "cached_request_id": "r-0", "cache_similarity": 0.98}
    completion = read(result(citations=[passage], action="mask", **cache))
    assert (completion.id, completion.object, completion.created) == ("chatcmpl-r-1", "chat.completion", 1772366400)
    assert completion.model == "large-1"
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == (
        "assistant",
        "Forty days.",
        None,
    )
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 4, 16)
    assert usage.prompt_tokens_details.cached_tokens == 8
    assert usage.completion_tokens_details.reasoning_tokens == 1
    assert completion.model_extra["penstock"] == {
        "request_id": "r-1", "route": "support", "model": "large-1", "policy": "strict",
        "policy_version": "fedcba9876543210", "prompt": "answer", "prompt_version": "0123456789abcdef",
        "prompt_label": "production", "experiments": {}, "action": "mask",
        "citations": [{
            "passage_id": "p-1", "document_id": "d-1", "title": "Returns", "source": "returns.md", "text": "40",
            "score": 0.9,
        }],
        **cache,
    }  # fmt: skip


def test_tools_alternatives_and_probabilities_are_where_clients_look_for_them() -> None:
    tokens = [TokenLogprob(token="né", logprob=-0.5, top={"né": -0.5, "\ufffd": -1.0})]
    call = ToolCall(id="c1", name="weather", arguments='{"city": "Ulm"}')
    completion = read(
        result(
            content="", finish_reason="tool_calls", tool_calls=[call],
            alternatives=[Alternative(content="né", finish_reason="length", logprobs=tokens)],
        )
    )  # fmt: skip
    first, second = completion.choices
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    (told,) = first.message.tool_calls
    assert (told.id, told.type, told.function.name, told.function.arguments) == (
        "c1",
        "function",
        "weather",
        call.arguments,
    )
    assert (second.index, second.finish_reason, second.message.content) == (1, "length", "né")
    (token,) = second.logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("né", -0.5, [110, 195, 169])
    assert [(each.token, each.bytes) for each in token.top_logprobs] == [("né", [110, 195, 169]), ("\ufffd", None)]


def test_an_answer_that_is_kept_back_says_so_and_what_it_used() -> None:
    told = ended(
        "blocked", "toxicity", "the text is abusive; rephrase it", model="large-1", usage=Usage(input_tokens=3)
    )
    assert kept_back(told)
    completion = read(told)
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.content) == ("content_filter", None)
    assert choice.message.refusal == "the text is abusive; rephrase it (toxicity)"
    assert completion.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("told", "raised", "status", "code"),
    [
        (ended("blocked", "prompt_injection"), openai.BadRequestError, 400, "content_filter"),
        (ended("rejected", "no_messages"), openai.BadRequestError, 400, "no_messages"),
        (ended("rejected", "invalid_top_p"), openai.BadRequestError, 400, "invalid_top_p"),
        (ended("rejected", "key_revoked"), openai.AuthenticationError, 401, "key_revoked"),
        (ended("rejected", "unknown_team"), openai.PermissionDeniedError, 403, "unknown_team"),
        (ended("rejected", "route_not_allowed"), openai.PermissionDeniedError, 403, "route_not_allowed"),
        (ended("rejected", "unknown_route"), openai.NotFoundError, 404, "model_not_found"),
        (ended("rejected", "conflict"), openai.ConflictError, 409, "conflict"),
        (ended("cancelled", "cancelled"), openai.ConflictError, 409, "cancelled"),
        (ended("rejected", "prompt_too_large"), openai.APIStatusError, 413, "prompt_too_large"),
        (ended("rejected", "too_many_tokens"), openai.APIStatusError, 413, "too_many_tokens"),
        (ended("rejected", "too_many_inputs"), openai.APIStatusError, 413, "too_many_inputs"),
        (ended("rejected", "prompt_too_many_tokens"), openai.BadRequestError, 400, "context_length_exceeded"),
        (ended("rejected", "model_not_allowed"), openai.PermissionDeniedError, 403, "model_not_allowed"),
        (ended("rejected", "unpriced_model"), openai.UnprocessableEntityError, 422, "unpriced_model"),
        (ended("rejected", "over_budget"), openai.RateLimitError, 429, "insufficient_quota"),
        (ended("expired", "deadline_exceeded"), openai.InternalServerError, 504, "deadline_exceeded"),
    ],
)
def test_what_ended_early_is_the_error_that_clients_know_and_is_not_sent_again_where_that_is_no_use(
    told: LlmResult, raised: type[openai.APIStatusError], status: int, code: str
) -> None:
    answers = [answer_of(told), answer_of(result())]
    with pytest.raises(raised) as error:
        client_of(answers).chat.completions.create(model="support", messages=QUESTION)
    assert (error.value.status_code, error.value.code) == (status, code)
    assert status in RESULT_STATUSES
    assert "because" in error.value.message
    assert len(answers) == 1


@pytest.mark.parametrize("code", ["rate_limited", "token_rate_limited", "too_many_concurrent"])
def test_a_client_waits_as_long_as_the_limit_says(code: str) -> None:
    """The real client sleeps for what it is told: 30 ms here."""
    limited = ended("rejected", code, retry_after_ms=30)
    answers = [answer_of(limited), answer_of(result())]
    assert answers[0].status_code == 429
    assert answers[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[0].headers["retry-after-ms"] == "30"
    assert answers[0].headers["retry-after"] == "1"
    assert client_of(answers).chat.completions.create(model="support", messages=QUESTION).choices
    assert answers == []


def test_a_client_comes_back_to_a_long_queue_when_it_is_told_to() -> None:
    answers = [answer_of(ended("rejected", "queue_too_long", retry_after_ms=30)), answer_of(result())]
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "slow_down")
    assert answers[0].headers["retry-after-ms"] == "30"
    assert client_of(answers).chat.completions.create(model="support", messages=QUESTION).choices
    # What is too long to wait for is told, and not tried again unasked.
    later = error_of(ended("rejected", "queue_too_long", retry_after_ms=600_000))
    assert {("retry-after", "600"), ("x-should-retry", "false")} <= set(later.headers())


def test_what_broke_is_sent_again_unless_it_would_be_given_the_same_result() -> None:
    broken = ended("failed", "model_unavailable")
    assert error_of(broken).status == 503
    assert ("x-should-retry", "false") not in error_of(broken).headers()
    # Withdrawn while the request was under way.
    assert error_of(ended("failed", "unknown_route")).status == 500
    assert ("x-should-retry", "false") in error_of(broken, again=True).headers()
    # No target can do what is asked for: a client does not try a 422 again.
    assert error_of(ended("failed", "unsupported_request")).status == 422


def test_what_is_known_of_a_request() -> None:
    assert json.loads(msgspec.json.encode(status_of(Standing(TICKET)))) == {
        "id": "r-1", "object": "request", "status": "in_progress", "created": 1772366400, "finished": None,
        "completion": None, "embeddings": None, "error": None,
        "stage": None, "code": None, "usage": None, "retry_after_ms": None,
    }  # fmt: skip
    done = status_of(Standing(TICKET, result()))
    assert (done.status, done.finished, done.error) == ("completed", 1772366400, None)
    assert done.completion == completion_of(result(), TICKET)
    limited = status_of(Standing(TICKET, ended("rejected", "rate_limited", retry_after_ms=30)))
    assert (limited.status, limited.stage, limited.code) == ("rejected", "intake", "rate_limited")
    assert (limited.completion, limited.retry_after_ms, limited.usage) == (None, 30, None)
    assert limited.error is not None
    assert limited.error.code == "rate_limit_exceeded"
    blocked = status_of(Standing(TICKET, ended("blocked", "toxicity", model="large-1", usage=Usage(input_tokens=3))))
    assert (blocked.status, blocked.code, blocked.error) == ("blocked", "toxicity", None)
    assert blocked.completion is not None
    assert blocked.usage is not None
    assert blocked.usage.prompt_tokens == 3

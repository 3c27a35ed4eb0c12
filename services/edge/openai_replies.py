"""From a result to what clients are answered: a chat completion, or what is known of a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from msgspec import UNSET
from penstock.contracts.records import Alternative, LlmResult, Purpose, Status, TokenLogprob, ToolCall

from services.edge.core import error_of, is_answer, kept_back
from services.edge.embedding_bodies import embedding_list
from services.edge.openai_reply_types import (
    CachedTokens,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    CitedPassage,
    FinishReason,
    Logprob,
    OutputMessage,
    Provenance,
    ReasoningTokens,
    RequestState,
    RequestStatus,
    TokenUsage,
    TopLogprob,
)
from services.edge.openai_types import CalledFunction, FunctionCall
from services.edge.protocol import Standing, Ticket

__all__ = [
    "answers_of", "completion_id", "completion_of", "finish_of", "logprobs_of", "provenance_of", "refusal_of",
    "status_of", "usage_of",
]  # fmt: skip

_FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter"})


def completion_id(request_id: str) -> str:
    """Return the id of a request's completion, the same in every send, chunk and replay."""
    return f"chatcmpl-{request_id}"


def completion_of(result: LlmResult, ticket: Ticket) -> ChatCompletion:
    """Return the completion of a result that :func:`~services.edge.core.is_answer`."""
    choices = [
        Choice(index=0, message=OutputMessage(content=None, refusal=refusal_of(result)), finish_reason="content_filter")
    ]
    if not kept_back(result):
        choices = [_choice(index, answer) for index, answer in enumerate(answers_of(result))]
    return ChatCompletion(
        id=completion_id(ticket.request_id),
        created=int(ticket.taken_at.timestamp()),
        model=result.model or result.context.route,
        choices=choices,
        usage=usage_of(result),
        penstock=provenance_of(result),
    )


def status_of(standing: Standing) -> RequestStatus:
    """Return what is known of a request."""
    ticket, result = standing.ticket, standing.result
    created = int(ticket.taken_at.timestamp())
    if result is None:
        return RequestStatus(id=ticket.request_id, status="in_progress", created=created)
    embedded = result.context.purpose == Purpose.EMBED and result.status == Status.COMPLETED
    answer = is_answer(result) and not embedded
    return RequestStatus(
        id=ticket.request_id,
        status=cast("RequestState", result.status),
        created=created,
        finished=int(result.occurred_at.timestamp()),
        completion=completion_of(result, ticket) if answer else None,
        embeddings=embedding_list(result) if embedded else None,
        error=None if answer or embedded else error_of(result).answer().error,
        stage=result.stage,
        code=result.code,
        usage=usage_of(result) if result.model is not None else None,
        retry_after_ms=result.retry_after_ms,
    )


def answers_of(result: LlmResult) -> list[Alternative]:
    """Return all answers of a completed result in their order."""
    first = Alternative(
        content=result.content,
        finish_reason=result.finish_reason or "stop",
        logprobs=result.logprobs,
        tool_calls=result.tool_calls,
    )
    return [first, *result.alternatives]


def refusal_of(result: LlmResult) -> str:
    """Return why an answer was kept back, in words."""
    return f"{result.reason or 'the answer was kept back'} ({result.code or result.status})"


def usage_of(result: LlmResult) -> TokenUsage:
    """Return the tokens of the call."""
    usage = result.usage
    return TokenUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=CachedTokens(cached_tokens=usage.cached_input_tokens),
        completion_tokens_details=ReasoningTokens(reasoning_tokens=usage.reasoning_tokens),
    )


def provenance_of(result: LlmResult) -> Provenance:
    """Return under what an answer was made, and the passages that it quotes."""
    context = result.context
    return Provenance(
        request_id=result.request_id,
        route=context.route,
        model=result.model,
        policy=context.policy_name,
        policy_version=context.policy_version,
        prompt=context.prompt_name,
        prompt_version=context.prompt_version,
        prompt_label=context.prompt_label,
        experiments=context.experiments,
        action=result.action,
        citations=[
            CitedPassage(
                passage_id=each.passage_id,
                document_id=each.document_id,
                title=each.title,
                source=each.source,
                text=each.text,
                score=each.score,
            )
            for each in result.citations
        ],
        cached_by=result.cached_by,
        cached_request_id=result.cached_request_id,
        cache_similarity=result.cache_similarity,
    )


def finish_of(reason: str) -> FinishReason:
    """Return a reason as OpenAI's API knows it; what it does not know is the end of an answer that was released."""
    return cast("FinishReason", reason) if reason in _FINISHES else "stop"


def logprobs_of(tokens: Sequence[TokenLogprob]) -> ChoiceLogprobs | None:
    """Return the tokens of an answer, null where their probabilities were not wanted or are not released."""
    if not tokens:
        return None
    return ChoiceLogprobs(
        content=[
            Logprob(
                token=each.token,
                logprob=each.logprob,
                bytes=_bytes(each.token),
                top_logprobs=[
                    TopLogprob(token=token, logprob=logprob, bytes=_bytes(token)) for token, logprob in each.top.items()
                ],
            )
            for each in tokens
        ]
    )


def _bytes(token: str) -> list[int] | None:
    """The token in UTF-8; None where it is a part of a character, which models write as the replacement character."""
    return None if "\ufffd" in token else list(token.encode())


def _choice(index: int, answer: Alternative) -> Choice:
    return Choice(
        index=index,
        message=OutputMessage(
            content=answer.content if answer.content or not answer.tool_calls else None,
            tool_calls=[_call(call) for call in answer.tool_calls] or UNSET,
        ),
        finish_reason=finish_of(answer.finish_reason),
        logprobs=logprobs_of(answer.logprobs),
    )


def _call(call: ToolCall) -> FunctionCall:
    return FunctionCall(id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments))

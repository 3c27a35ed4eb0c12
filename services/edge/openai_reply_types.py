"""What OpenAI's chat API answers, as the edge writes it, with what Penstock says of an answer beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from services.edge.embedding_bodies import EmbeddingList
from services.edge.errors import ErrorDetail
from services.edge.openai_types import FunctionCall

__all__ = [
    "CachedTokens", "ChatCompletion", "ChatCompletionChunk", "Choice", "ChoiceLogprobs", "ChunkChoice", "CitedPassage",
    "Delta", "DeltaFunction", "DeltaToolCall", "FinishReason", "Logprob", "OutputMessage", "Piece", "Provenance",
    "ReasoningTokens", "RequestState", "RequestStatus", "TokenUsage", "TopLogprob",
]  # fmt: skip


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A likely token. ``bytes`` is its text in UTF-8, null where that does not hold it."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(TopLogprob, frozen=True, kw_only=True):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(Struct, frozen=True, kw_only=True):
    content: list[Logprob] | None = None
    refusal: list[Logprob] | None = None


class OutputMessage(Struct, frozen=True, kw_only=True):
    """The answer. ``refusal`` says why guardrails kept it back."""

    content: str | None
    refusal: str | None = None
    role: Literal["assistant"] = "assistant"
    tool_calls: list[FunctionCall] | UnsetType = UNSET


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Choice(Struct, frozen=True, kw_only=True):
    index: int
    message: OutputMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None


class CachedTokens(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class ReasoningTokens(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class TokenUsage(Struct, frozen=True, kw_only=True):
    """Tokens of the call."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class CitedPassage(Struct, frozen=True, kw_only=True):
    """A passage that the answer quotes."""

    passage_id: str
    document_id: str
    title: str
    source: str
    text: str
    score: float


class Provenance(Struct, frozen=True, kw_only=True):
    """What Penstock says of an answer beside OpenAI's fields: under what it was made, and what it stands on."""

    request_id: str
    route: str
    model: str | None
    policy: str
    policy_version: str | None
    prompt: str | None = None
    prompt_version: str | None = None
    prompt_label: str | None = None
    experiments: dict[str, str] = {}
    action: str = "allow"
    citations: list[CitedPassage] = []
    cached_by: Annotated[
        str | None, Meta(description="Cache that answered: exact or semantic; null: the model did.")
    ] = None
    cached_request_id: Annotated[str | None, Meta(description="Request that the answer was given to first.")] = None
    cache_similarity: Annotated[float | None, Meta(description="Cosine of its question and this one.")] = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/chat/completions``."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage
    penstock: Provenance
    object: Literal["chat.completion"] = "chat.completion"


class DeltaFunction(Struct, frozen=True, kw_only=True):
    name: str
    arguments: str


class DeltaToolCall(Struct, frozen=True, kw_only=True):
    index: int
    id: str
    function: DeltaFunction
    type: Literal["function"] = "function"


class Delta(Struct, frozen=True, kw_only=True):
    """What is added to a choice."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    tool_calls: list[DeltaToolCall] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """An event of a streamed answer. ``usage`` is there where it was asked for, null in all but the last."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenUsage | UnsetType | None = UNSET
    penstock: Provenance | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


RequestState = Literal["in_progress", "completed", "blocked", "rejected", "failed", "expired", "cancelled"]


class RequestStatus(Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v1/requests/{id}``, and the last event of its stream.

    Attributes:
        status: ``in_progress`` until there is a result, then the result's.
        created: when the request was taken up first, Unix seconds.
        finished: when its result was made, Unix seconds.
        completion: the answer, where there is one.
        embeddings: the vectors, where they were wanted.
        error: why there is none of them.
        stage: part of Penstock that ended the request early.
        code: Penstock's own reason of that, where OpenAI's API has another word for it.
        usage: tokens that were used, with an answer or without.
        retry_after_ms: when the same request may be admitted.
    """

    id: str
    status: RequestState
    created: int
    finished: int | None = None
    completion: ChatCompletion | None = None
    embeddings: EmbeddingList | None = None
    error: ErrorDetail | None = None
    stage: str | None = None
    code: str | None = None
    usage: TokenUsage | None = None
    retry_after_ms: int | None = None
    object: Literal["request"] = "request"


class Piece(Struct, frozen=True, kw_only=True):
    """Event of a request that is under way: the next piece of its answer."""

    sequence: int
    content: str
    finish_reason: str | None = None

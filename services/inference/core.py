"""What inference decides: whether a request is still worth answering, by which target, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from penstock.bus import Emit
from penstock.config.kinds import Target
from penstock.contracts.digest import extended_digest
from penstock.contracts.envelope import derive, event_id, request_key
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import (
    Alternative,
    Completion,
    CompletionChunk,
    Energy,
    GroundedRequest,
    Purpose,
    Refusal,
    Status,
    TargetFailure,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)

from services.inference.progress import Progress
from services.inference.prompt import prompt_of, text_bytes
from services.inference.tool_calls import call_bytes
from services.inference.usage import estimated_usage

__all__ = [
    "Answered", "Called", "Streamed", "completion", "completion_id", "expired", "fitted", "is_streamed", "piece",
    "refusal", "refusal_id", "unfinished",
]  # fmt: skip

_STAGE = "inference"
_COMPLETION = "inference.completion"
_ABANDONED = "inference.abandoned"
_REFUSAL = "inference.refusal"
# Bytes of a completion's texts: below the log's 8 MiB by what else is in an event, and what the result adds.
_LARGEST_TEXT = 7 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """A backend's answer. Times are microseconds.

    Attributes:
        error: why it is none, though it may be charged for.
        cached_from: event_id of the completion that it repeats; None where the model gave it.
        cached_request_id: request that it was given to, where that one's question means the same.
        cache_similarity: cosine of the two questions then.
        alternatives: the answers after the first, where several were asked for.
        logprobs: tokens of the answer, where their probabilities are wanted.
        engine_queue_us: part of ``model_us`` that the call waited in the engine's own queue.
        tool_calls: tools that the model wants called; content is then often empty.
    """

    model: str
    backend: str
    content: str
    finish_reason: str
    usage: Usage
    model_us: int
    citations: tuple[str, ...] = ()
    first_token_us: int | None = None
    compute_us: int | None = None
    error: str | None = None
    reduced_input_tokens: int = 0
    cached_from: str | None = None
    cached_request_id: str | None = None
    cache_similarity: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    engine_queue_us: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Called:
    """A call that gave no answer and is paid for: whom was called, what is known of it, and what it took."""

    target: Target
    answer: Answered
    energy: Energy | None = None


@dataclass(frozen=True, slots=True)
class Streamed:
    """How far a streamed answer has come: pieces, characters, and the digest of these."""

    pieces: int = 0
    characters: int = 0
    digest: str = ""


def is_streamed(request: GroundedRequest) -> bool:
    """Return whether pieces of the answer are wanted. An answer that is asked for again is not streamed: what was
    released of the first one cannot be taken back.
    """
    return request.stream and request.attempt == 0


def expired(request: GroundedRequest, now: datetime) -> bool:
    """Return whether an answer would come after the deadline."""
    deadline = request.context.deadline_at
    return deadline is not None and deadline <= now


def piece(
    request: GroundedRequest, streamed: Streamed, text: str, finish_reason: str | None, now: datetime
) -> tuple[Streamed, Emit]:
    """Return the next piece of the answer, and how far it is with it. The first one says what is answered."""
    first = streamed.pieces == 0
    record = CompletionChunk(
        **derive(request, "inference.chunk", streamed.pieces, now),
        context=request.context,
        sequence=streamed.pieces,
        content=text,
        finish_reason=finish_reason,
        offset=streamed.characters,
        preceding=streamed.digest,
        messages=request.messages if first else [],
        passages=request.passages if first else [],
    )
    after = Streamed(streamed.pieces + 1, streamed.characters + len(text), extended_digest(streamed.digest, text))
    return after, Emit("completion-chunks", request_key(request.context, request.request_id), record)


def unfinished(
    request: GroundedRequest, target: Target, reason: str, *, progress: Progress, model_us: int, cancelled: bool
) -> Answered:
    """Return what is known of a call that gave no answer, and that may be charged for.

    Args:
        target: whom was called.
        reason: why there is no answer.
        progress: how far it came.
        model_us: how long the call took.
        cancelled: whether it was given up, rather than broken off.
    """
    usage = progress.usage
    if usage is None:
        most = request.sampling.max_completion_tokens
        usage = estimated_usage(
            prompt_of(request).size, progress.answer_size, None if most is None else most * request.sampling.n
        )
    return Answered(
        model=target.model,
        backend=target.backend,
        content="",
        finish_reason="cancelled" if cancelled else "error",
        usage=usage,
        model_us=model_us,
        error=reason,
    )


def fitted(request: GroundedRequest, answer: Answered) -> Answered:
    """Return ``answer``, without its text where one event cannot hold it beside the conversation: it was paid for all the
    same, so there must be a completion.
    """
    beside = sum(map(message_bytes, request.messages)) + text_bytes(request.sampling.tools or "")
    beside += sum(text_bytes(passage.text) + text_bytes(passage.title) for passage in request.passages)
    answers: Sequence[Answered | Alternative] = (answer, *answer.alternatives)
    size = sum(text_bytes(a.content) + _logprobs_bytes(a.logprobs) + call_bytes(a.tool_calls) for a in answers)
    if beside + size <= _LARGEST_TEXT:
        return answer
    reason = (
        f"the answer of {size:,} bytes, beside a conversation of {beside:,}, is over the {_LARGEST_TEXT:,} that one event "
        "may hold; ask for less with max_completion_tokens, n or top_logprobs"
    )
    return replace(
        answer,
        content="",
        citations=(),
        finish_reason="error",
        error=reason,
        alternatives=(),
        logprobs=(),
        tool_calls=(),
    )


def _logprobs_bytes(logprobs: Sequence[TokenLogprob]) -> int:
    """Return about the bytes of log-probabilities in an event: eight for each number, and what a token's text needs."""
    return sum(12 + text_bytes(each.token) + sum(10 + text_bytes(token) for token in each.top) for each in logprobs)


def completion_id(request: GroundedRequest) -> str:
    """Return the event_id of the completion of ``request``: the same whenever it is answered."""
    return event_id(request.event_id, _COMPLETION)


def refusal_id(request: GroundedRequest) -> str:
    """Return the event_id of the refusal that ends ``request`` where no model was at work."""
    return event_id(request.event_id, _REFUSAL)


def completion(
    request: GroundedRequest,
    answer: Answered,
    called_at: datetime,
    now: datetime,
    *,
    target: Target | None = None,
    streamed: bool = False,
    first_piece_at: datetime | None = None,
    abandoned: Sequence[Called] = (),
    failures: Sequence[TargetFailure] = (),
    energy: Energy | None = None,
    kind: str | None = None,
    ends_as: Status | None = None,
) -> list[Emit]:
    """Return the completion event, behind those of the calls that were given up for it.

    Only the last one is an answer. The others are there to be paid for: what whoever runs these models charges is no less
    for another target having answered. They carry neither the conversation nor the evidence.

    Args:
        called_at: when the first target was called.
        target: who answered; None where nobody was asked.
        streamed: whether pieces of the answer went ahead of it.
        first_piece_at: when the first of them went.
        abandoned: calls that broke off before another target was asked, in their order.
        failures: targets that were asked before and gave no answer, charged for or not.
        energy: estimate of what the call took.
        kind: what the call was for; None: what the request says.
        ends_as: how the request ends, where there is no answer; None leaves it to the release gate.
    """
    context = request.context
    queue_us = _us(called_at - request.occurred_at)
    record = Completion(
        **derive(request, _COMPLETION, 0, now),
        context=context,
        messages=request.messages,
        passages=request.passages,
        citations=list(answer.citations),
        model=answer.model,
        backend=answer.backend,
        content=answer.content,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        timings=Timings(
            queue_us=queue_us,
            first_token_us=answer.first_token_us,
            model_us=answer.model_us,
            compute_us=answer.compute_us,
            engine_queue_us=answer.engine_queue_us,
            submitted_to_first_token_us=None if first_piece_at is None else _us(first_piece_at - context.requested_at),
        ),
        error=answer.error,
        grounding=request.grounding,
        embedding=request.embedding,
        sampling=request.sampling,
        stream=streamed,
        attempt=request.attempt,
        request_model=None if target is None else target.model,
        embedder=request.embedder,
        embedding_tokens=request.embedding_tokens,
        reduced_input_tokens=answer.reduced_input_tokens,
        kind=kind or _kind(request, answer),
        cached_by=_cached_by(answer),
        cached_from=answer.cached_from,
        cache_similarity=answer.cache_similarity,
        cached_request_id=answer.cached_request_id,
        alternatives=list(answer.alternatives),
        logprobs=list(answer.logprobs),
        tool_calls=list(answer.tool_calls),
        target=None if target is None or answer.cached_from is not None else target.label,
        failures=list(failures),
        energy=energy,
        ends_as=ends_as,
    )
    paid = [
        Completion(
            **derive(request, _ABANDONED, number, now),
            context=context,
            messages=[],
            model=called.answer.model,
            backend=called.answer.backend,
            finish_reason=called.answer.finish_reason,
            usage=called.answer.usage,
            timings=Timings(queue_us=queue_us, model_us=called.answer.model_us),
            error=called.answer.error,
            sampling=request.sampling,
            attempt=request.attempt,
            request_model=called.target.model,
            kind="abandoned",
            target=called.target.label,
            energy=called.energy,
        )
        for number, called in enumerate(abandoned)
    ]
    # In this order: the cost of the answer ends what budgets hold for all of them.
    key = request_key(context, request.request_id)
    return [Emit("completions", key, each) for each in [*paid, record]]


def _us(duration: timedelta) -> int:
    return max(0, duration // timedelta(microseconds=1))


def _cached_by(answer: Answered) -> str | None:
    if answer.cached_from is None:
        return None
    return "exact" if answer.cached_request_id is None else "semantic"


def _kind(request: GroundedRequest, answer: Answered) -> str:
    if answer.cached_from is not None:
        return "cached"
    return "judge" if request.context.purpose == Purpose.JUDGE else "completion"


def refusal(request: GroundedRequest, status: Status, code: str, reason: str, now: datetime) -> list[Emit]:
    """Return the event that ends ``request`` where no model was at work on this attempt: it has the calls before it."""
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    record = Refusal(
        **derive(request, _REFUSAL, 0, now),
        context=request.context,
        stage=_STAGE,
        status=status,
        code=code,
        reason=reason,
        prompt=question,
        calls=request.attempt,
    )
    return [Emit("refusals", request_key(request.context, request.request_id), record)]

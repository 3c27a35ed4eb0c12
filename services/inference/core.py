"""What inference decides: whether a request is still worth answering, by which target, and what came of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock.bus import Emit
from penstock.config.kinds import Route, Target
from penstock.contracts.digest import extended_digest
from penstock.contracts.envelope import derive, event_id, request_key
from penstock.contracts.records import (
    Completion,
    CompletionChunk,
    GroundedRequest,
    Purpose,
    Refusal,
    Status,
    Timings,
    Usage,
)

from services.inference.prompt import prompt_of, text_bytes
from services.inference.usage import estimated_usage

__all__ = [
    "Answered", "Streamed", "completion", "completion_id", "expired", "fitted", "is_streamed", "order_targets", "piece",
    "refusal", "unfinished",
]  # fmt: skip

_STAGE = "inference"
_COMPLETION = "inference.completion"
_ABANDONED = "inference.abandoned"
# Bytes of a completion's texts: below the log's 8 MiB by what else is in an event, and what the result adds.
_LARGEST_TEXT = 7 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """A backend's answer. Times are microseconds.

    Attributes:
        error: why it is none, though it may be charged for.
        cached_from: event_id of the completion that it repeats; None where the model gave it.
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


def order_targets(route: Route, request_id: str) -> list[Target]:
    """Return the targets to try, first the one that ``request_id`` falls to by weight, then the others as listed.

    The choice is a hash of the request's identity, so a redelivery goes to the same target.
    """
    total = sum(target.weight for target in route.targets)
    point = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") % total
    chosen = 0
    for index, target in enumerate(route.targets):
        if point < target.weight:
            chosen = index
            break
        point -= target.weight
    return [route.targets[chosen], *(t for i, t in enumerate(route.targets) if i != chosen)]


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
    request: GroundedRequest, target: Target, reason: str, *, answer_size: int, model_us: int, cancelled: bool
) -> Answered:
    """Return what is known of a call that gave no answer, and that may be charged for.

    Args:
        target: whom was called.
        reason: why there is no answer.
        answer_size: bytes of the answer that had come.
        model_us: how long the call took.
        cancelled: whether it was given up because it took too long.
    """
    return Answered(
        model=target.model,
        backend=target.backend,
        content="",
        finish_reason="cancelled" if cancelled else "error",
        usage=estimated_usage(prompt_of(request).size, answer_size, request.sampling.max_completion_tokens),
        model_us=model_us,
        error=reason,
    )


def fitted(request: GroundedRequest, answer: Answered) -> Answered:
    """Return ``answer``, without its text where one event cannot hold it beside the conversation: it was paid for all the
    same, so there must be a completion.
    """
    beside = sum(text_bytes(message.content) for message in request.messages)
    beside += sum(text_bytes(passage.text) + text_bytes(passage.title) for passage in request.passages)
    size = text_bytes(answer.content)
    if beside + size <= _LARGEST_TEXT:
        return answer
    reason = (
        f"the answer of {size:,} bytes, beside a conversation of {beside:,}, is over the {_LARGEST_TEXT:,} that one event "
        "may hold; ask for less with max_completion_tokens"
    )
    return replace(answer, content="", citations=(), finish_reason="error", error=reason)


def completion_id(request: GroundedRequest) -> str:
    """Return the event_id of the completion of ``request``: the same whenever it is answered."""
    return event_id(request.event_id, _COMPLETION)


def completion(
    request: GroundedRequest,
    answer: Answered,
    called_at: datetime,
    now: datetime,
    *,
    request_model: str | None = None,
    streamed: bool = False,
    abandoned: Sequence[tuple[Target, Answered]] = (),
) -> list[Emit]:
    """Return the completion event, behind those of the calls that were given up for it.

    Only the last one is an answer. The others are there to be paid for: what whoever runs these models charges is no less
    for another target having answered. They carry neither the conversation nor the evidence.

    Args:
        called_at: when the first target was called.
        request_model: the model that answered, as the route names it.
        streamed: whether pieces of the answer went ahead of it.
        abandoned: calls that broke off before another target was asked, in their order.
    """
    queue_us = max(0, int((called_at - request.occurred_at).total_seconds() * 1e6))
    record = Completion(
        **derive(request, _COMPLETION, 0, now),
        context=request.context,
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
        ),
        error=answer.error,
        grounding=request.grounding,
        embedding=request.embedding,
        sampling=request.sampling,
        stream=streamed,
        attempt=request.attempt,
        request_model=request_model,
        embedder=request.embedder,
        embedding_tokens=request.embedding_tokens,
        reduced_input_tokens=answer.reduced_input_tokens,
        kind=_kind(request, answer),
        cached_by=None if answer.cached_from is None else "exact",
        cached_from=answer.cached_from,
    )
    paid = [
        Completion(
            **derive(request, _ABANDONED, number, now),
            context=request.context,
            messages=[],
            model=given_up.model,
            backend=given_up.backend,
            finish_reason=given_up.finish_reason,
            usage=given_up.usage,
            timings=Timings(queue_us=queue_us, model_us=given_up.model_us),
            error=given_up.error,
            sampling=request.sampling,
            attempt=request.attempt,
            request_model=target.model,
            kind="abandoned",
        )
        for number, (target, given_up) in enumerate(abandoned)
    ]
    # In this order: the cost of the answer ends what budgets hold for all of them.
    key = request_key(request.context, request.request_id)
    return [Emit("completions", key, each) for each in [*paid, record]]


def _kind(request: GroundedRequest, answer: Answered) -> str:
    if answer.cached_from is not None:
        return "cached"
    return "judge" if request.context.purpose == Purpose.JUDGE else "completion"


def refusal(request: GroundedRequest, status: Status, code: str, reason: str, now: datetime) -> list[Emit]:
    """Return the event that ends ``request`` where no model was at work on this attempt: it has the calls before it."""
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    record = Refusal(
        **derive(request, "inference.refusal", 0, now),
        context=request.context,
        stage=_STAGE,
        status=status,
        code=code,
        reason=reason,
        prompt=question,
        calls=request.attempt,
    )
    return [Emit("refusals", request_key(request.context, request.request_id), record)]

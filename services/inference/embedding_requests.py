"""What ends a request for vectors: retrieval has made them, and no model is called. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import Completion, GroundedRequest, Purpose, Status, Timings, Usage

from services.inference.core import expired, refusal

__all__ = ["BACKEND", "is_for_vectors", "vectors"]

BACKEND = "embedding"
"""``Completion.backend`` of vectors."""
_STAGE = "inference.completion"
"""As of any completion: a request has one identity of it, whatever it asks for."""


def is_for_vectors(request: GroundedRequest) -> bool:
    """Return whether the vectors of its messages are wanted, rather than an answer."""
    return request.context.purpose == Purpose.EMBED


def vectors(request: GroundedRequest, now: datetime, cancelled: str | None = None) -> list[Emit]:
    """Return the completion that carries the vectors of ``request``; one without all of them has none, and is paid for.

    Args:
        cancelled: why nobody wants them any more: then it has none either.
    """
    if request.embedder is None:
        reason = "the request came without vectors: a retrieval of an older version does not make them; upgrade it"
        return refusal(request, Status.FAILED, "model_unavailable", reason, now)
    made, wanted = len(request.embeddings), len(request.messages)
    error = cancelled
    if error is None and made != wanted:
        why = "the deadline passed" if expired(request, now) else "the embedder gave no more"
        error = f"{made:,} of {wanted:,} texts were embedded when {why}; send fewer at once, or send them again later"
    record = Completion(
        **derive(request, _STAGE, 0, now),
        context=request.context,
        messages=request.messages,
        model=request.embedder,
        request_model=request.embedder,
        backend=BACKEND,
        finish_reason="cancelled" if cancelled is not None else "stop" if error is None else "error",
        usage=Usage(input_tokens=request.embedding_tokens),
        timings=Timings(queue_us=max(0, (now - request.occurred_at) // timedelta(microseconds=1)), model_us=0),
        error=error,
        grounding=request.grounding,
        sampling=request.sampling,
        embedder=request.embedder,
        embedding_tokens=request.embedding_tokens,
        embeddings=request.embeddings if error is None else [],
        ends_as=None if cancelled is None else Status.CANCELLED,
    )
    return [Emit("completions", request_key(request.context, request.request_id), record)]

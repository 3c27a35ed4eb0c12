"""Answers to earlier questions that mean the same, as retrieval found them: when one is given instead of a call."""

from __future__ import annotations

from penstock.config.kinds import Cache, Target
from penstock.contracts.records import CachedAnswer, GroundedRequest, Purpose
from penstock.telemetry import metrics

from services.inference.core import Answered

__all__ = ["answered_again", "count_passed_over", "usable_answer"]


def usable_answer(request: GroundedRequest, target: Target, rules: Cache) -> CachedAnswer | None:
    """Return the answer that ``request`` brought along; None where ``target`` is to be asked all the same.

    It is where the answer is another model's (a canary, an experiment or a target that is left alone decides that here),
    where the route has given up the cache since, and where guardrails ask for another answer. Nor is one given that quotes
    a passage which the request does not have.
    """
    cached = request.cached
    if cached is None or rules.semantic != "on" or request.attempt > 0 or request.context.purpose != Purpose.SERVE:
        return None
    if request.sampling.n > 1 or request.sampling.top_logprobs is not None or request.sampling.tools is not None:
        return None
    if (cached.backend, cached.request_model) != (target.backend, target.model):
        return None
    attached = {passage.passage_id for passage in request.passages}
    return cached if attached.issuperset(cached.citations) else None


def count_passed_over(request: GroundedRequest) -> None:
    """Count the answer that ``request`` brought along as one that is not given: retrieval has counted it as a hit."""
    if request.cached is not None and request.attempt == 0:
        metrics.CACHE_LOOKUPS.labels("semantic", "passed_over").inc()


def answered_again(cached: CachedAnswer, lookup_us: int) -> Answered:
    """Return ``cached`` as the answer of this request. Its usage is what a call would have used, its time that of the
    look-up here: retrieval's own is part of its hop.
    """
    return Answered(
        model=cached.model,
        backend=cached.backend,
        content=cached.content,
        finish_reason="stop",
        usage=cached.usage,
        model_us=lookup_us,
        citations=tuple(cached.citations),
        cached_from=cached.event_id,
        cached_request_id=cached.request_id,
        cache_similarity=cached.similarity,
    )

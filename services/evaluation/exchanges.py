"""What of an event is judged, and the event that says what came of it. Pure.

``llm-results`` shows what was asked and released, refused requests included: what every text is like (toxicity) is said of
it. ``completions`` shows what a model made of which evidence: how good an answer is is said of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import Completion, Evaluation, LlmResult, Purpose, Score

from services.evaluation.evaluators.protocol import Exchange

__all__ = ["QUALITY", "judged_completion", "judged_result", "scored"]

QUALITY = "evaluation.quality"
"""Stage of the identity of scores that are of a completion."""

_JUDGED = ((Purpose.SERVE, "completion"), (Purpose.SERVE, "cached"), (Purpose.SHADOW, "shadow"))


def judged_completion(completion: Completion) -> Exchange | None:
    """Return the exchange of an answer; None where a model gave none, or not to a user's request, or has tools called first.

    What a target in shadow says is scored as what is served is. The scores carry the purpose of the call, shadow, and
    only what is served counts as traffic.
    """
    if (completion.context.purpose, completion.kind) not in _JUDGED:
        return None
    if completion.error is not None or completion.tool_calls or not completion.content.strip():
        return None
    return Exchange(
        request_id=completion.request_id,
        team=completion.tenant_id,
        route=completion.context.route,
        question=next((each.content for each in reversed(completion.messages) if each.role == "user"), ""),
        answer=completion.content,
        messages=tuple(completion.messages),
        passages=tuple(completion.passages),
        citations=tuple(completion.citations),
        grounding=completion.grounding,
        response_format=completion.sampling.response_format,
        finish_reason=completion.finish_reason,
        question_embedding=completion.embedding,
        question_embedder=completion.embedder or "",
    )


def judged_result(result: LlmResult) -> Exchange | None:
    """Return the exchange of a result as it was released; None where it has no text, or is no traffic."""
    if result.context.purpose != Purpose.SERVE or not (result.prompt.strip() or result.content.strip()):
        return None
    return Exchange(
        request_id=result.request_id,
        team=result.tenant_id,
        route=result.context.route,
        question=result.prompt,
        answer=result.content,
        passages=tuple(result.citations),
        finish_reason=result.finish_reason,
    )


def scored(source: Completion | LlmResult, scores: Sequence[Score]) -> list[Emit]:
    """Return the event with ``scores`` on ``source``; none where there are none."""
    if not scores:
        return []
    result = isinstance(source, LlmResult)
    evaluation = Evaluation(
        **derive(source, "evaluation.scores" if result else QUALITY, 0, source.occurred_at),
        context=source.context,
        model=source.model,
        status=source.status if isinstance(source, LlmResult) else "completed",
        scores=list(scores),
    )
    return [Emit("evaluations", request_key(source.context, source.request_id), evaluation)]

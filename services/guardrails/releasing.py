"""What becomes of an answer, as plain functions: the one result of a request, another try, or a review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    Alternative,
    Completion,
    GroundedRequest,
    LlmResult,
    Message,
    Passage,
    Purpose,
    Refusal,
    Status,
)

from services.guardrails.alternatives import Beside, released_alternatives, released_calls, released_logprobs
from services.guardrails.core import question_of, reference_of
from services.guardrails.findings import Reference
from services.guardrails.masking import restoring, unambiguous
from services.guardrails.piece_judging import WHOLE_ANSWER
from services.guardrails.reasons import reason_of
from services.guardrails.reviews import Held, hold
from services.guardrails.screening import Segment
from services.guardrails.tool_texts import call_text, spoken
from services.guardrails.verdicts import Judged, verdicts

__all__ = [
    "Released", "alternative_segments", "calls_of", "has_answer", "is_answer", "output_reference", "output_segments",
    "released", "released_refusal", "unjudged", "with_repeat",
]  # fmt: skip

MAX_ATTEMPT = 1
"""An answer that is not acceptable is asked for once more, and no more."""


@dataclass(frozen=True, slots=True)
class Released:
    """What becomes of a completion. Without a ``result`` it is held for a person, or the answer is asked for again."""

    result: LlmResult | None
    emits: list[Emit] = field(default_factory=list)
    held: Held | None = None
    repeated: Emit | None = None


def is_answer(completion: Completion) -> bool:
    """Return whether ``completion`` ends its request: one that is only there to be paid for does not."""
    return completion.kind in ("completion", "cached", "judge")


def output_segments(completion: Completion) -> list[Segment]:
    """The answer, then text and title of each passage it quotes, then the tools it calls: all of them are released."""
    said, *calls = _said(completion)
    quoted = [Segment(text, "passage") for passage in _cited(completion) for text in (passage.text, passage.title)]
    return [said, *quoted, *calls]


def alternative_segments(completion: Completion) -> list[list[Segment]]:
    """The alternatives, each with the tools it calls: each is an answer, and judged by itself."""
    return [_said(alternative) for alternative in completion.alternatives]


def _said(answer: Completion | Alternative) -> list[Segment]:
    """What an answer says. Words beside calls of tools are no answer yet: they need not be what the policy wants of one.
    Vectors are none either.
    """
    is_answer = not (answer.tool_calls or (isinstance(answer, Completion) and answer.embeddings))
    role = "answer" if is_answer else "assistant"
    return [Segment(answer.content, role), *(Segment(call_text(call), "arguments") for call in answer.tool_calls)]


def output_reference(completion: Completion, canary: str = "") -> Reference:
    """What the answer is judged against."""
    return reference_of(_asked(completion), completion.passages, canary)


def released(
    completion: Completion,
    judged: Judged | None,
    pseudonyms: Mapping[str, str] | None = None,
    beside: Beside | None = None,
) -> Released:
    """The result of a completion and the verdict it stands on.

    `judged` is None where there is no policy to judge it by: then it is not released. An answer that came after its
    deadline, by the instant it was made, is expired: a replay decides alike. One that the model did not give is failed.
    `pseudonyms` are those of the request's data: they are taken back in the answer, but not in what it quotes, which
    was written without them. `beside` is what was judged beside an answer that is released; where it is held for a person,
    who reads the answer alone, or does not leave at all, nothing of that leaves either.
    """
    context, at = completion.context, completion.occurred_at
    if completion.error is not None:
        status, code = _without_answer(completion)
        return Released(_early(completion, status, "inference", code, completion.error, at))
    if _late(completion):
        reason = f"the answer was ready at {at.isoformat()}, after the deadline; allow more time"
        return Released(_early(completion, Status.EXPIRED, "guardrails", "deadline_exceeded", reason, at))
    if judged is None:
        reason = f"the policy {context.policy_name!r} is not published; run `penstock config apply`"
        return Released(_early(completion, Status.FAILED, "guardrails", "unknown_policy", reason, at))
    screening = judged.screening
    if screening.action == "ask_again" and _may_repeat(completion, judged):
        repeated = Emit("requests-repeated", request_key(context, completion.request_id), _repeated(completion, judged))
        return Released(None, verdicts(completion, "output", judged), repeated=repeated)
    if screening.action in ("block", "ask_again"):
        code, reason = reason_of(screening)
        blocked = _early(completion, Status.BLOCKED, "guardrails", code, reason, judged.now)
        return Released(msgspec.structs.replace(blocked, action="block"), verdicts(completion, "output", judged))
    known = unambiguous(pseudonyms or {}, (f"{passage.title}\n{passage.text}" for passage in completion.passages))
    asked = spoken(_asked(completion))
    in_json = any(rule.enforced and rule.json_schema is not None for _, rule in judged.policy.stages["output"])

    restored = restoring(known, asked, in_json=in_json)
    called = restoring(known, asked)
    content, *beside_it = screening.texts
    quoted = beside_it[: 2 * len(_cited(completion))]
    calls = released_calls(completion.tool_calls, beside_it[len(quoted) :], called)
    content = restored(content)
    result = LlmResult(
        **derive(completion, "guardrails.release", 0, judged.now),
        context=context,
        status=Status.COMPLETED,
        prompt=question_of(_asked(completion)),
        content=content,
        citations=[
            msgspec.structs.replace(passage, text=text, title=title)
            for passage, text, title in zip(_cited(completion), quoted[::2], quoted[1::2], strict=True)
        ],
        finish_reason=completion.finish_reason,
        model=completion.model,
        usage=completion.usage,
        timings=completion.timings,
        action=screening.action,
        calls=calls_of(completion),
        tool_calls=calls,
        embeddings=completion.embeddings,
        cached_by=completion.cached_by,
        cached_from=completion.cached_from,
        cache_similarity=completion.cache_similarity,
        cached_request_id=completion.cached_request_id,
    )
    if screening.action == "review":
        key = request_key(context, completion.request_id)
        waiting = Emit("llm-results", key, result)
        shown = _with_calls(screening.texts[0], beside_it[len(quoted) :])
        held = hold(completion, context, "output", judged, waiting, prompt=result.prompt, content=shown)
        return Released(None, [*verdicts(completion, "output", judged), held.emit], held)
    if beside is not None:
        alternatives, told = released_alternatives(completion, beside, restored, called)
        logprobs = released_logprobs(completion.logprobs, screening, completion.content, content, clear=beside.clear[0])
        result = msgspec.structs.replace(result, alternatives=alternatives, logprobs=logprobs)
    else:
        told = []
    return Released(result, [*verdicts(completion, "output", judged, result), *told])


def _without_answer(completion: Completion) -> tuple[Status, str]:
    if completion.ends_as == Status.CANCELLED:
        return Status.CANCELLED, "cancelled"
    if completion.ends_as == Status.EXPIRED or _late(completion):
        return Status.EXPIRED, "expired"
    return Status.FAILED, "model_error"


def calls_of(completion: Completion) -> int:
    """Return how many completions there are of a request whose last one this is: each of them is priced, but one of vectors
    of texts without a token."""
    unpriced = completion.context.purpose == Purpose.EMBED and not completion.embedding_tokens
    return 0 if unpriced else completion.attempt + 1


def with_repeat(result: LlmResult) -> LlmResult:
    """Return ``result`` of a request whose answer was asked for again by another reading of the same completion.

    Then there may be one completion more than the event knows of that the result was made of. Inference's own refusal of
    the repeated request knows them all.
    """
    knows = result.stage == "inference" and result.model is None and (result.calls or 0) > 0
    most = MAX_ATTEMPT + 1
    return result if knows else msgspec.structs.replace(result, calls=max(result.calls or 0, most))


def has_answer(completion: Completion) -> bool:
    """Whether there is an answer that could be released, and so must be judged."""
    return completion.error is None and not _late(completion)


def unjudged(completion: Completion, now: datetime) -> LlmResult:
    """The result where judging itself broke: the answer is kept back."""
    reason = "guardrails could not judge the answer, so it is not released; see the log of guardrails"
    return _early(completion, Status.FAILED, "guardrails", "internal_error", reason, now)


def released_refusal(refusal: Refusal, now: datetime) -> LlmResult:
    """The result of a request that a stage ended early."""
    return LlmResult(
        **derive(refusal, "guardrails.release", 0, now),
        context=refusal.context,
        status=refusal.status,
        prompt=refusal.prompt,
        stage=refusal.stage,
        code=refusal.code,
        reason=refusal.reason,
        action="block" if refusal.status == Status.BLOCKED else "allow",
        calls=refusal.calls,
        retry_after_ms=refusal.retry_after_ms,
    )


def _repeated(completion: Completion, judged: Judged) -> GroundedRequest:
    """The request once more, with the answer that was not acceptable and why."""
    question = question_of(completion.messages)
    _, reason = reason_of(judged.screening)
    finding = judged.screening.deciding
    rule = next((rule for _, rule in judged.policy.stages["output"] if finding and rule.name == finding.rule), None)
    schema = (
        f" It must be nothing but JSON that keeps this schema: {rule.json_schema}" if rule and rule.json_schema else ""
    )
    said, *calls = judged.screening.texts
    again = f"{question}\n\nYour previous answer was not accepted: {reason}.{schema} Answer again."
    return GroundedRequest(
        **derive(completion, "guardrails.repeat", 0, judged.now),
        context=completion.context,
        messages=[
            *completion.messages,
            Message(role="assistant", content=_with_calls(said, calls[2 * len(_cited(completion)) :])),
            Message(role="user", content=again),
        ],
        sampling=completion.sampling,
        stream=False,
        grounding=completion.grounding,
        passages=completion.passages,
        embedding=completion.embedding,
        embedder=completion.embedder,
        attempt=completion.attempt + 1,
    )


def _with_calls(content: str, calls: Sequence[str]) -> str:
    """The words of an answer and the tools it calls, for somebody to read."""
    return "\n".join(text for text in (content, *calls) if text)


def _may_repeat(completion: Completion, judged: Judged) -> bool:
    """Whether the answer may be asked for again: once, and not where a part of it may be out already."""
    finding = judged.screening.deciding
    unseen = not completion.stream or (finding is not None and finding.scanner in WHOLE_ANSWER)
    return completion.attempt < MAX_ATTEMPT and unseen


def _asked(completion: Completion) -> list[Message]:
    """The conversation as the producer sent it, without what :func:`_repeated` added."""
    return completion.messages[:-2] if completion.attempt else completion.messages


def _late(completion: Completion) -> bool:
    deadline = completion.context.deadline_at
    if deadline is None:
        return False
    # What broke off at its very deadline broke off because of it.
    return completion.occurred_at >= deadline if completion.error is not None else completion.occurred_at > deadline


def _early(completion: Completion, status: Status, stage: str, code: str, reason: str, now: datetime) -> LlmResult:
    """A result without the answer; usage stays, since it was paid for."""
    return LlmResult(
        **derive(completion, "guardrails.release", 0, now),
        context=completion.context,
        status=status,
        prompt=question_of(_asked(completion)),
        finish_reason=completion.finish_reason,
        model=completion.model,
        usage=completion.usage,
        timings=completion.timings,
        stage=stage,
        code=code,
        reason=reason,
        calls=calls_of(completion),
        cached_by=completion.cached_by,
        cached_from=completion.cached_from,
        cache_similarity=completion.cache_similarity,
        cached_request_id=completion.cached_request_id,
    )


def _cited(completion: Completion) -> list[Passage]:
    cited = set(completion.citations)
    return [passage for passage in completion.passages if passage.passage_id in cited]

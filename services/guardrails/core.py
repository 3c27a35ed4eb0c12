"""What guardrails decide, as plain functions: the verdict on a request, on a document, and the one result of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    AdmittedRequest,
    Completion,
    Document,
    Finding,
    LlmResult,
    Message,
    Passage,
    Record,
    Refusal,
    ScreenedDocument,
    ScreenedRequest,
    Status,
    Verdict,
)  # fmt: skip

from services.guardrails.findings import Reference
from services.guardrails.policy import CompiledPolicy
from services.guardrails.scanners.leakage import addresses
from services.guardrails.screening import Screening, Segment, fingerprint

__all__ = [
    "CODES", "Judged", "code_of", "document_segments", "ended_request", "has_answer", "output_reference",
    "output_segments", "released", "released_refusal", "request_segments", "screened_document", "screened_request",
    "unjudged",
]  # fmt: skip

CODES = {
    "injection": (
        "prompt_injection",
        "the text tries to override its instructions; rephrase it without instructions to the model",
    ),
    "secrets": ("secret", "the text holds a credential; remove it, and change it, since it has been sent"),
    "pii": ("personal_data", "the text holds personal data; remove it"),
    "invisible_text": ("invisible_text", "the text holds characters that a reader does not see; remove them"),
    "token_flood": ("token_flood", "the text is too long or repeats itself; shorten it"),
    "banned_words": ("banned_words", "the text holds words that the policy bans; rephrase it"),
    "regex": ("banned_pattern", "the text matches an expression that the policy bans; rephrase it"),
    "system_prompt_leak": ("system_prompt_leak", "the answer quotes the instructions of the system"),
    "exfiltration": (
        "exfiltration",
        "the answer holds an address that could carry data away; allow its host in the policy if it is wanted",
    ),
}
"""Machine-readable reason and remedy, by the scanner that blocked."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A screening together with the policy it was made under, the key of its fingerprints and the instant it was made."""

    screening: Screening
    policy: CompiledPolicy
    fingerprint_key: bytes
    now: datetime


def request_segments(request: AdmittedRequest) -> list[Segment]:
    """The messages in order; the system's are the platform's own."""
    return [Segment(message.content, trusted=message.role == "system") for message in request.messages]


def screened_request(request: AdmittedRequest, judged: Judged) -> list[Emit]:
    """The verdict, and either the request with its masks applied or the refusal that ends it."""
    screening = judged.screening
    findings = _findings(judged)
    context = msgspec.structs.replace(request.context, policy_version=judged.policy.version)
    messages = _with_texts(request.messages, screening.texts)
    emits = [_verdict(request, "input", findings, judged)]
    key = request_key(context, request.request_id)
    if screening.action == "block":
        code, reason = _why(screening)
        refusal = Refusal(
            **derive(request, "guardrails.input.refusal", 0, judged.now),
            context=context,
            stage="guardrails",
            status=Status.BLOCKED,
            code=code,
            reason=reason,
            # Where a scanner failed nobody knows what the text holds.
            prompt="" if screening.errors or code == "token_flood" else _question(messages),
        )
        return [*emits, Emit("refusals", key, refusal)]
    screened = ScreenedRequest(
        **derive(request, "guardrails.input", 0, judged.now),
        context=context,
        messages=messages,
        sampling=request.sampling,
        stream=request.stream,
        action=screening.action,
        findings=findings,
    )
    return [*emits, Emit("requests-screened", key, screened)]


def ended_request(request: AdmittedRequest, status: Status, code: str, reason: str, now: datetime) -> Emit:
    """The refusal of a request that is not judged, or cannot be: nothing goes on unscreened."""
    refusal = Refusal(
        **derive(request, "guardrails.input.refusal", 0, now),
        context=request.context, stage="guardrails", status=status, code=code, reason=reason,
    )  # fmt: skip
    return Emit("refusals", request_key(request.context, request.request_id), refusal)


def code_of(screening: Screening) -> str:
    """Machine-readable reason of a blocked screening."""
    return _why(screening)[0]


def output_segments(completion: Completion) -> list[Segment]:
    """The answer, then the text and the title of each passage it quotes: all of them are released."""
    return [Segment(completion.content)] + [
        Segment(text) for passage in _cited(completion) for text in (passage.text, passage.title)
    ]


def output_reference(completion: Completion) -> Reference:
    """What the answer is judged against."""
    conversation = "\n".join(message.content for message in completion.messages)
    return Reference(
        system_prompt="\n".join(message.content for message in completion.messages if message.role == "system"),
        prompt=conversation,
        urls=addresses(
            "\n".join([conversation, *(f"{passage.source} {passage.text}" for passage in completion.passages)])
        ),
    )


def released(completion: Completion, judged: Judged | None) -> tuple[LlmResult, list[Emit]]:
    """The result of a completion and the verdict it stands on.

    `judged` is None where there is no policy to judge it by: then it is not released. An answer that came after its
    deadline, by the instant it was made, is expired: a replay decides alike. One that the model did not give is failed.
    """
    context = completion.context
    if completion.error is not None:
        return _early(
            completion, Status.FAILED, "inference", "model_error", completion.error, completion.occurred_at
        ), []
    if _late(completion):
        reason = f"the answer was ready at {completion.occurred_at.isoformat()}, after the deadline; allow more time"
        return _early(completion, Status.EXPIRED, "guardrails", "deadline_exceeded", reason, completion.occurred_at), []
    if judged is None:
        reason = f"the policy {context.policy_name!r} is not published; run `penstock config apply`"
        return _early(completion, Status.FAILED, "guardrails", "unknown_policy", reason, completion.occurred_at), []
    screening = judged.screening
    verdict = _verdict(completion, "output", _findings(judged), judged)
    if screening.action == "block":
        code, reason = _why(screening)
        blocked = _early(completion, Status.BLOCKED, "guardrails", code, reason, judged.now)
        return msgspec.structs.replace(blocked, action="block"), [verdict]
    content, *quoted = screening.texts
    citations = [
        msgspec.structs.replace(passage, text=text, title=title)
        for passage, text, title in zip(_cited(completion), quoted[::2], quoted[1::2], strict=True)
    ]
    result = LlmResult(
        **derive(completion, "guardrails.release", 0, judged.now),
        context=context,
        status=Status.COMPLETED,
        prompt=_question(completion.messages),
        content=content,
        citations=citations,
        finish_reason=completion.finish_reason,
        model=completion.model,
        usage=completion.usage,
        timings=completion.timings,
        action=screening.action,
    )
    return result, [verdict]


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
    )


def document_segments(document: Document) -> list[Segment]:
    """Title and text; a deletion carries neither."""
    return [] if document.deleted else [Segment(document.title), Segment(document.content)]


def screened_document(document: Document, judged: Judged) -> list[Emit]:
    """The verdict, and the document where it may be indexed: a poisoned one ends here."""
    screening = judged.screening
    emits = [_verdict(document, "document", _findings(judged), judged)]
    if screening.action == "block":
        return emits
    title, content = screening.texts or ("", "")
    screened = ScreenedDocument(
        **derive(document, "guardrails.document", 0, judged.now),
        document_id=document.document_id,
        title=title,
        source=document.source,
        content_type=document.content_type,
        content=content,
        tags=document.tags,
        deleted=document.deleted,
        policy_version=judged.policy.version,
    )
    return [*emits, Emit("documents-screened", document.document_id, screened)]


def _late(completion: Completion) -> bool:
    deadline = completion.context.deadline_at
    return deadline is not None and completion.occurred_at > deadline


def _early(completion: Completion, status: Status, stage: str, code: str, reason: str, now: datetime) -> LlmResult:
    """A result without the answer; usage stays, since it was paid for."""
    return LlmResult(
        **derive(completion, "guardrails.release", 0, now),
        context=completion.context,
        status=status,
        prompt=_question(completion.messages),
        finish_reason=completion.finish_reason,
        model=completion.model,
        usage=completion.usage,
        timings=completion.timings,
        stage=stage,
        code=code,
        reason=reason,
    )


def _why(screening: Screening) -> tuple[str, str]:
    scanner = screening.blocking or ""
    if scanner in screening.errors:
        return (
            "scanner_failed",
            f"the scanner {scanner} could not judge the text, and the policy fails closed: {screening.errors[scanner]}",
        )
    return CODES[scanner]


def _verdict(cause: Record, stage: str, findings: list[Finding], judged: Judged) -> Emit:
    screening, policy = judged.screening, judged.policy
    verdict = Verdict(
        **derive(cause, f"guardrails.{stage}.verdict", 0, judged.now),
        stage=stage,
        action=screening.action,
        policy_name=policy.name,
        policy_version=policy.version,
        findings=findings,
        scanners=dict(screening.scanners),
        errors=dict(screening.errors),
        latency_us=round(screening.elapsed_s * 1e6),
    )
    return Emit("verdicts", cause.request_id, verdict)


def _findings(judged: Judged) -> list[Finding]:
    return [
        Finding(
            scanner=find.scanner,
            kind=find.kind,
            start=find.start,
            end=find.end,
            score=round(find.score, 4),
            action=find.action,
            fingerprint=fingerprint(judged.fingerprint_key, find.kind, find.value),
        )
        for find in judged.screening.findings
    ]


def _with_texts(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    return [
        message if message.content == text else msgspec.structs.replace(message, content=text)
        for message, text in zip(messages, texts, strict=True)
    ]


def _question(messages: Sequence[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def _cited(completion: Completion) -> list[Passage]:
    cited = set(completion.citations)
    return [passage for passage in completion.passages if passage.passage_id in cited]

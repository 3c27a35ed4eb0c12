"""What guardrails decide of requests and of documents, as plain functions; of answers, see :mod:`releasing`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    AdmittedRequest,
    Document,
    Message,
    Passage,
    Refusal,
    Sampling,
    ScreenedDocument,
    ScreenedRequest,
    Status,
)  # fmt: skip
from penstock.text.marker import marked

from services.guardrails.findings import Reference
from services.guardrails.reasons import reason_of
from services.guardrails.reviews import Held, hold
from services.guardrails.scanners.leakage import addresses
from services.guardrails.screening import Screening, Segment
from services.guardrails.tool_texts import (
    call_text,
    calls_of_messages,
    json_text,
    masked_call,
    masked_json,
    spoken,
)
from services.guardrails.verdicts import Judged, findings_of, verdicts

__all__ = [
    "Judged", "Screened", "canary_of", "document_segments", "ended_request", "question_of", "reference_of",
    "request_segments", "screened_document", "screened_request",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Screened:
    """What becomes of a request: events, what its pseudonyms stand for, and what is held for a person."""

    emits: list[Emit]
    pseudonyms: Mapping[str, str] = field(default_factory=dict, repr=False)
    held: Held | None = None


def canary_of(key: bytes, request_id: str) -> str:
    """Return the marker of a request's system prompt: nobody without ``key`` can guess it, and a replay gives it again."""
    return (
        "ref-"
        + hmac.new(key, f"canary\0{request_id}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
    )


def request_segments(request: AdmittedRequest) -> list[Segment]:
    """The messages in order, the names of those who speak, what was put into the system's messages, the calls of tools,
    and what the tools are: that is the platform's, as what the system says.
    """
    return [
        *(Segment(message.content, message.role) for message in request.messages),
        *(Segment(message.name, "name") for message in request.messages if message.name),
        *(Segment(value, "inserted") for value in request.inserted),
        *(Segment(call_text(call), "arguments") for call in calls_of_messages(request.messages)),
        *([Segment(json_text(request.sampling.tools), "system")] if request.sampling.tools else []),
    ]


def screened_request(request: AdmittedRequest, judged: Judged) -> Screened:
    """The verdict, and either the request with its masks applied, the refusal that ends it, or the review it waits for.

    Tools that are no tools any more once something in them is masked end the request.
    """
    screening = judged.screening
    context = msgspec.structs.replace(request.context, policy_version=judged.policy.version)
    messages, sampling = _masked(request, screening)
    emits = verdicts(request, "input", judged)
    key = request_key(context, request.request_id)
    if screening.action == "block" or sampling is None:
        code, reason = reason_of(screening)
        refusal = Refusal(
            **derive(request, "guardrails.input.refusal", 0, judged.now),
            context=context,
            stage="guardrails",
            status=Status.BLOCKED,
            code=code,
            reason=reason,
            # Where a scanner failed nobody knows what the text holds.
            prompt="" if screening.errors or code in ("token_limit", "token_flood") else question_of(messages),
        )
        return Screened([*emits, Emit("refusals", key, refusal)])
    screened = ScreenedRequest(
        **derive(request, "guardrails.input", 0, judged.now),
        context=context,
        messages=_with_canary(messages, canary_of(judged.key, request.request_id))
        if judged.policy.canary
        else messages,
        sampling=sampling,
        stream=request.stream,
        action=screening.action,
        findings=findings_of(judged),
        retrieval=request.retrieval,
    )
    onward = Emit("requests-screened", key, screened)
    if screening.action == "review":
        held = hold(request, context, "input", judged, onward, prompt=question_of(messages))
        return Screened([*emits, held.emit], screening.pseudonyms, held)
    return Screened([*emits, onward], screening.pseudonyms)


def ended_request(request: AdmittedRequest, status: Status, code: str, reason: str, now: datetime) -> Emit:
    """The refusal of a request that is not judged, or cannot be: nothing goes on unscreened."""
    refusal = Refusal(
        **derive(request, "guardrails.input.refusal", 0, now),
        context=request.context, stage="guardrails", status=status, code=code, reason=reason,
    )  # fmt: skip
    return Emit("refusals", request_key(request.context, request.request_id), refusal)


def reference_of(messages: Sequence[Message], passages: Sequence[Passage], canary: str) -> Reference:
    """What an answer to ``messages``, made with ``passages``, is judged against."""
    conversation = spoken(messages)
    return Reference(
        system_prompt="\n".join(message.content for message in messages if message.role == "system"),
        prompt=conversation,
        question=question_of(messages),
        passages=tuple(passage.text for passage in passages),
        urls=addresses("\n".join([conversation, *(f"{passage.source} {passage.text}" for passage in passages)])),
        canary=canary,
    )


def document_segments(document: Document) -> list[Segment]:
    """Title and text; a deletion carries neither."""
    return [] if document.deleted else [Segment(document.title, "document"), Segment(document.content, "document")]


def screened_document(document: Document, judged: Judged) -> list[Emit]:
    """The verdict, and the document where it may be indexed: a poisoned one ends here."""
    screening = judged.screening
    emits = verdicts(document, "document", judged)
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
        language=document.language,
        valid_from=document.valid_from,
        valid_to=document.valid_to,
    )
    return [*emits, Emit("documents-screened", document.document_id, screened)]


def _masked(request: AdmittedRequest, screening: Screening) -> tuple[list[Message], Sampling | None]:
    """The messages and the parameters with what was masked in them; without parameters where the tools do not stand it."""
    texts = list(screening.texts)
    messages = _with_texts(request.messages, texts)
    called = [message for message in messages if message.tool_calls]
    sampling: Sampling | None = request.sampling
    if request.sampling.tools is not None:
        tools = masked_json(request.sampling.tools, texts.pop())
        sampling = None if tools is None else msgspec.structs.replace(request.sampling, tools=tools)
    if called:
        left = iter(texts[len(texts) - sum(len(message.tool_calls) for message in called) :])
        messages = [
            msgspec.structs.replace(message, tool_calls=[masked_call(call, next(left)) for call in message.tool_calls])
            if message.tool_calls
            else message
            for message in messages
        ]
    return _with_names(messages, texts[len(messages) :]), sampling


def _with_texts(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    return [
        message if message.content == text else msgspec.structs.replace(message, content=text)
        for message, text in zip(messages, texts, strict=False)
    ]


def _with_names(messages: Sequence[Message], names: Sequence[str]) -> list[Message]:
    """The messages with the names as screened: one that had to be masked is left out, since masks are no names."""
    screened = iter(names)
    return [
        msgspec.structs.replace(message, name=None) if message.name and next(screened) != message.name else message
        for message in messages
    ]


def _with_canary(messages: list[Message], canary: str) -> list[Message]:
    """The first of the system's messages with the marker; without one there is nothing to protect."""
    for index, message in enumerate(messages):
        if message.role == "system":
            carrying = msgspec.structs.replace(message, content=marked(message.content, canary))
            return [*messages[:index], carrying, *messages[index + 1 :]]
    return messages


def question_of(messages: Sequence[Message]) -> str:
    """Return the last thing that the user said."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")

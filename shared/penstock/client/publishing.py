"""The producing half of the client: requests, cancellations, feedback and documents, each under an identity of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from penstock.client.inbox import Inbox
from penstock.client.sending import RequestNotSent, Sender, trace_headers
from penstock.clock import Clock
from penstock.contracts.envelope import Envelope, event_id, new_id
from penstock.contracts.records import Cancellation, Document, Feedback, LlmRequest, Message, RetrievalFilter, Sampling
from penstock.contracts.request_content import content_hash

__all__ = ["Publisher", "Question", "connected"]

T = TypeVar("T")
Question = str | Sequence[Message] | Sequence[Mapping[str, Any]]


class Publisher:
    """Publishes; whoever extends it connects it.

    What is published continues the trace of the caller: of the OpenTelemetry span that is current, or of ``traceparent``
    (and ``tracestate``) where a call hands one over, as an HTTP request brings it.
    """

    def __init__(self, tenant: str | None, clock: Clock) -> None:
        self._tenant = tenant
        self._clock = clock
        self._sender: Sender | None = None
        self._inbox = Inbox()

    async def submit(
        self,
        question: Question = (),
        *,
        tenant: str | None = None,
        request_id: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        route: str = "default",
        prompt: str | None = None,
        prompt_label: str = "production",
        variables: Mapping[str, str] | None = None,
        sampling: Sampling | None = None,
        stream: bool = False,
        deadline_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        key_id: str | None = None,
        purpose: str = "serve",
        policy: str | None = None,
        priority: str = "standard",
        retrieval: RetrievalFilter | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> str:
        """Publish a request and return its request_id once the log has it.

        ``question`` is a text, or the messages of a conversation, oldest first. The same ``request_id`` sent again with
        the same content is answered once; with other content it is turned away, which ``Client.result`` raises.
        ``stream`` asks for pieces of the answer on result-chunks: see ``Client.stream``.
        ``user_id``, ``key_id`` (the identity of a credential, never the credential) and ``tags`` say to whom the cost is
        allocated, and which of the team's budgets it counts in. ``purpose`` "evaluation" marks a request that
        is no traffic: detectors, caches and experiments leave it out. ``policy`` names the guardrail policy in place of
        the route's; the team must list it in its ``allowed_policies``. ``priority`` says who goes first where requests
        wait for a model: interactive, standard or batch. ``retrieval`` says which documents may ground the answer, beside
        what the route says. With ``purpose`` "embed" the vectors of the messages are wanted: see ``Client.embed``.

        Raises:
            RequestNotSent: the log did not take it, or it does not fit its schema.
            ValueError: ``traceparent`` is none of W3C Trace Context.
        """
        headers = trace_headers(traceparent, tracestate)
        request_id = request_id or new_id()
        envelope = self._envelope(new_id(), request_id, tenant)
        request = LlmRequest(
            **envelope,
            conversation_id=conversation_id,
            user_id=user_id,
            route=route,
            prompt_name=prompt,
            prompt_label=prompt_label,
            prompt_variables=dict(variables or {}),
            messages=_messages(question),
            sampling=sampling or Sampling(),
            stream=stream,
            deadline_at=None if deadline_s is None else envelope["occurred_at"] + timedelta(seconds=deadline_s),
            tags=dict(tags or {}),
            key_id=key_id,
            purpose=purpose,
            policy_name=policy,
            priority=priority,
            retrieval=retrieval,
        )
        sender = connected(self._sender)
        try:
            content = content_hash(request)
        except (ValueError, TypeError) as error:  # half a surrogate pair, or what is no text
            raise RequestNotSent(f"llm-requests: {error}") from error
        self._inbox.submitted((request.tenant_id, request_id), request.event_id, content)
        await sender.send("llm-requests", conversation_id or request_id, request, headers)
        return request_id

    async def cancel(
        self,
        request_id: str,
        *,
        tenant: str | None = None,
        conversation_id: str | None = None,
        reason: str = "",
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> None:
        """Say that nobody wants the answer to a request any more: its model is stopped, and its result is ``cancelled``.

        What was generated until then is paid for. A request that was answered meanwhile keeps its result, and one that
        is unknown has none. ``conversation_id`` must be the request's, where it had one.

        Raises:
            RequestNotSent: the log did not take it.
            ValueError: ``traceparent`` is none of W3C Trace Context.
        """
        record = Cancellation(
            **self._envelope(event_id(f"{self._team(tenant)}/{request_id}", "client.cancel"), request_id, tenant),
            conversation_id=conversation_id,
            reason=reason,
        )
        headers = trace_headers(traceparent, tracestate)
        await connected(self._sender).send("cancellations", conversation_id or request_id, record, headers)

    async def feedback(
        self,
        request_id: str,
        *,
        tenant: str | None = None,
        feedback_id: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        source: str = "user",
        rating: float | None = None,
        labels: Mapping[str, str] | None = None,
        correction: str | None = None,
        comment: str | None = None,
        chosen: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> str:
        """Publish what a person thought of a result; return the feedback's identity.

        ``conversation_id`` must be the request's, where it had one. ``feedback_id`` is the caller's own identity of this
        piece of feedback: sent again under it, it counts once.

        Raises:
            RequestNotSent: the log did not take it.
            ValueError: ``traceparent`` is none of W3C Trace Context.
        """
        identity = feedback_id or new_id()
        given = event_id(f"{self._team(tenant)}/{request_id}/{identity}", "client.feedback")
        record = Feedback(
            **self._envelope(given, request_id, tenant),
            conversation_id=conversation_id,
            user_id=user_id,
            source=source,
            rating=rating,
            labels=dict(labels or {}),
            correction=correction,
            comment=comment,
            chosen=chosen,
        )
        headers = trace_headers(traceparent, tracestate)
        await connected(self._sender).send("feedback", conversation_id or request_id, record, headers)
        return identity

    async def document(
        self,
        document_id: str,
        content: str = "",
        *,
        data: bytes | None = None,
        tenant: str | None = None,
        upload_id: str | None = None,
        title: str = "",
        source: str = "",
        content_type: str = "text/plain",
        tags: Mapping[str, str] | None = None,
        language: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        deleted: bool = False,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> str:
        """Publish a document, replacing the one with the same id, or remove it; return the upload's request_id.

        The document is the text ``content``, or a file as it is, ``data``: with ``content_type`` application/pdf a PDF, else
        text in any encoding, which is found out unless ``content_type`` names the charset.
        ``upload_id`` is the caller's own identity of this upload: sent again under it, it is the same one. ``language`` (ISO
        639-1) is found out where it is not given. Requests are grounded in the document from ``valid_from`` on and until
        ``valid_to``, both with a time zone.

        Raises:
            RequestNotSent: the log did not take it, or there are both a text and a file, or the validity ends before it
                begins.
            ValueError: ``traceparent`` is none of W3C Trace Context.
        """
        if content and data is not None:
            raise RequestNotSent("documents: a document is content, a text, or data, a file: not both")
        if valid_from is not None and valid_to is not None and valid_to <= valid_from:
            raise RequestNotSent("documents: valid_to must be after valid_from")
        upload = upload_id or new_id()
        given = event_id(f"{self._team(tenant)}/{upload}", "client.document")
        record = Document(
            **self._envelope(given, upload, tenant),
            document_id=document_id,
            title=title,
            source=source,
            content_type=content_type,
            content=content,
            tags=dict(tags or {}),
            deleted=deleted,
            data=data,
            language=language,
            valid_from=valid_from,
            valid_to=valid_to,
        )
        headers = trace_headers(traceparent, tracestate)
        await connected(self._sender).send("documents", document_id, record, headers)
        return upload

    def _envelope(self, identity: str, request_id: str, tenant: str | None) -> Envelope:
        """The first fields of the first event of a chain."""
        return {
            "event_id": identity,
            "request_id": request_id,
            "tenant_id": self._team(tenant),
            "occurred_at": self._clock.now(),
            "causation_id": "",
        }

    def _team(self, tenant: str | None) -> str:
        team = tenant or self._tenant
        if not team:
            raise RequestNotSent("no team: pass tenant= to the call or to Client()")
        return team


def connected(part: T | None) -> T:
    """Return ``part``, which is there once the client is connected."""
    if part is None:
        raise RuntimeError("the client is not connected; use it as `async with Client() as client:`")
    return part


def _messages(question: Question) -> list[Message]:
    if isinstance(question, str):
        return [Message(role="user", content=question)] if question else []
    try:
        return [m if isinstance(m, Message) else msgspec.convert(m, Message) for m in question]
    except msgspec.ValidationError as error:
        raise RequestNotSent(
            f"a message is not of role, content, name, tool_calls and tool_call_id: {error}"
        ) from error

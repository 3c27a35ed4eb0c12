"""``POST /v1/chat/completions``: what OpenAI's clients ask, answered as they expect it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.contracts.records import LlmResult, ResultChunk
from starlette.requests import Request
from starlette.responses import Response

from services.edge.core import error_of, is_answer
from services.edge.errors import ApiError
from services.edge.event_answer import EventAnswer
from services.edge.front import IDEMPOTENCY_KEY, Front, identity, json_answer, still_under_way
from services.edge.openai_replies import completion_of
from services.edge.openai_reply_types import ChatCompletion
from services.edge.openai_requests import chat_of, request_id_of, request_of
from services.edge.openai_types import AssistantMessage, ChatRequest, SubmittedRequest
from services.edge.openapi import Schema
from services.edge.operations import Operation
from services.edge.protocol import Caller, Ticket
from services.edge.sse import ChatStream, error_event

__all__ = ["RULES", "operations", "submitted"]

_GIVEN: Schema = {"not": {"type": "null"}}


def _needs(field: str, other: str) -> Schema:
    """``field`` may be given only where ``other`` is true."""
    met = {"required": [other], "properties": {other: {"const": True}}}
    return {"anyOf": [{"properties": {field: {"type": "null"}}}, met]}


_BODY: list[Schema] = [
    {"not": {"required": (two := ["max_tokens", "max_completion_tokens"]), "properties": dict.fromkeys(two, _GIVEN)}},
    _needs("stream_options", "stream"),
    _needs("top_logprobs", "logprobs"),
]
RULES: Mapping[Any, Sequence[Schema]] = {
    ChatRequest: _BODY,
    SubmittedRequest: _BODY,
    AssistantMessage: [
        {
            "anyOf": [
                *({"required": [field], "properties": {field: _GIVEN}} for field in ("content", "refusal")),
                {"required": ["tool_calls"], "properties": {"tool_calls": {"type": "array", "minItems": 1}}},
            ]
        }
    ],
}
"""What :func:`~services.edge.openai_requests.request_of` asks of fields together, for the published description."""


class _ChatEvents:
    """A streamed chat (an EventWriter)."""

    def __init__(self, stream: ChatStream, *, again: bool) -> None:
        self._stream = stream
        self._again = again

    def refusal(self, result: LlmResult) -> ApiError | None:
        return None if is_answer(result) else error_of(result, again=self._again)

    def piece(self, chunk: ResultChunk) -> bytes:
        return self._stream.piece(chunk)

    def result(self, result: LlmResult) -> bytes:
        return self._stream.result(result)

    def broken(self, error: ApiError) -> bytes:
        return error_event(error)


async def submitted(front: Front, request: Request, caller: Caller, chat: ChatRequest, key: str | None) -> Ticket:
    """Put what ``chat`` asks into the log, under the identity ``key`` or one of this send.

    Raises:
        ApiError: it contradicts itself.
        Conflict: ``key`` is another request's.
        Unavailable: the log or Redis takes nothing.
    """
    asked = request_of(chat, caller, identity(request, key), front.clock.now())
    with front.traced(request, "edge request") as headers:
        return await front.desk.submit(asked, headers)


def operations(front: Front) -> list[Operation]:
    """Return what is offered about chats."""

    async def complete(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        chat = chat_of(await front.body(request))
        ticket = await submitted(front, request, caller, chat, key)
        again = key is not None
        if chat.stream:
            return EventAnswer(front, ticket, _ChatEvents(ChatStream(ticket, chat), again=again), again=again)
        del chat  # it may be large, and the wait long
        result = await front.unless_gone(request, front.desk.result(ticket, front.answer_timeout_s))
        if result is None:
            raise still_under_way(503 if front.leaving.done() else 504, ticket.request_id, again=again)
        if not is_answer(result):
            raise error_of(result, again=again)
        return json_answer(completion_of(result, ticket))

    return [
        Operation(
            "POST", "/v1/chat/completions", "create_chat_completion", "Ask a route, and wait for the answer",
            {200: [ChatCompletion, "text/event-stream"]}, complete, ChatRequest, [IDEMPOTENCY_KEY],
            (400, 403, 404, 409, 413, 415, 422, 504),
        )
    ]  # fmt: skip

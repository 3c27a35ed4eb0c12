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
from services.edge.front import IDEMPOTENCY_KEY, Front, json_answer
from services.edge.openai_replies import completion_of
from services.edge.openai_reply_types import ChatCompletion
from services.edge.openai_requests import chat_of, request_id_of, request_of
from services.edge.openai_types import AssistantMessage, ChatRequest, SubmittedRequest
from services.edge.openapi import Schema
from services.edge.operations import Operation
from services.edge.sending import awaited, leave, send
from services.edge.sse import ChatStream, error_event

__all__ = ["RULES", "operations"]

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


def operations(front: Front) -> list[Operation]:
    """Return what is offered about chats."""

    async def complete(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        chat = chat_of(await front.body(request))
        sent = await send(front, request, caller, request_of(chat, caller, "", front.clock.now()), key)
        if chat.stream:
            events = _ChatEvents(ChatStream(sent.ticket, chat), again=sent.keyed)
            return EventAnswer(front, sent.ticket, events, again=sent.joined, left=lambda: leave(front, sent))
        del chat  # it may be large, and the wait long
        result = await awaited(front, request, sent)
        if not is_answer(result):
            raise error_of(result, again=sent.keyed)
        return json_answer(completion_of(result, sent.ticket))

    return [
        Operation(
            "POST", "/v1/chat/completions", "create_chat_completion", "Ask a route, and wait for the answer",
            {200: [ChatCompletion, "text/event-stream"]}, complete, ChatRequest, [IDEMPOTENCY_KEY],
            (400, 403, 404, 409, 410, 413, 415, 422, 504),
        )
    ]  # fmt: skip

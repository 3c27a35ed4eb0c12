"""Server-sent events: a streamed chat as OpenAI's API sends it, and a request that is followed. Pure.

Format: HTML living standard, 9.2 "Server-sent events". A streamed chat has data alone: no names and no ids of events, since
OpenAI's Python client takes a comment for an event once it has seen an id.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from penstock.contracts.records import Alternative, LlmResult, ResultChunk

from services.edge.core import error_of, is_answer, kept_back
from services.edge.errors import ApiError
from services.edge.openai_replies import (
    answers_of,
    completion_id,
    finish_of,
    logprobs_of,
    provenance_of,
    refusal_of,
    status_of,
    usage_of,
)
from services.edge.openai_reply_types import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    DeltaFunction,
    DeltaToolCall,
    Piece,
    Provenance,
    TokenUsage,
)
from services.edge.openai_types import ChatRequest
from services.edge.protocol import Standing, Ticket

__all__ = [
    "DONE", "HEADERS", "KEEP_ALIVE", "ChatStream", "data_event", "error_event", "piece_event", "result_event",
    "resumed_after",
]  # fmt: skip

HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
"""Headers of an answer in events: nothing on its way keeps it together."""
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: whoever reads passes it over, and whoever is between sees that the connection is in use."""
DONE = b"data: [DONE]\n\n"

# JSON leaves them as they are, and readers that cut lines as Unicode does would cut an event in two.
_LINE_BREAKS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))
_CUT = frozenset({"error", "cancelled", "content_filter"})


def data_event(value: object) -> bytes:
    """Return an event whose data is ``value`` as JSON."""
    encoded = msgspec.json.encode(value)
    for found, escaped in _LINE_BREAKS:
        if found in encoded:
            encoded = encoded.replace(found, escaped)
    return b"data: " + encoded + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """Return the event that ends a streamed chat where its status is out already; nothing follows, no ``[DONE]`` either."""
    return data_event(error.answer())


def piece_event(chunk: ResultChunk) -> bytes:
    """Return the event of a piece, for who follows a request; its id is the piece's sequence."""
    piece = Piece(sequence=chunk.sequence, content=chunk.content, finish_reason=chunk.finish_reason)
    return b"event: piece\nid: %d\n" % chunk.sequence + data_event(piece)


def result_event(standing: Standing) -> bytes:
    """Return the last event for who follows a request: what ``GET /v1/requests/{id}`` answers."""
    return b"event: result\n" + data_event(status_of(standing))


def resumed_after(last_event_id: str | None) -> int:
    """Return the sequence of the last piece that a client has, by its ``Last-Event-ID``; -1 where it has none."""
    known = (last_event_id or "").strip()
    return int(known) if known.isascii() and known.isdigit() and len(known) <= 10 else -1


class ChatStream:
    """Writes a streamed chat: :meth:`piece` as they come, then :meth:`result`, once.

    While ``started`` is false nothing was written, and a result without an answer can still be an error of HTTP.

    Args:
        ticket: of the request.
        chat: what was asked.
    """

    def __init__(self, ticket: Ticket, chat: ChatRequest) -> None:
        self._id = completion_id(ticket.request_id)
        self._created = int(ticket.taken_at.timestamp())
        # Which model answers is known at the end alone: until then it is named as it was asked for, as in all chunks.
        self._model = chat.model
        self._usage = bool(chat.stream_options and chat.stream_options.include_usage)
        self._text: list[str] = []
        self._next = 0
        self._ended = False
        self.started = False

    def piece(self, chunk: ResultChunk) -> bytes:
        """Return the events of a piece; the first has the role before it."""
        events = b"" if self.started else self._opening(0)
        if chunk.sequence != self._next:
            # Something is missing before it. What is sent already may still be the beginning of the answer.
            return events
        self._next += 1
        self._text.append(chunk.content)
        # A piece that ends the stream before its time says so; whether what follows is an answer, the result does.
        self._ended = chunk.finish_reason is not None and chunk.finish_reason not in _CUT
        return events + self._content(0, chunk.content)

    def result(self, result: LlmResult) -> bytes:
        """Return the last events: what is left of the answer, the other answers, tools, how it ended, usage.

        An answer that was kept back ends with ``content_filter``: what was sent of it is not to be relied on. A request
        that ended without an answer, or with one that does not go on where the pieces broke off, ends with an error.
        """
        events = b"" if self.started else self._opening(0)
        if not is_answer(result):
            return events + error_event(error_of(result))
        if kept_back(result):
            events += self._event(ChunkChoice(index=0, delta=Delta(refusal=refusal_of(result))))
            ends = [ChunkChoice(index=0, delta=Delta(), finish_reason="content_filter")]
            return events + self._closing(result, ends)
        first, *others = answers_of(result)
        if not self._ended:
            sent = "".join(self._text)
            if not first.content.startswith(sent):
                return events + error_event(_broken(result.request_id))
            events += self._content(0, first.content[len(sent) :])
        events += self._tools(0, first)
        for index, answer in enumerate(others, start=1):
            events += self._opening(index) + self._content(index, answer.content) + self._tools(index, answer)
        ends = [
            ChunkChoice(
                index=index,
                delta=Delta(),
                finish_reason=finish_of(answer.finish_reason),
                logprobs=logprobs_of(answer.logprobs),
            )
            for index, answer in enumerate((first, *others))
        ]
        return events + self._closing(result, ends)

    def _opening(self, index: int) -> bytes:
        self.started = True
        return self._event(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))

    def _content(self, index: int, text: str) -> bytes:
        return self._event(ChunkChoice(index=index, delta=Delta(content=text))) if text else b""

    def _tools(self, index: int, answer: Alternative) -> bytes:
        """The calls of an answer, each whole: pieces have none."""
        calls = [
            DeltaToolCall(index=n, id=call.id, function=DeltaFunction(name=call.name, arguments=call.arguments))
            for n, call in enumerate(answer.tool_calls)
        ]
        return self._event(ChunkChoice(index=index, delta=Delta(tool_calls=calls))) if calls else b""

    def _closing(self, result: LlmResult, ends: list[ChunkChoice]) -> bytes:
        """How each answer ended, what is said of them all, and usage where it was asked for."""
        provenance = provenance_of(result)
        events = b"".join(self._event(end, provenance if end is ends[-1] else UNSET) for end in ends)
        if self._usage:
            events += data_event(self._chunk([], usage_of(result), UNSET))
        return events + DONE

    def _event(self, choice: ChunkChoice, provenance: Provenance | UnsetType = UNSET) -> bytes:
        return data_event(self._chunk([choice], None if self._usage else UNSET, provenance))

    def _chunk(
        self, choices: list[ChunkChoice], usage: TokenUsage | UnsetType | None, provenance: Provenance | UnsetType
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
            penstock=provenance,
        )


def _broken(request_id: str) -> ApiError:
    return ApiError(
        500,
        f"the stream broke off, and the answer that counts is another one: read it with GET /v1/requests/{request_id}",
        code="stream_broken",
    )

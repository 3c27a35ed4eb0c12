"""What an OpenAI-compatible endpoint answers, at once or bit by bit. Pure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from penstock.contracts.records import Alternative, TokenLogprob, ToolCall
from penstock.telemetry import get_logger

from services.inference.adapters import BackendError
from services.inference.prompt import text_bytes
from services.inference.tool_calls import CalledTools, ToolCallPart
from services.inference.usage import ReportedUsage

__all__ = ["LARGEST_ANSWER", "Reply", "excerpt"]

log = get_logger(__name__)

LARGEST_ANSWER = 8 * 1024 * 1024
"""Bytes: what the log takes as one event."""
_NOTHING = msgspec.Raw(b"null")


class _TopLogprob(msgspec.Struct):
    token: str
    logprob: float


class _TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None
    refusal: list[_TokenLogprob] | None = None


class _Words(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None

    @property
    def text(self) -> str:
        return self.content or self.refusal or ""


class _Choice(msgspec.Struct):
    message: _Words
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NOTHING


class _ChatCompletion(msgspec.Struct):
    """The part of OpenAI's chat completion that is read."""

    choices: list[_Choice]
    model: str | None = None
    usage: ReportedUsage | None = None
    error: Any = None


class _StreamedChoice(msgspec.Struct):
    delta: _Words = msgspec.field(default_factory=_Words)
    finish_reason: str | None = None
    index: int = 0
    logprobs: msgspec.Raw = _NOTHING


class _Chunk(msgspec.Struct):
    """The part of OpenAI's chat completion chunk that is read."""

    choices: list[_StreamedChoice] | None = None
    model: str | None = None
    usage: ReportedUsage | None = None
    error: Any = None


class _Failed(msgspec.Struct):
    """What stands in an answer that is none: where an endpoint breaks off, it may say why."""

    error: Any = None


_COMPLETION = msgspec.json.Decoder(_ChatCompletion)
_CHUNK = msgspec.json.Decoder(_Chunk)
_FAILED = msgspec.json.Decoder(_Failed)
_LOGPROBS = msgspec.json.Decoder(_Logprobs | None)


@dataclass(slots=True)
class _Said:
    """One of the answers, as far as it has come."""

    text: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tools: CalledTools = field(default_factory=CalledTools)


@dataclass(slots=True)
class Reply:
    """What has come of an answer.

    Attributes:
        place: address of the endpoint, for messages.
        n: answers that were asked for.
        wants_logprobs: whether the probabilities of tokens were.
        takes_calls: whether tools were offered: a call of another one is no part of an answer.
        event_id: of the request, by which calls are named that the endpoint gives no id.
        begun: a model is at work, though it may reason before it says anything.
        usage: what the endpoint last said of it.
        size: bytes of the texts, and of the calls of tools.
    """

    place: str
    n: int = 1
    wants_logprobs: bool = False
    takes_calls: bool = False
    event_id: str = ""
    begun: bool = False
    model: str = ""
    usage: ReportedUsage | None = None
    size: int = 0
    _answers: dict[int, _Said] = field(default_factory=dict)

    def take_completion(self, payload: bytes) -> str:
        """Take the whole answer; return the text of the first one.

        Raises:
            BackendError: it is none.
        """
        try:
            reply = _COMPLETION.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._garbled(payload, f"the answer is no chat completion: {error}") from error
        self.begun = bool(reply.choices) or reply.usage is not None
        self._raise_error(reply.error)
        if not reply.choices:
            raise BackendError(f"{self.place}: the answer has no choices", charged=self.begun)
        self.model, self.usage = reply.model or "", reply.usage
        # By their numbers, where an endpoint gives any.
        for index, choice in enumerate(sorted(reply.choices, key=lambda choice: choice.index)[: self.n]):
            self._add(index, choice.message, choice.finish_reason or "stop", choice.logprobs)
        return "".join(self._answers[0].text)

    def take_chunk(self, event: bytes) -> str:
        """Take an event of a stream; return what it adds to the first answer.

        Raises:
            BackendError: it is no chunk of an answer, or says why no more will come, or is too much.
        """
        try:
            chunk = _CHUNK.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._garbled(event, f"an event of the stream is no chat completion chunk: {error}") from error
        self.begun = self.begun or bool(chunk.choices)
        self._raise_error(chunk.error)
        self.model, self.usage = chunk.model or self.model, chunk.usage or self.usage
        first = ""
        for choice in chunk.choices or ():
            if 0 <= choice.index < self.n:
                self._add(choice.index, choice.delta, choice.finish_reason, choice.logprobs)
                first += "" if choice.index else choice.delta.text
        return first

    def answer(self) -> Alternative:
        """Return the first answer.

        Raises:
            BackendError: it is not there, or not whole.
        """
        said = self._answers.get(0)
        if said is None or said.finish_reason is None:
            raise BackendError(f"{self.place}: the stream ended before the answer did", charged=self.begun)
        answer = self._told(0, said, said.finish_reason)
        if said.tools and not answer.content and not answer.tool_calls:
            raise BackendError(
                f"{self.place}: the answer has only calls of tools, and the request offers none; set the endpoint's model "
                "to answer in words",
                charged=True,
            )
        return answer

    def alternatives(self) -> list[Alternative]:
        """Return the answers after the first, those that are whole."""
        return [
            self._told(index, said, said.finish_reason)
            for index, said in sorted(self._answers.items())
            if index and said.finish_reason is not None
        ]

    def _told(self, index: int, said: _Said, finish_reason: str) -> Alternative:
        calls: list[ToolCall] = said.tools.calls(self.event_id, index) if self.takes_calls else []
        if calls and finish_reason in ("stop", "function_call"):
            # OpenAI says stop where the tool was named in tool_choice; who reads on needs to know why it ended.
            finish_reason = "tool_calls"
        return Alternative(
            content="".join(said.text), finish_reason=finish_reason, logprobs=said.logprobs, tool_calls=calls
        )

    def _add(self, index: int, words: _Words, finish_reason: str | None, logprobs: msgspec.Raw) -> None:
        said = self._answers.setdefault(index, _Said())
        said.finish_reason = finish_reason or said.finish_reason
        self.size += said.tools.add(words.tool_calls or ())
        if text := words.text:
            said.text.append(text)
            self.size += text_bytes(text)
        if self.size > LARGEST_ANSWER:
            raise BackendError(f"{self.place}: the answer is over {LARGEST_ANSWER:,} bytes", charged=True)
        if self.wants_logprobs:
            said.logprobs += self._logprobs(logprobs)

    def _logprobs(self, logprobs: msgspec.Raw) -> list[TokenLogprob]:
        try:
            found = _LOGPROBS.decode(logprobs) or _Logprobs()
        except msgspec.DecodeError as error:
            # The answer is there, and paid for.
            log.warning("log-probabilities of an endpoint cannot be read", endpoint=self.place, error=str(error))
            return []
        return [
            TokenLogprob(
                token=each.token, logprob=each.logprob, top={top.token: top.logprob for top in each.top_logprobs or ()}
            )
            for each in found.content or found.refusal or ()
        ]

    def _garbled(self, payload: bytes, reason: str) -> BackendError:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._raise_error(_FAILED.decode(payload).error)
        return BackendError(f"{self.place}: {reason}", charged=self.begun)

    def _raise_error(self, error: Any) -> None:
        if error is not None:
            raise BackendError(f"{self.place}: broke off: {excerpt(msgspec.json.encode(error))}", charged=self.begun)


def excerpt(payload: bytes) -> str:
    """Return the beginning of what an endpoint said, to be quoted."""
    return payload[:200].decode("utf-8", "replace")

"""An answer gathered from the engine's outputs: text, tokens, log-probabilities, times. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.contracts.records import Alternative, TokenLogprob, ToolCall, Usage

__all__ = ["Choice", "ChoiceOutput", "Gathered", "Output", "ReadCalls"]

ReadCalls = Callable[[str, Sequence[int], int], tuple[str, list[ToolCall]]]
"""Returns the words and the calls of tools in an answer, by its text, its tokens and its number."""

_FINISH_REASONS = {"stop": "stop", "length": "length", "abort": "cancelled", "repetition": "stop", "error": "error"}
"""vLLM's reasons (vllm/v1/engine, FinishReason) in OpenAI's words, as Completion.finish_reason has them."""


class ChoiceOutput(Protocol):
    """The part of vLLM's CompletionOutput that is read: what is new of one answer."""

    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: Any
    finish_reason: str | None


class Output(Protocol):
    """The part of vLLM's RequestOutput that is read."""

    outputs: Sequence[Any]
    finished: bool
    metrics: Any
    num_cached_tokens: int | None


@dataclass(slots=True)
class Choice:
    """One answer as far as it has come."""

    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    def answer(self, number: int, read: ReadCalls | None) -> Alternative:
        """Return it as answer ``number``; see :meth:`Gathered.answers`."""
        content, reason, calls = self.content, self.finish_reason or "stop", list[ToolCall]()
        if read is not None:
            content, calls = read(content, self.tokens, number)
        if calls and reason == "stop":
            reason = "tool_calls"
        return Alternative(content=content, finish_reason=reason, logprobs=self.logprobs, tool_calls=calls)


@dataclass(slots=True)
class Gathered:
    """What has come of a request.

    Attributes:
        prompt_tokens: tokens of the prompt.
        top_logprobs: likeliest tokens that are wanted in each place; None where no log-probabilities are.
    """

    prompt_tokens: int
    top_logprobs: int | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    finished: bool = False
    cached_tokens: int | None = None
    queue_us: int | None = None

    def take(self, output: Output) -> str:
        """Add ``output``; return what is new of the first answer's text."""
        new = ""
        for part in output.outputs:
            choice = self.choices.setdefault(part.index, Choice())
            choice.tokens += part.token_ids
            if part.text:
                choice.texts.append(part.text)
                if part.index == 0:
                    new += part.text
            if self.top_logprobs is not None and part.logprobs:
                choice.logprobs += _logprobs(part.token_ids, part.logprobs, self.top_logprobs)
            if part.finish_reason is not None:
                choice.finish_reason = _FINISH_REASONS.get(part.finish_reason, part.finish_reason)
        self.finished = output.finished
        if output.num_cached_tokens is not None:
            # The answers share the prompt: what the first one found in the cache, the others find beside what it put there.
            known = self.cached_tokens
            self.cached_tokens = output.num_cached_tokens if known is None else min(known, output.num_cached_tokens)
        if self.queue_us is None and (times := output.metrics) is not None and times.scheduled_ts:
            self.queue_us = max(0, int((times.scheduled_ts - times.queued_ts) * 1e6))
        return new

    @property
    def first(self) -> Choice:
        """The first answer."""
        return self.choices.get(0) or Choice()

    @property
    def broken(self) -> bool:
        """Whether the engine gave an answer up, unasked."""
        return any(choice.finish_reason == "cancelled" for choice in self.choices.values())

    @property
    def failed(self) -> bool:
        """Whether the engine could not finish an answer."""
        return any(choice.finish_reason == "error" for choice in self.choices.values())

    def usage(self) -> Usage:
        """Return the tokens so far. The prompt is computed once, so it counts once, whatever the number of answers."""
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=sum(len(choice.tokens) for choice in self.choices.values()),
            cached_input_tokens=self.cached_tokens or 0,
        )

    @property
    def wasted_tokens(self) -> int:
        """Tokens that were computed, prompt and answers, as far as is known: they are lost where the engine dies."""
        computed = self.prompt_tokens - (self.cached_tokens or 0) if self.choices else 0
        return computed + sum(len(choice.tokens) for choice in self.choices.values())

    def answers(self, copies: int = 1, read: ReadCalls | None = None) -> tuple[Alternative, ...]:
        """Return the answers, the first one first.

        Args:
            copies: times that each answer is given.
            read: tells words and calls of tools apart; None where none may be called.
        """
        choices = [self.choices[index] for index in sorted(self.choices)] or [Choice()]
        again = [choice for choice in choices for _ in range(copies)]
        return tuple(choice.answer(number, read) for number, choice in enumerate(again))


def _logprobs(tokens: Sequence[int], positions: Iterable[Mapping[int, Any] | None], top: int) -> Iterable[TokenLogprob]:
    for token, position in zip(tokens, positions, strict=True):
        if not position or token not in position:
            continue
        found: dict[str, float] = {}
        for entry in sorted(position.values(), key=lambda entry: -entry.logprob):
            if entry.rank is not None and entry.rank <= top:
                # Tokens that are part of a character alone have one spelling in common: the likeliest stands for them.
                found.setdefault(entry.decoded_token or "", entry.logprob)
        chosen = position[token]
        yield TokenLogprob(token=chosen.decoded_token or "", logprob=chosen.logprob, top=found)

"""Answers that are given again: which requests ask for the same, and which answers are worth keeping. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from penstock.config.kinds import Cache, Target
from penstock.contracts.records import Alternative, GroundedRequest, Message, Purpose, Usage
from penstock.text.marker import unmarked

from services.inference.core import Answered

__all__ = ["Kept", "asked_of", "is_repeatable", "kept_of"]

_LARGEST = 64 * 1024
"""Characters of the longest answer that is kept, with its alternatives: it shares its memory with budgets, by default."""
_NOT_HEX = re.compile(r"[^0-9a-f]+")


class Kept(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An answer as it is kept. ``event_id`` is that of the completion it was given in; the rest is as in
    :class:`Answered`.
    """

    event_id: str
    model: str
    backend: str
    content: str
    citations: tuple[str, ...]
    usage: Usage
    model_us: int
    first_token_us: int | None
    compute_us: int | None
    reduced_input_tokens: int
    alternatives: tuple[str, ...] = ()

    def again(self) -> Answered:
        """Return the answer as the model gave it: for the very request that it was given to."""
        return Answered(
            model=self.model,
            backend=self.backend,
            content=self.content,
            finish_reason="stop",
            usage=self.usage,
            model_us=self.model_us,
            citations=self.citations,
            first_token_us=self.first_token_us,
            compute_us=self.compute_us,
            reduced_input_tokens=self.reduced_input_tokens,
            alternatives=tuple(Alternative(content=content) for content in self.alternatives),
        )

    def repeated(self, lookup_us: int) -> Answered:
        """Return the answer for another request. Its usage is what a call would have used, its time that of the look-up."""
        return replace(
            self.again(),
            model_us=lookup_us,
            first_token_us=None,
            compute_us=None,
            reduced_input_tokens=0,
            cached_from=self.event_id,
        )


def is_repeatable(request: GroundedRequest, target: Target, rules: Cache) -> bool:
    """Return whether ``request`` may be answered by what ``target`` said before, and its answer be kept.

    An answer that guardrails ask for again never is: it would be the one they did not accept. Nor is one that is no
    traffic: a judge, or a run over a golden set, asks what the model says now. Where the model chooses words by chance,
    the route must allow it; an endpoint's own temperature, where nobody set one, is above 0. Where probabilities of
    tokens are wanted the model is asked: they are many times as long as the answer.
    """
    if request.sampling.top_logprobs is not None:
        return False
    if not rules.exact or request.attempt > 0 or request.context.purpose != Purpose.SERVE:
        return False
    return target.backend == "extractive" or request.sampling.temperature == 0 or rules.any_temperature


def asked_of(request: GroundedRequest, target: Target) -> bytes:
    """Return all that an answer depends on, and whose it is: equal for requests that ask ``target`` for the same.

    The messages are those that guardrails screened: what they stand for behind a pseudonym may differ, what the model
    sees does not. The marker of the system prompt, another one in each request, is not part of it.
    """
    context = request.context
    return msgspec.msgpack.encode((
        2,
        request.tenant_id,
        context.route,
        (context.policy_name, context.policy_version),
        (context.prompt_name, context.prompt_version),
        (target.backend, target.model, target.base_url),
        [
            (message.role, content, message.name, message.tool_calls, message.tool_call_id)
            for message, (content, _) in _unmarked(request.messages)
        ],
        [(p.passage_id, p.document_id, p.title, p.source, p.start, p.end, p.text) for p in request.passages],
        request.sampling,
    ))  # fmt: skip


def kept_of(request: GroundedRequest, answered: Answered, event_id: str) -> Kept | None:
    """Return the answer as it is kept; None where it, or an alternative, is cut short, empty, very long, calls tools, or
    has the prompt's marker in it.

    What a tool is asked for belongs to the conversation that it is asked in. Whoever gets the answer again has another
    marker, and guardrails would not know this one.
    """
    if answered.error is not None or answered.tool_calls or any(each.tool_calls for each in answered.alternatives):
        return None
    contents = (answered.content, *(other.content for other in answered.alternatives))
    reasons = {answered.finish_reason, *(other.finish_reason for other in answered.alternatives)}
    if reasons != {"stop"} or not all(contents) or sum(map(len, contents)) > _LARGEST:
        return None
    markers = [marker.removeprefix("ref-") for _, (_, marker) in _unmarked(request.messages) if marker]
    for content in contents:
        said = _NOT_HEX.sub("", content.lower())
        if any(marker in said for marker in markers):
            return None
    return Kept(
        event_id=event_id,
        model=answered.model,
        backend=answered.backend,
        content=answered.content,
        citations=answered.citations,
        usage=answered.usage,
        model_us=answered.model_us,
        first_token_us=answered.first_token_us,
        compute_us=answered.compute_us,
        reduced_input_tokens=answered.reduced_input_tokens,
        alternatives=contents[1:],
    )


def _unmarked(messages: Sequence[Message]) -> list[tuple[Message, tuple[str, str | None]]]:
    """Return each message with its content without the marker, and the marker: only the system's can carry one."""
    return [
        (message, unmarked(message.content) if message.role == "system" else (message.content, None))
        for message in messages
    ]

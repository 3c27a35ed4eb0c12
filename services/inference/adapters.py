"""Backends behind one protocol, and the embedded one: the extractive model."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import msgspec
from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest, Sampling, Usage

from services.inference.core import Answered
from services.inference.extractive import MODEL, Answer, answer, count_tokens
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress

__all__ = ["Backend", "BackendError", "ExtractiveBackend"]

_READ_AT_ONCE = 20_000
"""Characters of a conversation and its passages that are read on the event loop: about 3 ms."""


class BackendError(Exception):
    """A target gave no answer.

    Attributes:
        retriable: nothing was generated, and a later try may succeed.
        charged: a model may have worked on it, and whoever runs it may charge for that.
        cancelled: it was given up because it took too long; it may be charged for, too.
        of_request: the target cannot answer this request (its prompt is too long, its parameters are not known here), and
            answers others: it says nothing of the target.
    """

    def __init__(
        self,
        reason: str,
        *,
        retriable: bool = False,
        charged: bool = False,
        cancelled: bool = False,
        of_request: bool = False,
    ) -> None:
        super().__init__(reason)
        self.of_request = of_request
        self.retriable = retriable
        self.charged = charged or cancelled
        self.cancelled = cancelled


class Backend(Protocol):
    """Answers one request with one target."""

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        """Return the answer, after all of it went to ``pieces``; where nobody wants these, it is generated at once.

        How far it is stands in ``progress`` all the while. A call that is given up is cancelled: the model stops then, if
        it can be stopped, and ``progress`` has the last word on what was used.

        Raises:
            BackendError: there is none; the message names the target and the cause.
            Transient: ``pieces`` cannot be put anywhere.
        """
        ...


class ExtractiveBackend:
    """The embedded model with no weights; a sentence comes at a time."""

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        _refuse_what_cannot_be_followed(request.sampling, target)
        started = time.perf_counter()
        size = sum(len(m.content) for m in request.messages) + sum(len(p.text) for p in request.passages)
        # A thread costs more than a usual answer takes; a long text would hold up the other requests.
        if size <= _READ_AT_ONCE:
            found, read, compute_us = _extracted(request)
        else:
            found, read, compute_us = await asyncio.to_thread(_extracted, request)
        answered_us = _since(started)
        for number, sentence in enumerate(found.sentences):
            await pieces.add(f" {sentence}" if number else sentence)
        return Answered(
            model=MODEL,
            backend="extractive",
            content=found.content,
            finish_reason="length" if found.cut else "stop",
            usage=Usage(input_tokens=read, output_tokens=count_tokens(found.content)),
            model_us=_since(started),
            citations=found.citations,
            first_token_us=None if isinstance(pieces, NoPieces) else answered_us,
            compute_us=compute_us,
        )


def _refuse_what_cannot_be_followed(sampling: Sampling, target: Target) -> None:
    """Sampling parameters that shape a distribution are met by a model that has none; those that ask for something else
    than its one answer are not.
    """
    refused = (
        (sampling.response_format is not None, "follow a JSON schema", "sampling.response_format"),
        (sampling.regex is not None, "follow a regular expression", "sampling.regex"),
        (sampling.n > 1, f"give {sampling.n} answers, as it has one to each question", "sampling.n"),
        (sampling.top_logprobs is not None, "give log-probabilities, as it draws no tokens", "sampling.top_logprobs"),
        # Tools that it may call it leaves alone, as a model may: it answers in words.
        (_must_call(sampling.tool_choice), "call tools", "sampling.tool_choice"),
    )
    for asked, what, field in refused:
        if asked:
            raise BackendError(
                f"target {target.model}: the extractive backend quotes passages and cannot {what}; ask a route with a "
                f"model that can, or leave {field} out",
                of_request=True,
            )


def _must_call(tool_choice: str | None) -> bool:
    """Return whether a tool has to be called: any one, or the one that is named."""
    return tool_choice is not None and msgspec.json.decode(tool_choice) not in ("auto", "none")


def _extracted(request: GroundedRequest) -> tuple[Answer, int, int]:
    """Return the answer, the tokens that were read for it, and the CPU time of this thread in microseconds."""
    began = time.thread_time()
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    found = answer(question, request.passages, request.sampling.max_completion_tokens, request.sampling.stop)
    read = sum(count_tokens(m.content) for m in request.messages) + sum(count_tokens(p.text) for p in request.passages)
    return found, read, int((time.thread_time() - began) * 1e6)


def _since(started: float) -> int:
    """Microseconds since ``started`` of the performance counter."""
    return int((time.perf_counter() - started) * 1e6)

"""Backends behind one protocol, and the embedded one: the extractive model."""

from __future__ import annotations

import time
from typing import Protocol

from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest, Usage

from services.inference.core import Answered
from services.inference.extractive import MODEL, answer, count_tokens
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress

__all__ = ["Backend", "BackendError", "ExtractiveBackend"]


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
        if request.sampling.response_format is not None:
            raise BackendError(
                f"target {target.model}: the extractive backend quotes passages and cannot follow a JSON schema; ask a "
                "route with a model that can, or leave sampling.response_format out",
                of_request=True,
            )
        started, began = time.perf_counter(), time.thread_time()
        question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        found = answer(question, request.passages, request.sampling.max_completion_tokens)
        read = sum(count_tokens(m.content) for m in request.messages) + sum(
            count_tokens(p.text) for p in request.passages
        )
        answered_us, compute_us = _since(started), int((time.thread_time() - began) * 1e6)
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


def _since(started: float) -> int:
    """Microseconds since ``started`` of the performance counter."""
    return int((time.perf_counter() - started) * 1e6)

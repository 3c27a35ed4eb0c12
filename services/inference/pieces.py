"""Where a backend puts an answer while it is generated: on completion-chunks, gathered into pieces worth a message."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol

from penstock.bus import Producer, Sent, Transient
from penstock.clock import Clock
from penstock.contracts.codec import Invalid
from penstock.contracts.records import GroundedRequest
from penstock.telemetry.traces import Headers

from services.inference.core import Streamed, piece
from services.inference.prompt import text_bytes

__all__ = ["MAX_WAIT_S", "PIECE_CHARS", "KafkaPieces", "NoPieces", "Pieces"]

PIECE_CHARS = 64
"""Characters from which text is sent at once: a token is four, and a message for each would cost more than it gives."""
MAX_WAIT_S = 0.05
"""Text is not gathered for longer while more comes: what a reader does not notice."""


class Pieces(Protocol):
    """Takes an answer as it is generated."""

    async def add(self, text: str) -> None:
        """Take the next of it.

        Raises:
            Transient: the log is away.
        """
        ...

    async def break_off(self) -> None:
        """End the pieces before the answer: it goes on with other words than those that were taken. No more are added.

        Raises:
            Transient: the log is away.
        """
        ...


class NoPieces:
    """For answers that nobody wants in pieces."""

    async def add(self, text: str) -> None:
        return

    async def break_off(self) -> None:
        return


class KafkaPieces:
    """Sends pieces of one request's answer. ``headers`` carry its trace."""

    def __init__(self, request: GroundedRequest, producer: Producer, headers: Headers, clock: Clock) -> None:
        self._request = request
        self._producer = producer
        self._headers = headers
        self._clock = clock
        self._streamed = Streamed()
        self._waiting: list[str] = []
        self._acks: list[Awaitable[Sent]] = []
        # The first words go out at once.
        self._sent_at = clock.monotonic() - MAX_WAIT_S
        self._ended = False
        self.size = 0
        """Bytes of the answer that have come."""
        self.first_at: datetime | None = None
        """When the first piece went."""
        self.broken = False
        """Whether they were broken off: the answer comes as a whole."""

    @property
    def is_open(self) -> bool:
        """Whether the answer was begun and its last piece is still to come."""
        return self._streamed.pieces > 0 and not self._ended

    async def add(self, text: str) -> None:
        if not text:
            return
        self.size += text_bytes(text)
        self._waiting.append(text)
        waited = self._clock.monotonic() - self._sent_at
        if waited >= MAX_WAIT_S or sum(map(len, self._waiting)) >= PIECE_CHARS:
            await self._send(None)

    async def break_off(self) -> None:
        self.broken = True
        if self.is_open:
            await self.end("error")
        self._waiting.clear()

    async def end(self, finish_reason: str) -> None:
        """Send the last piece, and wait until the log has all of them: the request counts as answered after this. What has
        gathered of an answer that broke off or was cancelled is not sent.

        Raises:
            Transient: the log is away.
        """
        self._ended = True
        if finish_reason in ("error", "cancelled"):
            self._waiting.clear()
        await self._send(finish_reason)
        try:
            for ack in self._acks:
                await ack
        except (OSError, RuntimeError) as error:
            raise Transient(f"Kafka did not take a piece of the answer: {error}") from error

    async def _send(self, finish_reason: str | None) -> None:
        text = "".join(self._waiting)
        self._waiting.clear()
        self._sent_at = self._clock.monotonic()
        now = self._clock.now()
        self.first_at = self.first_at or now
        self._streamed, emit = piece(self._request, self._streamed, text, finish_reason, now)
        try:
            self._acks.append(await self._producer.send(emit.topic, emit.key, emit.record, self._headers))
        except (Invalid, ValueError):
            raise
        except (OSError, RuntimeError) as error:
            raise Transient(f"Kafka did not take a piece of the answer: {error}") from error

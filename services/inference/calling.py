"""Asks the targets of a route in turn until one answers, and knows what became of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.contracts.records import Energy, GroundedRequest, TargetFailure, Usage
from penstock.telemetry import get_logger
from penstock.telemetry.traces import Headers, NoTracing, Tracing

from services.inference.adapters import Backend, BackendError
from services.inference.core import Answered, Called, fitted, unfinished
from services.inference.observing import observe_broken_call, observe_estimate, observed_call
from services.inference.pieces import KafkaPieces, NoPieces
from services.inference.progress import Progress
from services.inference.routing import Routing

__all__ = ["Call", "Caller", "EnergyOf", "Flight"]

log = get_logger(__name__)

EnergyOf = Callable[[Target, Usage], Energy | None]
"""Estimates what a call of a target with so many tokens took."""


@dataclass(slots=True)
class Call:
    """A call of a target. Times are seconds of the monotonic clock.

    Attributes:
        stopped: when it ended; None while it is under way.
        cancelled: it was given up.
        charged: it gave no answer, and may be charged for.
        reason: why there is no answer.
    """

    target: Target
    started: float
    progress: Progress = field(default_factory=Progress)
    stopped: float | None = None
    cancelled: bool = False
    charged: bool = False
    of_request: bool = False
    reason: str = ""

    @property
    def has_used(self) -> bool:
        """Whether a model has used tokens for it that are to be paid for: it is at work, has answered, or broke off."""
        if self.reason:
            return self.charged
        return self.stopped is not None or self.progress.began or self.progress.usage is not None


@dataclass(slots=True)
class Flight:
    """A request that is being answered.

    Attributes:
        pieces: where its answer goes while it is generated; None where nobody wants it so, or another target has begun.
        first_piece_at: when the first of them went.
        calls: of models, in their order; the last one may be under way.
        failures: targets that gave no answer, or were not even asked.
        headers: of the span that the calls are within.
    """

    request: GroundedRequest
    called_at: datetime
    pieces: KafkaPieces | None
    calls: list[Call] = field(default_factory=list)
    failures: list[TargetFailure] = field(default_factory=list)
    headers: Headers = ()

    @property
    def first_piece_at(self) -> datetime | None:
        return None if self.pieces is None else self.pieces.first_at

    @property
    def latest(self) -> Call | None:
        """The call whose answer is this flight's, if it comes to that: under way, or answered a moment ago."""
        return self.calls[-1] if self.calls and not self.calls[-1].reason else None

    @property
    def is_unsupported(self) -> bool:
        """Whether every target was asked, and each refused what the request asks for: none will ever answer it."""
        return 0 < len(self.calls) == len(self.failures) and all(call.of_request for call in self.calls)


class Caller:
    """Calls targets through the backends of this process."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        routing: Routing,
        energy: EnergyOf,
        clock: Clock,
        tracing: Tracing | None = None,
    ) -> None:
        self._backends = backends
        self._routing = routing
        self._energy = energy
        self._clock = clock
        self._tracing = tracing or NoTracing()

    async def first_answer(
        self, flight: Flight, route: Route, targets: Sequence[Target]
    ) -> tuple[Target, Answered] | None:
        """Return who answered and what; None where nobody did: ``flight`` says why.

        Raises:
            Transient: the log does not take the pieces.
            asyncio.CancelledError: the call was given up; ``flight`` has it.
        """
        for target in targets:
            backend = self._backends.get(target.backend)
            if backend is None:
                reason = f"{target.model}: this process has no {target.backend} backend"
                flight.failures.append(TargetFailure(target=target.label, reason=reason))
                continue
            answered = await self._one(flight, route, target, backend)
            if answered is not None:
                return target, answered
        return None

    async def _one(self, flight: Flight, route: Route, target: Target, backend: Backend) -> Answered | None:
        attempt = self._routing.begin(route, target)
        if isinstance(attempt, TargetFailure):
            flight.failures.append(attempt)
            return None
        call = Call(target, self._clock.monotonic())
        flight.calls.append(call)
        request, pieces = flight.request, flight.pieces
        try:
            with observed_call(
                self._tracing, flight.headers, request, target, self._clock, streamed=pieces is not None
            ) as observed:
                answer = await backend.generate(request, target, pieces or NoPieces(), call.progress)
                observed.answered(answer)
        except BackendError as error:
            if error.of_request:
                attempt.given_up()
            else:
                attempt.failed(str(error))
            await self._failed(flight, call, error)
            return None
        except (asyncio.CancelledError, Exception):
            attempt.given_up()
            raise
        call.stopped = self._clock.monotonic()
        call.progress.usage = answer.usage
        attempt.answered(answer)
        answer = fitted(flight.request, answer)
        if flight.pieces is not None and flight.pieces.broken:
            flight.pieces = None  # what they said is no part of the answer: that comes with the completion
        if flight.pieces is not None:
            await flight.pieces.end(answer.finish_reason)
        return answer

    async def _failed(self, flight: Flight, call: Call, error: BackendError) -> None:
        reason = str(error)
        log.warning("target failed", request_id=flight.request.request_id, model=call.target.model, reason=reason)
        call.stopped = self._clock.monotonic()
        call.cancelled, call.charged, call.of_request, call.reason = (
            error.cancelled,
            error.charged,
            error.of_request,
            reason,
        )
        _count_pieces(flight, call)
        flight.failures.append(TargetFailure(target=call.target.label, reason=reason))
        if error.charged:
            observe_broken_call(call.target)
        if flight.pieces is not None and (flight.pieces.is_open or flight.pieces.broken):
            # Another target has other words: they come with the completion, not after these.
            await flight.pieces.break_off()
            flight.pieces = None

    def gave_up(self, flight: Flight) -> None:
        """Nobody waits for ``flight`` any more: a call that used anything is charged for by whoever runs its model."""
        call = flight.latest
        if call is None or not call.has_used:
            return
        call.cancelled = call.charged = True
        call.stopped = call.stopped or self._clock.monotonic()
        _count_pieces(flight, call)

    def charged(self, flight: Flight) -> list[Called]:
        """Return the calls of ``flight`` that gave no answer and may be charged for, in their order."""
        return [self._known_of(flight.request, call) for call in flight.calls if call.charged]

    def _known_of(self, request: GroundedRequest, call: Call) -> Called:
        stopped = self._clock.monotonic() if call.stopped is None else call.stopped
        if call.progress.usage is None:
            observe_estimate(call.target)
        answer = unfinished(
            request,
            call.target,
            call.reason,
            progress=call.progress,
            model_us=int((stopped - call.started) * 1e6),
            cancelled=call.cancelled,
        )
        return Called(call.target, answer, self._energy(call.target, answer.usage))


def _count_pieces(flight: Flight, call: Call) -> None:
    """Let the pieces that went out say how long the answer was, where nobody counts its tokens."""
    if flight.pieces is not None and call.progress.usage is None:
        call.progress.answer_size = max(call.progress.answer_size, flight.pieces.size)

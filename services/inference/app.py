"""The shell of inference: a bounded window of requests in flight, those of one conversation in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec
from penstock.bus import Emit, Event, Hop, Outcome, Producer, Transient, by_priority, by_team
from penstock.clock import Clock
from penstock.config.kinds import EnergyFigures, Route, Target
from penstock.contracts.records import Energy, GroundedRequest, Status, TargetFailure, Usage
from penstock.telemetry import metrics
from penstock.telemetry.traces import Tracing

from services.inference.adapters import Backend
from services.inference.answers import Answers
from services.inference.calling import Caller, Flight
from services.inference.cancellations import Cancellations, NoCancellations
from services.inference.core import (
    Answered,
    Called,
    completion,
    completion_id,
    expired,
    is_streamed,
    refusal,
    unfinished,
)
from services.inference.embedding_requests import is_for_vectors, vectors
from services.inference.energy import estimated_energy
from services.inference.exact_cache import asked_of, is_repeatable, kept_of
from services.inference.journal import Journal, NoJournal, Wasted
from services.inference.observing import observe_request
from services.inference.pieces import KafkaPieces
from services.inference.progress import Progress
from services.inference.routing import Routing, WeightedRouting
from services.inference.semantic_answers import answered_again, count_passed_over, usable_answer

__all__ = ["Configuration", "inference_hop"]

_REPEATED_PIECE_CHARS = 512
"""Characters of a piece of an answer that is known as a whole: it is there at once, in few messages."""


class Configuration(Protocol):
    """The part of the config plane that inference reads."""

    def route(self, name: str) -> Route | None: ...
    def energy(self, model: str) -> EnergyFigures | None: ...


def inference_hop(
    config: Configuration,
    backends: Mapping[str, Backend],
    answers: Answers,
    clock: Clock,
    concurrency: int,
    producer: Producer,
    *,
    routing: Routing | None = None,
    journal: Journal | None = None,
    cancellations: Cancellations | None = None,
    grid_grams_per_kwh: float | None = None,
    tracing: Tracing | None = None,
    waiting: int | None = None,
) -> Hop:
    """Return the hop requests-grounded, requests-repeated -> completions or refusals.

    Pieces of a streamed answer go to completion-chunks through ``producer`` while it is generated; all of them are in
    the log before the completion is.

    Args:
        routing: who chooses targets; None: weights alone do.
        journal: what outlives this process; None: nothing does.
        cancellations: who says that nobody wants an answer; None: nobody does.
        grid_grams_per_kwh: grid intensity where this process runs, grams of CO2 equivalent; None where it is not stated.
        tracing: where the spans of calls go; None: nowhere.
        waiting: how many requests wait for one of the calls at once, and go by priority; None: as many as calls.
    """
    chooser = routing or WeightedRouting()
    kept_flights = journal or NoJournal()
    called_off = cancellations or NoCancellations()

    def energy_of(target: Target, usage: Usage) -> Energy | None:
        return estimated_energy(config.energy(target.model), usage, grid_grams_per_kwh)

    caller = Caller(backends, chooser, energy_of, clock, tracing)

    async def answer(event: Event[GroundedRequest]) -> list[Emit]:
        request = event.record
        if is_for_vectors(request):
            unwanted = called_off.watch(request)
            unwanted.cancel()  # unless it is known already: they are made, and there is nothing to stop
            return vectors(request, clock.now(), None if unwanted.cancelled() else unwanted.result())
        earlier = await kept_flights.earlier(event)
        if earlier.answered:
            return []
        pieces = None
        if is_streamed(request):
            pieces = KafkaPieces(request, producer, event.headers, clock)
        flight = Flight(request, clock.now(), pieces, headers=event.headers)
        kept_flights.opened(flight, earlier.wasted)
        cancelled = called_off.watch(request)
        try:
            emits = await unless_in_vain(flight, cancelled, earlier.wasted)
        except (asyncio.CancelledError, Transient):
            # It is read again: by this process once the log is back, or by whoever has the partition then.
            kept_flights.broken_off(flight)
            raise
        except Exception:
            kept_flights.closed(flight)
            raise
        finally:
            cancelled.cancel()
        kept_flights.closed(flight)
        return emits

    async def unless_in_vain(flight: Flight, cancelled: asyncio.Future[str], wasted: Sequence[Wasted]) -> list[Emit]:
        """Return what comes of ``flight``: no model is called for an answer that is of no use any more."""
        if cancelled.done():
            return unanswered(flight, wasted, Status.CANCELLED, "cancelled", cancelled.result())
        if expired(flight.request, flight.called_at):
            reason = "the deadline passed before the model was called"
            return unanswered(flight, wasted, Status.EXPIRED, "expired", reason)
        return await in_time(flight, cancelled, wasted)

    async def in_time(flight: Flight, cancelled: asyncio.Future[str], wasted: Sequence[Wasted]) -> list[Emit]:
        """Return what comes of ``flight``, which ends at its deadline or when it is cancelled."""
        deadline = flight.request.context.deadline_at
        left = None if deadline is None else (deadline - flight.called_at).total_seconds()
        asking = asyncio.ensure_future(ask(flight, wasted))
        try:
            waited: set[asyncio.Future[Any]] = {asking, cancelled}
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        except (asyncio.CancelledError, Transient):
            raise
        except Exception:
            await broken(flight)
            raise
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})
        if not asking.cancelled() and asking.exception() is None:
            return asking.result()  # it was done the moment it was given up
        await broken(flight, "cancelled" if cancelled.done() else "error")
        if cancelled.done():
            status, code, reason = Status.CANCELLED, "cancelled", cancelled.result()
        else:
            status, code, reason = Status.EXPIRED, "expired", "the deadline passed while the model was at work"
        caller.gave_up(flight)
        return unanswered(flight, wasted, status, code, reason)

    async def ask(flight: Flight, wasted: Sequence[Wasted]) -> list[Emit]:
        route = config.route(flight.request.context.route)
        if route is None:
            reason = f"route {flight.request.context.route!r} was withdrawn while the request was under way"
            return unanswered(flight, wasted, Status.FAILED, "unknown_route", reason)
        choice = chooser.choose(route, flight.request)
        request = flight.request = msgspec.structs.replace(flight.request, context=choice.context)
        flight.failures += choice.left_alone[: choice.passed_over]
        first = choice.kept_of
        if first is not None and is_repeatable(request, first, route.cache):
            started = clock.monotonic()
            kept = await answers.find(request.tenant_id, asked_of(request, first))
            if kept is not None:
                count_passed_over(request)
                own = kept.event_id == completion_id(request)
                # Its own answer, of a process that ended before it was committed: the model was called, and is paid for.
                said = kept.again() if own else kept.repeated(int((clock.monotonic() - started) * 1e6))
                return await given_again(flight, said, first, wasted)
        if first is not None and (cached := usable_answer(request, first, route.cache)):
            lookup_us = int((clock.now() - flight.called_at).total_seconds() * 1e6)
            return await given_again(flight, answered_again(cached, max(0, lookup_us)), first, wasted)
        count_passed_over(request)
        found = await caller.first_answer(flight, route, choice.targets)
        if found is None:
            flight.failures += choice.left_alone[choice.passed_over :]
            reason = "no target answered: " + "; ".join(failure.reason for failure in flight.failures)
            code = "unsupported_request" if flight.is_unsupported else "model_unavailable"
            return unanswered(flight, wasted, Status.FAILED, code, reason)
        target, answered = found
        if is_repeatable(request, target, route.cache) and (kept := kept_of(request, answered, completion_id(request))):
            await answers.keep(request.tenant_id, asked_of(request, target), kept, route.cache.ttl_s)
        return completed(
            flight,
            target,
            answered,
            [*died(request, wasted), *caller.charged(flight)],
            energy_of(target, answered.usage),
            flight.failures,
        )

    async def given_again(flight: Flight, answered: Answered, target: Target, wasted: Sequence[Wasted]) -> list[Emit]:
        """Return the completion of a request whose answer is known."""
        if flight.pieces is not None:
            for start in range(0, len(answered.content), _REPEATED_PIECE_CHARS):
                await flight.pieces.add(answered.content[start : start + _REPEATED_PIECE_CHARS])
            await flight.pieces.end(answered.finish_reason)
        if answered.cached_from is None:
            return completed(flight, target, answered, (), energy_of(target, answered.usage))
        return completed(flight, target, answered, died(flight.request, wasted), None)

    def completed(
        flight: Flight,
        target: Target,
        answered: Answered,
        abandoned: Sequence[Called],
        energy: Energy | None,
        failures: Sequence[TargetFailure] = (),
    ) -> list[Emit]:
        """Return the completion of a request that has its answer, behind those of the calls that were given up for it."""
        return completion(
            flight.request,
            answered,
            flight.called_at,
            clock.now(),
            target=target,
            streamed=flight.pieces is not None,
            first_piece_at=flight.first_piece_at,
            abandoned=abandoned,
            failures=failures,
            energy=energy,
        )

    def unanswered(flight: Flight, wasted: Sequence[Wasted], status: Status, code: str, reason: str) -> list[Emit]:
        """Return what ends a request without an answer.

        Where no model was at work it is a refusal. Otherwise the last call that was at work ends it, behind the others: they
        are all paid for.
        """
        request = flight.request
        calls = [*died(request, wasted), *caller.charged(flight)]
        if not calls:
            return end(request, status, code, reason)
        *before, last = calls
        deadline, now = request.context.deadline_at, clock.now()
        return completion(
            request,
            replace(last.answer, error=reason),
            flight.called_at,
            max(now, deadline) if status is Status.EXPIRED and deadline is not None else now,
            target=last.target,
            abandoned=before,
            failures=flight.failures,
            energy=last.energy,
            ends_as=None if status is Status.FAILED else status,
        )

    def died(request: GroundedRequest, wasted: Sequence[Wasted]) -> list[Called]:
        """Return the calls that died with another process: they are paid for."""
        reason = "the process that was at work on it ended before the answer did"
        return [
            Called(
                each.target,
                unfinished(
                    request, each.target, reason, progress=Progress(usage=each.usage), model_us=0, cancelled=False
                ),
                energy_of(each.target, each.usage),
            )
            for each in wasted
        ]

    async def broken(flight: Flight, finish_reason: str = "error") -> None:
        """End a stream whose answer does not come, if it has begun."""
        if flight.pieces is not None and flight.pieces.is_open:
            await flight.pieces.end(finish_reason)

    def end(request: GroundedRequest, status: Status, code: str, reason: str) -> list[Emit]:
        metrics.REFUSED.labels("inference", code).inc()
        return refusal(request, status, code, reason, clock.now())

    async def handle(events: Sequence[Event[GroundedRequest]]) -> Sequence[Outcome]:
        return [await measured(event) for event in events]

    async def measured(event: Event[GroundedRequest]) -> list[Emit]:
        started = clock.monotonic()
        emits = await answer(event)
        observe_request(event.record, emits, clock.monotonic() - started)
        return emits

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        reason = "inference could not process the request; it is among the dead letters of inference"
        return end(event.record, Status.FAILED, "internal_error", reason)

    return Hop(
        service="inference",
        group="inference",
        topics=("requests-grounded", "requests-repeated"),
        handler=handle,
        concurrency=concurrency,
        failed=failed,
        urgency=by_priority,
        flow=by_team,
        waiting=waiting,
        on_assigned=kept_flights.assigned,
        settled=lambda event: kept_flights.settled(event.record),
    )

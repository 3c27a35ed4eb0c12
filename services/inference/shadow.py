"""Targets in shadow: they answer a share of the traffic beside the route, are scored and paid for, and nobody sees it.

A consumer group of its own reads the same requests with a window of its own, so a shadow that is slow, or away, holds up
nothing but itself. What has waited too long is left out rather than caught up on: a comparison needs a sample, not all.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
from penstock.bus import Emit, Event, Hop, Outcome
from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.contracts.envelope import event_id, request_key
from penstock.contracts.records import Energy, GroundedRequest, Priority, Purpose, Usage
from penstock.telemetry import get_logger, metrics
from penstock.telemetry.traces import Tracing

from services.inference.adapters import Backend
from services.inference.app import Configuration
from services.inference.calling import Caller, Flight
from services.inference.core import Answered, completion, expired
from services.inference.energy import estimated_energy
from services.inference.observing import observe_spent
from services.inference.routing import WeightedRouting

__all__ = ["GROUP", "shadow_completion", "shadow_hop", "shadow_request", "shadows_of"]

log = get_logger(__name__)

GROUP = "inference-shadow"
_KIND = "shadow"
_GATHER_MS = 100
"""Nobody waits for a shadow: what it reads is gathered for so long."""


def shadows_of(route: Route, request: GroundedRequest) -> list[Target]:
    """Return the targets that answer ``request`` in shadow: for each a share of the requests, drawn by a hash.

    Only what is served is traffic. An answer that guardrails ask for again is not asked of them again.
    """
    if request.context.purpose != Purpose.SERVE or request.attempt:
        return []
    return [
        shadow.target
        for shadow in route.shadows
        if _draw(request.request_id, shadow.target.label) < int(shadow.share * 2**64)
    ]


def _draw(request_id: str, label: str) -> int:
    text = f"{label}\x1f{request_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"shadow").digest(), "big")


def shadow_request(request: GroundedRequest) -> GroundedRequest:
    """Return ``request`` as a shadow gets it: no traffic, part of no experiment, served last, and never streamed.

    Its question was embedded for the answer that is served, and is paid for there.
    """
    context = msgspec.structs.replace(
        request.context,
        purpose=Purpose.SHADOW.value,
        priority=Priority.BATCH.value,
        experiments={},
        experiment_versions={},
    )
    return msgspec.structs.replace(request, context=context, stream=False, embedding_tokens=0)


def shadow_completion(
    request: GroundedRequest,
    target: Target,
    answer: Answered,
    called_at: datetime,
    now: datetime,
    energy: Energy | None = None,
) -> Emit:
    """Return the completion of ``target``; it has an identity of its own beside that of the answer that is served.

    Args:
        request: as the shadow got it.
        called_at: when it was called.
    """
    (emit,) = completion(request, answer, called_at, now, target=target, kind=_KIND, energy=energy)
    identity = event_id(request.event_id, f"inference.shadow.{target.label}")
    record = msgspec.structs.replace(emit.record, event_id=identity)
    return Emit(emit.topic, request_key(request.context, request.request_id), record)


def shadow_hop(
    config: Configuration,
    backends: Mapping[str, Backend],
    clock: Clock,
    concurrency: int,
    *,
    max_wait_s: float,
    grid_grams_per_kwh: float | None = None,
    tracing: Tracing | None = None,
    wanted: Callable[[], bool] | None = None,
) -> Hop:
    """Return the hop requests-grounded -> completions of kind shadow.

    Args:
        concurrency: requests in flight at once in this process, beside those that are served.
        max_wait_s: a request that is older is left out, seconds.
        grid_grams_per_kwh: as in :func:`services.inference.app.inference_hop`.
        wanted: whether any route has a shadow now: requests are not even decoded where none has. None: one may.
    """

    def energy_of(target: Target, usage: Usage) -> Energy | None:
        return estimated_energy(config.energy(target.model), usage, grid_grams_per_kwh)

    # No breaker: a shadow that fails is to be seen to fail.
    caller = Caller(backends, WeightedRouting(), energy_of, clock, tracing)

    async def answer(event: Event[GroundedRequest]) -> Outcome:
        request = event.record
        route = config.route(request.context.route)
        chosen = shadows_of(route, request) if route is not None else []
        if route is None or not chosen:
            return []
        now = clock.now()
        if expired(request, now) or now - request.occurred_at > timedelta(seconds=max_wait_s):
            for target in chosen:
                metrics.SHADOW_CALLS.labels(route.name, target.label, "late").inc()
            return []
        answers = await asyncio.gather(*(one(event, route, target) for target in chosen))
        emits = [emit for emit in answers if emit is not None]
        observe_spent(emits)
        return emits

    async def one(event: Event[GroundedRequest], route: Route, target: Target) -> Emit | None:
        request = shadow_request(event.record)
        flight = Flight(request, clock.now(), None, headers=event.headers)
        count = metrics.SHADOW_CALLS
        try:
            found = await caller.first_answer(flight, route, [target])
            if found is not None:
                answered, energy = found[1], energy_of(target, found[1].usage)
            else:
                answered, energy = _failed(caller, flight, target)
            emit = shadow_completion(request, target, answered, flight.called_at, clock.now(), energy)
        except Exception as error:
            # Nothing that goes wrong here may reach the requests that are served.
            log.error("shadow left out", request_id=request.request_id, target=target.label, exc_info=error)
            count.labels(route.name, target.label, "broken").inc()
            return None
        count.labels(route.name, target.label, "failed" if answered.error else "answered").inc()
        return emit

    async def handle(events: Sequence[Event[GroundedRequest]]) -> Sequence[Outcome]:
        return [await answer(event) for event in events]

    return Hop(
        service="inference",
        group=GROUP,
        topics=("requests-grounded",),
        handler=handle,
        concurrency=concurrency,
        wanted=wanted,
        gather_ms=_GATHER_MS,
    )


def _failed(caller: Caller, flight: Flight, target: Target) -> tuple[Answered, Energy | None]:
    """Return what is known of a call that gave no answer: it is compared, and paid for where a model was at work."""
    reason = "; ".join(failure.reason for failure in flight.failures)
    called = caller.charged(flight)
    if called:
        return replace(called[-1].answer, error=reason), called[-1].energy
    unanswered = Answered(
        model=target.model, backend=target.backend, content="", finish_reason="error", usage=Usage(), model_us=0,
        error=reason,
    )  # fmt: skip
    return unanswered, None

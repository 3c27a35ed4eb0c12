"""The shell of inference: a bounded window of calls in flight, one request's order kept within its conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from penstock.bus import Emit, Event, Hop, Outcome
from penstock.clock import Clock
from penstock.config.kinds import Route
from penstock.contracts.records import GroundedRequest, Status
from penstock.telemetry import get_logger, metrics

from services.inference.adapters import Backend, BackendError
from services.inference.core import completion, expired, order_targets, refusal

__all__ = ["Routes", "inference_hop"]

log = get_logger(__name__)


class Routes(Protocol):
    """The part of the config plane that inference reads."""

    def route(self, name: str) -> Route | None: ...


def inference_hop(routes: Routes, backends: Mapping[str, Backend], clock: Clock, concurrency: int) -> Hop:
    """Return the hop requests-grounded -> completions, refusals."""

    async def answer(request: GroundedRequest) -> list[Emit]:
        now = clock.now()
        if expired(request, now):
            return end(request, Status.EXPIRED, "expired", "the deadline passed before the model was called")
        route = routes.route(request.context.route)
        if route is None:
            reason = f"route {request.context.route!r} was withdrawn while the request was under way"
            return end(request, Status.FAILED, "unknown_route", reason)
        failures = []
        for target in order_targets(route, request.request_id):
            backend = backends.get(target.backend)
            if backend is None:
                failures.append(f"{target.model}: this process has no {target.backend} backend")
                continue
            try:
                answered = await backend.generate(request, target)
            except BackendError as error:
                log.warning("target failed", request_id=request.request_id, model=target.model, reason=str(error))
                failures.append(str(error))
                continue
            metrics.MODEL_SECONDS.labels(answered.backend, answered.model).observe(answered.model_us / 1e6)
            metrics.TOKENS.labels(answered.model, "input").inc(answered.usage.input_tokens)
            metrics.TOKENS.labels(answered.model, "output").inc(answered.usage.output_tokens)
            return completion(request, answered, now, clock.now())
        return end(request, Status.FAILED, "model_unavailable", "no target answered: " + "; ".join(failures))

    def end(request: GroundedRequest, status: Status, code: str, reason: str) -> list[Emit]:
        metrics.REFUSED.labels("inference", code).inc()
        return refusal(request, status, code, reason, clock.now())

    async def handle(events: Sequence[Event[GroundedRequest]]) -> Sequence[Outcome]:
        return [await answer(event.record) for event in events]

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        reason = "inference could not process the request; it is among the dead letters of inference"
        return end(event.record, Status.FAILED, "internal_error", reason)

    return Hop(
        service="inference",
        group="inference",
        topics=("requests-grounded",),
        handler=handle,
        concurrency=concurrency,
        failed=failed,
    )

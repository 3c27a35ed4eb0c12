"""The shell of inference: a bounded window of calls in flight, one request's order kept within its conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from penstock.bus import Emit, Event, Hop, Outcome, Producer, Transient
from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.contracts.records import GroundedRequest, Status
from penstock.telemetry import get_logger, metrics
from penstock.telemetry.traces import carried

from services.inference.adapters import Backend, BackendError
from services.inference.answers import Answers
from services.inference.core import (
    Answered,
    completion,
    completion_id,
    expired,
    fitted,
    is_streamed,
    order_targets,
    refusal,
    unfinished,
)
from services.inference.exact_cache import Kept, asked_of, is_repeatable, kept_of
from services.inference.pieces import KafkaPieces, NoPieces

__all__ = ["Routes", "inference_hop"]

log = get_logger(__name__)

_REPEATED_PIECE_CHARS = 512
"""Characters of a piece of an answer that is known as a whole: it is there at once, in few messages."""


class Routes(Protocol):
    """The part of the config plane that inference reads."""

    def route(self, name: str) -> Route | None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a target. Times are seconds of the monotonic clock.

    Attributes:
        charged: it gave no answer, and may be charged for.
        answer_size: bytes of the answer that had come.
        reason: why there is no answer.
    """

    target: Target
    started: float
    stopped: float | None = None
    cancelled: bool = False
    charged: bool = False
    answer_size: int = 0
    reason: str = ""


def inference_hop(
    routes: Routes,
    backends: Mapping[str, Backend],
    answers: Answers,
    clock: Clock,
    concurrency: int,
    producer: Producer,
) -> Hop:
    """Return the hop requests-grounded, requests-repeated -> completions or refusals.

    Pieces of a streamed answer go to completion-chunks through ``producer`` while it is generated; all of them are in
    the log before the completion is.
    """

    async def answer(event: Event[GroundedRequest]) -> list[Emit]:
        request = event.record
        if expired(request, clock.now()):
            return end(request, Status.EXPIRED, "expired", "the deadline passed before the model was called")
        called_at = clock.now()
        if not is_streamed(request):
            return await ask(request, None, called_at, [])
        pieces = KafkaPieces(request, producer, carried(event.message.headers), clock)
        deadline = request.context.deadline_at
        left = None if deadline is None else (deadline - called_at).total_seconds()
        calls: list[_Call] = []
        try:
            async with asyncio.timeout(left) as limit:
                return await ask(request, pieces, called_at, calls)
        except TimeoutError:
            await broken(pieces)
            if not limit.expired():
                raise
            reason = "the deadline passed while the answer was streamed"
            if not calls or deadline is None:
                return end(request, Status.EXPIRED, "expired", reason)
            # The model was at work: whoever runs it charges for that, so it has a completion. It ended at its deadline.
            call = replace(calls.pop(), cancelled=True, charged=True, answer_size=pieces.size, reason=reason)
            return unanswered(request, [*calls, call], called_at, max(clock.now(), deadline))
        except Transient:
            raise
        except Exception:
            await broken(pieces)
            raise

    async def ask(
        request: GroundedRequest, streamed: KafkaPieces | None, called_at: datetime, calls: list[_Call]
    ) -> list[Emit]:
        route = routes.route(request.context.route)
        if route is None:
            reason = f"route {request.context.route!r} was withdrawn while the request was under way"
            return end(request, Status.FAILED, "unknown_route", reason)
        targets = order_targets(route, request.request_id)
        if is_repeatable(request, targets[0], route.cache):
            started = clock.monotonic()
            asked = asked_of(request, targets[0])
            kept = await answers.find(request.tenant_id, asked)
            if kept is not None:
                return await given_again(request, kept, targets[0], streamed, called_at, started)
        failures: list[str] = []
        for target in targets:
            backend = backends.get(target.backend)
            if backend is None:
                failures.append(f"{target.model}: this process has no {target.backend} backend")
                continue
            calls.append(_Call(target, clock.monotonic()))
            try:
                answered = await backend.generate(request, target, streamed or NoPieces())
            except BackendError as error:
                log.warning("target failed", request_id=request.request_id, model=target.model, reason=str(error))
                failures.append(str(error))
                if error.charged:
                    metrics.BROKEN_CALLS.labels(target.backend, target.model).inc()
                calls[-1] = replace(
                    calls[-1],
                    stopped=clock.monotonic(),
                    cancelled=error.cancelled,
                    charged=error.charged,
                    answer_size=0 if streamed is None else streamed.size,
                    reason=str(error),
                )
                if streamed is not None and streamed.is_open:
                    # Another target has other words: they come with the completion, not after these.
                    await streamed.end("error")
                    streamed = None
                continue
            answered = fitted(request, answered)
            if streamed is not None:
                await streamed.end(answered.finish_reason)
            metrics.MODEL_SECONDS.labels(answered.backend, answered.model).observe(answered.model_us / 1e6)
            metrics.TOKENS.labels(answered.model, "input").inc(answered.usage.input_tokens)
            metrics.TOKENS.labels(answered.model, "output").inc(answered.usage.output_tokens)
            if is_repeatable(request, target, route.cache) and (
                kept := kept_of(request, answered, completion_id(request))
            ):
                await answers.keep(request.tenant_id, asked_of(request, target), kept, route.cache.ttl_s)
            return completion(
                request,
                answered,
                called_at,
                clock.now(),
                request_model=target.model,
                streamed=streamed is not None,
                abandoned=[paid_for(request, call) for call in calls[:-1] if call.charged],
            )
        reason = "no target answered: " + "; ".join(failures)
        if charged := [call for call in calls if call.charged]:
            charged[-1] = replace(charged[-1], reason=reason)
            return unanswered(request, charged, called_at, clock.now())
        return end(request, Status.FAILED, "model_unavailable", reason)

    async def given_again(
        request: GroundedRequest,
        kept: Kept,
        target: Target,
        streamed: KafkaPieces | None,
        called_at: datetime,
        started: float,
    ) -> list[Emit]:
        """Return the completion of a request whose answer is known."""
        if kept.event_id == completion_id(request):
            # Its own answer, of a process that ended before it was committed: the model was called, and is paid for.
            answered = kept.again()
        else:
            answered = kept.repeated(int((clock.monotonic() - started) * 1e6))
        if streamed is not None:
            for start in range(0, len(kept.content), _REPEATED_PIECE_CHARS):
                await streamed.add(kept.content[start : start + _REPEATED_PIECE_CHARS])
            await streamed.end(answered.finish_reason)
        return completion(
            request, answered, called_at, clock.now(), request_model=target.model, streamed=streamed is not None
        )

    def unanswered(request: GroundedRequest, calls: Sequence[_Call], called_at: datetime, now: datetime) -> list[Emit]:
        """Return the completion of the last of ``calls``, which gave no answer and may be charged for, behind those of the
        others that may."""
        *before, (target, answer) = [paid_for(request, call) for call in calls if call.charged]
        return completion(request, answer, called_at, now, request_model=target.model, abandoned=before)

    def paid_for(request: GroundedRequest, call: _Call) -> tuple[Target, Answered]:
        """Return what is known of a call that gave no answer and may be charged for."""
        stopped = clock.monotonic() if call.stopped is None else call.stopped
        metrics.ESTIMATED_USAGE.labels(call.target.backend, call.target.model).inc()
        answer = unfinished(
            request,
            call.target,
            call.reason,
            answer_size=call.answer_size,
            model_us=int((stopped - call.started) * 1e6),
            cancelled=call.cancelled,
        )
        return call.target, answer

    async def broken(pieces: KafkaPieces) -> None:
        """End a stream whose answer does not come, if it has begun."""
        if pieces.is_open:
            await pieces.end("error")

    def end(request: GroundedRequest, status: Status, code: str, reason: str) -> list[Emit]:
        metrics.REFUSED.labels("inference", code).inc()
        return refusal(request, status, code, reason, clock.now())

    async def handle(events: Sequence[Event[GroundedRequest]]) -> Sequence[Outcome]:
        return [await answer(event) for event in events]

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
    )

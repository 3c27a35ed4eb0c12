"""What is measured of calls and of requests, under the names of :mod:`penstock.telemetry.gen_ai`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from penstock.bus import Emit
from penstock.clock import Clock
from penstock.config.kinds import Target
from penstock.contracts.records import Completion, GroundedRequest, Refusal
from penstock.telemetry import gen_ai, metrics
from penstock.telemetry.traces import Headers, Tracing

from services.inference.adapters import BackendError
from services.inference.core import Answered, completion_id
from services.inference.embedding_requests import BACKEND as EMBEDDING
from services.inference.embedding_requests import is_for_vectors

__all__ = [
    "ObservedCall",
    "observe_broken_call",
    "observe_estimate",
    "observe_request",
    "observe_spent",
    "observed_call",
]


class ObservedCall:
    """A call of a target that is under way."""

    def __init__(self) -> None:
        self.answer: Answered | None = None

    def answered(self, answer: Answered) -> None:
        """It gave ``answer``."""
        self.answer = answer


@contextmanager
def observed_call(
    tracing: Tracing, headers: Headers, request: GroundedRequest, target: Target, clock: Clock, *, streamed: bool
) -> Iterator[ObservedCall]:
    """Return a context manager around one call of ``target``: it measures the call, and is its span.

    Args:
        headers: of the span that the call is within.
        streamed: whether the answer is wanted in pieces.
    """
    labels = _labels(target.backend, target.model)

    def attributes() -> gen_ai.Attributes:
        return gen_ai.request_attributes(
            request.context,
            request.sampling,
            backend=target.backend,
            model=target.model,
            base_url=target.base_url,
            stream=streamed,
        )

    call, started = ObservedCall(), clock.monotonic()
    with tracing.call(gen_ai.span_name(target.model), headers, attributes) as span:
        try:
            yield call
        except BaseException as error:
            kind = _error_type(error)
            span.set_attribute(gen_ai.ERROR_TYPE, kind)
            metrics.OPERATION_SECONDS.labels(*labels, kind).observe(clock.monotonic() - started)
            raise
        if call.answer is not None:
            answer = call.answer
            reasons = (answer.finish_reason, *(other.finish_reason for other in answer.alternatives))
            if span.is_recording():
                span.set_attributes(
                    gen_ai.response_attributes(
                        model=answer.model, finish_reasons=reasons, usage=answer.usage, event_id=completion_id(request)
                    )
                )
            _observe_answer(request, target, answer, reasons, labels)


def _observe_answer(
    request: GroundedRequest, target: Target, answer: Answered, reasons: Sequence[str], labels: tuple[str, str, str]
) -> None:
    metrics.OPERATION_SECONDS.labels(*labels, "").observe(answer.model_us / 1e6)
    for reason in reasons:
        metrics.FINISHED.labels(target.model, gen_ai.finish_reason(reason)).inc()
    if answer.engine_queue_us is not None:
        metrics.ENGINE_QUEUE_SECONDS.labels(target.model).observe(answer.engine_queue_us / 1e6)
    if answer.first_token_us is None:
        return
    metrics.TIME_TO_FIRST_TOKEN_SECONDS.labels(*labels).observe(answer.first_token_us / 1e6)
    following = answer.usage.output_tokens - 1
    # Several answers are generated beside each other: the time of one token is none of their tokens' shares.
    if following > 0 and request.sampling.n == 1:
        us = max(0, answer.model_us - answer.first_token_us) / following
        metrics.TIME_PER_OUTPUT_TOKEN_SECONDS.labels(*labels).observe(us / 1e6)


def observe_broken_call(target: Target) -> None:
    """Count a call that gave no answer and may be charged for."""
    metrics.BROKEN_CALLS.labels(target.backend, target.model).inc()


def observe_estimate(target: Target) -> None:
    """Count a call whose tokens nobody gave."""
    metrics.ESTIMATED_USAGE.labels(target.backend, target.model).inc()


def observe_request(request: GroundedRequest, emits: Sequence[Emit], elapsed_s: float) -> None:
    """Measure what became of ``request`` in inference, in ``elapsed_s`` seconds: ``emits`` are all that it came to."""
    if not emits:
        return
    observe_spent(emits)
    last, context = emits[-1].record, request.context
    error = ""
    if isinstance(last, Refusal):
        error = last.code
    elif isinstance(last, Completion):
        metrics.QUEUE_SECONDS.labels(context.priority).observe(last.timings.queue_us / 1e6)
        if last.error is not None:
            error = "model_unavailable" if last.ends_as is None else str(last.ends_as)
    operation = gen_ai.EMBEDDINGS if is_for_vectors(request) else gen_ai.CHAT
    metrics.REQUEST_SECONDS.labels(operation, context.route, error).observe(elapsed_s)


def observe_spent(emits: Sequence[Emit]) -> None:
    """Count the tokens and the energy of the calls that the completions among ``emits`` tell of."""
    for emit in emits:
        if isinstance(emit.record, Completion) and emit.record.cached_from is None:
            _observe_spent(emit.record)


def _observe_spent(completion: Completion) -> None:
    model = completion.request_model or completion.model
    labels = _labels(completion.backend, model)
    usage, energy = completion.usage, completion.energy
    metrics.TOKEN_USAGE.labels(*labels, "input").observe(usage.input_tokens)
    metrics.TOKEN_USAGE.labels(*labels, "output").observe(usage.output_tokens)
    if energy is not None:
        metrics.ENERGY_JOULES.labels(model).inc(energy.joules)
        if energy.co2e_grams is not None:
            metrics.CO2E_GRAMS.labels(model).inc(energy.co2e_grams)


def _labels(backend: str, model: str) -> tuple[str, str, str]:
    return gen_ai.EMBEDDINGS if backend == EMBEDDING else gen_ai.CHAT, gen_ai.provider(backend), model


def _error_type(error: BaseException) -> str:
    """Return why a call gave no answer: one of few words."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if not isinstance(error, BackendError):
        return type(error).__name__
    if error.of_request:
        return "invalid_request"
    if error.cancelled:
        return "timeout"
    if error.charged:
        return "broken_off"
    return "unavailable" if error.retriable else "failed"

"""What is measured of a call."""

from __future__ import annotations

from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest
from penstock.telemetry import metrics

from services.inference.core import Answered

__all__ = ["observe_answer", "observe_broken_call", "observe_estimate"]


def observe_answer(request: GroundedRequest, target: Target, answer: Answered) -> None:
    """Count an answer: its time and its tokens."""
    metrics.MODEL_SECONDS.labels(answer.backend, answer.model).observe(answer.model_us / 1e6)
    metrics.TOKENS.labels(answer.model, "input").inc(answer.usage.input_tokens)
    metrics.TOKENS.labels(answer.model, "output").inc(answer.usage.output_tokens)


def observe_broken_call(target: Target) -> None:
    """Count a call that gave no answer and may be charged for."""
    metrics.BROKEN_CALLS.labels(target.backend, target.model).inc()


def observe_estimate(target: Target) -> None:
    """Count a call whose tokens nobody gave."""
    metrics.ESTIMATED_USAGE.labels(target.backend, target.model).inc()

"""Tries of a hop's handler while something outside is away."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import tenacity

from penstock.bus.types import Event, Hop, Outcome, Transient
from penstock.clock import Clock
from penstock.telemetry import get_logger, metrics

__all__ = ["FIRST_RETRY_S", "retrying"]

log = get_logger(__name__)

FIRST_RETRY_S = 0.1
"""The first retry comes within this, at random."""


async def retrying(hop: Hop, events: Sequence[Event[Any]], clock: Clock, timeout_s: float) -> Sequence[Outcome]:
    """Return what the handler of ``hop`` makes of ``events``, tried again for ``timeout_s`` where that is transient.

    Raises:
        Transient: it lasts longer.
    """
    try:
        return await hop.handler(events)
    except Transient as error:
        log.warning("retrying", group=hop.group, attempt=1, reason=str(error))
    retries = metrics.RETRIES.labels(hop.service, hop.group)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        retries.inc()
        reason = state.outcome.exception() if state.outcome else None
        log.warning("retrying", group=hop.group, attempt=state.attempt_number + 1, reason=str(reason))

    retries.inc()
    await clock.sleep(random.uniform(0, FIRST_RETRY_S))
    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
        stop=tenacity.stop_after_delay(timeout_s),
        sleep=clock.sleep,
        before_sleep=before_sleep,
        reraise=True,
    ):
        with attempt:
            return await hop.handler(events)
    raise AssertionError("unreachable")

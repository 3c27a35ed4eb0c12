"""How the client puts an event into the log: under an identity that a repetition keeps, tried again while that may help."""

from __future__ import annotations

import re

import tenacity
from aiokafka.errors import KafkaError, KafkaTimeoutError
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstock.bus import Producer
from penstock.clock import Clock
from penstock.contracts.codec import Invalid
from penstock.contracts.records import Record
from penstock.telemetry import get_logger

__all__ = ["RequestNotSent", "Sender", "trace_headers"]

log = get_logger(__name__)

_FIRST_RETRY_S = 0.05
_LONGEST_WAIT_S = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()
# W3C Trace Context, 3.2: version, trace-id, parent-id, flags; identities of zeros alone are none.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class RequestNotSent(Exception):
    """The log did not take the event; the message says why. Sending again with the same identity is safe."""


class Sender:
    """Sends events, each until the log has it.

    What fails for the moment (the broker restarts, a leader moves) is sent again, with jitter, as the event it was: the log
    may then have it twice, under the one event_id that every reader counts once.

    Args:
        producer: where to.
        retry_timeout_s: how long after the first try there are others; 0: there is one.
        clock: what waits between them.
    """

    def __init__(self, producer: Producer, retry_timeout_s: float, clock: Clock) -> None:
        self._producer = producer
        self._retry_timeout_s = retry_timeout_s
        self._clock = clock

    async def send(self, topic: str, key: str, record: Record, headers: list[tuple[str, bytes]]) -> None:
        """Return once the log has ``record``.

        Raises:
            RequestNotSent: it did not take it.
        """

        def told(state: tenacity.RetryCallState) -> None:
            reason = state.outcome.exception() if state.outcome else None
            log.warning("sending again", topic=topic, attempt=state.attempt_number + 1, reason=str(reason))

        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(_passes),
                wait=tenacity.wait_random_exponential(multiplier=_FIRST_RETRY_S, max=_LONGEST_WAIT_S),
                stop=tenacity.stop_after_delay(self._retry_timeout_s),
                sleep=self._clock.sleep,
                before_sleep=told,
                reraise=True,
            ):
                with attempt:
                    await (await self._producer.send(topic, key, record, headers))
        except (Invalid, ValueError, OSError, RuntimeError) as error:
            raise RequestNotSent(f"{topic}: {error}") from error


def _passes(error: BaseException) -> bool:
    return isinstance(error, OSError | KafkaTimeoutError) or (isinstance(error, KafkaError) and error.retriable)


def trace_headers(traceparent: str | None, tracestate: str | None) -> list[tuple[str, bytes]]:
    """Return the headers that continue the caller's trace: the one handed over, else the current span's; or none.

    Raises:
        ValueError: ``traceparent`` is none of W3C Trace Context, or ``tracestate`` comes without one.
    """
    carrier: dict[str, str] = {}
    if traceparent is None:
        if tracestate is not None:
            raise ValueError("tracestate belongs to a traceparent: hand over both")
        _PROPAGATOR.inject(carrier)
    elif not _TRACEPARENT.fullmatch(traceparent):
        raise ValueError(f"traceparent {traceparent[:80]!r} is not 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
    else:
        carrier["traceparent"] = traceparent
        if tracestate:
            carrier["tracestate"] = tracestate
    return [(name, value.encode()) for name, value in carrier.items()]

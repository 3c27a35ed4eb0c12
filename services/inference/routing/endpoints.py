"""What this process knows of the endpoints behind targets: their circuits, and what their calls were like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.contracts.records import TargetFailure
from penstock.telemetry import get_logger, metrics

from services.inference.core import Answered
from services.inference.routing.breaker import Circuit, CircuitState
from services.inference.routing.observed import Latency
from services.inference.routing.protocol import Attempt

__all__ = ["Endpoint", "Endpoints", "Known"]

log = get_logger(__name__)

# Configurations name a few dozen; those of the past are forgotten.
_MOST_ENDPOINTS = 1024
# A backend tries a target up to three times within one call, with waits between.
_TRIES, _WAITS_S = 3, 10.0


class Endpoint(NamedTuple):
    """What stands behind targets, whatever route they belong to. The same model under another key has limits of its own."""

    backend: str
    model: str
    base_url: str | None
    api_key_env: str | None

    @classmethod
    def of(cls, target: Target) -> Endpoint:
        """Return what stands behind ``target``."""
        return cls(target.backend, target.model, target.base_url, target.api_key_env)

    @property
    def address(self) -> str:
        """Its host and port; empty where it is in this process."""
        return urlsplit(self.base_url).netloc if self.base_url else ""


@dataclass(slots=True)
class Known:
    """What is known of one endpoint.

    Attributes:
        named: what its model called itself last.
        in_flight: calls that are under way.
        asked_at: when a call began last, seconds of the monotonic clock.
    """

    endpoint: Endpoint
    circuit: Circuit = field(default_factory=Circuit)
    latency: Latency = field(default_factory=Latency)
    named: str | None = None
    in_flight: int = 0
    asked_at: float | None = None


class Endpoints:
    """Endpoints by what they are: routes that share one share what is known of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Endpoint, Known] = {}

    def of(self, target: Target) -> Known:
        """Return what is known of the endpoint of ``target``."""
        endpoint = Endpoint.of(target)
        known = self._known.get(endpoint)
        if known is None:
            if len(self._known) >= _MOST_ENDPOINTS:
                idle = (key for key, each in self._known.items() if not each.in_flight)
                if (oldest := next(idle, None)) is not None:
                    del self._known[oldest]
            known = self._known[endpoint] = Known(endpoint)
        return known

    def left_alone(self, route: Route, target: Target) -> TargetFailure | None:
        """Return why ``target`` is not asked now; None where it may be."""
        if not route.breaker.enabled:
            return None
        circuit = self.of(target).circuit
        return self._failure(target, circuit) if circuit.left_alone(self._clock.monotonic()) else None

    def begin(
        self, route: Route, target: Target, on_answer: Callable[[Known, Answered], None]
    ) -> Attempt | TargetFailure:
        """Return the call of ``target`` that begins, or why it must not.

        Args:
            on_answer: told of its answer.
        """
        known, now = self.of(target), self._clock.monotonic()
        epoch = None
        if route.breaker.enabled:
            circuit = known.circuit.begun(now, _TRIES * target.timeout_s + _WAITS_S)
            if circuit is None:
                metrics.LEFT_ALONE.labels(route.name, target.label).inc()
                return self._failure(target, known.circuit)
            self.change(known, circuit)
            epoch = circuit.epoch
        known.in_flight += 1
        known.asked_at = now
        return _Attempt(self, known, route, epoch, self._clock, on_answer)

    def change(self, known: Known, circuit: Circuit) -> None:
        """Put ``circuit`` in the place of what it was, and tell where that changes something."""
        before, known.circuit = known.circuit, circuit
        if circuit.state is before.state:
            return
        endpoint = known.endpoint
        labels = (endpoint.backend, endpoint.model, endpoint.address)
        # Read when it is asked for: a circuit that is due is as good as half-open, and stays so where no call comes by.
        metrics.CIRCUIT_STATE.labels(*labels).set_function(lambda: _gauge(known.circuit, self._clock.monotonic()))
        metrics.CIRCUIT_CHANGES.labels(*labels, circuit.state.value).inc()
        fields = {"backend": endpoint.backend, "model": endpoint.model, "endpoint": endpoint.address}
        if circuit.state is CircuitState.OPEN:
            left = round(max(0.0, circuit.due_at - self._clock.monotonic()), 3)
            log.warning("circuit open: the target is left alone", **fields, seconds=left, reason=circuit.reason)
        elif circuit.state is CircuitState.HALF_OPEN:
            log.info("circuit half-open: one call tries the target", **fields, reason=circuit.reason)
        else:
            log.info("circuit closed: the target answers again", **fields)

    def _failure(self, target: Target, circuit: Circuit) -> TargetFailure:
        when = "while one call tries it"
        if circuit.state is CircuitState.OPEN:
            due = self._clock.now() + timedelta(seconds=max(0.0, circuit.due_at - self._clock.monotonic()))
            when = f"until {due:%H:%M:%S} UTC"
        reason = f"{target.label} is left alone {when}: {circuit.reason}"
        return TargetFailure(target=target.label, reason=reason)


def _gauge(circuit: Circuit, now: float) -> float:
    """Return what penstock_circuit_state says."""
    if circuit.state is CircuitState.CLOSED:
        return 0
    return 2 if circuit.state is CircuitState.OPEN and circuit.left_alone(now) else 1


class _Attempt:
    """A call that is under way. ``epoch`` is that of the circuit; None where the route leaves no target alone."""

    def __init__(
        self,
        endpoints: Endpoints,
        known: Known,
        route: Route,
        epoch: int | None,
        clock: Clock,
        on_answer: Callable[[Known, Answered], None],
    ) -> None:
        self._endpoints = endpoints
        self._known = known
        self._breaker = route.breaker
        self._epoch = epoch
        self._clock = clock
        self._on_answer = on_answer
        self._started = clock.monotonic()

    def answered(self, answer: Answered) -> None:
        self._known.in_flight -= 1
        self._known.named = answer.model
        if self._epoch is not None:
            circuit = self._known.circuit.answered(self._epoch, self._clock.monotonic(), self._breaker)
            self._endpoints.change(self._known, circuit)
        self._on_answer(self._known, answer)

    def failed(self, reason: str) -> None:
        now = self._clock.monotonic()
        self._known.in_flight -= 1
        self._known.latency.failed(now)
        if self._epoch is not None:
            circuit = self._known.circuit.failed(self._epoch, now, self._breaker, reason)
            self._endpoints.change(self._known, circuit)

    def given_up(self) -> None:
        now = self._clock.monotonic()
        waited, longest = now - self._started, self._known.latency.longest_wait(now)
        if longest is not None and waited > longest:
            # Deadlines that are shorter than its timeout_s would hide a target that hangs.
            self.failed(
                f"no answer within {waited:.1f} s, when nobody waited any more; nearly all came within {longest:.1f} s"
            )
            return
        self._known.in_flight -= 1
        if self._epoch is not None:
            circuit = self._known.circuit.given_up(self._epoch, now)
            self._endpoints.change(self._known, circuit)

"""When a target that fails is left alone, and when it is tried again: a circuit breaker. Pure.

A circuit is closed while calls go through. It opens when the share of failed calls within a window is too high: nobody is
sent to the target then. When it is due, one call tries it, the probe (half-open): its answer closes the circuit, its
failure opens it again, for twice as long. The pattern is that of M. Nygard, "Release It!" (2nd ed. 2018, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from penstock.config.kinds import Breaker

__all__ = ["LONGEST_OPEN_S", "Circuit", "CircuitState", "Count"]

LONGEST_OPEN_S = 300.0
"""A target that fails again and again is tried at least so often, seconds, unless its open_s is longer."""
_MOST_DOUBLINGS = 5
# Calls are counted in so many slices of a window: what is older than the window by less than one of them may still count.
_SLICES = 30
_MOST_SLICES = 3600


class CircuitState(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Count:
    """Calls that ended from ``start`` on, until the next count begins."""

    start: float
    calls: int
    failures: int


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit of one target. Times are seconds of one clock that never goes back.

    Attributes:
        epoch: number of changes so far. A call belongs to the epoch that it begins in: how it ends says nothing later.
        counts: ended calls of this epoch, oldest first; empty unless the circuit is closed.
        longest_window_s: of those that were asked for.
        due_at: open: from when on a call may try it; half-open: when the probe is given up and another may.
        closed_at: when a probe closed it last; None where none ever did.
        openings: how often it opened in a row, without staying closed for a window in between.
        reason: why it is not closed.
    """

    state: CircuitState = CircuitState.CLOSED
    epoch: int = 0
    counts: tuple[Count, ...] = ()
    longest_window_s: float = 0.0
    due_at: float = 0.0
    closed_at: float | None = None
    openings: int = 0
    reason: str = ""

    def left_alone(self, now: float) -> bool:
        """Return whether no call may begin."""
        return self.state is not CircuitState.CLOSED and now < self.due_at

    def begun(self, now: float, longest_s: float) -> Circuit | None:
        """Return the circuit with a call that begins, in the epoch of the result; None where none may.

        Args:
            longest_s: how long the call takes at most, seconds. A probe that nobody hears of again keeps others away for
                so long.
        """
        if self.state is CircuitState.CLOSED:
            return self
        if now < self.due_at:
            return None
        return replace(self, state=CircuitState.HALF_OPEN, epoch=self.epoch + 1, due_at=now + longest_s)

    def answered(self, epoch: int, now: float, breaker: Breaker) -> Circuit:
        """Return the circuit after a call of ``epoch`` gave an answer."""
        if epoch != self.epoch:
            return self
        if self.state is CircuitState.HALF_OPEN:
            return replace(self, state=CircuitState.CLOSED, epoch=epoch + 1, counts=(), closed_at=now, reason="")
        return self._counted(now, breaker, failed=False)

    def failed(self, epoch: int, now: float, breaker: Breaker, reason: str) -> Circuit:
        """Return the circuit after a call of ``epoch`` failed.

        Args:
            breaker: of the route that called; its window is what counts.
            reason: why it failed.
        """
        if epoch != self.epoch:
            return self
        if self.state is CircuitState.HALF_OPEN:
            return self._opened(now, breaker, f"the call that tried it failed: {reason}")
        circuit = self._counted(now, breaker, failed=True)
        within = [count for count in circuit.counts if count.start > now - breaker.window_s]
        calls, failures = sum(count.calls for count in within), sum(count.failures for count in within)
        if calls < breaker.min_calls or failures < breaker.failure_ratio * calls:
            return circuit
        said = f"{failures} of {calls} calls failed within {breaker.window_s:g} s, the last: {reason}"
        return circuit._opened(now, breaker, said)

    def given_up(self, epoch: int, now: float) -> Circuit:
        """Return the circuit after a call of ``epoch`` ended in a way that says nothing of the target."""
        if epoch != self.epoch or self.state is not CircuitState.HALF_OPEN:
            return self
        # The next call is the probe.
        return replace(self, state=CircuitState.OPEN, epoch=epoch + 1, due_at=now)

    def _counted(self, now: float, breaker: Breaker, *, failed: bool) -> Circuit:
        longest = max(self.longest_window_s, breaker.window_s)
        counts = self.counts
        if counts and now - counts[-1].start < breaker.window_s / _SLICES:
            last = counts[-1]
            counts = (*counts[:-1], Count(last.start, last.calls + 1, last.failures + failed))
        else:
            first = next((n for n, count in enumerate(counts) if count.start > now - longest), len(counts))
            counts = (*counts[max(first, len(counts) - _MOST_SLICES + 1) :], Count(now, 1, int(failed)))
        return replace(self, counts=counts, longest_window_s=longest)

    def _opened(self, now: float, breaker: Breaker, reason: str) -> Circuit:
        again = self.state is CircuitState.HALF_OPEN
        again = again or (self.closed_at is not None and now - self.closed_at < breaker.window_s)
        openings = self.openings + 1 if again else 1
        grown = breaker.open_s * 2 ** min(openings - 1, _MOST_DOUBLINGS)
        return replace(
            self,
            state=CircuitState.OPEN,
            epoch=self.epoch + 1,
            counts=(),
            due_at=now + min(grown, max(LONGEST_OPEN_S, breaker.open_s)),
            openings=openings,
            reason=reason,
        )

"""Keeps a process that stood still from writing over its successor's state."""

from __future__ import annotations

from penstock.clock import Clock

__all__ = ["StallGuard", "Stalled"]


class Stalled(RuntimeError):
    """The process stood still for so long that its partitions may belong to another member by now."""


class StallGuard:
    """Remembers whether the whole process stood still for as long as the group waits for a member.

    A frozen process (SIGSTOP, a suspended machine) wakes up in the middle of what it did, before its consumer learns that
    the group has moved on, and a changelog has no fencing outside transactions. So a thread ticks, and whoever is about
    to write state checks: a gap means stop without writing, restart, restore. A busy event loop is no gap: the consumer
    beats from a thread of its own.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        """Start the measurement; ``limit_s`` is three quarters of the session timeout or less (a beat may be due)."""
        self._clock = clock
        self._limit_s = limit_s
        self._last = clock.monotonic()
        self._longest = 0.0

    def tick(self) -> None:
        """Note that the process runs."""
        now = self._clock.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def reset(self) -> None:
        """Forget the past: the group has just confirmed what is ours."""
        self._last = self._clock.monotonic()
        self._longest = 0.0

    def check(self) -> None:
        """Allow a write.

        Raises:
            Stalled: the process stood still for longer than the limit since the last :meth:`reset`.
        """
        gap = max(self._longest, self._clock.monotonic() - self._last)
        if gap > self._limit_s:
            raise Stalled(
                f"the process stood still for {gap:.1f} s, longer than the {self._limit_s:.1f} s after which another member "
                "may own its partitions; it ends without writing and is to be restarted"
            )

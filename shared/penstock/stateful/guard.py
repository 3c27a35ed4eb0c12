"""Keeps a process that stood still from writing over its successor's state."""

from __future__ import annotations

from penstock.clock import Clock

__all__ = ["StallGuard", "Stalled"]


class Stalled(RuntimeError):
    """The process stood still for so long that its partitions may belong to another member by now."""


class StallGuard:
    """Detects that the event loop did not run for longer than the group waits for a member.

    A frozen process (SIGSTOP, a suspended machine) wakes up in the middle of what it did, before its consumer learns
    that the group has moved on, and a changelog has no fencing outside transactions. So the worker ticks, and whoever
    is about to write state checks: a gap means stop without writing, restart, recover.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._last = clock.monotonic()

    def tick(self) -> None:
        """Note that the loop runs.

        Raises:
            Stalled: it did not for longer than the limit.
        """
        self.check()
        self._last = self._clock.monotonic()

    def check(self) -> None:
        """Raise :class:`Stalled` where the last tick is too long ago."""
        gap = self._clock.monotonic() - self._last
        if gap > self._limit_s:
            raise Stalled(
                f"the event loop stood still for {gap:.1f} s, longer than the {self._limit_s:.1f} s after which "
                "another member may own the partitions; the process ends without writing and is to be restarted"
            )

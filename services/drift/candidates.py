"""River's ADWIN as a first stage, with a state that is plain data.

ADWIN (Bifet & Gavalda, 2007) keeps a window as long as its halves agree, of any length: it finds the small changes
that need more values than the scan looks back on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from river import drift

__all__ = ["advanced", "blank", "primed", "width_and_total"]

_CLOCK = 4


@cache
def _bench(delta: float) -> Any:
    """Return a detector to put states on: making one costs more than an update.

    Each use begins by overwriting all of it, so nothing passes from one use to the next.
    """
    detector: Any = drift.ADWIN(  # type: ignore[no-untyped-call]
        delta=delta, clock=_CLOCK, min_window_length=5, grace_period=20
    )
    # River offers no other way to a detector's state than pickling. Unpickling what stands in a changelog would let
    # its writer run code; the inner object's own state is plain data.
    return detector._helper


@cache
def blank(delta: float) -> bytes:
    """Return the state of a detector that has seen nothing."""
    return bytes(_bench(delta).__getstate__())


def advanced(frozen: bytes, value: float, delta: float) -> tuple[bytes, bool]:
    """Return a detector's state after a value, and whether it found a change there."""
    detector = _bench(delta)
    detector.__setstate__(frozen)
    changed = bool(detector.update(value))
    return bytes(detector.__getstate__()), changed


def primed(values: Iterable[float], delta: float) -> bytes:
    """Return the state of a detector that has seen these values."""
    frozen = blank(delta)
    detector = _bench(delta)
    detector.__setstate__(frozen)
    for value in values:
        detector.update(value)
    return bytes(detector.__getstate__())


def width_and_total(frozen: bytes, delta: float) -> tuple[int, float]:
    """Return how many values a detector's window holds, and their sum."""
    detector = _bench(delta)
    detector.__setstate__(frozen)
    return int(detector.get_width()), float(detector.get_total())

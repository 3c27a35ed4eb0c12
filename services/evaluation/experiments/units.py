"""How many units each arm has, counted so that no unit counts twice, in a state of a fixed size. Pure."""

from __future__ import annotations

import math

__all__ = ["PLACES", "first_seen", "none_seen", "units_seen"]

PLACES = 65_536
"""Places that units are hashed to. The first unit at a place is counted, another one that falls there is not.

Which place a unit has says nothing of its arm, so those that are counted are a fair sample of all: each is one draw of an
arm, which is what a test of the ratio needs. At most this many are counted; half of them after 45,000 units."""


def none_seen() -> bytes:
    """Return the places, all free."""
    return bytes(PLACES // 8)


def first_seen(seen: bytes, unit: str) -> bytes | None:
    """Return the places with that of ``unit`` (16 hex digits) taken, or None where it was taken before."""
    # Other digits than those that choose its bucket.
    place = int(unit[:8], 16) % PLACES
    byte, bit = divmod(place, 8)
    if seen[byte] >> bit & 1:
        return None
    copy = bytearray(seen)
    copy[byte] |= 1 << bit
    return bytes(copy)


def units_seen(counted: int) -> int:
    """Return about how many units there were, where ``counted`` found a free place (linear counting: Whang 1990).

    Within one percent up to 200,000; the last place can only say "that many or more".
    """
    free = max(PLACES - counted, 1)
    return max(counted, round(-PLACES * math.log(free / PLACES)))

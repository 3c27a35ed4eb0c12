"""A short burst of messages that are like nothing before: told once, when it is over."""

from __future__ import annotations

import math

import msgspec

from services.drift.detection.trials import Ranking

__all__ = ["Burst", "burst_over", "watched"]

# Of ordinary messages the share _STRANGE is as far from the reference as this; of a burst's, _MOSTLY.
_STRANGE, _MOSTLY = 0.02, 0.7
# The price of a burst's alarm: this part of the allowance of a message.
_PART = 0.02
# Evidence, in nats below the peak, with which a burst is over.
_OVER = 8.0
# Other messages that must be known.
_LEAST = 48


class Burst(msgspec.Struct, frozen=True, array_like=True):
    """Strange messages that follow each other closely."""

    evidence: float = 0.0
    """Of the newest messages, as the logarithm of a likelihood ratio, nats: a cumulative sum (Page, 1954), never below 0.
    It is an e-detector (Shin, Ramdas and Rinaldo, 2024): the mean time between false alarms is at least the inverse of
    the price."""
    peak: float = 0.0
    bound: float = 0.0
    """Evidence that makes it an alarm."""
    first: int = -1
    """The first message, counted from the last change."""
    first_offset: int = -1
    last: int = -1
    """The last strange one."""


def watched(burst: Burst, ranking: Ranking, offset: int, allowance: float) -> Burst:
    """Add a message.

    Args:
        burst: what is known so far; not changed.
        ranking: of the message among the reference's.
        offset: where it stands.
        allowance: expected false alarms that it may cause.
    """
    rank, others = ranking.strangeness()
    if others < _LEAST or allowance <= 0:
        return burst
    strange = rank < _STRANGE
    step = math.log(_MOSTLY / _STRANGE) if strange else math.log((1 - _MOSTLY) / (1 - _STRANGE))
    bound = max(burst.bound, -math.log(allowance * _PART))
    # What stays for long is no burst, and its end need not outweigh all of it.
    evidence = min(burst.evidence + step, bound + _OVER)
    if evidence <= 0:
        return Burst()
    if not strange:
        return msgspec.structs.replace(burst, evidence=evidence)
    return Burst(
        evidence=evidence,
        peak=max(burst.peak, evidence),
        bound=bound,
        first=burst.first if burst.first >= 0 else ranking.place,
        first_offset=burst.first_offset if burst.first >= 0 else offset,
        last=ranking.place,
    )


def burst_over(burst: Burst) -> bool:
    """Tell whether there was a burst, and ordinary messages came after it."""
    return burst.first >= 0 and burst.peak >= burst.bound and burst.evidence <= burst.peak - _OVER

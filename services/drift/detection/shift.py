"""A confirmed change, as every detector tells it."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Pattern", "Shift", "What"]

What = Literal["level", "spread", "mixture", "topic"]
"""What changed: the mean of a number, its scatter, the shares of categories, or what vectors are about."""

Pattern = Literal["abrupt", "gradual", "recurring", "outlier"]
"""How it changed: at once; over a while; to a state that was there before; or for a moment, and it is over."""


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """A confirmed change of one signal of one segment, in the signal's own units (as the detector was given them).

    Attributes:
        what: what changed.
        pattern: how it changed.
        detector: name and settings of what found it.
        statistic: evidence of the values that came after the candidate, as the logarithm of a likelihood ratio, nats.
        threshold: evidence that was needed: ``-log(alpha)``.
        alpha: chance that was accepted of confirming this candidate under no change.
        before: figures of the reference.
        after: figures since the change.
        before_count: events behind ``before``.
        after_count: events behind ``after``.
        reference_first_offset: offset of the reference's first event.
        test_first_offset: offset of the first event since the change, as far as its place is known.
        size: how large the change is, in the reference's standard deviations (of the distance between means in feature
            space for vectors, of the share that moved for categories).
        returned: whether the baseline is back: what was told before has ended.
    """

    what: What
    pattern: Pattern
    detector: str
    statistic: float
    threshold: float
    alpha: float
    before: dict[str, float]
    after: dict[str, float]
    before_count: int
    after_count: int
    reference_first_offset: int
    test_first_offset: int
    size: float
    returned: bool = False

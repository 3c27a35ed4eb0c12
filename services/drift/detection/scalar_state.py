"""How the detector of numbers is set, and what it keeps of one signal of one segment."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from services.drift.detection.coding import Array, Coding
from services.drift.detection.history import Moments
from services.drift.detection.judgement import JudgementParameters, Pending
from services.drift.detection.regimes import Regime

__all__ = ["STRIDE", "WINDOW", "ScalarParameters", "ScalarState", "described", "window_of"]

WINDOW = 256
"""Newest values that are kept and scanned one by one."""
STRIDE = 8
"""Values between two of which the offset is kept."""


class ScalarParameters(msgspec.Struct, frozen=True):
    """How the detector is set; the defaults are calibrated by tests/bench/bench_drift.py."""

    warm_up: int = 40
    """Values that set location and scale; no change is looked for before."""
    gain: float = 5.0
    """Log-likelihood ratio, nats, from which the scan of a number raises a candidate."""
    multiplicity: float = 1.0
    """Nats that are asked for more, for each e-fold by which fewer values came after the change."""
    rate_gain: float = 3.0
    """As ``gain``, of a rate: the evidence on one is exact, so more candidates can be judged."""
    rate_multiplicity: float = 0.5
    """As ``multiplicity``, of a rate."""
    clock: int = 4
    """Values between two scans."""
    least: int = 3
    """Values after a change before it can be a candidate."""
    least_before: int = 24
    """Values before a change that it takes to tell one."""
    share: float = 0.8
    """Share of the wealth that a candidate takes."""
    granted: int = 400
    """Values whose allowance a new state is given at once."""
    repeated: float = 2.0
    """Nats by which a candidate must exceed the one that was given up before, less one for each ``forgotten`` values."""
    forgotten: int = 80
    wealth_most: float = 0.3
    """The wealth does not grow beyond."""
    judgement: JudgementParameters = JudgementParameters()
    """How a candidate is judged."""
    gradual: float = -0.6
    """Nats by which a ramp must fit better than a step: a change is found when it looks most like a step."""
    ramp: int = 60
    """Values that a ramp takes at least; what is over sooner is a step."""
    follows: int = 200
    """Values after a change within which another in its direction goes on with it: both are a ramp."""
    flagged: float = 0.6
    """Share of the gain above that is enough where a detector of River's flags the level as well."""


class ScalarState(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one signal of one segment."""

    seen: int = 0
    """Values since the reference began."""
    wealth: float | None = None
    coding: Coding | None = None
    warm: tuple[float, ...] = ()
    window: bytes = b""
    """The newest standardised values, float32, oldest first."""
    moments: Moments = Moments()
    """Of the reference's values before the window."""
    inflation: tuple[float, float] = (1.0, 1.0)
    """Long-run variance over variance, of the level and of the spread."""
    level: Pending | None = None
    spread: Pending | None = None
    bars: tuple[float, float] = (0.0, 0.0)
    """Gain that the next candidate of the level and of the spread must reach after one was given up, nats."""
    first_offset: int = 0
    marks: tuple[int, ...] = ()
    """Offsets of every eighth value of the window."""
    heading: float = 0.0
    """Direction of the last change of the level; 0 when there was none."""
    regimes: tuple[Regime, ...] = ()
    """Past references, the baseline first."""
    river: dict[str, bytes] = {}
    """States of River's detectors that raise candidates as well, by name (river_stage.py)."""


def window_of(state: ScalarState) -> Array:
    """Return the newest standardised values, oldest first."""
    return np.frombuffer(state.window, np.float32).astype(float)


def described(coding: Coding, count: int, total: float, squares: float) -> Regime:
    """Return, in the signal's units, mean and deviation of standardised values of these sums."""
    mean = total / max(count, 1)
    deviation = math.sqrt(max(squares / max(count, 1) - mean * mean, 0.0))
    return Regime(coding.location + coding.scale * mean, coding.scale * deviation, count)

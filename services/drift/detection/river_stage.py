"""River's detectors as a first stage beside the scan: what they flag is judged by fresh values like any candidate.

- ``adwin``: ADWIN (Bifet & Gavalda, 2007), a window as long as its halves agree: a long memory.
- ``hddm-w``: HDDM_W (Frias-Blanco et al., 2015), a weighted mean of errors; of zeros and ones only.
- ``page-hinkley``: Page's cumulative sum (1954), two-sided: small rises, and such as come slowly.

Each sees the codes (coding.py), so that its thresholds are in standard deviations whatever the unit. Between two values
a detector is a few bytes: numbers of which River's object is built again, never a pickle. KSWIN is not among them: each
of its looks draws from a random generator, whose state is larger than the rest of a signal's; `penstock drift replay`
compares with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from river import drift, stats

__all__ = ["RIVER_DETECTORS", "TITLES", "advanced", "applicable"]

TITLES: Mapping[str, str] = {"adwin": "ADWIN", "hddm-w": "HDDM_W", "page-hinkley": "Page-Hinkley"}
"""What a detector is called in an event, by its name."""
RIVER_DETECTORS = tuple(TITLES)
"""Names of the detectors."""

# Generous, since fresh values decide.
DELTA = 0.05
CONFIDENCE = 0.01
WEIGHT = 0.05
# Page-Hinkley, in standard deviations: half of the smallest shift that is looked for, and the sum that flags it.
TOLERANCE = 0.25
SUM = 8.0

_SAMPLES = ("_total", "_s1_decr", "_s1_incr", "_s2_decr", "_s2_incr")
_HDDM_W = struct.Struct("<17d")
_PAGE_HINKLEY = struct.Struct("<6d")


def applicable(names: Iterable[str], *, rate: bool) -> tuple[str, ...]:
    """Return the detectors that fit: ``hddm-w`` watches codes that are 0 and 1 only.

    Raises:
        ValueError: there is no such detector.
    """
    names = tuple(names)
    for name in names:
        if name not in TITLES:
            raise ValueError(f"there is no detector {name!r} of River's here; there are {', '.join(TITLES)}")
    return tuple(name for name in names if rate or name != "hddm-w")


def advanced(frozen: Mapping[str, bytes], codes: Sequence[float], names: Iterable[str]) -> tuple[dict[str, bytes], str]:
    """Show the newest value to the detectors.

    Args:
        frozen: states by name; a detector that is missing starts with all of the codes.
        codes: the window's codes, the newest last; only the last one for detectors that are there.
        names: the detectors, applicable ones, in the order in which they are asked.

    Returns:
        The next states, and the name of the first detector that flagged the newest value; empty when none did.
    """
    states: dict[str, bytes] = {}
    flagged = ""
    for name in names:
        known = frozen.get(name)
        states[name], found = _STEPS[name](known, codes[-1:] if known is not None else codes)
        flagged = flagged or (name if found else "")
    return states, flagged


@cache
def _adwin() -> Any:
    """Return a detector to put states on: making one costs more than an update.

    Each use begins by overwriting all of it, so nothing passes from one use to the next.
    """
    detector: Any = drift.ADWIN(delta=DELTA, clock=4, min_window_length=5, grace_period=20)  # type: ignore[no-untyped-call]
    # The compiled part's own state is plain numbers: the parameters, sums, and the buckets.
    return detector._helper


@cache
def _blank() -> bytes:
    detector: Any = drift.ADWIN(delta=DELTA, clock=4, min_window_length=5, grace_period=20)  # type: ignore[no-untyped-call]
    return bytes(detector._helper.__getstate__())


def _adwin_step(frozen: bytes | None, codes: Sequence[float]) -> tuple[bytes, bool]:
    detector = _adwin()
    detector.__setstate__(_blank() if frozen is None else frozen)
    found = False
    for value in codes:
        found = bool(detector.update(value))
    # River starts anew after what it found.
    return _blank() if found else bytes(detector.__getstate__()), found


def _hddm_w_step(frozen: bytes | None, codes: Sequence[float]) -> tuple[bytes, bool]:
    detector: Any = drift.binary.HDDMW(  # type: ignore[no-untyped-call]
        drift_confidence=CONFIDENCE, warning_confidence=CONFIDENCE, lambda_val=WEIGHT, two_sided_test=True
    )
    if frozen is not None:
        numbers = _HDDM_W.unpack(frozen)
        for index, name in enumerate(_SAMPLES):
            mean, started, ibc = numbers[3 * index : 3 * index + 3]
            sample = getattr(detector, name)
            if started:
                # The first value that a mean takes is the mean.
                sample._ewma.update(mean)
            sample._is_init, sample._ibc = bool(started), ibc
        detector._incr_cutpoint, detector._decr_cutpoint = numbers[15:]
    for value in codes:
        detector.update(value != 0)
    if detector.drift_detected:
        # River starts anew at the next value.
        detector._reset()
        found = True
    else:
        found = False
    samples = [getattr(detector, name) for name in _SAMPLES]
    kept = [number for each in samples for number in (each.ewma, float(each.is_init), each.ibc)]
    return _HDDM_W.pack(*kept, detector._incr_cutpoint, detector._decr_cutpoint), found


def _page_hinkley_step(frozen: bytes | None, codes: Sequence[float]) -> tuple[bytes, bool]:
    detector: Any = drift.PageHinkley(delta=TOLERANCE, threshold=SUM, alpha=1.0)
    if frozen is not None:
        mean = stats.Mean()
        mean.n, mean._mean, rises, falls, lowest, highest = _PAGE_HINKLEY.unpack(frozen)
        detector._x_mean, detector._sum_increase, detector._sum_decrease = mean, rises, falls
        detector._min_increase, detector._max_decrease = lowest, highest
    for value in codes:
        detector.update(value)
    found = bool(detector.drift_detected)
    if found:
        # River starts anew at the next value.
        detector._reset()
    mean = detector._x_mean
    sums = (detector._sum_increase, detector._sum_decrease, detector._min_increase, detector._max_decrease)
    return _PAGE_HINKLEY.pack(mean.n, mean.get(), *sums), found


_STEPS = {"adwin": _adwin_step, "hddm-w": _hddm_w_step, "page-hinkley": _page_hinkley_step}

"""Detectors to compare with: each of River's as it is, and windowed two-sample tests."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift as river
from scipy import stats

from services.drift.detection.features import fourier_features
from services.drift.lookback.replay_finding import Detector, Finding, Trail, UnknownParameter
from services.drift.lookback.replay_lines import BadLine, Value

__all__ = [
    "BASELINES",
    "RIVER",
    "CentroidDistance",
    "KolmogorovSmirnov",
    "MeanDiscrepancy",
    "RiverDetector",
    "baseline",
]

Numbers = NDArray[np.float64]


class RiverDetector:
    """One of River's detectors, raw. It starts anew after each detection, as River has it."""

    def __init__(self, name: str, make: Callable[[], Any], *, binary: bool) -> None:
        self.name = name
        self._detector = make()
        self._binary = binary
        self._trail = Trail()

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one number (0 or 1 for the detectors of errors)."""
        number = _number(value, self.name)
        if self._binary and number not in (0.0, 1.0):
            raise BadLine(f"the value {number:g} is neither 0 nor 1, and {self.name} watches errors (1) among them")
        self._trail.add(number, offset)
        # FHDDM alone counts what is right, and looks for its share to fall.
        self._detector.update(number == (0.0 if self.name == "fhddm" else 1.0) if self._binary else number)
        if not self._detector.drift_detected:
            return None
        since, statistic, threshold = self._place()
        found = self._trail.finding("level", since, statistic, threshold)
        self._trail = Trail()
        return found

    def _place(self) -> tuple[int | None, float | None, float | None]:
        """Return how many of the newest values lie after the change, statistic and threshold, where River tells them."""
        match self._detector:
            case river.ADWIN():
                return int(self._detector.width), None, self._detector.delta
            case river.KSWIN():
                return int(self._detector.stat_size), float(self._detector.p_value), float(self._detector.alpha)
            case river.PageHinkley():
                return None, None, float(self._detector.threshold)
            case _:
                return None, None, None


class KolmogorovSmirnov:
    """The newest values against the first ones: a two-sample Kolmogorov-Smirnov test (asymptotic, two-sided) a look.

    Args:
        reference: first values, which are the reference until a detection.
        window: newest values, the test window.
        alpha: chance of a false alarm in one look; there is one look every ``every`` values.
        every: values between two looks.
    """

    name = "ks"

    def __init__(self, reference: int = 300, window: int = 100, alpha: float = 1e-4, every: int = 1) -> None:
        _at_least(2, reference=reference, window=window)
        _at_least(1, every=every)
        self._sizes, self._alpha, self._every = (reference, window), alpha, every
        # Smirnov's limit law; the bound is the distance whose tail probability is alpha.
        self._bound = float(stats.kstwobign.isf(alpha)) * math.sqrt((reference + window) / (reference * window))
        self._first: list[float] = []
        self._sorted: Numbers = np.empty(0)
        self._newest: deque[float] = deque(maxlen=window)
        self._trail = Trail()
        self._seen = 0

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one number."""
        number = _number(value, self.name)
        self._trail.add(number, offset)
        if len(self._first) < self._sizes[0]:
            self._first.append(number)
            self._sorted = np.sort(self._first) if len(self._first) == self._sizes[0] else self._sorted
            return None
        self._newest.append(number)
        self._seen += 1
        if len(self._newest) < self._sizes[1] or self._seen % self._every:
            return None
        newest = np.sort(np.asarray(self._newest))
        places = np.concatenate([self._sorted, newest])
        distance = float(
            np.max(
                np.abs(
                    np.searchsorted(self._sorted, places, "right") / len(self._sorted)
                    - np.searchsorted(newest, places, "right") / len(newest)
                )
            )
        )
        if distance <= self._bound:
            return None
        found = self._trail.finding("distribution", self._sizes[1], distance, self._bound)
        self._first, self._trail = list(self._newest)[-self._sizes[0] :], Trail()
        self._newest.clear()
        return found


class CentroidDistance:
    """ADWIN on each vector's distance to the mean of the first ones: blind to a change that keeps the distance."""

    name = "centroid"

    def __init__(self, reference: int = 40, delta: float = 0.002) -> None:
        _at_least(1, reference=reference)
        self._reference, self._delta = reference, delta
        self._start()

    def _start(self) -> None:
        self._seen, self._centre = 0, np.zeros(1)
        self._adwin: Any = river.ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]
        self._trail = Trail()

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one vector."""
        vector = _vector(value, self.name).astype(float)
        self._seen += 1
        if self._seen <= self._reference:
            self._centre = self._centre + vector / self._reference
            return None
        distance = float(np.linalg.norm(vector - self._centre))
        self._trail.add(distance, offset)
        self._adwin.update(distance)
        if not self._adwin.drift_detected:
            return None
        found = self._trail.finding("topic", int(self._adwin.width), None, self._delta)
        self._start()
        return found


class MeanDiscrepancy:
    """Maximum mean discrepancy over random Fourier features: the newest vectors against the first ones.

    The bound is that of a gamma distribution fitted to the discrepancies of parts of the reference against the rest of
    it, at a chance of ``alpha`` for one look (Gretton et al., "A fast, consistent kernel two-sample test", 2009).
    """

    name = "mmd"
    _RESAMPLES = 500

    def __init__(self, reference: int = 300, window: int = 100, alpha: float = 1e-5, every: int = 1) -> None:
        _at_least(2, reference=reference, window=window)
        _at_least(1, every=every)
        self._reference, self._window, self._alpha, self._every = reference, window, alpha, every
        self._start()

    def _start(self) -> None:
        self._first: list[NDArray[np.float32]] = []
        self._mean: Numbers = np.empty(0)
        self._bound = math.inf
        self._newest: deque[NDArray[np.float32]] = deque()
        self._total: Numbers = np.empty(0)
        self._seen = 0
        self._trail = Trail()

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one vector."""
        feature = fourier_features(_vector(value, self.name)[None])[0]
        self._trail.add(0.0, offset)
        self._seen += 1
        if self._seen <= self._reference:
            self._first.append(feature)
            if self._seen == self._reference:
                self._fit(np.asarray(self._first, np.float64))
                self._first = []
            return None
        self._newest.append(feature)
        self._total = self._total + feature
        if len(self._newest) > self._window:
            self._total = self._total - self._newest.popleft()
        if len(self._newest) < self._window or self._seen % self._every:
            return None
        statistic = float(np.sum((self._total / self._window - self._mean) ** 2)) * self._weight()
        if statistic <= self._bound:
            return None
        found = self._trail.finding("topic", self._window, statistic, self._bound)
        self._start()
        # Only counts are known of vectors.
        return found._replace(before={}, after={})

    def _weight(self) -> float:
        return self._reference * self._window / (self._reference + self._window)

    def _fit(self, features: Numbers) -> None:
        self._mean, self._total = features.mean(0), np.zeros(features.shape[1])
        rng = np.random.default_rng(0)
        part = max(self._reference * self._window // (self._reference + self._window), 1)
        rest = self._reference - part
        statistics = []
        for _ in range(self._RESAMPLES):
            order = rng.permutation(self._reference)
            difference = features[order[:part]].mean(0) - features[order[part:]].mean(0)
            statistics.append(float(difference @ difference) * part * rest / self._reference)
        mean, variance = float(np.mean(statistics)), float(np.var(statistics))
        self._bound = float(stats.gamma.isf(self._alpha, mean**2 / variance, scale=variance / mean))


RIVER: Mapping[str, tuple[Any, bool]] = {
    "adwin": (river.ADWIN, False),
    "kswin": (river.KSWIN, False),
    "page-hinkley": (river.PageHinkley, False),
    "ddm": (river.binary.DDM, True),
    "eddm": (river.binary.EDDM, True),
    "fhddm": (river.binary.FHDDM, True),
    "hddm-a": (river.binary.HDDMA, True),
    "hddm-w": (river.binary.HDDMW, True),
}
"""River's detectors, and whether they watch errors (0 or 1) only."""

_WINDOWED: Mapping[str, Callable[..., Detector]] = {
    each.name: each for each in (KolmogorovSmirnov, MeanDiscrepancy, CentroidDistance)
}

BASELINES = (*RIVER, *_WINDOWED)
"""Names of the detectors to compare with."""


def baseline(name: str, parameters: Mapping[str, float | str]) -> Callable[[], Detector]:
    """Return what makes a detector, a new one for each stream.

    Raises:
        UnknownParameter: it has no such parameter, or not such a value of it.
    """
    if name in RIVER:
        kind, binary = RIVER[name]
        # KSWIN draws from its window: without a seed no run is like another.
        given = {"seed": 1} | dict(parameters) if name == "kswin" else dict(parameters)
        _check(name, kind, given)
        return lambda: RiverDetector(name, lambda: kind(**given), binary=binary)
    made = _WINDOWED[name]
    _check(name, made, parameters)
    return lambda: made(**parameters)


def _check(name: str, kind: Callable[..., object], parameters: Mapping[str, float | str]) -> None:
    known = [each for each in inspect.signature(kind).parameters if each != "window" or name not in RIVER]
    for each in parameters:
        if each not in known:
            raise UnknownParameter(f"{name} has no parameter {each!r}; it has {', '.join(known)}")
    try:
        kind(**parameters)
    except (TypeError, ValueError) as error:
        raise UnknownParameter(f"{name}: {error}") from error


def _at_least(least: int, **sizes: float) -> None:
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} is {size}; at least {least} is needed")


def _number(value: Value, detector: str) -> float:
    if not isinstance(value, float):
        raise BadLine(f"{detector} watches numbers, and this is a {'category' if isinstance(value, str) else 'vector'}")
    return value


def _vector(value: Value, detector: str) -> NDArray[np.float32]:
    if isinstance(value, float | str):
        raise BadLine(f"{detector} watches vectors, and this is a {'category' if isinstance(value, str) else 'number'}")
    return value

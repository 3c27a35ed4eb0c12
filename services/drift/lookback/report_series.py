"""A signal's values as a plot can show them: a few hundred points, however many events there were.

A collector takes values one by one and keeps two numbers of each; :meth:`drawn` makes buckets of equal width of them.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.drift.detection.features import fourier_features
from services.drift.lookback.replay_lines import Value

__all__ = ["Band", "Bands", "Collector", "Shares", "Steps", "collector"]

BUCKETS = 240
"""Points of a line across a plot: one for about four pixels."""

_POINTS = 1500
"""Values that are drawn one by one as well, at the most."""
_SHOWN = 8
"""Categories with a colour of their own; the rest is one."""
_NAMES = 4096
_REFERENCE, _WINDOW = 200, 100
_Z = 1.96

Numbers = NDArray[np.float64]


class Band(msgspec.Struct, frozen=True):
    """One bucket: its place, the count behind it, its mean, and what lies around it."""

    x: float
    count: int
    mean: float
    low: float
    high: float


class Bands(msgspec.Struct, frozen=True):
    """A number, or the discrepancy of vectors, over time.

    Attributes:
        kind: ``number`` (around the mean lie the middle 80 % of the values), ``rate`` (its 95 % interval, Wilson 1927)
            or ``vector`` (lowest and highest discrepancy).
        bands: the buckets, in order.
        points: values one by one, where there are few.
        positive: whether all values are positive and spread over so many sizes that a logarithmic axis shows more.
    """

    kind: str
    bands: list[Band]
    points: list[tuple[float, float]]
    positive: bool


class Shares(msgspec.Struct, frozen=True):
    """Categories over time: the place and the count of each bucket, and each name's share in it."""

    xs: list[float]
    counts: list[int]
    shares: dict[str, list[float]]


Steps = Bands | Shares


class Collector(Protocol):
    """Gathers one signal's values."""

    def add(self, x: float, value: Value) -> None:
        """Take a value at a place of the axis."""
        ...

    def drawn(self) -> Steps:
        """Return what is to be drawn."""
        ...


def collector(value: Value) -> Collector:
    """Return what gathers values like this one."""
    return _Numbers() if isinstance(value, float) else _Categories() if isinstance(value, str) else _Vectors()


class _Numbers:
    def __init__(self) -> None:
        self._xs, self._ys = array("d"), array("d")

    def add(self, x: float, value: Value) -> None:
        if isinstance(value, float):
            self._xs.append(x)
            self._ys.append(value)

    def drawn(self) -> Bands:
        xs, ys = np.array(self._xs), np.array(self._ys)
        rate = bool(np.isin(ys, (0, 1)).all())
        bands = []
        for x, inside in _buckets(xs):
            part = ys[inside]
            mean = float(part.mean())
            low, high = _wilson(mean, len(part)) if rate else (float(each) for each in np.quantile(part, (0.1, 0.9)))
            bands.append(Band(x, len(part), mean, low, high))
        points = [] if rate or len(xs) > _POINTS else list(zip(xs.tolist(), ys.tolist(), strict=True))
        # Over a factor of a hundred between usual values, small ones are a flat line on a linear axis.
        positive = not rate and bool((ys > 0).all()) and bool(np.quantile(ys, 0.99) > 30 * np.quantile(ys, 0.01))
        return Bands("rate" if rate else "number", bands, points, positive)


class _Categories:
    def __init__(self) -> None:
        self._xs, self._codes = array("d"), array("l")
        self._names: dict[str, int] = {}

    def add(self, x: float, value: Value) -> None:
        if isinstance(value, str):
            known = len(self._names)
            name = value[:80] if known < _NAMES or value[:80] in self._names else "(further)"
            self._xs.append(x)
            self._codes.append(self._names.setdefault(name, known))

    def drawn(self) -> Shares:
        xs, codes = np.array(self._xs), np.array(self._codes)
        names = list(self._names)
        often = [code for code, _ in Counter(codes.tolist()).most_common()]
        shown = often if len(often) <= _SHOWN + 1 else often[:_SHOWN]
        places, counts = [], []
        shares: dict[str, list[float]] = {names[code]: [] for code in shown}
        others: list[float] = []
        for x, inside in _buckets(xs, BUCKETS // 3):
            part = codes[inside]
            places.append(x)
            counts.append(len(part))
            for code in shown:
                shares[names[code]].append(float(np.mean(part == code)))
            others.append(1 - sum(shares[names[code]][-1] for code in shown))
        if len(shown) < len(often):
            shares[f"{len(often) - len(shown)} others"] = others
        return Shares(places, counts, shares)


class _Vectors:
    """The distance between the mean of the newest vectors and that of the first ones, among random Fourier features, in
    units of what chance makes of it: about 1 while nothing changes."""

    def __init__(self) -> None:
        self._xs, self._ys = array("d"), array("d")
        self._seen, self._dimensions = 0, 0

    def add(self, x: float, value: Value) -> None:
        if isinstance(value, float | str):
            return
        if len(value) != self._dimensions:
            self._seen, self._dimensions = 0, len(value)
        feature = fourier_features(value[None])[0].astype(np.float64)
        if not self._seen:
            self._first: Numbers = np.zeros(len(feature))
            self._squares = 0.0
            self._newest: deque[Numbers] = deque()
            self._total: Numbers = np.zeros(len(feature))
        self._seen += 1
        if self._seen <= _REFERENCE:
            self._first = self._first + feature
            self._squares += float(feature @ feature)
            return
        self._newest.append(feature)
        self._total = self._total + feature
        if len(self._newest) > _WINDOW:
            self._total = self._total - self._newest.popleft()
        size = len(self._newest)
        if size >= _WINDOW // 2:
            mean = self._first / _REFERENCE
            spread = max(self._squares / _REFERENCE - float(mean @ mean), 1e-12)
            difference = self._total / size - mean
            self._xs.append(x)
            self._ys.append(float(difference @ difference) / (spread * (1 / size + 1 / _REFERENCE)))

    def drawn(self) -> Bands:
        xs, ys = np.array(self._xs), np.array(self._ys)
        bands = [
            Band(x, len(inside), float(ys[inside].mean()), float(ys[inside].min()), float(ys[inside].max()))
            for x, inside in _buckets(xs)
        ]
        return Bands("vector", bands, [], False)


def _buckets(xs: Numbers, most: int = BUCKETS) -> Iterator[tuple[float, NDArray[np.intp]]]:
    """Yield the middle and the members of every bucket that has any."""
    if not len(xs):
        return
    low, high = float(xs.min()), float(xs.max())
    count = max(1, min(most, len(xs) // 8))
    width = (high - low) / count or 1.0
    places = np.minimum(((xs - low) / width).astype(int), count - 1)
    order = np.argsort(places, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        yield float(xs[members].mean()), members


def _wilson(share: float, count: int) -> tuple[float, float]:
    denominator = 1 + _Z * _Z / count
    centre = (share + _Z * _Z / (2 * count)) / denominator
    half = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count)) / denominator
    return max(centre - half, 0.0), min(centre + half, 1.0)

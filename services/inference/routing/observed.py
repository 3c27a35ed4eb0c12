"""What calls of a target were like lately, and what the next one takes by that. Memory is bounded, and fades with time.

The latency of a call is taken for a part that is always there, one for each token of its prompt and one for each token of
its answer; how far calls were off what this says, as a ratio, gives the confidence. It is learnt from whole calls, so
answers that are not streamed teach it as well.
"""

from __future__ import annotations

import math

from services.inference.routing.regression import non_negative_fit

__all__ = ["HALF_LIFE_S", "LEAST_KNOWN", "Fading", "Latency"]

HALF_LIFE_S = 600.0
"""After so many seconds a call counts half."""
LEAST_KNOWN = 3.0
"""Calls, faded ones in part, from which a target's latency is foretold."""
_MOST_KNOWN = 512.0
# Failures are judged as if so many calls had been answered besides: one failure of the first call is not the target's rate.
_CALLS_BESIDE = 5.0
_SHORTEST_S, _LONGEST_S = 0.001, 36_000.0
_LARGEST_UNIT = 1e9
# Weights are divided by what is left of them: after some days that would be 0.
_LEAST_LEFT = 2.0**-64
# A call of which nobody awaits the end counts as hanging after so many times what 99 % of so many answers took at most.
_HANGING, _HANGING_KNOWN, _HANGING_SHARE = 2.0, 20.0, 0.99


class Fading:
    """Positive numbers as they were lately: mean and quantiles. Each number is known to its ``precision``.

    A histogram over logarithms whose weights halve every :data:`HALF_LIFE_S`; at most :data:`_MOST_KNOWN` are known at a
    time, so that busy targets forget by calls.
    """

    def __init__(self, least: float, most: float, precision: float = 0.1) -> None:
        """Numbers outside ``least`` to ``most`` count as these."""
        self._least, self._most = least, most
        self._step = math.log1p(precision)
        # In units that grow as numbers fade: so the newest alone is touched.
        self._weights = [0.0] * (math.ceil(math.log(most / least) / self._step) + 1)
        self._weight = self._sum = 0.0
        self._unit = 1.0
        self._at = 0.0

    def add(self, value: float, now: float) -> None:
        """Take ``value`` at ``now``, seconds."""
        self._unit /= min(_fade(now - self._at), (_MOST_KNOWN - 1) * self._unit / max(self._weight, self._unit))
        if self._unit > _LARGEST_UNIT:
            self._weights = [weight / self._unit for weight in self._weights]
            self._weight, self._sum, self._unit = self._weight / self._unit, self._sum / self._unit, 1.0
        self._at = max(self._at, now)
        value = min(max(value, self._least), self._most)
        self._weights[math.ceil(round(math.log(value / self._least) / self._step, 9))] += self._unit
        self._weight += self._unit
        self._sum += value * self._unit

    def known(self, now: float) -> float:
        """Return how many numbers are known, faded ones in part."""
        return self._weight / self._unit * _fade(now - self._at)

    def mean(self) -> float | None:
        """Return the mean; None where nothing is known."""
        return self._sum / self._weight if self._weight else None

    def quantile(self, share: float) -> float | None:
        """Return a number that ``share`` of all are not above, to the precision from above; None where nothing is known.

        Of few numbers it is the largest: nothing is known of what lies beyond them.
        """
        if not self._weight:
            return None
        wanted, below, highest = share * self._weight, 0.0, 0
        for index, weight in enumerate(self._weights):
            if weight:
                below, highest = below + weight, index
                if below >= wanted:
                    break
        return min(self._least * math.exp(highest * self._step), self._most)


class Latency:
    """How long calls of one target took, by their tokens, and how many failed."""

    def __init__(self) -> None:
        self._moments = [[0.0] * 3 for _ in range(3)]
        self._products = [0.0] * 3
        self._weight = self._failures = 0.0
        self._at = 0.0
        self._ratios = Fading(0.01, 100.0)
        self._whole = Fading(_SHORTEST_S, _LONGEST_S)
        self._fit: list[float] | None = None
        self._new = 0.0

    def answered(self, input_tokens: int, output_tokens: int, seconds: float, now: float) -> None:
        """Take the latency of a call that gave an answer."""
        self._faded(now)
        seconds = max(seconds, _SHORTEST_S)
        self._whole.add(seconds, now)
        features = (1.0, float(max(0, input_tokens)), float(max(0, output_tokens)))
        foretold = self._foretold(features)
        if foretold is not None:
            self._ratios.add(seconds / foretold, now)
        # What a call takes is uncertain in proportion to it, or less: neither long calls nor short ones say all.
        weight = 1 / seconds
        for i, one in enumerate(features):
            self._products[i] += weight * one * seconds
            for j, other in enumerate(features):
                self._moments[i][j] += weight * one * other
        self._weight += 1
        self._new += 1
        if foretold is None:
            self._ratios.add(1.0, now)

    def failed(self, now: float) -> None:
        """Take a call that failed."""
        self._faded(now)
        self._failures += 1

    def longest_wait(self, now: float) -> float | None:
        """Return after how many seconds a call hangs rather than takes its time; None where that is not known."""
        longest = self._whole.quantile(_HANGING_SHARE) if self._whole.known(now) >= _HANGING_KNOWN else None
        return None if longest is None else _HANGING * longest

    def known(self, now: float) -> bool:
        """Return whether enough is known to foretell a call."""
        return self._weight * _fade(now - self._at) >= LEAST_KNOWN

    def failing(self) -> float:
        """Return the share of calls that fail, careful where few are known."""
        return self._failures / (self._weight + self._failures + _CALLS_BESIDE)

    def seconds(self, input_tokens: float, output_tokens: float, confidence: float, now: float) -> float | None:
        """Return how long a call takes at most, with ``confidence`` that it is answered by then; None where it is not
        known, infinity where it fails too often for that.
        """
        if not self.known(now):
            return None
        share = confidence / (1 - self.failing())
        if share >= 1:
            return math.inf
        foretold = self._foretold((1.0, input_tokens, output_tokens))
        ratio = self._ratios.quantile(share)
        return None if foretold is None or ratio is None else foretold * ratio

    def _foretold(self, features: tuple[float, float, float]) -> float | None:
        # Each call changes the fit by a share of what is known: it is made anew when that is a tenth.
        if self._new and (self._fit is None or self._new >= self._weight / 10):
            self._fit = non_negative_fit(self._moments, self._products)
            self._new = 0.0
        if self._fit is None:
            return None
        return max(sum(b * x for b, x in zip(self._fit, features, strict=True)), _SHORTEST_S)

    def _faded(self, now: float) -> None:
        known = self._weight + self._failures
        kept = min(_fade(now - self._at), (_MOST_KNOWN - 1) / max(known, 1.0))
        self._at = max(self._at, now)
        if kept < 1:
            self._moments = [[value * kept for value in row] for row in self._moments]
            self._products = [value * kept for value in self._products]
            self._weight *= kept
            self._failures *= kept


def _fade(seconds: float) -> float:
    """Return what is left of a weight after ``seconds``, never nothing."""
    return 1.0 if seconds <= 0 else max(0.5 ** (seconds / HALF_LIFE_S), _LEAST_LEFT)

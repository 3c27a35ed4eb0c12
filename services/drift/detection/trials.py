"""The second stage of topic drift: a candidate is judged by the messages that come after it.

The candidate's window gives a direction, the discriminant between the window and the reference. Each later message is
ranked along it among a sample of the reference's. Were there no change, every rank would be as likely as another,
whatever the embeddings are like: the message and the sample's are exchangeable. (That the reference's own messages are
in the mean and covariance that give the direction, and the later message is not, is corrected by leaving each out in
turn: the jackknife+ of Barber et al., 2021.) So the ranks' likelihood under some ways in which traffic moves, relative
to exchangeability, is a martingale under no change (a conformal test martingale: Vovk et al., "Algorithmic Learning in
a Random World"), and by Ville's inequality it exceeds 1/alpha at any time with a chance of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np

from services.drift.detection.features import Array
from services.drift.detection.reference import Geometry, uniform, values

__all__ = ["Ranking", "Trial", "evidence", "judged", "purified"]

# Upper bounds of the bins, as a share of the reference that lies further out; below a few messages' share the
# bins are bounded by counts.
_EDGES = (0.0, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 0.75, 0.9, 1.0)
BINS = len(_EDGES) - 1
_FAR = (0.5, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02, 0.0, 0.0, 0.0)
_FLAT = tuple(upper - lower for lower, upper in pairwise(_EDGES))


def _shares(moved: float, far: Sequence[float]) -> tuple[float, ...]:
    return tuple(moved * share + (1 - moved) * flat for share, flat in zip(far, _FLAT, strict=True))


_NEAR_HALF = tuple(2 * max(min(upper, 0.5) - lower, 0.0) for lower, upper in pairwise(_EDGES))
# What the ranks may be like after a change: nearly all, half or a fifth of the messages far out; or no message on the
# other side any more.
_ALTERNATIVES = (_shares(0.9, _FAR), _shares(0.5, _FAR), _shares(0.2, _FAR), _shares(0.85, _NEAR_HALF))
# Messages' worth of belief in an alternative, before the fresh messages say otherwise.
_BELIEF = 20.0
# A message is scored along the trial's direction alone, and by that and how strange it is to the reference at all.
_SCORES = 2
# Scores this close, in standard deviations, are of the same text.
_TIE = 1e-3
_NOTHING = np.float32(1e-9)
# Fewer others say nothing.
_FEWEST = 16


class Trial(msgspec.Struct, frozen=True, array_like=True):
    """A candidate, and what has come after it."""

    start: int
    """First message of the window, counted from the last change."""
    opened: int
    """First message after the window."""
    direction: bytes
    """Mean of the window's messages that are likely new, less the reference's, shape (FEATURES,), float32."""
    alpha: float
    """Chance of confirming it that was paid for."""
    statistic: float
    """Of the window, standardised."""
    before: float
    """Messages behind the mean that the window was compared with."""
    counts: tuple[tuple[int, ...], ...] = ((0,) * BINS,) * _SCORES
    """Later messages by bin of their rank, for each score."""
    logs: tuple[float, ...] = (0.0,) * (len(_ALTERNATIVES) * _SCORES)
    """Log likelihood ratio of each alternative, for each score."""
    peak: float = 0.0
    """Most evidence there ever was."""

    @property
    def size(self) -> int:
        return self.opened - self.start

    @property
    def fresh(self) -> int:
        return sum(self.counts[0])


def evidence(trial: Trial) -> float:
    """Return the log likelihood ratio of a change, the alternatives being equally likely; nats."""
    most = max(trial.logs)
    return most + math.log(sum(math.exp(log - most) for log in trial.logs) / len(trial.logs))


class Ranking:
    """One message's place among those of the reference.

    Args:
        value: the message's features, shape (FEATURES,).
        place: which message it is; it decides ties.
        known: the reference's geometry.
        weight: messages behind it.
        recent: messages that are not in the reference, ending with this one. Those well before a trial's window are
            ranked among too.
    """

    def __init__(self, value: Array, place: int, known: Geometry, weight: float, recent: bytes) -> None:
        self.place = place
        self._known = known
        self._weight = np.float32(weight)
        self._deviation = value - known.mean
        self._image = self._deviation @ known.inverse
        self._novelty = float(self._image @ self._deviation)
        # u S^-1 v with each of the sample's messages, and the message's own with each of them left out.
        self._cross = known.images @ self._deviation
        self._pull = 1 / max(self._weight - 1, np.float32(1))
        share = 1 / self._weight
        kept = 1 - share * known.leverage
        without = self._novelty + share * self._cross**2 / kept
        without += (2 * self._pull * self._cross + self._pull**2 * known.leverage) / kept
        self._further = (without - known.novelty) / (np.std(known.novelty) + _NOTHING)
        self._recent = recent

    def strangeness(self) -> tuple[float, int]:
        """Return the share of the reference that is stranger to the rest of it, and the messages behind that."""
        return _rank(self._further, self.place), len(self._further)

    def along(self, trials: Sequence[Trial]) -> list[tuple[tuple[float, ...], int]]:
        """Return for each trial the share of the reference that lies further out than the message, by each score, and
        the number of messages that this is a share of."""
        known, place = self._known, self.place
        directions = np.array([np.frombuffer(trial.direction, np.float32) for trial in trials]).T
        along = known.images @ directions
        gap = (self._cross - known.leverage)[:, None]
        share = 1 / self._weight
        pull = 1 / np.maximum(np.array([trial.before for trial in trials], np.float32) - 1, 1)
        leverage = known.leverage[:, None]
        left_out = gap * (pull + share * (along + pull * leverage) / (1 - share * leverage))
        spread = np.std(along, axis=0) + _NOTHING
        lead = (self._image @ directions - along + left_out) / spread

        earlier = values(self._recent)[:-1]
        first = place - len(earlier)
        usable = [min(max(trial.start - trial.size - first, 0), len(earlier)) for trial in trials]
        deviations = earlier[: max(usable)] - known.mean
        images = deviations @ known.inverse
        lead_recent = (self._image @ directions - images @ directions) / spread
        strangeness = np.std(known.novelty) + _NOTHING
        further_recent = (self._novelty - np.sum(images * deviations, axis=1)) / strangeness

        newest = int(known.places.max())
        result: list[tuple[tuple[float, ...], int]] = []
        for index, (trial, count) in enumerate(zip(trials, usable, strict=True)):
            before = known.places < trial.start if newest >= trial.start else slice(None)
            ahead = np.concatenate([lead[before, index], lead_recent[:count, index]])
            beyond = ahead + np.concatenate([self._further[before], further_recent[:count]])
            result.append(((_rank(ahead, place), _rank(beyond, place)), len(ahead)))
        return result


def _rank(leads: Array, place: int) -> float:
    """Return the share of the others that the message is not ahead of; it is uniform between 0 and 1 if it is one of
    them, ties being broken at random."""
    further = int(np.count_nonzero(leads < -_TIE))
    level = int(np.count_nonzero(leads <= _TIE)) - further
    return (further + uniform(place, 2) * (level + 1)) / (len(leads) + 1)


def judged(trial: Trial, ranked: Sequence[float], others: int) -> Trial:
    """Add a later message.

    Args:
        trial: what is known so far; not changed.
        ranked: share of the reference that lies further out by each score, from :meth:`Ranking.along`.
        others: messages of the reference behind that.
    """
    if others < _FEWEST:
        return trial
    before = trial.fresh
    logs: list[float] = []
    counts = []
    for score, rank in enumerate(ranked):
        binned = next(index for index in range(BINS) if rank < _EDGES[index + 1] or index == BINS - 1)
        seen = trial.counts[score][binned]
        expected = (_FLAT[binned] * (others + 1) + seen) / (others + 1 + before)
        for alternative, shares in enumerate(_ALTERNATIVES):
            likelihood = (_BELIEF * shares[binned] + seen) / (_BELIEF + before)
            logs.append(trial.logs[score * len(_ALTERNATIVES) + alternative] + math.log(likelihood / expected))
        counts.append(tuple(count + (index == binned) for index, count in enumerate(trial.counts[score])))
    after = msgspec.structs.replace(trial, counts=tuple(counts), logs=tuple(logs))
    return msgspec.structs.replace(after, peak=max(trial.peak, evidence(after)))


def purified(window: Array, known: Geometry) -> Array:
    """Return the mean of those messages of a window that are likely new, less the reference's.

    Where a fifth of the traffic has moved, the other messages add nothing but noise to the mean of all.

    Args:
        window: shape (n, FEATURES).
        known: the reference's geometry.
    """
    deviations = window - known.mean
    energies = np.sum((deviations @ known.inverse) * deviations, axis=1)
    above = (energies - np.quantile(known.novelty, 0.8)) / (0.25 * known.energy + _NOTHING)
    weights = 1 / (1 + np.exp(-np.clip(above, -20, 20)))
    direction: Array = (weights @ deviations / weights.sum()).astype(np.float32)
    return direction

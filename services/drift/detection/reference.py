"""What topic drift remembers of a segment's past: the reference that newer messages are tested against.

Mean and covariance of all messages since the last change, and a uniform sample of them to rank others among. Features
are kept as 8-bit integers, so that their sums are exact. Pure: every function returns a new reference.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from services.drift.detection.features import FEATURES, Array

__all__ = ["SCALE", "Geometry", "Reference", "absorb", "geometry", "quantised", "uniform", "values"]

SCALE = np.float32(127.0)
"""Features are between -1 and 1; this makes 8-bit integers of them."""

_UPPER = np.triu_indices(FEATURES)
_MASK = (1 << 64) - 1


class Reference(msgspec.Struct, frozen=True, array_like=True):
    """Messages of the past: their mean, scatter and a sample of them."""

    weight: float = 0.0
    """Messages behind mean and scatter; older ones fade."""
    absorbed: int = 0
    """Messages that were ever added."""
    mean: bytes = b""
    """Shape (FEATURES,), float32."""
    scatter: bytes = b""
    """Upper triangle of the sum of squared deviations from the mean, float32."""
    sample: bytes = b""
    """Shape (n, FEATURES), int8."""
    places: bytes = b""
    """Which messages of the segment the sample's are, counted from the last change; int32."""


class Geometry(NamedTuple):
    """How far messages are from each other, seen from a reference of which S is the covariance with its ridge.

    Attributes:
        mean: shape (FEATURES,).
        inverse: inverse of S; shape (FEATURES, FEATURES).
        images: deviations of the sample's messages from the mean, times the inverse; shape (sample, FEATURES).
        leverage: u S^-1 u of each of them; shape (sample,).
        novelty: the same with the message itself left out of mean and covariance; shape (sample,).
        places: which messages they are.
        energy: E(u S^-1 u) of a message that the reference has not seen.
        overlap: E(u S^-1 v)^2 of two messages.
        spread: mean squared distance of its messages to their mean.
    """

    mean: Array
    inverse: Array
    images: Array
    leverage: Array
    novelty: Array
    places: npt.NDArray[np.int32]
    energy: float
    overlap: float
    spread: float


def quantised(feature: Array) -> bytes:
    """Return a message's features as 8-bit integers."""
    rounded: npt.NDArray[np.int8] = np.rint(feature * SCALE).astype(np.int8)
    return rounded.tobytes()


def values(messages: bytes) -> Array:
    """Return the features of quantised messages, shape (n, FEATURES)."""
    return np.frombuffer(messages, np.int8).reshape(-1, FEATURES).astype(np.float32) / SCALE


def uniform(place: int, salt: int) -> float:
    """Return a number in [0, 1) that depends on the arguments only: SplitMix64 (Steele et al., 2014)."""
    mixed = (place * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


def absorb(reference: Reference, messages: npt.NDArray[np.int8], first: int, sample: int, memory: int) -> Reference:
    """Add messages.

    Args:
        reference: what is there; not changed.
        messages: shape (n, FEATURES).
        first: which message of the segment the first of them is.
        sample: messages that are kept one by one.
        memory: messages that mean and scatter remember; older ones fade.
    """
    count = len(messages)
    added = messages.astype(np.float32) / SCALE
    centre = added.mean(0)
    deviations = added - centre
    weight = min(reference.weight, float(memory - count))
    if reference.mean:
        mean = np.frombuffer(reference.mean, np.float32)
        shift = centre - mean
        kept = np.frombuffer(reference.scatter, np.float32) * np.float32(weight / reference.weight)
        between = np.outer(shift, shift) * np.float32(weight * count / (weight + count))
        scatter = kept + (deviations.T @ deviations + between)[_UPPER]
        mean = mean + shift * np.float32(count / (weight + count))
    else:
        mean, scatter = centre, (deviations.T @ deviations)[_UPPER]

    # Reservoir sampling (Vitter, 1985); once memory is reached every message has the same chance, and old ones fade.
    chosen = [reference.sample[start : start + FEATURES] for start in range(0, len(reference.sample), FEATURES)]
    places = np.frombuffer(reference.places, np.int32).tolist()
    for index in range(count):
        total = reference.absorbed + index
        if len(chosen) < sample:
            chosen.append(messages[index].tobytes())
            places.append(first + index)
            continue
        slot = int(uniform(total, 1) * min(total + 1, memory))
        if slot < sample:
            chosen[slot] = messages[index].tobytes()
            places[slot] = first + index
    return Reference(
        weight=weight + count,
        absorbed=reference.absorbed + count,
        mean=mean.astype(np.float32).tobytes(),
        scatter=scatter.astype(np.float32).tobytes(),
        sample=b"".join(chosen),
        places=np.array(places, np.int32).tobytes(),
    )


def _ridge(weight: float) -> float:
    """Return the ridge relative to the mean variance: the fewer messages, the less their covariance is believed."""
    return 0.1 + 50.0 / weight


# A memo of a pure function: the reference changes with every 16th message only. An entry is about 150 KB.
@lru_cache(maxsize=64)
def geometry(reference: Reference) -> Geometry:
    """Return what the reference makes of differences between messages."""
    mean = np.frombuffer(reference.mean, np.float32)
    covariance = np.zeros((FEATURES, FEATURES), np.float64)
    covariance[_UPPER] = np.frombuffer(reference.scatter, np.float32)
    covariance = (covariance + np.triu(covariance, 1).T) / reference.weight
    spread = float(np.trace(covariance))
    variance = max(spread / FEATURES, 1e-6)
    covariance[np.diag_indices(FEATURES)] += _ridge(reference.weight) * variance
    inverse: Array = np.linalg.inv(covariance).astype(np.float32)
    deviations = values(reference.sample) - mean
    images = (deviations @ inverse).astype(np.float32)
    products = images @ deviations.T
    leverage = np.diag(products).copy()
    novelty = _left_out(leverage, reference.weight)
    count = len(deviations)
    # Both left out, to first order.
    without = 1 - leverage / np.float32(reference.weight)
    pairs = products / np.outer(without, without)
    overlap = float(np.sum(pairs**2) - np.sum(np.diag(pairs) ** 2)) / max(count * (count - 1), 1)
    return Geometry(
        mean=mean,
        inverse=inverse,
        images=images,
        leverage=leverage,
        novelty=novelty,
        places=np.frombuffer(reference.places, np.int32),
        energy=float(np.mean(novelty)),
        overlap=max(overlap, 1e-12),
        spread=spread,
    )


def _left_out(leverage: Array, weight: float) -> Array:
    """Return u S^-1 u of messages were they not in mean and covariance (Sherman and Morrison, 1950)."""
    without: Array = leverage * np.float32((weight / (weight - 1)) ** 2) / (1 - leverage / np.float32(weight))
    return without

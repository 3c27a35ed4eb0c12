"""What topic drift remembers of a segment: the reference its prompts are tested against, and the newest messages.

Pure: every function returns a new state. The newest 64 to 79 messages are kept one by one, older ones as sums of blocks
that get coarser with age, and all as one mean and covariance.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from services.drift.features import FEATURES, Array

__all__ = ["Block", "Candidate", "TopicParameters", "TopicState", "append", "geometry", "rebased", "singles"]

# Messages leave the window of single messages, and enter the reference's covariance, in blocks of this size.
_BLOCK = 16
# Singles kept after a block has left; until then a message cannot have spoilt the covariance it is tested against.
_SINGLES = 64
# Blocks of each size (16, 32, 64 messages) before two are merged, and in the end the oldest is given up to the
# reference.
_TIERS = ((16, 4), (32, 4), (64, 6))
_UPPER = np.triu_indices(FEATURES)
# Weight of the past null moments when a block adds its own: a memory of about 50 blocks, 800 messages.
_KEEP = 0.98


class TopicParameters(msgspec.Struct, frozen=True):
    """How the test is set; the defaults are calibrated by tests/bench/bench_drift.py."""

    reference: int = 40
    """Messages that make the first reference."""
    threshold: float = 3.0
    """Standardised statistic that makes a candidate, for a large test window."""
    small_sample: float = 13.0
    """Added to the threshold, over the root of the window's size: with few messages the statistic has a heavier
    tail."""
    mixture: float = 5.0
    """Standard normal deviate of the unwhitened statistic that makes a candidate."""
    small_reference: float = 24.0
    """Thresholds grow by this over the reference's size: its error is shared by all windows, so it is not
    confirmed away."""
    confirm: float = 2.0
    """Standardised statistic that the messages after the candidate must reach by themselves."""
    confirm_least: int = 6
    """Messages after the candidate before it can be confirmed."""
    memory: int = 4096
    """Messages that the reference remembers; older ones fade."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """The sum of some consecutive messages' features."""

    count: int
    first_offset: int
    total: bytes


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A change that waits for its confirmation."""

    seen: int
    size: int
    statistic: float


class Geometry(NamedTuple):
    """How far apart two means are, seen from a reference.

    Attributes:
        whitener: whitens deviations; shape (FEATURES, FEATURES).
        energy: E|u|^2 of a message's deviation u, not whitened: the trace of the covariance.
        overlap: E(u.u')^2 of two messages, not whitened: the covariance's squared Frobenius norm.
    """

    whitener: Array
    energy: float
    overlap: float


class TopicState(msgspec.Struct, frozen=True):
    """What is kept of a segment's prompts since the last change."""

    seen: int = 0
    first_offset: int = -1
    singles: bytes = b""
    offsets: tuple[int, ...] = ()
    blocks: tuple[Block, ...] = ()
    total: bytes = b""
    weight: float = 0.0
    absorbed: float = 0.0
    mean: bytes = b""
    scatter: bytes = b""
    energy: float = 0.0
    """E|u|^2 of a message's whitened deviation u, measured on messages that the covariance had not seen."""
    overlap: float = 0.0
    """E(u.u')^2 of two messages, measured likewise."""
    blocks_seen: float = 0.0
    batch_energy: float = 0.0
    """Sum over blocks of the batch mean's energy relative to independence; above 1 each when messages come in
    bursts."""
    candidate: Candidate | None = None
    wealth: float = 0.0
    """Expected false alarms that have accrued and were not spent on a candidate."""


def append(state: TopicState, feature: Array, offset: int, parameters: TopicParameters) -> TopicState:
    """Add one message; with enough of them the first reference is made, later the oldest single messages enter it.

    Args:
        state: what is known so far; not changed.
        feature: shape (FEATURES,).
        offset: where the message stands in its partition.
        parameters: how the test is set.
    """
    state = _added(state, feature, offset)
    if not state.mean:
        return _first_reference(state) if state.seen >= parameters.reference else state
    if len(state.offsets) >= _SINGLES + _BLOCK:
        state = _absorb(state, _BLOCK, parameters)
    return state


def _added(state: TopicState, feature: Array, offset: int) -> TopicState:
    single = feature.astype(np.float16)
    total = np.frombuffer(state.total) if state.total else np.zeros(FEATURES)
    return msgspec.structs.replace(
        state,
        seen=state.seen + 1,
        first_offset=offset if state.first_offset < 0 else state.first_offset,
        singles=state.singles + single.tobytes(),
        offsets=(*state.offsets, offset),
        # Of the rounded feature: what is added must be exactly what is taken off again.
        total=(total + single.astype(np.float64)).tobytes(),
        weight=state.weight + 1,
    )


def singles(state: TopicState) -> Array:
    """Return the features of the messages that are kept one by one, oldest first, shape (n, FEATURES)."""
    return np.frombuffer(state.singles, np.float16).reshape(-1, FEATURES).astype(np.float32)


def _ridge(count: float) -> float:
    """Return the ridge relative to the mean variance: the fewer messages, the less their covariance is believed."""
    return float(2.0 * np.sqrt(48 / max(count, 1.0)))


def _whiten(scatter: Array, count: float) -> Array:
    """Return a matrix that whitens deviations, scaled so that the reference's own energy is 1."""
    covariance = scatter / max(count - 1, 1.0)
    variance = max(float(np.trace(covariance)) / FEATURES, 1e-12)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    values = np.maximum(values, 0.0)
    scales = 1 / np.sqrt(values + _ridge(count) * variance)
    energy = float(np.sum(values * scales**2))
    whitener: Array = (vectors * scales / np.sqrt(max(energy, 1e-12))).astype(np.float32)
    return whitener


def _unpack(scatter: bytes) -> Array:
    full: Array = np.zeros((FEATURES, FEATURES), np.float32)
    full[_UPPER] = np.frombuffer(scatter, np.float32)
    return full + np.triu(full, 1).T


# A memo of a pure function: the whitener changes with every 16th message only. 256 matrices of 36 KB.
@lru_cache(maxsize=256)
def geometry(scatter: bytes, count: float) -> Geometry:
    """Return what the reference's covariance makes of differences."""
    full = _unpack(scatter)
    covariance = full / max(count - 1, 1.0)
    return Geometry(_whiten(full, count), float(np.trace(covariance)), float(np.sum(covariance**2)))


def _first_reference(state: TopicState) -> TopicState:
    """Make the first covariance, and measure by cross-fitting what it does to messages it has not seen."""
    features = singles(state)
    count = len(features)
    folds = np.arange(count) % 4
    energies, overlaps = [], []
    for fold in range(4):
        kept, held = features[folds != fold], features[folds == fold]
        mean = kept.mean(0)
        deviations = kept - mean
        whitener = _whiten(deviations.T @ deviations, len(kept))
        whitened = (held - mean) @ whitener / np.float32(np.sqrt(1 + 1 / len(kept)))
        energy, overlap = _moments(whitened)
        energies.append(energy)
        overlaps.append(overlap)
    mean = features.mean(0)
    deviations = features - mean
    scatter = (deviations.T @ deviations)[_UPPER].astype(np.float32)
    return msgspec.structs.replace(
        state,
        singles=b"",
        offsets=(),
        blocks=(Block(count, state.offsets[0], features.sum(0).astype(np.float32).tobytes()),),
        absorbed=float(count),
        mean=mean.astype(np.float32).tobytes(),
        scatter=scatter.tobytes(),
        energy=float(np.mean(energies)),
        overlap=float(np.mean(overlaps)),
    )


def _moments(whitened: Array) -> tuple[float, float]:
    gram = whitened @ whitened.T
    count = len(whitened)
    energy = float(np.trace(gram)) / count
    overlap = float(np.sum(gram**2) - np.sum(np.diag(gram) ** 2)) / (count * (count - 1))
    return energy, overlap


def _absorb(state: TopicState, count: int, parameters: TopicParameters) -> TopicState:
    """Move the oldest singles into the reference: null moments first, measured before the covariance knows them."""
    features = singles(state)[:count]
    mean = np.frombuffer(state.mean, np.float32)
    unseen = np.float32(np.sqrt(1 + 1 / state.absorbed))
    whitened = (features - mean) @ geometry(state.scatter, state.absorbed).whitener / unseen
    energy, overlap = _moments(whitened.astype(np.float32))
    batch = count * float(np.sum(whitened.mean(0) ** 2)) / max(state.energy, 1e-12)

    keep = min(1.0, parameters.memory / (state.absorbed + count))
    absorbed = state.absorbed * keep
    shift = features.mean(0) - mean
    deviations = features - features.mean(0)
    scatter = np.frombuffer(state.scatter, np.float32) * np.float32(keep)
    between = np.outer(shift, shift) * (absorbed * count / (absorbed + count))
    scatter = scatter + (deviations.T @ deviations + between)[_UPPER]
    share = 1 - _KEEP if state.absorbed > 50 * _BLOCK else count / (state.absorbed + count)
    block = Block(count, state.offsets[0], features.sum(0).astype(np.float32).tobytes())
    blocks, dropped = _merge((*state.blocks, block))
    total = np.frombuffer(state.total)
    weight = state.weight
    if dropped and weight > parameters.memory:
        # Only what no suffix covers any more may fade, or a suffix would be taken off that was never in.
        covered = sum(block.count for block in blocks) + len(state.offsets) - count
        inside = np.sum([np.frombuffer(block.total, np.float32) for block in blocks], axis=0, dtype=np.float64)
        inside = inside + singles(state)[count:].sum(0, dtype=np.float64)
        fade = (parameters.memory - covered) / (weight - covered)
        total = (total - inside) * fade + inside
        weight = float(parameters.memory)
    return msgspec.structs.replace(
        state,
        singles=state.singles[count * FEATURES * 2 :],
        offsets=state.offsets[count:],
        blocks=blocks,
        total=total.tobytes(),
        weight=weight,
        absorbed=absorbed + count,
        mean=(mean + shift * (count / (absorbed + count))).astype(np.float32).tobytes(),
        scatter=scatter.astype(np.float32).tobytes(),
        energy=state.energy * (1 - share) + energy * share,
        overlap=state.overlap * (1 - share) + overlap * share,
        blocks_seen=state.blocks_seen * _KEEP + 1,
        batch_energy=state.batch_energy * _KEEP + batch,
    )


def _merge(blocks: tuple[Block, ...]) -> tuple[tuple[Block, ...], bool]:
    """Merge neighbours so that the newest blocks stay fine and the oldest get coarse; tell whether one was given up."""
    merged = list(blocks)
    for size, most in _TIERS:
        same = [index for index, block in enumerate(merged) if block.count == size]
        if len(same) <= most:
            continue
        if size == _TIERS[-1][0]:
            # The first reference's block, if it is still there, goes with it.
            return tuple(merged[same[0] + 1 :]), True
        older, newer = merged[same[0]], merged[same[1]]
        total = np.frombuffer(older.total, np.float32) + np.frombuffer(newer.total, np.float32)
        merged[same[0] : same[1] + 1] = [Block(older.count + newer.count, older.first_offset, total.tobytes())]
    return tuple(merged), False


def rebased(state: TopicState, size: int, parameters: TopicParameters) -> TopicState:
    """Start anew from the messages behind the change, as far as they are still held one by one."""
    kept = min(size, len(state.offsets), parameters.reference - 1)
    features = singles(state)[-kept:]
    return TopicState(
        wealth=state.wealth,
        seen=kept,
        first_offset=state.offsets[-kept],
        singles=state.singles[-kept * FEATURES * 2 :],
        offsets=state.offsets[-kept:],
        total=features.sum(0, dtype=np.float64).tobytes(),
        weight=float(kept),
    )

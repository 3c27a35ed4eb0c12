"""Random Fourier features: the fixed map under which a change of topic is a shift of the mean."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["FEATURES", "Array", "fourier_features"]

Array = npt.NDArray[np.float32]

FEATURES = 96
"""Length of a feature vector: cosine and sine of 48 frequencies. On topic shifts 96 features lose little against 256
once they are whitened (tests/bench/bench_drift.py), and the state of a segment grows with their square."""

# exp(-GAMMA * |x - y|^2) for vectors of unit length. Sentence embeddings of one topic lie 0.6 to 1.2 apart: with 0.25
# the kernel is wide enough that a shift of the mean dominates, which is what a change of topic is.
GAMMA = 0.25
_SEED = 20_240_511


@lru_cache(maxsize=4)
def _frequencies(dimensions: int) -> Array:
    """Return the frequencies, shape (dimensions, FEATURES / 2).

    Orthogonal directions of equal length (Yu et al., "Orthogonal Random Features", 2016) in place of independent
    ones: with as few as 48 they keep distances several times better.
    """
    rng = np.random.default_rng(_SEED)
    count = FEATURES // 2
    blocks: list[npt.NDArray[np.float64]] = []
    while sum(block.shape[1] for block in blocks) < count:
        q, r = np.linalg.qr(rng.standard_normal((dimensions, min(dimensions, count))))
        # The sign of a column is the LAPACK's choice; this makes it ours.
        blocks.append(q * np.sign(np.diag(r)))
    frequencies: Array = (np.hstack(blocks)[:, :count] * np.sqrt(2 * GAMMA * dimensions)).astype(np.float32)
    frequencies.setflags(write=False)
    return frequencies


def fourier_features(embeddings: Array) -> Array:
    """Map embeddings to features whose inner product approximates the Gaussian kernel (Rahimi & Recht, 2007).

    Args:
        embeddings: shape (n, dimensions), float32; scaled to unit length here.

    Returns:
        Shape (n, FEATURES), float32, each row of unit length.

    Raises:
        ValueError: an embedding is empty, zero or not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings of shape {embeddings.shape}: (n, dimensions) is needed")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
        raise ValueError("an embedding is zero or not finite: check the embedder that made it")
    angles = (embeddings / lengths) @ _frequencies(embeddings.shape[1])
    features: Array = np.hstack([np.cos(angles), np.sin(angles)]) * np.float32(np.sqrt(2 / FEATURES))
    return features

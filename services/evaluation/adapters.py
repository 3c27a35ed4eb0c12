"""Loads the shipped model."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from services.evaluation.core.toxicity import HASH_BITS, ToxicityModel

__all__ = ["MODEL", "load_toxicity"]

MODEL = Path(__file__).parent / "models" / "toxicity.npz"


def load_toxicity(path: Path = MODEL) -> ToxicityModel:
    """Read a model written by ``train_toxicity``. Nothing in the file is executed.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not such a model, or was made for other features than these.
    """
    with np.load(path, allow_pickle=False) as arrays:
        try:
            weights, intercept = arrays["weights"], float(arrays["intercept"])
            threshold, bits = float(arrays["threshold"]), int(arrays["hash_bits"])
        except KeyError as error:
            raise ValueError(f"{path} is no toxicity model: {error}; train one with train_toxicity") from error
    if bits != HASH_BITS:
        raise ValueError(f"{path} was trained with {bits} hash bits, this code uses {HASH_BITS}: train it again")
    digest = sha256(path.read_bytes()).hexdigest()[:12]
    return ToxicityModel(weights.astype(np.float32), intercept, threshold, version=f"river-lr-{digest}")

"""How texts that are longer than a model reads at once become one vector: in windows, by their mean."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.embedding.protocol import EmbedderError, Vectors, encodable

__all__ = ["Windows", "even_windows", "mean_of_windows", "unit_rows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """Texts, cut into windows that a model reads whole.

    Attributes:
        parts: the windows of the first text, then those of the second, and so on.
        counts: number of windows of each text, each at least 1.
    """

    parts: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, texts: Sequence[str], cut: Callable[[str], Sequence[str]]) -> Windows:
        """Return ``texts`` as ``cut`` cuts each of them, lone surrogates replaced by U+FFFD."""
        windows = [cut(encodable(text)) for text in texts]
        return cls(tuple(part for parts in windows for part in parts), tuple(map(len, windows)))

    def mean(self, vectors: Vectors) -> Vectors:
        """Return one unit vector for each text; ``vectors`` are the unit vectors of :attr:`parts`."""
        return mean_of_windows(vectors, self.counts)

    def sums(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Return what the windows of each text have together; ``numbers`` are those of :attr:`parts`."""
        each = iter(numbers)
        return tuple(sum(itertools.islice(each, count)) for count in self.counts)


def even_windows(length: int, most: int) -> list[tuple[int, int]]:
    """Return (start, end) of the fewest windows of at most ``most`` items that cover ``length`` items.

    The windows do not overlap and differ in size by one at most, so that their plain mean weighs all items about alike.
    An empty sequence has one empty window.
    """
    count = max(1, -(-length // most))
    bounds = [length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(bounds))


def mean_of_windows(vectors: Vectors, counts: Sequence[int]) -> Vectors:
    """Return one unit vector for each text from the unit vectors of its windows.

    Args:
        vectors: shape (sum(counts), dimension); the windows of the first text, then those of the second, and so on.
        counts: number of windows of each text, each at least 1.
    """
    if all(count == 1 for count in counts):
        return vectors
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
    means = np.add.reduceat(vectors, starts, axis=0)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    unit: Vectors = means / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def unit_rows(vectors: Vectors, whose: str) -> Vectors:
    """Return ``vectors``, shape (n, dimension), at unit length.

    Args:
        whose: who made them, for the message.

    Raises:
        EmbedderError: one has no direction, being zero or not a number.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        raise EmbedderError(f"{whose} gives a vector without direction (zero or not a number)")
    unit: Vectors = vectors / norms
    return unit

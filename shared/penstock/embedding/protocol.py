"""What an embedder is, and how a vector travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Embedded", "Embedder", "EmbedderError", "EmbedderUnavailable", "Vectors", "encodable", "pack_vector",
    "unpack_vector",
]  # fmt: skip

Vectors = NDArray[np.float32]
"""Array of shape (n, dimension), or (dimension,) for one vector."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embedder made of some texts.

    Attributes:
        vectors: shape (number of texts, dimension), each row of unit length.
        tokens: for each text, the tokens that were embedded: the unit in which embedding is priced.
    """

    vectors: Vectors
    tokens: tuple[int, ...]


class EmbedderError(Exception):
    """The embedder cannot embed this, now or later; the message names the cause and the remedy."""


class EmbedderUnavailable(EmbedderError):
    """The embedder is away for now; the same call may succeed later."""


class Embedder(Protocol):
    """Maps texts to vectors of unit length, so that a dot product is their cosine similarity.

    Calls block; run them in an executor beside an event loop. Implementations may be called from several threads.
    """

    @property
    def name(self) -> str:
        """Name of the model: vectors of different names must never be compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (len(texts), dimension), float32, each row of unit length.

        A text longer than the model reads at once is embedded in windows; its vector is their mean, normalised.

        Raises:
            EmbedderUnavailable: away for now.
            EmbedderError: it cannot be done, now or later.
        """
        ...

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """Return what :meth:`embed` does, with the tokens of each text; raises what it does."""
        ...

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return (start, end) character offsets of the tokens of ``text``, in order, as the model counts them."""
        ...


def pack_vector(vector: Vectors) -> bytes:
    """Return the wire form of one vector: float32, little-endian, in order."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack_vector(data: bytes, dimension: int | None = None) -> Vectors:
    """Return the vector whose wire form is ``data``; read-only, shape (dimension,).

    Raises:
        ValueError: ``data`` is no whole number of float32, or not of ``dimension`` of them.
    """
    if len(data) % 4 or (dimension is not None and len(data) != 4 * dimension):
        expected = "a multiple of 4" if dimension is None else f"{4 * dimension} (dimension {dimension})"
        raise ValueError(f"an embedding of {len(data)} bytes is not {expected}: was it made by another model?")
    return np.frombuffer(data, dtype="<f4")


def encodable(text: str) -> str:
    """Return ``text`` with lone surrogates, which UTF-8 cannot carry, replaced by U+FFFD; offsets stay."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text

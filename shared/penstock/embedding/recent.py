"""Vectors of texts that are needed again, by several readers or because the same text comes again, embedded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from penstock.embedding.protocol import Embedded, Embedder, Vectors

__all__ = ["MOST_PIECES", "RecentVectors"]

MOST_PIECES = 1_024
"""Word pieces of a text that are embedded, from its beginning: some 800 words. Time grows with the length, and one endless
answer must not hold up all that come behind it."""

_CHARACTERS_A_PIECE = 16
"""A text is cut there before its pieces are told: no text has pieces so long throughout."""


class RecentVectors:
    """An embedder that remembers the vectors it made last, so that each reader may ask for what it needs, and a text that
    many requests have (an answer that is given again, a greeting) costs once.

    Every text is embedded by a call of its own: beside others it would be padded, which moves the last bits of its vector,
    and a score would depend on what happened to be read together with it.

    Of a long text the beginning is read.

    Args:
        embedder: makes what is not remembered.
        capacity: texts that are remembered, at least 1; one of 384 dimensions takes about 1.5 kB and its own length.
        longest: characters of the longest text that is remembered, which bounds the memory.
        most_pieces: word pieces that are read of a text; None: all of them.
    """

    def __init__(
        self,
        embedder: Embedder,
        capacity: int = 2_048,
        longest: int = 4_000,
        most_pieces: int | None = MOST_PIECES,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        self._embedder = embedder
        self._capacity = capacity
        self._longest = longest
        self._most_pieces = most_pieces
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (len(texts), dimension); see :meth:`Embedder.embed`."""
        texts = [self._beginning(text) for text in texts]
        known: dict[str, Vectors] = {}
        with self._lock:
            for text in dict.fromkeys(texts):
                if (vector := self._recent.get(text)) is not None:
                    self._recent.move_to_end(text)
                    known[text] = vector
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update((text, self._embedder.embed([text])[0]) for text in new)
            with self._lock:
                for text in new:
                    if len(text) <= self._longest:
                        self._recent[text] = known[text]
                while len(self._recent) > self._capacity:
                    self._recent.popitem(last=False)
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([known[text] for text in texts])

    def _beginning(self, text: str) -> str:
        most = self._most_pieces
        if most is None or len(text) <= most:  # a piece has a character at least
            return text
        text = text[: most * _CHARACTERS_A_PIECE]
        spans = self._embedder.token_spans(text)
        return text[: spans[most - 1][1]] if len(spans) > most else text

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """Return what the embedder itself says: counts of tokens are not remembered."""
        return self._embedder.embed_counted(texts)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._embedder.token_spans(text)

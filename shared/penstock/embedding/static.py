"""Sentence vectors from one table: the mean of learned word-piece vectors, a thousandth of a transformer's cost.

The table is distilled from all-MiniLM-L6-v2 by `services/guardrails/models/train_static_embedding.py`: a text's vector is
the mean of its word pieces' rows, which were fitted so that this mean is near to what the transformer gives. How much a
word counts is in the length of its row. Word pieces are found as BERT's WordPiece does, greedily, the longest first.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

MODEL = Path(__file__).parent / "static_embedding.npz"
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
_LONGEST = 40
"""Characters of a word that is looked up at all: longer ones are data, not words."""
_REMEMBERED = 65_536
"""Words whose pieces are kept, so that each is cut once; bounds the memory that hostile words can take."""


class StaticEmbedding:
    """Vectors of canonical texts (see `penstock.text.normalise`).

    Args:
        pieces: the word pieces, in the order of the rows; `##` marks one that goes on.
        table: shape (len(pieces), dimension).
    """

    def __init__(self, pieces: Sequence[str], table: F32) -> None:
        if len(pieces) != len(table):
            raise ValueError(f"{len(pieces)} word pieces do not fit a table of {len(table)} rows: train it again")
        self._rows = {piece: row for row, piece in enumerate(pieces)}
        self._table = table
        self._remembered: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, path: Path = MODEL) -> "StaticEmbedding":
        """Read the table: `pieces` (UTF-8, one a line), `codes` (int8) and `scales` (float16, one a row)."""
        with np.load(path, allow_pickle=False) as arrays:
            pieces = arrays["pieces"].tobytes().decode("utf-8").split("\n")
            table = arrays["codes"].astype(np.float32) * arrays["scales"].astype(np.float32)[:, None]
        return cls(pieces, table)

    @property
    def dimension(self) -> int:
        return int(self._table.shape[1])

    @property
    def pieces(self) -> Sequence[str]:
        """The word pieces, in the order of the rows."""
        return list(self._rows)

    @property
    def table(self) -> F32:
        """The rows, shape (pieces, dimension): for reading only."""
        return self._table

    def word_rows(self, word: str) -> tuple[int, ...]:
        """Rows of a word's pieces; none where a part of it is not in the vocabulary."""
        rows = self._remembered.get(word)
        if rows is None:
            rows = self._cut(word) if len(word) <= _LONGEST else ()
            if len(self._remembered) < _REMEMBERED:
                self._remembered[word] = rows
        return rows

    def rows(self, words: Iterable[str]) -> list[int]:
        """Rows of all pieces of `words`, in order."""
        return [row for word in words for row in self.word_rows(word)]

    def vectors(self, rows: Sequence[int]) -> F32:
        """Unit vectors of single pieces, shape (len(rows), dimension)."""
        found = self._table[np.asarray(rows, dtype=np.int64)]
        lengths = np.sqrt((found * found).sum(axis=1, keepdims=True))
        return np.asarray(found / np.maximum(lengths, 1e-9), dtype=np.float32)

    def embed_rows(self, rows: Sequence[int]) -> F32:
        """Unit vector of the pieces, shape (dimension,); zeros where there is none."""
        return _unit(self._table[np.asarray(rows, dtype=np.int64)].sum(axis=0, dtype=np.float32))

    def embed(self, text: str) -> F32:
        """Unit vector of a canonical text, shape (dimension,); zeros for a text without known words."""
        return self.embed_rows(self.rows(words(text)))

    def _cut(self, word: str) -> tuple[int, ...]:
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                row = self._rows.get(word[start:end] if start == 0 else "##" + word[start:end])
                if row is not None:
                    found.append(row)
                    start = end
                    break
            else:
                return ()
        return tuple(found)


def words(text: str) -> list[str]:
    """Words and punctuation marks of a canonical text, as BERT cuts it before it looks for word pieces."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=1)
def shared_static_embedding() -> StaticEmbedding:
    """The packaged table, loaded once in a process: it is read-only, and several scanners use it."""
    return StaticEmbedding.load()


def _unit(vector: F32) -> F32:
    length = float(np.sqrt(vector @ vector))
    return vector / np.float32(length) if length else vector

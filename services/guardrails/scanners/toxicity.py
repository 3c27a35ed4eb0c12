"""Finds insults, abuse, threats and hatred of groups in prompts and answers."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from penstock.embedding.static import StaticEmbedding, shared_static_embedding

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.segments import sentences
from services.guardrails.scanners.toxicity_features import BITS, F32, I64, features, read

MODEL = Path(__file__).parent.parent / "models" / "toxicity"
_PIECE = 400
"""Characters of the longest sentence that is judged as one."""
_BLOCK = 64
"""Sentences whose features are computed together."""


@dataclass(frozen=True, slots=True)
class ToxicityModel:
    """Weights of two logistic regressions, toxic and hateful, one column each.

    `word` and `char` have shape (2^BITS, 2), `embedded` (dimension, 2), `bias` (2,). A margin of 0 is the operating point.
    """

    word: F32
    char: F32
    embedded: F32
    bias: F32
    version: str

    @classmethod
    def load(cls, path: Path = MODEL) -> "ToxicityModel":
        """Read `<path>.npz` (numpy, no pickle) and `<path>.json`; ValueError where they do not fit this code."""
        metadata = json.loads(path.with_suffix(".json").read_text("utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            word, char, embedded, bias = (arrays[n].astype(np.float32) for n in ("word", "char", "embedded", "bias"))
        if word.shape != (1 << BITS, 2) or char.shape != word.shape:
            raise ValueError(f"{path}.npz has tables of shape {word.shape}, not {(1 << BITS, 2)}: train it again")
        return cls(word, char, embedded, bias, str(metadata["version"]))

    def margins(self, pieces: list[list[str]], embedding: StaticEmbedding) -> F32:
        """Margins of pieces given as their words, shape (pieces, 2)."""
        found = features(pieces, embedding)
        count = len(pieces)
        total = self.bias + found.embedded @ self.embedded
        total += _family(self.word[found.word_slots], found.word_pieces, count)
        total += _family(self.char[found.char_slots], found.char_pieces, count)
        return np.asarray(total, dtype=np.float32)


class ToxicityScanner:
    """At most two spans: the most toxic sentence (TOXICITY) and the most hateful one (HATE).

    Every sentence is judged alone and together with the one before it, so that an insult is not diluted by a long text.
    Hatred is abuse of people for a group they belong to; what is hateful is toxic too.
    """

    name = "toxicity"
    default_threshold = 0.5

    def __init__(self, model: ToxicityModel, embedding: StaticEmbedding) -> None:
        self._model = model
        self._embedding = embedding
        self.version = f"1+{model.version}"

    @classmethod
    def packaged(cls) -> "ToxicityScanner":
        return cls(ToxicityModel.load(), shared_static_embedding())

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        places = list(sentences(text, _PIECE))
        best = [Span("TOXICITY", 0, 0, 0.0), Span("HATE", 0, 0, 0.0)]
        for first in range(0, len(places), _BLOCK):
            reference.checkpoint()
            block = places[first : first + _BLOCK]
            spans, pieces = _alone_and_together(text, block)
            if not pieces:
                continue
            scores = 1.0 / (1.0 + np.exp(-self._model.margins(pieces, self._embedding).clip(-30, 30)))
            for head, winner in enumerate(scores.argmax(axis=0)):
                score = float(scores[winner, head])
                if score > best[head].score:
                    start, end = spans[winner]
                    best[head] = Span(best[head].kind, start, end, score)
        toxic, hateful = best
        if hateful.score > toxic.score:
            toxic = Span(toxic.kind, hateful.start, hateful.end, hateful.score)
        return [span for span in (toxic, hateful) if span.score > 0]


def _alone_and_together(text: str, places: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[list[str]]]:
    """Places and words of every sentence that has a word, and of every two that follow one another."""
    alone = [(place, tokens) for place in places if (tokens := read(text[place[0] : place[1]]))]
    together = [((before[0][0], after[0][1]), before[1] + after[1]) for before, after in pairwise(alone)]
    judged = alone + together
    return [place for place, _ in judged], [tokens for _, tokens in judged]


def _family(weights: F32, owners: I64, count: int) -> F32:
    """Sum of the weights of each piece's slots over the square root of their number, shape (count, 2)."""
    sizes = np.sqrt(np.maximum(np.bincount(owners, minlength=count), 1))
    sums = [np.bincount(owners, weights=weights[:, head], minlength=count) / sizes for head in (0, 1)]
    return np.asarray(np.stack(sums, axis=1), dtype=np.float32)

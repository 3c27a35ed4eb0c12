"""Finds stretches that nobody wrote: suffixes that a search against a model came up with, salad of words, keyboard mash."""

from pathlib import Path

import numpy as np
from penstock.embedding.static import StaticEmbedding, shared_static_embedding

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.gibberish_features import Statistics, Trees, describe, smoothed

MODELS = Path(__file__).parent.parent / "models"
_SECTION = 2_000
"""Characters described at once; what a stretch is compared with is its own section."""
_OVERLAP = 200
_SHORTEST = 24
"""Characters below which nothing is said: a stray word is no suffix."""
_JOINED = 0.3
"""Score of the windows beside the surest one that still belong to its stretch."""


class GibberishScanner:
    """One span: the surest stretch of the text, with the score of its surest window of 80 characters.

    Code, minified JSON, logs, hashes, tables, slang and other languages are ordinary: each is expected by a model of its
    own kind. Long runs of one thing are `token_flood`'s.
    """

    name = "gibberish"
    default_threshold = 0.5

    def __init__(self, statistics: Statistics, trees: Trees, embedding: StaticEmbedding) -> None:
        self._statistics = statistics
        self._trees = trees
        self._embedding = embedding
        self.version = f"1+{trees.version}"

    @classmethod
    def packaged(cls, models: Path = MODELS) -> "GibberishScanner":
        statistics = Statistics.load(models / "gibberish_statistics.npz")
        return cls(statistics, Trees.load(models / "gibberish_trees"), shared_static_embedding())

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        best: Span | None = None
        for begin in range(0, max(1, len(text) - _OVERLAP), _SECTION - _OVERLAP):
            reference.checkpoint()
            section = text[begin : begin + _SECTION]
            if len(section.strip()) < _SHORTEST:
                continue
            starts, ends, rows = describe(section, self._statistics, self._embedding)
            scores = 1.0 / (1.0 + np.exp(-smoothed(self._trees.margins(rows)).clip(-30, 30)))
            first = last = int(scores.argmax())
            score = float(scores[first])
            if best is not None and score <= best.score:
                continue
            while first > 0 and scores[first - 1] >= _JOINED:
                first -= 1
            while last + 1 < len(scores) and scores[last + 1] >= _JOINED:
                last += 1
            best = Span("GIBBERISH", begin + int(starts[first]), begin + int(ends[last]), score)
        return [best] if best is not None else []

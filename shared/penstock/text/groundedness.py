"""How much of an answer stands in the passages it was made from, sentence by sentence.

Lexical evidence (what of a sentence stands in the passages, in what order, and together), numbers and names checked
exactly, denial compared; weighed by a logistic regression whose weights all point the way their evidence does. In any
language that writes words or syllables. It recognises what an answer adds, exchanges or denies, not what follows from the
passages by thought, nor that other words mean the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.text.groundedness_evidence import FEATURES, Evidence, Passages, evidence
from penstock.text.groundedness_words import sentence_spans, words_of

if TYPE_CHECKING:
    from penstock.embedding.protocol import Embedder

__all__ = [
    "THRESHOLD", "VERSION", "Combination", "Judged", "Sentence", "Support", "Weights", "combined", "judged", "support",
]  # fmt: skip

THRESHOLD = 0.5
"""Support from which a sentence or an answer counts as grounded. Calibrated on as many grounded as ungrounded answers."""
_EMBEDDED = 64
"""Sentences of the passages that are embedded."""
_SAID_OF_ANOTHER = 0.65
"""Share of a sentence's content that one place of the passages holds, below which its parts are said to be scattered."""


@dataclass(frozen=True)
class Weights:
    """Of the logistic regression: of the features in the order of FEATURES, then of embedding similarity."""

    bias: float
    features: tuple[float, ...]
    similarity: float
    slope: float
    intercept: float

    def logit(self, one: Judged) -> float:
        """Return the logit of a sentence: at least that of one that nothing supports."""
        total = self.bias + self.similarity * one.similarity
        for weight, share in zip(self.features, one.evidence.shares, strict=True):
            total += weight * share
        return max(total, self.bias)

    def support(self, logit: float) -> float:
        """Return support by a logit: its probability, stretched so that what nothing supports has 0 and a copy has 1."""
        least, most = self._ends
        return min(1.0, max(0.0, (self._probability(logit) - least) / (most - least)))

    @cached_property
    def _ends(self) -> tuple[float, float]:
        most = self.bias + sum(max(0.0, weight) for weight in self.features) + self.similarity
        return self._probability(self.bias), self._probability(most)

    def _probability(self, logit: float) -> float:
        return 1.0 / (1.0 + math.exp(-(self.slope * logit + self.intercept)))


@dataclass(frozen=True)
class Combination:
    """How sentences make up an answer. Weights with and without embeddings."""

    version: str
    weakest: float
    lexical: Weights
    embedded: Weights


def _load(path: Path) -> Combination:
    stored = json.loads(path.read_text("utf-8"))

    def weights(kind: str) -> Weights:
        entry = stored[kind]
        features = tuple(float(entry["features"][name]) for name in FEATURES)
        return Weights(entry["bias"], features, entry["similarity"], entry["slope"], entry["intercept"])

    return Combination(stored["version"], stored["weakest"], weights("lexical"), weights("embedded"))


_SHIPPED = _load(Path(__file__).with_name("groundedness.json"))
VERSION = _SHIPPED.version


@dataclass(frozen=True, slots=True)
class Sentence:
    """Code points `start` to `end` of the answer, and how well the passages support them, from 0 to 1.

    Attributes:
        passage: number of the passage that bears most on it, in the order they were given; None where none does.
        reason: what speaks against it; empty where it is supported.
    """

    start: int
    end: int
    support: float
    passage: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Support:
    """How well the passages support an answer, from 0 (not at all) to 1 (it repeats them), and its sentences in order."""

    score: float
    sentences: tuple[Sentence, ...]

    @property
    def weakest(self) -> Sentence:
        """The least supported sentence, the first of equals."""
        return min(self.sentences, key=lambda sentence: sentence.support)

    @property
    def unsupported(self) -> float:
        """Share of the sentences whose support is below THRESHOLD."""
        return sum(sentence.support < THRESHOLD for sentence in self.sentences) / len(self.sentences)


@dataclass(frozen=True, slots=True)
class Judged:
    """A sentence with its evidence: what the support is worked out from, and what weights are learned from."""

    start: int
    end: int
    evidence: Evidence
    similarity: float = 0.0
    nearest: int | None = None


def support(
    answer: str,
    passages: Iterable[str],
    embedder: Embedder | None = None,
    no_claim: Callable[[str], bool] | None = None,
) -> Support | None:
    """Judge ``answer`` by ``passages``. None where the answer holds no content word: there is nothing to support.

    Sentences without a content word ("So it is.") claim nothing and do not count. Marks such as [1] are not read. Questions
    and remarks about speaker or listener do count, as unsupported: they are not from the passages. The logit of the
    answer's support is three quarters the mean of its sentences' by words, and a quarter that of the weakest. A
    sentence without any support is the least that a sentence can have, so adding one never raises the score.

    Args:
        answer: the text to judge.
        passages: what it was made from; their order does not matter.
        embedder: adds the similarity in meaning of each sentence to the nearest of the passages. Costs some 5 ms for each
            sentence of answer and passages; may raise EmbedderError.
        no_claim: whether a sentence claims nothing, e.g. says that the answer is not known: it then does not count. Asked
            of unsupported sentences only.
    """
    given = list(passages)
    found = judged(answer, given, embedder)
    if not found:
        return None
    weights = _SHIPPED.lexical if embedder is None else _SHIPPED.embedded
    counted: list[Judged] = []
    logits: list[float] = []
    sentences: list[Sentence] = []
    for one in found:
        logit = weights.logit(one)
        value = round(weights.support(logit), 6)
        reason = ""
        if value < THRESHOLD:
            if no_claim is not None and no_claim(answer[one.start : one.end]):
                continue
            reason = _reason(one.evidence)
        counted.append(one)
        logits.append(logit)
        sentences.append(Sentence(one.start, one.end, value, one.nearest, reason))
    if not counted:
        return None
    return Support(weights.support(combined(counted, logits, _SHIPPED.weakest)), tuple(sentences))


def judged(answer: str, passages: Sequence[str], embedder: Embedder | None = None) -> list[Judged]:
    """Return the sentences of ``answer`` that hold a content word, with what the passages have on each."""
    read = _read(tuple(passages))
    found: list[Judged] = []
    for start, end in sentence_spans(answer):
        parts = list(words_of(answer, start, end))
        bounds = [start, *(part.spans[0][0] for part in parts[1:]), end]
        for part, first, last in zip(parts, bounds, bounds[1:], strict=False):
            about = evidence(part, answer, read)
            if about.claims:
                nearest = None if about.source is None else read.sources[about.source].passage
                stretch = answer[first:last]
                found.append(Judged(first, first + len(stretch.rstrip()), about, 0.0, nearest))
    return found if embedder is None or not found else _compared(answer, found, read, embedder)


# Few: the evaluators of one exchange and the claims of one answer ask for the same passages one after the other.
@lru_cache(maxsize=8)
def _read(texts: tuple[str, ...]) -> Passages:
    return Passages.read(texts)


def combined(sentences: Sequence[Judged], logits: Sequence[float], weakest: float) -> float:
    """Return the logit of an answer from those of its sentences, by their words."""
    words = sum(one.evidence.words for one in sentences)
    mean = math.fsum(one.evidence.words * logit for one, logit in zip(sentences, logits, strict=True)) / words
    return (1 - weakest) * mean + weakest * min(logits)


def _compared(answer: str, found: Sequence[Judged], read: Passages, embedder: Embedder) -> list[Judged]:
    sources = read.sources[:_EMBEDDED]
    texts = [read.texts[source.passage][slice(*source.span)] for source in sources]
    if not texts:
        return list(found)
    vectors = embedder.embed([*(answer[one.start : one.end] for one in found), *texts])
    cosines = vectors[: len(found)] @ vectors[len(found) :].T
    compared = []
    for one, row in zip(found, cosines, strict=True):
        best = int(row.argmax())
        nearest = sources[best].passage if one.nearest is None else one.nearest
        compared.append(Judged(one.start, one.end, one.evidence, max(0.0, float(row[best])), nearest))
    return compared


def _reason(about: Evidence) -> str:
    """Say what speaks most against a sentence."""
    shares = dict(zip(FEATURES, about.shares, strict=True))
    if about.missing_numbers:
        return _lacks("number", about.missing_numbers)
    if about.missing_names:
        return _lacks("name", about.missing_names)
    if shares["denial"]:
        return "it denies what no passage denies" if about.denies else "a passage denies it"
    if shares["question"]:
        return "it asks back"
    if shares["remarks"] >= 0.5:
        return "it speaks of itself or of the reader"
    if shares["content"] < 0.5:
        return "most of its words stand in no passage" if shares["content"] else "none of its words stands in a passage"
    if shares["local"] < _SAID_OF_ANOTHER:
        return "its parts stand in different places of the passages, not together"
    return "the passages do not say it in these words"


def _lacks(what: str, missing: Sequence[str]) -> str:
    shown = ", ".join(missing[:3])
    return f"no passage has the {what}{'s' if len(missing) > 1 else ''} {shown}"

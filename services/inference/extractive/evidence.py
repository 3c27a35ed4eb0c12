"""What speaks for a sentence as the answer to a question: a few figures for each sentence, each of one meaning. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from penstock.contracts.records import Passage
from penstock.embedding.static import F32, StaticEmbedding

from services.inference.extractive.reading import Asked, Question, Sentence, title_stems
from services.inference.extractive.spelling import respelled

__all__ = ["FEATURES", "evidence"]

FEATURES: Mapping[str, int] = {
    "words": 1,
    "similar": 1,
    "cosine": 1,
    "neighbour": 1,
    "passage": 1,
    "first": 1,
    "score": 1,
    "misses": -1,
    "strange": -1,
}
"""Columns of :func:`evidence`, each with the sign that its weight may have.

Shares are of the question's words, weighed by their rarity among the sentences (inverse document frequency, Sparck Jones
1972): ``words`` that the sentence has, ``neighbour`` that only the sentence before or after it has, ``passage`` that the
passage or its title has. ``similar``: the words that it has not, each as near as the nearest of its words by static vectors.
``cosine``: of the static vectors of question and sentence. ``first``: 1 for the passage that retrieval put first; ``score``:
retrieval's score, from 0 to 1. ``misses``: 1 where a date, a number, a name or a reason is asked for and the sentence has
none that is not in the question. ``strange``: share of the question's names and numbers that no passage has.
"""

# Words that no passage has count for less: they are as often another way to put it as another subject.
_UNSEEN = 0.6
# Of the question's words the rarest are compared with all words of the sentences: memory grows with both.
_MOST_COMPARED = 32
_YEAR = re.compile(r"1\d{3}|20\d{2}")
_MONTHS = frozenset("januari februari march april may june juli august september october november december".split())
_REASON = re.compile(
    r"\b(?:because|due to|since|so that|in order to|therefore|as a result|caus(?:e|es|ed)|reasons?"
    r"|to (?:avoid|prevent|protect|make|allow|help|reduce|ensure))\b",
    re.IGNORECASE,
)


def evidence(
    question: Question, passages: Sequence[Passage], sentences: Sequence[Sentence], embedding: StaticEmbedding
) -> NDArray[np.float64]:
    """Return what speaks for each sentence, shape (sentences, len(FEATURES)).

    Args:
        question: of at least one word.
        passages: best first, as retrieval orders them.
        sentences: theirs, at least one.
    """
    question = respelled(question, sentences, embedding)
    weights = _weights(question, sentences)
    total = math.fsum(weights.values())
    held = [frozenset(sentence.read.stems) & weights.keys() for sentence in sentences]
    titles = [title_stems(passage.title) & weights.keys() for passage in passages]
    covered = [set(title) for title in titles]
    for sentence, own in zip(sentences, held, strict=True):
        covered[sentence.passage] |= own
    known = set().union(*covered)
    strange = sum(stem not in known for stem in question.particular) / max(1, len(question.particular))
    asked = sorted(weights, key=lambda stem: -weights[stem])[:_MOST_COMPARED]
    # What another writer gave as a score may be on any scale, or no number.
    scores = [min(max(p.score, 0.0), 1.0) if math.isfinite(p.score) else 0.0 for p in passages]

    def share(stems: frozenset[str] | set[str]) -> float:
        # Rounded once: the sum does not depend on the order of a set.
        return math.fsum(weights[stem] for stem in stems) / total

    rows: list[list[float]] = []
    for index, (sentence, own) in enumerate(zip(sentences, held, strict=True)):
        beside: set[str] = set()
        for other in (index - 1, index + 1):
            if 0 <= other < len(sentences) and sentences[other].passage == sentence.passage:
                beside |= held[other]
        rows.append([
            share(own),
            0.0,
            0.0,
            share(beside - own),
            share(covered[sentence.passage]),
            float(sentence.passage == 0),
            scores[sentence.passage],
            float(_misses(question, sentence)),
            strange,
        ])  # fmt: skip
    found = np.array(rows)
    missing = np.array([[weights[stem] / total * (stem not in own) for stem in asked] for own in held])
    found[:, 1:3] = _meaning([question.words[stem] for stem in asked], sentences, missing, embedding)
    return found


def _weights(question: Question, sentences: Sequence[Sentence]) -> dict[str, float]:
    frequency = Counter(stem for sentence in sentences for stem in set(sentence.read.stems))
    return {
        stem: math.log(1 + (len(sentences) + 1) / (0.5 + frequency[stem])) * (1.0 if frequency[stem] else _UNSEEN)
        for stem in dict.fromkeys(question.stems)
    }


def _misses(question: Question, sentence: Sentence) -> bool:
    """Return whether the sentence lacks words of the kind that is asked for."""
    if question.asked is Asked.OTHER:
        return False
    if question.asked is Asked.REASON:
        return _REASON.search(sentence.read.text) is None
    numbers = sentence.read.numbers - question.words.keys()
    if question.asked is Asked.NUMBER:
        return not numbers
    if question.asked is Asked.DATE:
        return _MONTHS.isdisjoint(sentence.read.names) and not any(_YEAR.match(number) for number in numbers)
    return sentence.read.names <= question.words.keys()


def _meaning(
    asked: Sequence[str], sentences: Sequence[Sentence], missing: NDArray[np.float64], embedding: StaticEmbedding
) -> NDArray[np.float64]:
    """Return ``similar`` and ``cosine`` of each sentence.

    Args:
        asked: the question's words, as written.
        missing: shape (sentences, len(asked)): the share of each word that the sentence has not, else 0.
    """
    read = dict.fromkeys([*asked, *(word for sentence in sentences for word in sentence.read.words)])
    numbered = {word: index for index, word in enumerate(read)}
    vectors = _word_vectors(list(numbered), embedding)
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    units = vectors / np.maximum(lengths, 1e-9)
    places = np.array([numbered[word] for sentence in sentences for word in sentence.read.words])
    starts = np.cumsum([0, *(len(sentence.read.words) for sentence in sentences[:-1])])
    own = np.array([numbered[word] for word in asked])
    nearest = np.maximum.reduceat((units @ units[own].T)[places], starts, axis=0).clip(0.0, 1.0)
    sums = np.add.reduceat(vectors[places], starts, axis=0)
    wanted = vectors[own].sum(axis=0)
    sizes = np.sqrt((sums * sums).sum(axis=1)) * float(np.sqrt(wanted @ wanted))
    return np.stack([(nearest * missing).sum(axis=1), (sums @ wanted) / np.maximum(sizes, 1e-9)], axis=1)


def _word_vectors(words: Sequence[str], embedding: StaticEmbedding) -> F32:
    """Return the sum of each word's pieces, shape (len(words), dimension); zeros where it has none."""
    rows = [embedding.word_rows(word) for word in words]
    vectors = np.zeros((len(words), embedding.dimension), np.float32)
    # Most words have one piece; the others are added piece by piece.
    for piece in range(max((len(one) for one in rows), default=0)):
        places = [index for index, one in enumerate(rows) if len(one) > piece]
        vectors[places] += embedding.table[[rows[index][piece] for index in places]]
    return vectors

"""Which sentences are the answer, and whether there is one. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.contracts.records import Passage
from penstock.embedding.static import StaticEmbedding, shared_static_embedding

from services.inference.extractive.evidence import FEATURES, evidence
from services.inference.extractive.reading import Sentence, count_tokens, question_of, sentences_of
from services.inference.extractive.weights import BIAS, WEIGHTS

__all__ = ["LEARNED", "MODEL", "NOTHING_FOUND", "Answer", "Choice", "answer", "chosen", "probabilities"]

MODEL = "penstock-extractive-1"
NOTHING_FOUND = "I found nothing in the documents that answers this."

_TOKEN = re.compile(r"\w+|[^\w\s]", re.UNICODE)
_MOST_SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """Of the conditional logit, and of the decisions made by it.

    Attributes:
        weights: of the evidence, in the order of FEATURES.
        bias: of a sentence over the alternative that none answers.
        doubt: above this probability that none answers, none is given.
        enough: sentences are added until they have this share of the probability of all,
        least: those at least so probable, of the best one's probability.
        short: an answer of fewer words is given more: what it is about often stands in the sentence beside it,
        least_beside: if that is at least so probable, of the best one's probability.
    """

    weights: NDArray[np.float64]
    bias: float
    doubt: float = 0.65
    enough: float = 0.9
    least: float = 0.15
    short: int = 30
    least_beside: float = 0.02

    @classmethod
    def of(cls, weights: Mapping[str, float], bias: float) -> Choice:
        return cls(np.array([weights[name] for name in FEATURES]), bias)


LEARNED = Choice.of(WEIGHTS, BIAS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found: sentences, the passages they quote, and the probability that one of the passages' sentences answers.
    ``cut``: the only sentence was longer than was asked for, and ends in the middle.
    """

    sentences: tuple[str, ...]
    citations: tuple[str, ...]
    score: float
    cut: bool = False

    @property
    def content(self) -> str:
        return " ".join(self.sentences)


def answer(
    question: str,
    passages: Sequence[Passage],
    max_tokens: int | None = None,
    stops: Sequence[str] = (),
    *,
    choice: Choice = LEARNED,
    embedding: StaticEmbedding | None = None,
) -> Answer:
    """Return the sentences of ``passages`` that answer ``question`` best, of at most ``max_tokens`` tokens together, in
    their order; the passages they quote are cited in the same order.

    Where not even the best sentence fits, its first tokens are the answer.

    Args:
        passages: best first, as retrieval orders them.
        stops: strings before the first of which the answer ends.
        embedding: static vectors of words; None: the packaged ones.
    """
    asked, sentences = question_of(question), sentences_of(passages)
    if not asked.stems or all(sentence.read.is_heading for sentence in sentences):
        return _bounded(_until((NOTHING_FOUND,), stops), (), 0.0, max_tokens)
    rows = evidence(asked, passages, sentences, embedding or shared_static_embedding())
    sentences, found = _beneath(sentences, probabilities(rows, choice))
    answered = float(found.sum())
    best = [sentences[index] for index in chosen(found, sentences, choice)]
    if not best:
        return _bounded(_until((NOTHING_FOUND,), stops), (), answered, max_tokens)
    if max_tokens is not None:
        while len(best) > 1 and sum(count_tokens(sentence.read.text) for sentence in best) > max_tokens:
            best.pop()
    order = sorted(best, key=lambda sentence: (sentence.passage, sentence.position))
    texts = _until([sentence.read.text for sentence in order], stops)
    cited = dict.fromkeys(passages[sentence.passage].passage_id for sentence in order[: len(texts)])
    return _bounded(texts, tuple(cited), answered, max_tokens)


def _beneath(sentences: Sequence[Sentence], found: NDArray[np.float64]) -> tuple[list[Sentence], NDArray[np.float64]]:
    """Return the sentences that are no headings with their probabilities: what a heading has goes to the first sentence that
    stands under it, as what answers stands there."""
    kept: list[Sentence] = []
    shares: list[float] = []
    waiting, of = 0.0, -1
    for sentence, share in zip(sentences, found.tolist(), strict=True):
        if sentence.passage != of:
            waiting, of = 0.0, sentence.passage
        waiting += share
        if not sentence.read.is_heading:
            kept.append(sentence)
            shares.append(waiting)
            waiting = 0.0
    return kept, np.array(shares)


def _until(sentences: Sequence[str], stops: Sequence[str]) -> tuple[str, ...]:
    """Return ``sentences``, joined by a space, up to the first of the strings that end a generation."""
    content = " ".join(sentences)
    ends = [at for stop in stops if stop and (at := content.find(stop)) >= 0]
    if not ends:
        return tuple(sentences)
    left = min(ends)
    kept = []
    for sentence in sentences:
        kept.append(sentence[:left])
        left -= len(sentence) + 1
        if left <= 0:
            break
    return tuple(kept)


def probabilities(rows: NDArray[np.float64], choice: Choice) -> NDArray[np.float64]:
    """Return the probability of each sentence to be the one that answers; what is left to 1 is that none does.

    A conditional logit (McFadden 1974, "Conditional logit analysis of qualitative choice behavior") over the sentences and
    the alternative that none answers, whose logit is 0.
    """
    logits = rows @ choice.weights + choice.bias
    highest = max(float(logits.max()), 0.0)
    weights = np.exp(logits - highest)
    found: NDArray[np.float64] = weights / (weights.sum() + np.exp(-highest))
    return found


def chosen(found: NDArray[np.float64], sentences: Sequence[Sentence], choice: Choice) -> list[int]:
    """Return the sentences of the answer, the best one first; none where it is more likely that none answers.

    Of sentences that read alike (chunks of a document overlap) one stands for all, with the probability of all.
    """
    alike: dict[str, int] = {}
    joined: dict[int, float] = {}
    for index, sentence in enumerate(sentences):
        first = alike.setdefault(sentence.read.text, index)
        joined[first] = joined.get(first, 0.0) + float(found[index])
    answered = sum(joined.values())
    if 1.0 - answered > choice.doubt:
        return []
    ranked = sorted(joined, key=lambda index: (-joined[index], index))
    best = joined[ranked[0]]
    taken, covered, words = ranked[:1], best, _words(sentences[ranked[0]])
    for index in ranked[1:_MOST_SENTENCES]:
        likely = covered < choice.enough * answered and joined[index] >= choice.least * best
        if not likely and (words >= choice.short or joined[index] < choice.least_beside * best):
            break
        taken.append(index)
        covered += joined[index]
        words += _words(sentences[index])
    return taken


def _words(sentence: Sentence) -> int:
    return sentence.read.text.count(" ") + 1


def _bounded(sentences: tuple[str, ...], citations: tuple[str, ...], score: float, max_tokens: int | None) -> Answer:
    """Return the answer; a single sentence of more than ``max_tokens`` is cut after so many."""
    if max_tokens is None or len(sentences) > 1:
        return Answer(sentences, citations, score)
    tokens = list(itertools.islice(_TOKEN.finditer(sentences[0]), max_tokens + 1))
    if len(tokens) <= max_tokens:
        return Answer(sentences, citations, score)
    return Answer((sentences[0][: tokens[max_tokens - 1].end() if max_tokens > 0 else 0],), citations, score, cut=True)

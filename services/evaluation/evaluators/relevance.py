"""Whether the answer speaks to the question."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from penstock.embedding.protocol import Embedder, Vectors, unpack_vector

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject
from services.evaluation.evaluators.refusal import unanswered
from services.evaluation.evaluators.text import content_words, words

__all__ = [
    "WEIGHTS",
    "AnswerRelevance",
    "Evidence",
    "Weights",
    "answering",
    "evidence",
    "has_own_words",
    "question_vectors",
    "speaks_to",
]

_SHORT = 4
"""Words up to which an answer is short: a name alone is far from its question in meaning, and still its answer."""
_YES_OR_NO = 0.85
"""Of a short yes or no where that is what was asked."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What tells that a text answers a question.

    Attributes:
        cosine: of their vectors.
        cover: share of the question's content words that the text has.
        kind: 1 where the text holds what the question asks for (a number, a time, a name), -1 where not, 0 where that
            cannot be told.
        short: 1 for a text of at most four words, else 0.
    """

    cosine: float
    cover: float
    kind: float
    short: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the logistic regression over :class:`Evidence`."""

    cosine: float
    cover: float
    kind: float
    short: float
    intercept: float


WEIGHTS = Weights(cosine=6.22, cover=3.93, kind=0.78, short=2.96, intercept=-4.14)
"""Made by fit_relevance.py: AUC 0.920 on pairs of encyclopedia questions and sentences, in cross-validation; the cosine
alone has 0.866, words in common 0.793."""

_NUMBER = re.compile(
    r"(?i)\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand"
    r"|million|billion|dozen|half|once|twice|first|second|third|several|none|many|few|daily|weekly|monthly|yearly|never"
    r"|always)\b"
)
_TIME = re.compile(
    r"(?i)\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday"
    r"|wednesday|thursday|friday|saturday|sunday|century|decade|year|month|week|day|today|yesterday|tomorrow|morning|noon"
    r"|evening|night|spring|summer|autumn|winter|before|after|during|when|until|now|soon|never|always|ago)\b"
)
_NAME = re.compile(r"(?<![.!?:] )(?<!^)\b[A-Z]")
_CLOSED = re.compile(
    r"(?i)^\W*(?:and |so |then )?(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|am|may|must"
    r"|isn't|aren't|doesn't|don't|didn't|won't)\b"
)
_YES_NO = re.compile(
    r"(?i)^\W*(?:yes|no|yeah|nope|correct|incorrect|true|false|indeed|certainly|absolutely|not at all|never)\b"
)
_ASKS = (
    (re.compile(r"(?i)\bhow (?:many|much|long|old|far|tall|often|large|big|high|fast|deep|wide|heavy)\b"
                r"|\b(?:what|which) (?:percentage|number|amount|share|proportion)\b"), _NUMBER),
    (re.compile(r"(?i)^\W*(?:\w+ ){0,4}when\b|\b(?:what|which) (?:year|date|day|time|month|century|decade)\b"), _TIME),
    (re.compile(r"(?i)^\W*(?:\w+ ){0,3}(?:who|whose|whom)\b|\bwhat (?:is|was) the name\b"), _NAME),
)  # fmt: skip


def answering(question: str, text: str, cosine: float) -> float:
    """Return how surely, from 0 to 1, ``text`` answers ``question``, given the cosine of their vectors."""
    found = speaks_to(evidence(question, text, cosine))
    if _CLOSED.match(question) and _YES_NO.match(text):
        return max(found, _YES_OR_NO)
    return found


def speaks_to(found: Evidence, weights: Weights = WEIGHTS) -> float:
    """Return the chance, from 0 to 1, that a text with this evidence answers the question."""
    margin = (
        weights.cosine * found.cosine
        + weights.cover * found.cover
        + weights.kind * found.kind
        + weights.short * found.short
        + weights.intercept
    )
    return 1 / (1 + math.exp(-margin))


def evidence(question: str, text: str, cosine: float) -> Evidence:
    """Return what tells whether ``text`` answers ``question``, given the cosine of their vectors."""
    return Evidence(
        cosine=cosine,
        cover=cover(question, text),
        kind=answers_kind(question, text),
        short=float(len(words(text)) <= _SHORT),
    )


def cover(question: str, text: str) -> float:
    """Return the share of the question's content words that ``text`` has; a half where it has none."""
    asked = set(content_words(question))
    return len(asked & set(content_words(text))) / len(asked) if asked else 0.5


def answers_kind(question: str, text: str) -> float:
    """Return 1 where ``text`` holds what an English question asks for, -1 where not, 0 where it does not say."""
    for asks, holds in _ASKS:
        if asks.search(question):
            named = holds is _NAME and text[:1].isupper() and len(text.split()) <= _SHORT
            return 1.0 if named or holds.search(text) else -1.0
    return 0.0


def has_own_words(question: str, text: str) -> bool:
    """Return whether ``text`` says anything beside the words of the question; "yes" and "no" do."""
    said = set(content_words(text))
    return not said or not said <= set(content_words(question))


class AnswerRelevance:
    """From 0 (beside the question, or no answer) to 1 (speaks to all of it): whether, not how rightly, it is answered.

    A logistic regression over the cosine of the vectors of question and answer, the share of the question's content words
    that the answer has, and whether a number, a time or a name is there where one is asked for. An answer that refuses or
    does not know, or only repeats the question, loses its score in that measure. An answer that names its subject by a
    pronoun only ("It lists ...") scores too low. In languages other than English the vectors and words in common count, less
    surely: the model behind the vectors was trained on English.
    """

    name = "answer_relevance"
    subject: Subject = "answer"
    threshold = 0.5
    labels = ("irrelevant", "relevant")

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def version(self) -> str:
        return f"logistic-1+{self._embedder.name}"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        rows = [row for row, one in enumerate(exchanges) if one.question.strip() and one.answer.strip()]
        questions = question_vectors(self._embedder, [exchanges[row] for row in rows])
        answers = self._embedder.embed([exchanges[row].answer for row in rows])
        judged: list[Judged | None] = [None] * len(exchanges)
        for row, asked, said in zip(rows, questions, answers, strict=True):
            judged[row] = _judged(exchanges[row], float(asked @ said))
        return judged


def _judged(exchange: Exchange, cosine: float) -> Judged:
    found = evidence(exchange.question, exchange.answer, cosine)
    features = {"cosine": round(found.cosine, 4), "cover": round(found.cover, 4), "kind": found.kind}
    if not has_own_words(exchange.question, exchange.answer):
        return Judged(0.0, reason="it only repeats the question", features=features)
    refused = unanswered(exchange.answer).score
    if refused:
        features["refusal"] = refused
    score = answering(exchange.question, exchange.answer, cosine) * (1 - refused)
    return Judged(round(score, 4), features=features)


def question_vectors(embedder: Embedder, exchanges: Sequence[Exchange]) -> Vectors:
    """Return the vector of each question, zeros without one: the one that the event carried where it is of this embedder."""
    vectors = np.zeros((len(exchanges), embedder.dimension), np.float32)
    missing = []
    for row, exchange in enumerate(exchanges):
        carried = exchange.question_embedding
        own = exchange.question_embedder == embedder.name
        if carried is not None and own and len(carried) == 4 * embedder.dimension:
            vectors[row] = unpack_vector(carried, embedder.dimension)
        elif exchange.question.strip():
            missing.append(row)
    if missing:
        vectors[missing] = embedder.embed([exchanges[row].question for row in missing])
    return vectors

"""What is known of a task without the evaluator: simple or well-known scorers, run over the same rows beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.evaluation.evaluators.protocol import Exchange, Subject
from services.evaluation.evaluators.text import FUNCTION_WORDS, words

__all__ = ["Baseline", "Skipped", "baselines_for"]

Scores = Callable[[Sequence[Exchange]], list[float]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A scorer of exchanges, from 0 to 1, and the score from which it says yes; None where it has no threshold."""

    name: str
    scores: Scores
    threshold: float | None = 0.5


@dataclass(frozen=True, slots=True)
class Skipped:
    """A baseline that cannot be run, and why."""

    name: str
    reason: str


def baselines_for(
    evaluator: str, subject: Subject, training: Iterable[tuple[Exchange, bool]] | None
) -> list[Baseline | Skipped]:
    """Return the baselines of an evaluator; none where there are none.

    Args:
        evaluator: its name.
        subject: the text that is scored.
        training: labelled exchanges for the one that learns; None: it is skipped.
    """
    if evaluator == "toxicity":
        return [_vader(subject), _profanity(subject), _tfidf(subject, training)]
    if evaluator == "groundedness":
        return [Baseline("word overlap", lambda exchanges: [_overlap(one) for one in exchanges])]
    return []


def _vader(subject: Subject) -> Baseline | Skipped:
    name = "vader"
    if (missing := _missing(name, "vaderSentiment", "vaderSentiment")) is not None:
        return missing
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyser: Any = SentimentIntensityAnalyzer()

    def scores(exchanges: Sequence[Exchange]) -> list[float]:
        # The compound sentiment, from -1 (worst) to 1, turned around.
        return [(1 - analyser.polarity_scores(_scored(one, subject))["compound"]) / 2 for one in exchanges]

    return Baseline(name, scores)


def _profanity(subject: Subject) -> Baseline | Skipped:
    name = "alt-profanity-check"
    if (missing := _missing(name, "profanity_check", name)) is not None:
        return missing
    import profanity_check

    def scores(exchanges: Sequence[Exchange]) -> list[float]:
        return [float(chance) for chance in profanity_check.predict_prob([_scored(one, subject) for one in exchanges])]

    return Baseline(name, scores)


def _tfidf(subject: Subject, training: Iterable[tuple[Exchange, bool]] | None) -> Baseline | Skipped:
    name = "TF-IDF, logistic regression"
    if training is None:
        return Skipped(name, "it learns in a batch: give labelled lines of other texts with --train FILE")
    if (missing := _missing(name, "sklearn", "scikit-learn")) is not None:
        return missing
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = [], []
    for exchange, label in training:
        texts.append(_scored(exchange, subject))
        labels.append(label)
    if len(set(labels)) < 2:
        return Skipped(name, "the lines of --train have one label only")
    model: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=4, max_iter=1000)
    )
    try:
        model.fit(texts, labels)
    except ValueError as error:  # no word occurs twice
        return Skipped(name, f"it cannot be trained on --train: {error}")

    def scores(exchanges: Sequence[Exchange]) -> list[float]:
        chances = model.predict_proba([_scored(one, subject) for one in exchanges])[:, 1]
        return [float(chance) for chance in chances]

    return Baseline(name, scores)


def _overlap(exchange: Exchange) -> float:
    """Return the share of the answer's content words that stand in the passages; 0 where it has none."""
    said = [word for word in words(exchange.answer) if word not in FUNCTION_WORDS]
    known = {word for passage in exchange.passages for word in words(passage.text)}
    return sum(word in known for word in said) / len(said) if said else 0.0


def _scored(exchange: Exchange, subject: Subject) -> str:
    return exchange.question if subject == "prompt" else exchange.answer


def _missing(name: str, module: str, package: str) -> Skipped | None:
    if importlib.util.find_spec(module) is not None:
        return None
    return Skipped(name, f"not installed: pip install {package}")

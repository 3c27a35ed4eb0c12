"""Answers against the right one: exact match, token F1, BLEU, ROUGE. 1 is the same; without a reference nothing is said."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.text import words

__all__ = ["bleu", "exact_match", "normalised", "rouge", "token_f1"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LONGEST = 20_000
"""Characters that are compared: ROUGE-L takes time in the product of both lengths."""


def normalised(text: str) -> str:
    """Return ``text`` as SQuAD's evaluation compares it: lower case, no ASCII punctuation, no articles, single spaces.

    Rajpurkar et al. 2016, evaluate-v1.1.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


@evaluator("exact_match", version="squad-1", threshold=0.5, labels=("different", "same"))
def exact_match(exchange: Exchange) -> float | None:
    """1 where answer and reference are the same after SQuAD's normalisation, else 0."""
    if exchange.reference is None:
        return None
    answer, reference = normalised(exchange.answer), normalised(exchange.reference)
    if not reference and not answer:  # both of signs alone
        return float(exchange.answer.strip() == exchange.reference.strip())
    return float(answer == reference)


@evaluator("token_f1", version="squad-1", threshold=0.5, labels=("different", "alike"))
def token_f1(exchange: Exchange) -> float | None:
    """The harmonic mean of the shares of the answer's and of the reference's tokens that the other has, as SQuAD counts.

    Scripts without spaces count by the character.
    """
    if exchange.reference is None:
        return None
    answer, reference = (_tokens(text) for text in (exchange.answer, exchange.reference))
    if not answer or not reference:
        return float(answer == reference)
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference))


@evaluator("bleu", version="sacrebleu-2-exp", threshold=0.3, labels=("different", "alike"))
def bleu(exchange: Exchange) -> Judged | None:
    """Sentence BLEU (Papineni et al. 2002) by sacrebleu: 1- to 4-grams, its own tokeniser, exponential smoothing, case kept.

    Built for whole corpora: on one short answer it is noisy, and low where other words say the same.
    """
    if not exchange.reference:
        return None
    metric = _bleu(_is_spaceless(exchange.reference))
    scored = metric.sentence_score(exchange.answer[:_LONGEST], [exchange.reference[:_LONGEST]])
    return Judged(min(1.0, max(0.0, scored.score / 100)))


@evaluator("rouge", version="rouge-score-1-L", threshold=0.5, labels=("different", "alike"))
def rouge(exchange: Exchange) -> Judged | None:
    """F-measure of ROUGE-L (Lin 2004), the longest common subsequence of stemmed words; ROUGE-1 and ROUGE-2 as features."""
    if not exchange.reference:
        return None
    found = _rouge().score(exchange.reference[:_LONGEST], exchange.answer[:_LONGEST])
    features = {name: round(float(score.fmeasure), 6) for name, score in found.items()}
    return Judged(min(1.0, max(0.0, features["rougeL"])), features=features)


def _tokens(text: str) -> list[str]:
    return words(normalised(text)) if _is_spaceless(text) else normalised(text).split()


def _is_spaceless(text: str) -> bool:
    """Whether most of ``text`` is in a script that writes no spaces."""
    return 2 * sum("\u0e00" <= char <= "\u0eff" or "\u3040" <= char <= "\u9fff" for char in text) > len(text)


@lru_cache(maxsize=2)
def _bleu(by_character: bool) -> Any:
    # Imported at the first use, as the next: answers with a reference are rare, and these bring much with them.
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, tokenize="char" if by_character else "13a")


class _Tokenizer:
    """rouge-score's own reads ASCII alone: words of other scripts would not count."""

    def __init__(self, stemmer: Any) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words(text)]


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Tokenizer(PorterStemmer()))

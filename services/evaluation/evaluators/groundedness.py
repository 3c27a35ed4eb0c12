"""Whether an answer says what its passages say, as a whole and sentence by sentence; and which passages it used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from penstock.contracts.records import Passage, ScoredSentence
from penstock.embedding.protocol import Embedder
from penstock.text.groundedness import THRESHOLD, VERSION, Sentence, Support, support

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject
from services.evaluation.evaluators.refusal import unanswered

__all__ = [
    "ContextUseEvaluator", "GroundednessEvaluator", "HallucinationEvaluator", "evidence_of", "groundedness_evaluators",
    "scored",
]  # fmt: skip

LABELS = ("ungrounded", "grounded")
_DECLINES = 0.7
"""Score of a refusal from which an unsupported sentence claims nothing."""
_COURTESY = re.compile(
    r"\W*(?:(?:hello|hi|hey|dear|welcome|good (?:morning|afternoon|evening))(?: \w+){0,2}"
    r"|you(?:'re| are) (?:very |most )?welcome|sure|of course|certainly|(?:great|good) question"
    r"|(?:best|kind) (?:regards|wishes)"
    r"|thank(?:s| you)(?: (?:so|very) much)?(?: for (?:\w+ ){0,2}\w+)?"
    r"|(?:please )?(?:let me know|feel free|don't hesitate|do not hesitate)\b.{0,100}"
    r"|i hope (?:this|that|it) (?:helps|answers)\b.{0,60}|(?:i(?:'m| am|'d be| would be) )?(?:happy|glad) to help\b.{0,60}"
    r"|is there anything else\b.{0,60}|(?:can|may) i help\b.{0,60})[.!?,:\s]*",
    re.I,
)
"""Greeting, thanking, taking leave, offering more."""
_REMEMBERED = 256
_REASONS = 3


class _Judge:
    """Judges answers by passages, and remembers the last, since several evaluators ask about each.

    Sentences that decline, say that they do not know, greet or offer more help claim nothing.
    """

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self._support = lru_cache(maxsize=_REMEMBERED)(self._judged)
        self.version = VERSION if embedder is None else f"{VERSION}+{embedder.name}"

    def support(self, exchange: Exchange) -> Support | None:
        if not exchange.answer.strip():
            return None
        passages = tuple(evidence_of(passage) for passage in exchange.passages if passage.text.strip())
        return self._support(exchange.answer, passages) if passages else None

    def _judged(self, answer: str, passages: tuple[str, ...]) -> Support | None:
        return support(answer, passages, self._embedder, no_claim=_no_claim)


def _no_claim(sentence: str) -> bool:
    return _COURTESY.fullmatch(sentence.replace("’", "'")) is not None or unanswered(sentence).score >= _DECLINES


class _OfSupport:
    """What these evaluators do: they say something of the support that a judge found."""

    subject: Subject = "answer"

    def __init__(self, embedder: Embedder | None = None, *, judge: _Judge | None = None) -> None:
        self._judge = _Judge(embedder) if judge is None else judge
        self.version = self._judge.version

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        return [self._one(exchange) for exchange in exchanges]

    def _one(self, exchange: Exchange) -> Judged | None:
        found = self._judge.support(exchange)
        return None if found is None else self._said(found, exchange.passages)

    def _said(self, found: Support, passages: Sequence[Passage]) -> Judged:
        raise NotImplementedError


class GroundednessEvaluator(_OfSupport):
    """1 where the passages bear out all that the answer says, 0 where none of it; ``grounded`` from 0.5.

    Nothing is said without passages, nor of an answer without a content word. Sentences that decline, say that they do not
    know, greet, thank or offer more help count only where the passages say so too; an answer of such sentences alone is
    not judged. Other questions back and remarks about speaker or reader count as unsupported: the passages do not hold
    them.

    Args:
        embedder: adds similarity in meaning, which costs some 5 ms a sentence; None judges by words alone.
    """

    name = "groundedness"
    threshold = THRESHOLD
    labels = LABELS

    def _said(self, found: Support, passages: Sequence[Passage]) -> Judged:
        sentences = scored(found.sentences, passages)
        return Judged(found.score, LABELS[found.score >= THRESHOLD], _why(found), sentences)


class HallucinationEvaluator(_OfSupport):
    """Share of the answer's sentences that its passages do not support: 0 where they support each, 1 where none.

    ``hallucinated`` where any is unsupported. Judges what :class:`GroundednessEvaluator` judges, and says nothing where it
    says nothing.
    """

    name = "hallucination"
    labels = ("supported", "hallucinated")

    def _said(self, found: Support, passages: Sequence[Passage]) -> Judged:
        against = tuple(sentence for sentence in found.sentences if sentence.support < THRESHOLD)
        label = "hallucinated" if against else "supported"
        return Judged(found.unsupported, label, _why(found), scored(against, passages))


class ContextUseEvaluator(_OfSupport):
    """Share of the passages that the answer used: those that bear most on a sentence which they support, and those that the
    backend says it quotes. 0 where none, whatever the answer says instead; ``used`` where any.

    Of passages that say the same, the one that is nearest counts: what only repeats another is not used. Marks of citation
    are not read, so a passage that is cited and says nothing of the kind is not used either. Nothing is said without
    passages. As a mean it tells how much of what is attached, and paid for as prompt tokens, answers are made of.
    """

    name = "context_use"
    labels = ("unused", "used")

    def _one(self, exchange: Exchange) -> Judged | None:
        with_text = [place for place, passage in enumerate(exchange.passages) if passage.text.strip()]
        if not with_text or not exchange.answer.strip():
            return None
        found = self._judge.support(exchange)
        sentences = () if found is None else found.sentences
        nearest = (one.passage for one in sentences if one.support >= THRESHOLD)
        used = {with_text[place] for place in nearest if place is not None}
        used |= {place for place in with_text if exchange.passages[place].passage_id in exchange.citations}
        unused = [str(place + 1) for place in with_text if place not in used]
        return Judged(
            len(used) / len(with_text),
            self.labels[bool(used)],
            f"not used: [{', '.join(unused)}]" if unused else "",
            features={"used": float(len(used)), "attached": float(len(with_text))},
        )


def groundedness_evaluators(
    embedder: Embedder | None = None,
) -> tuple[GroundednessEvaluator, HallucinationEvaluator, ContextUseEvaluator]:
    """Return the evaluators of what passages support; each answer is judged once for all."""
    judge = _Judge(embedder)
    return GroundednessEvaluator(judge=judge), HallucinationEvaluator(judge=judge), ContextUseEvaluator(judge=judge)


def evidence_of(passage: Passage) -> str:
    """Return what a passage holds as evidence: its title, which the model reads too, and its text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def scored(sentences: Sequence[Sentence], passages: Sequence[Passage]) -> tuple[ScoredSentence, ...]:
    """Return sentences as they stand in an evaluation."""
    with_text = [passage for passage in passages if passage.text.strip()]
    return tuple(
        ScoredSentence(
            start=sentence.start,
            end=sentence.end,
            score=sentence.support,
            label=LABELS[sentence.support >= THRESHOLD],
            passage_id=None if sentence.passage is None else with_text[sentence.passage].passage_id,
            reason=sentence.reason,
        )
        for sentence in sentences
    )


def _why(found: Support) -> str:
    against = [sentence for sentence in found.sentences if sentence.support < THRESHOLD]
    if not against:
        return ""
    worst = sorted(against, key=lambda sentence: (sentence.support, sentence.start))
    reasons = list(dict.fromkeys(sentence.reason for sentence in worst))[:_REASONS]
    return f"{len(against)} of {len(found.sentences)} sentences unsupported: {'; '.join(reasons)}"

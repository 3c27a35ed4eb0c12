"""Whether the answer speaks to every part of what was asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.embedding.protocol import Embedder

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject
from services.evaluation.evaluators.refusal import unanswered
from services.evaluation.evaluators.relevance import answering, has_own_words
from services.evaluation.evaluators.text import content_words, prose, sentences

__all__ = ["Completeness", "parts", "wanted_items"]

_MOST_PARTS, _MOST_SENTENCES = 8, 16
_CUT_OFF = 0.7
"""What is left of the score of an answer that the token limit ended."""
_ASKING = (
    r"who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|can|could|will|would|should|has|have|explain"
    r"|describe|list|give|name|tell|compare|summari[sz]e|write|show|discuss|outline|define|suggest|recommend|provide|mention"
    r"|wer|was|wann|wo|warum|wieso|wie|welche[rsnm]?|qui|que|quand|où|pourquoi|comment|quel(?:le)?s?|quién|qué|cuándo|dónde"
    r"|por qué|cómo|cuál(?:es)?|chi|cosa|dove|perché|come|quale|quem|quando|onde|porque|como|qual"
)
_COORDINATED = re.compile(
    rf"(?i)(?:,|;)?\s+(?:and|as well as|also|und|et|y|e|en)\s+(?:also |then |please )?(?=(?:{_ASKING})\b)"
    rf"|;\s+(?=(?:{_ASKING})\b)"
)
_OPENS = re.compile(rf"(?i)^\W*(?:(?:and|also|then|please|can you|could you|und|et|y)\W+)*(?:{_ASKING})\b")
_LISTED = re.compile(r"(?m)^\s*(?:[-*•+]|\(?\d{1,2}[.):])\s+(\S.*)$")
_NUMBERS = {
    word: number for number, word in enumerate("one two three four five six seven eight nine ten twelve".split(), 1)
} | {"twelve": 12}
_WANTED = re.compile(
    r"(?i)\b(?:list|name|give|provide|suggest|write|mention|tell|show|recommend|what are|propose|describe|explain)\b"
    r"(?: me| us)?(?: the| at least| exactly| up to| your)?(?: top| best| main| first)?"
    rf" (\d{{1,2}}|{'|'.join(_NUMBERS)}) (?:\w+ ){{0,2}}?\w+s\b"
)


class Completeness:
    """From 0 (no part is addressed) to 1 (each is): the mean over the parts of the question.

    Parts are its questions and requests, its list items, and clauses joined by "and". How far a part is addressed is the
    answer relevance of the sentence that speaks to it best, and of the answer as a whole. Where a number of things is asked
    for, and the answer lists fewer, the part counts in proportion. An answer that the token limit cut off, that refuses or
    does not know loses score in that measure.
    """

    name = "completeness"
    subject: Subject = "answer"
    threshold = 0.6
    labels = ("incomplete", "complete")

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def version(self) -> str:
        return f"parts-1+{self._embedder.name}"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        asked = [parts(one.question) if one.answer.strip() else [] for one in exchanges]
        said = [_pieces(one.answer) if some else [] for one, some in zip(exchanges, asked, strict=True)]
        vectors = self._embedder.embed(
            [text for pair in zip(asked, said, strict=True) for some in pair for text in some]
        )
        judged: list[Judged | None] = []
        start = 0
        for exchange, wanted, pieces in zip(exchanges, asked, said, strict=True):
            middle, end = start + len(wanted), start + len(wanted) + len(pieces)
            cosines = vectors[start:middle] @ vectors[middle:end].T
            judged.append(_judged(exchange, wanted, pieces, cosines.tolist()) if wanted else None)
            start = end
        return judged


def _judged(exchange: Exchange, wanted: Sequence[str], pieces: Sequence[str], cosines: list[list[float]]) -> Judged:
    addressed = []
    for part, row in zip(wanted, cosines, strict=True):
        best = max(
            answering(part, piece, cosine) if has_own_words(exchange.question, piece) else 0.0
            for piece, cosine in zip(pieces, row, strict=True)
        )
        number = wanted_items(part)
        listed = len(_LISTED.findall(exchange.answer))
        addressed.append(best * min(1.0, listed / number) if number and listed else best)
    score = sum(addressed) / len(addressed)
    reasons = [f"part {index} of {len(wanted)} is not addressed" for index, one in enumerate(addressed, 1) if one < 0.5]
    features = {f"part_{index}": round(one, 4) for index, one in enumerate(addressed, 1)}
    if exchange.finish_reason == "length":
        score *= _CUT_OFF
        reasons.append("cut off at the token limit")
    score *= 1 - unanswered(exchange.answer).score
    return Judged(round(score, 4), reason="; ".join(reasons), features=features)


def parts(question: str) -> list[str]:
    """Return what a question asks for, one text a part, at most eight; none for an empty one."""
    listed = [item.strip() for item in _LISTED.findall(question)]
    found = listed if len(listed) > 1 else []
    for sentence in sentences(prose(_LISTED.sub("", question) if found else question)):
        if sentence.endswith(("?", "？")) or _OPENS.match(sentence):
            found += [piece.strip() for piece in _COORDINATED.split(sentence) if piece.strip()]
    if listed and len(listed) > 1 and len(found) > len(listed):
        # "Answer these questions:" leads a list and asks for nothing of its own.
        found = [part for part in found if not part.endswith(":")]
    asking = [part for part in found if content_words(part)]
    if not asking:
        whole = question.strip()
        return [whole] if whole else []
    return asking[:_MOST_PARTS]


def wanted_items(part: str) -> int:
    """Return how many things a request asks for by number; 0 where it does not say."""
    match = _WANTED.search(part)
    if match is None:
        return 0
    said = match.group(1).lower()
    return _NUMBERS.get(said) or int(said)


def _pieces(answer: str) -> list[str]:
    """Return what may address a part: sentences, and the answer as a whole."""
    found = sentences(prose(answer))[:_MOST_SENTENCES]
    return [*found, answer] if len(found) != 1 else [answer]

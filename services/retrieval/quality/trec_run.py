"""Rankings as a run file of TREC: question, Q0, document, place, score, tag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.retrieval.quality.question_sets import Question
from services.retrieval.quality.ranking import Ranked

__all__ = ["run_lines"]

_PLACES = 6


def run_lines(questions: Sequence[Question], ranked: Sequence[Ranked], tag: str) -> Iterator[str]:
    """Yield the lines of a run.

    trec_eval orders by score and breaks ties by id, whatever places say. So scores fall from line to line, by 0.000001 at
    least, where the ranking has equal ones or is not by score alone (diversity, a reranker).
    """
    for question, one in zip(questions, ranked, strict=True):
        last = float("inf")
        for place, (document, score) in enumerate(zip(one.documents, one.scores, strict=True), 1):
            last = min(round(score, _PLACES), round(last - 10**-_PLACES, _PLACES))
            yield f"{_column(question.id)} Q0 {_column(document)} {place} {last:.{_PLACES}f} {_column(tag)}\n"


def _column(text: str) -> str:
    """Return ``text`` without the white space that would end its column."""
    return "_".join(text.split()) or "_"

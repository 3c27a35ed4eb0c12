"""Evaluators made of one function: those that a team adds, and most that are shipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.evaluation.evaluators.protocol import Exchange, Judged, Subject

__all__ = ["FunctionEvaluator", "evaluator"]

Judging = Callable[[Exchange], "float | Judged | None"]


@dataclass(frozen=True)
class FunctionEvaluator:
    """An evaluator that judges one exchange at a time.

    Attributes:
        name: of the score.
        version: to be raised whenever scores may change.
        function: returns a score from 0 to 1, a :class:`Judged`, or None where there is nothing to judge. It is not called
            where the text it is of is empty.
        subject: which text the score is of.
        threshold: score from which the second of ``labels`` is given; None gives no label.
        labels: verdicts below the threshold, and from it on.
    """

    name: str
    version: str
    function: Judging
    subject: Subject = "answer"
    threshold: float | None = None
    labels: tuple[str, str] = ("low", "high")

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        return [self._judged(exchange) for exchange in exchanges]

    def _judged(self, exchange: Exchange) -> Judged | None:
        text = exchange.question if self.subject == "prompt" else exchange.answer
        said = self.function(exchange) if text.strip() else None
        return said if said is None or isinstance(said, Judged) else Judged(said)


def evaluator(
    name: str,
    *,
    version: str,
    subject: Subject = "answer",
    threshold: float | None = None,
    labels: tuple[str, str] = ("low", "high"),
) -> Callable[[Judging], FunctionEvaluator]:
    """Make an evaluator of a function; see :class:`FunctionEvaluator` for the arguments.

    >>> @evaluator("politeness", version="1")
    ... def politeness(exchange):
    ...     return 1.0 if "please" in exchange.answer.lower() else 0.0
    >>> politeness.evaluate([Exchange(answer="Wait, please.")])[0].score
    1.0
    """

    def made(function: Judging) -> FunctionEvaluator:
        return FunctionEvaluator(name, version, function, subject, threshold, labels)

    return made

"""Whether an answer was made from passages, where its route looked for some."""

from __future__ import annotations

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange

__all__ = ["passages_found"]


@evaluator("passages_found", version="1", threshold=0.5, labels=("empty", "grounded"))
def passages_found(exchange: Exchange) -> float | None:
    """1 where passages were attached, 0 where none reached the floor: its mean is the hit rate of retrieval.

    Nothing is said where the route asks for none, or the store was away. It travels with the other scores, so that what
    people think of answers can be told apart by it.
    """
    return {"grounded": 1.0, "empty": 0.0}.get(exchange.grounding)

"""How far a call of a model has come: what is known of it when it is given up."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.contracts.records import Usage

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """A backend writes it while it generates; whoever gives the call up, or dies with it, is accounted for by it.

    Attributes:
        began: a model is at work on it, or may be: it may be charged for.
        usage: tokens so far, where the backend counts them; None where they must be estimated.
        answer_size: bytes of the answer that have come, where nobody counts tokens.
    """

    began: bool = False
    usage: Usage | None = None
    answer_size: int = 0

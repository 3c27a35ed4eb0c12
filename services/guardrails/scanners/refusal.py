"""Answers that decline what was asked."""

from __future__ import annotations

from penstock.text.refusal import DeclineFinder

from services.guardrails.findings import Reference, Rule, Span


class RefusalScanner:
    """Finds answers that decline; see :class:`penstock.text.refusal.DeclineFinder`. The find is the sentence that does."""

    name = "refusal"
    version = "1"
    default_threshold = 0.5

    def __init__(self) -> None:
        self._finder = DeclineFinder()

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = self._finder.find(text)
        return [Span("REFUSAL", found.start, found.end, found.score)] if found else []

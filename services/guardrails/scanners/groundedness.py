"""Answers that say what the passages they were made from do not."""

from __future__ import annotations

from penstock.text.groundedness import VERSION, support

from services.guardrails.findings import Reference, Rule, Span

CLAIMS_NOTHING = 0.45
"""Score of an answer without a content word."""


class GroundednessScanner:
    """Scores an answer by what its passages leave unsupported; the find is its least supported sentence.

    Without passages nothing can be said and nothing is found. An answer without a content word ("I see.") claims
    nothing, yet says nothing from the passages either: it scores just below the default threshold.
    """

    name = "groundedness"
    version = f"1+{VERSION}"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if not any(passage.strip() for passage in reference.passages):
            return []
        judged = support(text, reference.passages)
        if judged is None:
            return [Span("UNGROUNDED", 0, len(text), CLAIMS_NOTHING)] if text.strip() else []
        weakest = judged.weakest
        return [Span("UNGROUNDED", weakest.start, weakest.end, round(1.0 - judged.score, 6))]

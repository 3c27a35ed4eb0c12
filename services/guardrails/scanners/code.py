"""Program code in a text."""

from __future__ import annotations

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.code_blocks import blocks


class CodeScanner:
    """Finds program code, fenced or bare: kind CODE:<language>, by the fence's word or by what the lines look like.

    Languages of the rule's `languages` are let through. Data (JSON, YAML, CSV), logs, formulas and prose with a few signs
    are not code; a fence that names them is believed.
    """

    name = "code"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = []
        for number, block in enumerate(blocks(text)):
            if number % 16 == 0:
                reference.checkpoint()
            if (
                block.score
                and block.language not in rule.languages
                and (not block.declared or block.declared not in rule.languages)
            ):
                found.append(Span(f"CODE:{block.language}", block.start, block.end, block.score))
        return found

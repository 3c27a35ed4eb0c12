"""Texts too long for what they are sent to."""

from __future__ import annotations

import re

from services.guardrails.findings import DEFAULT_TOKEN_LIMIT, Reference, Rule, Span

__all__ = ["TokenLimitScanner", "estimate_tokens"]

_RUN = re.compile(r"[A-Za-z0-9\u00c0-\u024f]+")
_SIGN = re.compile(r"[!-/:-@\[-`{-~\u00a1-\u00bf]")
_OTHER = re.compile(r"[^\s\x00-\u024f]")
WHOLE = 6
"""Letters up to which a Latin word is most often one token."""


class TokenLimitScanner:
    """Finds texts of more tokens than the rule's limit.

    The score is half the share of the limit that a text uses, so 0.5 at the limit, and 1 from twice as much.
    """

    name = "token_limit"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        limit = DEFAULT_TOKEN_LIMIT if rule.limit is None else rule.limit
        # No token is shorter than a character: most texts need no closer look.
        if len(text) <= limit // 2:
            return []
        score = min(1.0, estimate_tokens(text) / limit / 2)
        return [Span("TOKEN_LIMIT", 0, len(text), score)] if score > 0.25 else []


def estimate_tokens(text: str) -> int:
    """Tokens of a text, estimated without a tokenizer, rather too many than too few.

    A Latin word is one token up to 6 letters and one more for every 2 beyond; a run with digits is two for every three
    characters; signs count one by one, and so do the characters of every other script. Against the WordPiece
    vocabulary of all-MiniLM-L6-v2 the estimate lies between 0.85 and 1.5 times the count for English, code, tables and
    encoded data, and above 0.7 for other Latin prose; the vocabularies of current models, being larger, need fewer
    tokens, most of all for other scripts.
    """
    other = 0 if text.isascii() else len(_OTHER.findall(text))
    runs = sum(
        (2 * len(run) + 2) // 3 if not run.isalpha() else 1 if len(run) <= WHOLE else 1 + (len(run) - WHOLE + 1) // 2
        for run in _RUN.findall(text)
    )
    return runs + len(_SIGN.findall(text)) + other

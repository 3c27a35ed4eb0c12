"""Guardrail policies: which scanners look at a text, and what follows from their finds."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import Entry, FieldError, Name, Part

__all__ = ["MASKABLE", "SCANNERS", "Policy", "ScannerRule"]

SCANNERS = (
    "pii", "secrets", "injection", "invisible_text", "token_flood", "banned_words", "regex", "system_prompt_leak",
    "exfiltration",
)  # fmt: skip
"""Scanners that a policy may name; a misspelt one would guard nothing, so any other name is refused."""

MASKABLE = frozenset(SCANNERS) - {"injection", "token_flood"}
"""Scanners whose finds have a place in the text that can be masked; the others judge the text as a whole."""


class ScannerRule(Part):
    """What a policy does with the finds of one scanner."""

    action: Literal["off", "flag", "mask", "block"] = Field(
        description="off, flag (let through, noted), mask or block."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Score from which a find counts, 0 to 1 (token_flood: tokens); null for the scanner's own.",
    )
    kinds: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Kinds of finds that count, e.g. EMAIL_ADDRESS; null for all."
    )
    patterns: tuple[str, ...] = Field(default=(), description="Regular expressions in RE2's syntax (scanner regex).")
    words: tuple[str, ...] = Field(default=(), description="Words and phrases, in any case (scanner banned_words).")
    allow: tuple[str, ...] = Field(default=(), description="Hosts or values that never count as a find.")
    fail: Literal["open", "closed"] | None = Field(
        default=None, description="What happens when the scanner fails; null for the policy's."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for index, pattern in enumerate(self.patterns):
            if problem := _pattern_problem(pattern):
                raise FieldError(("patterns", index), problem)
        for name in ("words", "allow"):
            for index, value in enumerate(getattr(self, name)):
                if not value.strip():
                    raise FieldError((name, index), "is empty and would match everything: remove it")
        return self


def _pattern_problem(pattern: str) -> str | None:
    """Say why ``pattern`` cannot be used, or None."""
    import re2  # the services and the CLI carry it, the SDK alone does not

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options=options)
    except re2.error as error:
        cause = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        return f"{pattern!r} is no RE2 expression: {cause} (RE2 has no look-around and no back-references)"
    if compiled.search("") is not None:
        return f"{pattern!r} matches the empty text, so it would match everything: make it say more"
    return None


class Policy(Entry):
    """Which scanners look at inputs, outputs and documents, and what follows from their finds."""

    KIND: ClassVar[str] = "policies"

    name: Name = Field(description="Name that teams and routes refer to.")
    fail: Literal["open", "closed"] = Field(
        default="closed", description="When a scanner fails: open lets the text through, closed blocks it."
    )
    input: dict[str, ScannerRule] = Field(default={}, description="Rules for requests, by scanner.")
    output: dict[str, ScannerRule] = Field(default={}, description="Rules for answers, by scanner.")
    documents: dict[str, ScannerRule] = Field(default={}, description="Rules for documents, by scanner.")

    @property
    def key(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        for stage in ("input", "output", "documents"):
            for scanner, rule in getattr(self, stage).items():
                problem = _misfit(stage, scanner, rule)
                if problem:
                    raise FieldError((stage, scanner), problem)
        return self


def _misfit(stage: str, scanner: str, rule: ScannerRule) -> str | None:
    """Say why ``rule`` does not fit its scanner, or None."""
    if scanner not in SCANNERS:
        return f"no such scanner; there are {', '.join(SCANNERS)}"
    if scanner == "system_prompt_leak" and stage != "output":
        return "looks at answers: it belongs under output"
    if rule.action == "mask" and scanner not in MASKABLE:
        return "judges the whole text, so nothing can be masked: use flag or block"
    if rule.threshold is not None and rule.threshold > 1 and scanner != "token_flood":
        return f"threshold {rule.threshold:g} is above 1: scores go from 0 to 1"
    if scanner == "regex" and rule.action != "off" and not rule.patterns:
        return "needs patterns"
    if scanner == "banned_words" and rule.action != "off" and not rule.words:
        return "needs words"
    if rule.patterns and scanner != "regex":
        return "patterns belong to the scanner regex"
    if rule.words and scanner != "banned_words":
        return "words belong to the scanner banned_words"
    return None

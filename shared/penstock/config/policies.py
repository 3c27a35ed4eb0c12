"""Guardrail policies: which scanners look at a text, and what follows from their finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import Entry, FieldError, Name, Part

__all__ = ["ACTIONS", "MASKING", "SCANNERS", "STAGES", "BannedTopic", "Policy", "ScannerKind", "ScannerRule"]

STAGES = ("input", "output", "documents")

Action = Literal["flag", "pseudonymise", "hash", "mask", "ask_again", "review", "block"]
ACTIONS: tuple[str, ...] = ("allow", "flag", "pseudonymise", "hash", "mask", "ask_again", "review", "block")
"""What may become of a text, mildest first."""
MASKING = frozenset({"pseudonymise", "hash", "mask"})
"""Actions that replace what was found."""


@dataclass(frozen=True, slots=True)
class ScannerKind:
    """What a policy may say of a scanner: the stages it looks at, whether its finds have a place in the text that can
    be masked (the others judge the text as a whole), and the options it has beside those of every rule."""

    stages: frozenset[str]
    maskable: bool
    options: frozenset[str] = frozenset()


def _at(*stages: str) -> frozenset[str]:
    return frozenset(stages or STAGES)


SCANNERS: Mapping[str, ScannerKind] = {
    "token_limit": ScannerKind(_at(), False, frozenset({"limit"})),
    "token_flood": ScannerKind(_at(), False),
    "gibberish": ScannerKind(_at("input", "output"), False),
    "invisible_text": ScannerKind(_at(), True),
    "banned_words": ScannerKind(_at(), True, frozenset({"words"})),
    "regex": ScannerKind(_at(), True, frozenset({"patterns"})),
    "secrets": ScannerKind(_at(), True),
    "pii": ScannerKind(_at(), True, frozenset({"ner"})),
    "injection": ScannerKind(_at(), False),
    "indirect_injection": ScannerKind(_at("input"), False),
    "multi_turn": ScannerKind(_at("input"), False),
    "toxicity": ScannerKind(_at(), False),
    "banned_topics": ScannerKind(_at(), False, frozenset({"topics"})),
    "language": ScannerKind(_at(), False, frozenset({"languages", "same_language"})),
    "code": ScannerKind(_at(), True, frozenset({"languages"})),
    "unsafe_code": ScannerKind(_at("input", "output"), True),
    "urls": ScannerKind(_at(), True, frozenset({"deny"})),
    "exfiltration": ScannerKind(_at(), True),
    "classifier": ScannerKind(_at(), False, frozenset({"model"})),
    "system_prompt_leak": ScannerKind(_at("output"), True),
    "canary": ScannerKind(_at("output"), True),
    "refusal": ScannerKind(_at("output"), False),
    "format": ScannerKind(_at("output"), False, frozenset({"json_schema", "patterns", "repair"})),
    "groundedness": ScannerKind(_at("output"), False),
}
"""Scanners that a policy may name; a misspelt one would guard nothing, so any other name is refused."""

_OPTIONS = frozenset().union(*(kind.options for kind in SCANNERS.values()))


class BannedTopic(Part):
    """A subject that is not to be spoken of."""

    name: Name = Field(description="Name of the topic, as findings give it.")
    examples: tuple[str, ...] = Field(min_length=1, description="Sentences that speak of it; ten or more do best.")


class ScannerRule(Part):
    """What a policy does with the finds of one scanner."""

    action: Action = Field(
        description="flag (let through, noted), pseudonymise (replaced, restored in the answer), hash, mask, ask_again "
        "(the model is asked once more), review (held for a person) or block."
    )
    mode: Literal["off", "shadow", "enforce"] = Field(
        default="enforce", description="off, shadow (finds are noted, nothing follows) or enforce."
    )
    scanner: str | None = Field(
        default=None, description="Scanner that the rule uses; null where the rule is named like it."
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Score from which a find counts; null: the scanner's.",
    )
    kinds: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Kinds of finds that count, e.g. EMAIL_ADDRESS; null for all."
    )
    allow: tuple[str, ...] = Field(default=(), description="Hosts or values that never count as a find.")
    fail: Literal["open", "closed"] | None = Field(
        default=None, description="What happens when the scanner fails; null for the policy's."
    )
    time_budget_ms: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Longest scanning of one event; above it the scanner failed.",
    )
    patterns: tuple[str, ...] = Field(
        default=(), description="RE2 expressions: what regex finds, or one of which the whole text must match (format)."
    )
    words: tuple[str, ...] = Field(default=(), description="Words and phrases, in any case (banned_words).")
    deny: tuple[str, ...] = Field(default=(), description="Hosts that always count as a find (urls).")
    topics: tuple[BannedTopic, ...] = Field(default=(), description="Topics that are banned (banned_topics).")
    languages: tuple[str, ...] = Field(
        default=(), description="Languages that are let through: ISO 639-1 (language), or of programming (code)."
    )
    same_language: bool = Field(default=False, description="The answer's language must be the question's (language).")
    limit: int | None = Field(default=None, ge=1, description="Most tokens of one text (token_limit).")
    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema that the whole answer must keep (format)."
    )
    repair: bool = Field(default=False, description="Whether a malformed answer is mended if it can be (format).")
    model: str | None = Field(default=None, description="Folder of an ONNX text classifier (classifier).")
    ner: str | None = Field(
        default=None, description="Installed spaCy model that finds names, places and organisations (pii)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for index, pattern in enumerate(self.patterns):
            if problem := _pattern_problem(pattern):
                raise FieldError(("patterns", index), problem)
        for name in ("words", "allow", "deny"):
            for index, value in enumerate(getattr(self, name)):
                if not value.strip():
                    raise FieldError((name, index), "is empty and would match everything: remove it")
        if self.json_schema is not None and (problem := _schema_problem(self.json_schema)):
            raise FieldError(("json_schema",), problem)
        return self

    def options_set(self) -> frozenset[str]:
        """The scanners' own options that this rule gives."""
        return frozenset(name for name in _OPTIONS if getattr(self, name) != type(self).model_fields[name].default)


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
    if any(
        (match := compiled.search(probe)) is not None and match.start() == match.end() for probe in ("", "a", " a ")
    ):
        return f"{pattern!r} matches the empty text, so it would match everything: make it say more"
    return None


def _schema_problem(schema: dict[str, Any]) -> str | None:
    """Say why ``schema`` cannot be used, or None. Its patterns must be linear, and nothing is fetched for it."""
    import jsonschema_rs

    try:
        jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return f"cannot be used: {str(error).splitlines()[0]} (no look-around in patterns, no references outside it)"
    return None


class Policy(Entry):
    """Which scanners look at inputs, outputs and documents, and what follows from their finds."""

    KIND: ClassVar[str] = "policies"

    name: Name = Field(description="Name that teams and routes refer to.")
    fail: Literal["open", "closed"] = Field(
        default="closed", description="When a scanner fails: open lets the text through, closed blocks it."
    )
    shadows: Name | None = Field(
        default=None,
        description="Policy beside which this one is tried: it judges the same traffic, and nothing follows. "
        "`penstock guard report` says what it would have changed.",
    )
    shadow_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the traffic that a policy in shadow judges, by request."
    )
    review_timeout_s: float = Field(
        default=3600, gt=0, le=7 * 24 * 3600, description="A held text that nobody decides ends as expired after this."
    )
    input: dict[str, ScannerRule] = Field(default={}, description="Rules for requests, by scanner or name.")
    output: dict[str, ScannerRule] = Field(default={}, description="Rules for answers, by scanner or name.")
    documents: dict[str, ScannerRule] = Field(default={}, description="Rules for documents, by scanner or name.")

    @property
    def key(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shadows == self.name:
            raise FieldError(("shadows",), "a policy cannot be tried beside itself: give it a name of its own")
        for stage in STAGES:
            for name, rule in getattr(self, stage).items():
                problem = _misfit(stage, rule.scanner or name, rule)
                if problem:
                    raise FieldError((stage, name), problem)
        return self


_NEEDED = {
    "regex": "patterns",
    "banned_words": "words",
    "banned_topics": "topics",
    "classifier": "model",
}


def _misfit(stage: str, scanner: str, rule: ScannerRule) -> str | None:
    """Say why ``rule`` does not fit its scanner, or None."""
    kind = SCANNERS.get(scanner)
    if kind is None:
        return f"no such scanner as {scanner!r}; there are {', '.join(SCANNERS)} (or set `scanner`)"
    if stage not in kind.stages:
        return f"{scanner} looks at {' and '.join(sorted(kind.stages))}: it belongs there"
    if stray := sorted(rule.options_set() - kind.options):
        fits = ", ".join(sorted(name for name, other in SCANNERS.items() if stray[0] in other.options))
        return f"{stray[0]} is no option of {scanner}: it belongs to {fits}"
    if rule.mode == "off":
        return None
    if rule.action in MASKING and not kind.maskable:
        return f"{scanner} judges the whole text, so nothing can be masked: use flag, review or block"
    if rule.action == "pseudonymise" and stage != "input":
        return "pseudonyms are given to requests and restored in their answers: use mask or hash here"
    if rule.action == "ask_again" and stage != "output":
        return "only an answer can be asked for again: use review or block here"
    if rule.action == "review" and stage == "documents":
        return "documents are not held for review: use block, then ingest the corrected document"
    if (option := _NEEDED.get(scanner)) and not getattr(rule, option):
        return f"needs {option}"
    if scanner == "format" and rule.json_schema is None and not rule.patterns:
        return "needs json_schema or patterns"
    if scanner == "language" and not rule.languages and not (rule.same_language and stage == "output"):
        return "needs languages, or same_language under output"
    return None

"""Judge the texts of one event under a policy, and mask what the policy says to mask. Pure but for the clock it is
handed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.guardrails.findings import Reference, Rule, Scanner, Span

__all__ = ["ACTIONS", "Finding", "Limits", "Screening", "Segment", "fingerprint", "screen"]

ACTIONS = ("allow", "flag", "mask", "block")
"""Mildest first."""

# The platform's own instructions read like an injection, and they are as long as the platform makes them.
_NOT_ON_TRUSTED = frozenset({"injection", "token_flood"})
# What masking takes out: there was nothing to read in its place.
_DELETED_BY_MASKING = frozenset({"invisible_text"})
# A blocked prompt is still shown to evaluators and auditors: without the data that it was blocked for.
_MASKED_WHEN_BLOCKED = frozenset({"pii", "secrets", "banned_words", "regex", "invisible_text"})
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]*)_(\d{1,6})>")


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of an event. ``trusted`` is the platform's own: it is searched for data, not judged for its intent."""

    text: str
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What one event may cost: characters of all its texts together, and seconds of scanning."""

    max_chars: int = 400_000
    time_budget_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A find that counts. Offsets are code points of the event's texts joined by a line feed; `segment` is the text's
    index.
    """

    scanner: str
    kind: str
    segment: int
    start: int
    end: int
    score: float
    action: str
    value: str = field(repr=False)
    """The matched text: for masking and fingerprints only, never for an event or a log."""


@dataclass(frozen=True, slots=True)
class Screening:
    """The outcome of all scanners on one event.

    ``texts`` are the segments with masks applied, in order; where the action is block, they lack the data that they
    were blocked for. ``scores`` has the highest score of each scanner, whether it counts or not; ``errors`` the
    scanners that failed or had no time, with the reason.
    """

    action: str
    texts: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    scanners: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def blocking(self) -> str | None:
        """The scanner that blocked, the surest first; None where nothing did."""
        finds = [finding for finding in self.findings if finding.action == "block"]
        return max(finds, key=lambda finding: finding.score).scanner if finds else None


def screen(
    segments: Sequence[Segment],
    rules: Sequence[tuple[Scanner, Rule]],
    reference: Reference,
    limits: Limits,
    monotonic: Callable[[], float],
) -> Screening:
    """Run every scanner over every segment and decide.

    A scanner that raises, or that the time budget leaves no time for, counts by its rule's ``fail``: closed means as if
    it had found something (and blocks where it would have masked, since what to mask is unknown), open means as if it
    had found nothing. Texts longer than ``limits.max_chars`` are an error of every scanner, since none looks at the
    rest.
    """
    started = monotonic()
    offsets, position = [], 0
    for segment in segments:
        offsets.append(position)
        position += len(segment.text) + 1
    errors: dict[str, str] = {}
    scores: dict[str, float] = {}
    findings: list[Finding] = []
    too_long = position - 1 > limits.max_chars
    for scanner, rule in rules:
        name = scanner.name
        try:
            if too_long and name != "token_flood":
                raise OverflowError(
                    f"{position - 1} characters exceed the {limits.max_chars} that are scanned: send less, or split the text"
                )
            for index, segment in enumerate(segments):
                if not segment.text or (segment.trusted and name in _NOT_ON_TRUSTED):
                    continue
                if monotonic() - started > limits.time_budget_s:
                    raise TimeoutError(
                        f"the time budget of {limits.time_budget_s:g} s was used up before this scanner was done"
                    )
                for span in scanner.scan(segment.text, rule, reference):
                    scores[name] = max(scores.get(name, 0.0), span.score)
                    if _counts(span, segment.text, rule):
                        value = segment.text[span.start : span.end]
                        base = offsets[index]
                        findings.append(
                            Finding(
                                name,
                                span.kind,
                                index,
                                base + span.start,
                                base + span.end,
                                span.score,
                                rule.action,
                                value,
                            )
                        )
        except Exception as error:  # A scanner that fails is a verdict of its own, never the end of the stage.
            errors[name] = f"{type(error).__name__}: {error}"
            if rule.fail_closed:
                action = "flag" if rule.action == "flag" else "block"
                findings.append(Finding(name, "SCANNER_FAILED", 0, 0, 0, 1.0, action, ""))
    action = max((finding.action for finding in findings), key=ACTIONS.index, default="allow")
    texts = _masked([segment.text for segment in segments], offsets, findings, reference)
    versions = {scanner.name: scanner.version for scanner, _ in rules}
    return Screening(action, texts, tuple(findings), scores, versions, errors, monotonic() - started)


def _counts(span: Span, text: str, rule: Rule) -> bool:
    if span.score < rule.threshold or (rule.kinds is not None and span.kind not in rule.kinds):
        return False
    return not rule.allow or text[span.start : span.end].lower() not in rule.allow


def _masked(
    texts: Sequence[str], offsets: Sequence[int], findings: Iterable[Finding], reference: Reference
) -> tuple[str, ...]:
    """The texts with typed, numbered placeholders: one value has one placeholder wherever it stands in the event.

    Numbers go on after those that the texts and the conversation already hold, so that an answer's own mask is not
    taken for one of the prompt's.
    """
    taken: dict[str, int] = {}
    for text in (*texts, reference.prompt):
        for kind, number in _PLACEHOLDER.findall(text) if "<" in text else ():
            taken[kind] = max(taken.get(kind, 0), int(number))
    names: dict[tuple[str, str], str] = {}
    by_segment: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.action == "mask" or (finding.action == "block" and finding.scanner in _MASKED_WHEN_BLOCKED):
            by_segment.setdefault(finding.segment, []).append(finding)
    masked = list(texts)
    for index in sorted(by_segment):
        text, base = texts[index], offsets[index]
        pieces, position = [], 0
        for start, end, finding in _merged(by_segment[index]):
            pieces.append(text[position : start - base])
            if finding.scanner not in _DELETED_BY_MASKING:
                key = (finding.kind, text[start - base : end - base].casefold())
                if key not in names:
                    taken[finding.kind] = taken.get(finding.kind, 0) + 1
                    names[key] = f"<{finding.kind}_{taken[finding.kind]}>"
                pieces.append(names[key])
            position = end - base
        masked[index] = "".join([*pieces, text[position:]])
    return tuple(masked)


def _merged(findings: Iterable[Finding]) -> list[tuple[int, int, Finding]]:
    """(start, end, surest find) of every stretch that finds cover: of finds that overlap no character may stay
    readable.
    """
    stretches: list[tuple[int, int, Finding]] = []
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if stretches and finding.start < stretches[-1][1]:
            start, end, surest = stretches[-1]
            stretches[-1] = (start, max(end, finding.end), finding if finding.score > surest.score else surest)
        else:
            stretches.append((finding.start, finding.end, finding))
    return stretches


def fingerprint(key: bytes, kind: str, value: str) -> str:
    """First 16 hex digits of HMAC-SHA256 under ``key``: equal finds are recognised, and without the key nothing is
    guessed back.
    """
    if not value:
        return ""
    return hmac.new(key, f"{kind}\0{value.casefold()}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[
        :16
    ]

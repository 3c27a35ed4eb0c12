"""Judge the texts of one event under a policy, and mask what the policy says to mask. Pure but for the clock it is
handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.config.policies import ACTIONS, MASKING

from services.guardrails.findings import AnyScanner, ConversationScanner, Reference, Repairs, Rule, Span
from services.guardrails.masking import Stretch, mask_texts

__all__ = ["Finding", "Limits", "Screening", "Segment", "screen", "stretch_of"]

# The platform's own instructions read like an injection, they are as long as the platform makes them, and they may
# name what is not to be spoken of.
_NOT_ON_TRUSTED = frozenset(
    {"injection", "token_limit", "token_flood", "gibberish", "banned_topics", "toxicity", "language", "classifier"}
)
# What an answer must be; the passages it quotes need not.
_ANSWER_ONLY = frozenset({"format", "refusal", "groundedness"})
_TOOL_ONLY = frozenset({"indirect_injection"})
# What masking takes out: there was nothing to read in its place.
_DELETED_BY_MASKING = frozenset({"invisible_text"})
# A blocked prompt is still shown to evaluators and auditors: without the data that it was blocked for.
_MASKED_WHEN_BLOCKED = frozenset({"pii", "secrets", "banned_words", "regex", "invisible_text", "canary"})


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of an event. ``role`` is that of the message (system, user, assistant, tool), or answer, passage or
    document. What the system says is the platform's own: it is searched for data, not judged for its intent.
    """

    text: str
    role: str = "user"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one event may cost: characters of all its texts together, and seconds of scanning."""

    max_chars: int = 400_000
    time_budget_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A find that counts. Offsets are code points of the event's texts joined by a line feed; ``segment`` is the text's
    index. ``rule`` is the policy's name for it; where ``enforced`` is false, nothing follows from it.
    """

    rule: str
    scanner: str
    kind: str
    segment: int
    start: int
    end: int
    score: float
    action: str
    enforced: bool
    value: str = field(repr=False)
    """The matched text: for masking and fingerprints only, never for an event or a log."""


@dataclass(frozen=True, slots=True)
class Screening:
    """The outcome of all scanners on one event.

    ``action`` is what follows; ``would_action`` what would follow if the rules in shadow were enforced, None where
    there is none. ``texts`` are the segments with masks applied, in order; where the action is block, they lack the
    data that they were blocked for. ``pseudonyms`` say what the reversible masks stand for. By the rule's name:
    ``scores`` has the highest score, whether it counts or not, ``scanners`` the version, and ``errors`` why a scanner
    failed or had no time.
    """

    action: str
    texts: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    would_action: str | None = None
    pseudonyms: Mapping[str, str] = field(default_factory=dict, repr=False)
    scores: Mapping[str, float] = field(default_factory=dict)
    scanners: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def deciding(self) -> Finding | None:
        """The find behind the action, the surest first; None where nothing was found."""
        finds = [finding for finding in self.findings if finding.enforced and finding.action == self.action]
        return max(finds, key=lambda finding: finding.score, default=None)


def screen(
    segments: Sequence[Segment],
    rules: Sequence[tuple[AnyScanner, Rule]],
    reference: Reference,
    limits: Limits,
    monotonic: Callable[[], float],
    key: bytes = b"",
) -> Screening:
    """Run every scanner over every segment and decide. ``key`` makes the hashes of the action ``hash``.

    A scanner that raises, or that the time budget leaves no time for, counts by its rule's ``fail``: closed means as if
    it had found something (and blocks where it would have masked, since what to mask is unknown), open means as if it
    had found nothing. Texts longer than ``limits.max_chars`` are an error of every scanner, since none looks at the
    rest.
    """
    started = monotonic()
    segments, findings, errors = _repaired(segments, rules, reference)
    offsets, position = [], 0
    for segment in segments:
        offsets.append(position)
        position += len(segment.text) + 1
    scores: dict[str, float] = {}
    too_long = position - 1 > limits.max_chars
    for scanner, rule in rules:
        name = rule.name or scanner.name
        try:
            if too_long and scanner.name != "token_limit":
                raise OverflowError(
                    f"{position - 1} characters exceed the {limits.max_chars} that are scanned: send less, or split the text"
                )
            timed = replace(reference, checkpoint=_deadline(started, rule, limits, monotonic))
            for index, span in _finds(scanner, rule, segments, timed):
                scores[name] = max(scores.get(name, 0.0), span.score)
                text = segments[index].text
                if _counts(span, text, rule):
                    value = text[span.start : span.end]
                    start, end = offsets[index] + span.start, offsets[index] + span.end
                    findings.append(
                        Finding(
                            name,
                            scanner.name,
                            span.kind,
                            index,
                            start,
                            end,
                            span.score,
                            rule.action,
                            rule.enforced,
                            value,
                        )
                    )
        except Exception as error:  # A scanner that fails is a verdict of its own, never the end of the stage.
            errors[name] = f"{type(error).__name__}: {error}"
            if rule.fail_closed:
                action = rule.action if rule.action in ("flag", "review") else "block"
                findings.append(Finding(name, scanner.name, "SCANNER_FAILED", 0, 0, 0, 1.0, action, rule.enforced, ""))
    masked = mask_texts(
        [segment.text for segment in segments],
        [stretch for finding in findings if (stretch := stretch_of(finding, offsets[finding.segment]))],
        reference.prompt,
        key,
    )
    return Screening(
        action=_severest(finding for finding in findings if finding.enforced),
        texts=masked.texts,
        findings=tuple(findings),
        would_action=None if all(rule.enforced for _, rule in rules) else _severest(findings),
        pseudonyms=masked.pseudonyms,
        scores=scores,
        scanners={rule.name or scanner.name: scanner.version for scanner, rule in rules},
        errors=errors,
        elapsed_s=monotonic() - started,
    )


def _deadline(started: float, rule: Rule, limits: Limits, monotonic: Callable[[], float]) -> Callable[[], None]:
    """What raises TimeoutError once the event's budget, or the rule's own from now on, is spent."""
    event_ends = started + limits.time_budget_s
    rule_ends = event_ends if rule.time_budget_s is None else monotonic() + rule.time_budget_s

    def check() -> None:
        now = monotonic()
        if now > event_ends:
            raise TimeoutError(
                f"the time budget of {limits.time_budget_s:g} s was used up before this scanner was done"
            )
        if now > rule_ends:
            raise TimeoutError(f"the rule's time budget of {rule.time_budget_s:g} s was used up")

    return check


def _finds(
    scanner: AnyScanner, rule: Rule, segments: Sequence[Segment], reference: Reference
) -> Sequence[tuple[int, Span]]:
    """(segment, span) of everything that the scanner finds where it applies."""
    reference.checkpoint()
    if isinstance(scanner, ConversationScanner):
        turns = [index for index, segment in enumerate(segments) if segment.role == "user"]
        found = scanner.scan_conversation([segments[index].text for index in turns], rule, reference)
        return [(turns[turn], span) for turn, span in found]
    finds = []
    for index, segment in enumerate(segments):
        if segment.text and _applies(scanner.name, segment.role):
            reference.checkpoint()
            finds += [(index, span) for span in scanner.scan(segment.text, rule, reference)]
    return finds


def _applies(scanner: str, role: str) -> bool:
    if role == "system" and scanner in _NOT_ON_TRUSTED:
        return False
    if scanner in _TOOL_ONLY:
        return role == "tool"
    return role == "answer" or scanner not in _ANSWER_ONLY


def _repaired(
    segments: Sequence[Segment], rules: Sequence[tuple[AnyScanner, Rule]], reference: Reference
) -> tuple[Sequence[Segment], list[Finding], dict[str, str]]:
    """The segments with what a rule may repair mended, and what was mended; the other scanners see the mended text."""
    mended, findings, errors = list(segments), [], {}
    for scanner, rule in rules:
        if not (rule.repair and rule.enforced and isinstance(scanner, Repairs)):
            continue
        for index, segment in enumerate(mended):
            if not segment.text or not _applies(scanner.name, segment.role):
                continue
            try:
                broken = any(_counts(span, segment.text, rule) for span in scanner.scan(segment.text, rule, reference))
                text = scanner.repair(segment.text, rule) if broken else None
            except Exception as error:  # The scan proper follows and decides.
                errors[rule.name] = f"{type(error).__name__}: {error}"
                continue
            if text is not None:
                mended[index] = replace(segment, text=text)
                findings.append(Finding(rule.name, scanner.name, "REPAIRED", index, 0, 0, 1.0, "flag", True, ""))
    return mended, findings, errors


def _counts(span: Span, text: str, rule: Rule) -> bool:
    if span.score < rule.threshold or (rule.kinds is not None and span.kind not in rule.kinds):
        return False
    return not rule.allow or text[span.start : span.end].lower() not in rule.allow


def _severest(findings: Iterable[Finding]) -> str:
    return max((finding.action for finding in findings), key=ACTIONS.index, default="allow")


def stretch_of(finding: Finding, offset: int) -> Stretch | None:
    """What is to be replaced for a find, or None."""
    if not finding.enforced or finding.start == finding.end:
        return None
    if finding.action in MASKING:
        action = finding.action
    elif finding.action == "block" and finding.scanner in _MASKED_WHEN_BLOCKED:
        action = "mask"
    else:
        return None
    return Stretch(
        finding.segment, finding.start - offset, finding.end - offset, finding.kind, finding.score, action,
        removed=finding.scanner in _DELETED_BY_MASKING,
    )  # fmt: skip

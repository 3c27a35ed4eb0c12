"""Judge the texts of one event under a policy, and mask what the policy says to mask. Pure but for the clock it is
handed.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import cast

from penstock.config.policies import ACTIONS, MASKING
from penstock.text.normalise import strip_invisible

from services.guardrails.findings import AnyScanner, ConversationScanner, Reference, Repairs, Rule, Scanner, Span
from services.guardrails.masking import Stretch, mask_texts

__all__ = ["Finding", "Limits", "Screening", "Segment", "screen", "stretch_of"]

# The platform's own instructions read like an injection, they are as long as the platform makes them, and they may
# name what is not to be spoken of.
_NOT_ON_TRUSTED = frozenset(
    {"injection", "token_limit", "token_flood", "gibberish", "banned_topics", "toxicity", "language", "classifier"}
)
# What an answer must be; the passages it quotes need not.
_ANSWER_ONLY = frozenset({"format", "refusal", "groundedness"})
_NOT_ON_PASSAGES = frozenset({"language"})
_FINDS_BETWEEN_CHECKS = 1_000
# A name is too short for a judgement of its language or sense.
_ON_NAMES = frozenset({"pii", "secrets", "regex", "banned_words", "invisible_text", "injection"})
# An answer without a character may still be the wrong one.
_ON_EMPTY_ANSWERS = frozenset({"format"})
# Characters that nobody sees, set in the middle, would hide from these what a reader or a model still reads.
_DATA = frozenset({"pii", "secrets", "regex", "urls", "exfiltration", "system_prompt_leak"})
_TOOL_ONLY = frozenset({"indirect_injection"})
# Arguments of a call are values and words of a tool, in no language and of no sense by themselves.
_NOT_ON_ARGUMENTS = frozenset({"language", "gibberish"})
# What masking takes out: there was nothing to read in its place.
_DELETED_BY_MASKING = frozenset({"invisible_text"})
# A blocked prompt is still shown to evaluators and auditors: without the data that it was blocked for.
_MASKED_WHEN_BLOCKED = frozenset({"pii", "secrets", "banned_words", "regex", "invisible_text", "canary"})


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of an event. ``role`` is that of the message (system, user, assistant, tool), or name (of who speaks),
    answer, arguments (of a tool that is called), passage or document. What the system says is the platform's own: it is
    searched for data, not judged for its intent.
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
    rest. Data is sought in the texts as they are, and as they read without their invisible characters.
    """
    started = monotonic()
    too_long = sum(len(segment.text) + 1 for segment in segments) - 1 > limits.max_chars
    findings: list[Finding] = []
    errors: dict[str, str] = {}
    if not too_long:
        unhurried = replace(reference, checkpoint=_deadline(started, None, limits, monotonic))
        segments, findings, errors = _repaired(segments, rules, unhurried)
    offsets, position = [], 0
    for segment in segments:
        offsets.append(position)
        position += len(segment.text) + 1
    scores: dict[str, float] = {}
    visible = _Visible()
    for scanner, rule in rules:
        name = rule.name or scanner.name
        try:
            if too_long and scanner.name != "token_limit":
                raise OverflowError(
                    f"{position - 1} characters exceed the {limits.max_chars} that are scanned: send less, or split the text"
                )
            timed = replace(reference, checkpoint=_deadline(started, rule.time_budget_s, limits, monotonic))
            for index, span in _finds(scanner, rule, segments, timed, visible):
                scores[name] = max(scores.get(name, 0.0), span.score)
                text = segments[index].text
                if _counts(span, text, rule):
                    value = text[span.start : span.end]
                    start, end = offsets[index] + span.start, offsets[index] + span.end
                    if len(findings) % _FINDS_BETWEEN_CHECKS == 0:
                        timed.checkpoint()
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
            errors[name] = _why(error)
            if rule.fail_closed:
                action = rule.action if rule.action in ("flag", "review") else "block"
                findings.append(Finding(name, scanner.name, "SCANNER_FAILED", 0, 0, 0, 1.0, action, rule.enforced, ""))
    masked = mask_texts(
        [segment.text for segment in segments],
        [
            _told_apart(stretch, segments[finding.segment])
            for finding in findings
            if finding.start != finding.end and (stretch := stretch_of(finding, offsets[finding.segment]))
        ],
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


def _why(error: Exception) -> str:
    """Why a scanner failed, as verdicts, logs and refusals may tell it.

    Messages of exceptions quote what they choked on, so only those are told that this service words itself; of the
    others the type, and the place that raised it.
    """
    if isinstance(error, (TimeoutError, OverflowError)):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}"


def _deadline(
    started: float, rule_budget_s: float | None, limits: Limits, monotonic: Callable[[], float]
) -> Callable[[], None]:
    """What raises TimeoutError once the event's budget, or the rule's own from now on, is spent."""
    event_ends = started + limits.time_budget_s
    rule_ends = event_ends if rule_budget_s is None else monotonic() + rule_budget_s

    def check() -> None:
        now = monotonic()
        if now > event_ends:
            raise TimeoutError(
                f"the time budget of {limits.time_budget_s:g} s was used up before this scanner was done"
            )
        if now > rule_ends:
            raise TimeoutError(f"the rule's time budget of {rule_budget_s:g} s was used up")

    return check


def _finds(
    scanner: AnyScanner, rule: Rule, segments: Sequence[Segment], reference: Reference, visible: _Visible
) -> Sequence[tuple[int, Span]]:
    """(segment, span) of everything that the scanner finds where it applies."""
    reference.checkpoint()
    if _is_of_conversations(type(scanner)):
        scanner = cast("ConversationScanner", scanner)
        turns = [index for index, segment in enumerate(segments) if segment.role == "user"]
        found = scanner.scan_conversation([segments[index].text for index in turns], rule, reference)
        return [(turns[turn], span) for turn, span in found]
    scanner = cast("Scanner", scanner)
    finds = []
    for index, segment in enumerate(segments):
        is_judged = segment.text or (scanner.name in _ON_EMPTY_ANSWERS and segment.role == "answer")
        if is_judged and _applies(scanner.name, segment.role):
            reference.checkpoint()
            spans = list(scanner.scan(segment.text, rule, reference))
            if scanner.name in _DATA:
                spans += _hidden(scanner, segment.text, rule, reference, visible, frozenset(spans))
            finds += [(index, span) for span in spans]
    return finds


@functools.cache
def _is_of_conversations(kind: type) -> bool:
    # To ask of each call whether it is one of a protocol with attributes takes as long as many a scan.
    return hasattr(kind, "scan_conversation")


class _Visible:
    """Texts without their invisible characters, and where each character stood; made once for all scanners."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Sequence[int]]] = {}

    def of(self, text: str) -> tuple[str, Sequence[int]]:
        if text not in self._known:
            visible, origin = strip_invisible(text), list[int]()
            if len(visible) != len(text):
                signs = {char for char in set(text) if strip_invisible(char)}
                origin = [index for index, char in enumerate(text) if char in signs]
            self._known[text] = visible, origin
        return self._known[text]


def _hidden(
    scanner: Scanner, text: str, rule: Rule, reference: Reference, visible: _Visible, known: frozenset[Span]
) -> Iterable[Span]:
    """What ``scanner`` finds beside ``known`` once invisible characters are left out, by its places in ``text``."""
    read, origin = visible.of(text)
    if len(read) == len(text):
        return
    reference.checkpoint()
    for span in scanner.scan(read, rule, reference):
        if span.start < span.end:
            found = replace(span, start=origin[span.start], end=origin[span.end - 1] + 1)
            if found not in known:
                yield found


def _applies(scanner: str, role: str) -> bool:
    if role == "passage" and scanner in _NOT_ON_PASSAGES:
        return False
    if role == "name":
        return scanner in _ON_NAMES
    if role == "arguments" and scanner in _NOT_ON_ARGUMENTS:
        return False
    if role == "system" and scanner in _NOT_ON_TRUSTED:
        return False
    if role == "inserted":
        # It stands in the system's message as well, where all the others look at it.
        return scanner in _NOT_ON_TRUSTED
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
                errors[rule.name] = _why(error)
                continue
            if text is not None:
                mended[index] = replace(segment, text=text)
                findings.append(Finding(rule.name, scanner.name, "REPAIRED", index, 0, 0, 1.0, "flag", True, ""))
    return mended, findings, errors


def _counts(span: Span, text: str, rule: Rule) -> bool:
    if span.score < rule.threshold or (rule.kinds is not None and span.kind not in rule.kinds):
        return False
    return not rule.allow or text[span.start : span.end].lower() not in rule.allow


def _told_apart(stretch: Stretch, segment: Segment) -> Stretch:
    """Masks of a document have names of their own: a request's pseudonym must not be taken for one of them."""
    is_numbered = segment.role == "document" and stretch.action == "mask"
    return replace(stretch, kind=f"DOCUMENT_{stretch.kind}") if is_numbered else stretch


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

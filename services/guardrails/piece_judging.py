"""Decide how much of a streamed answer may be released: what is held, screened together with what was released before.

What a model streams is cut anywhere, in the middle of a number or of a key. So a piece is not judged by itself: the text
that is not released yet, with the last released characters in front of it (look-back), is screened as one. Of it goes
out only what ends where no token goes on, has enough text behind it (the margin) for a find to be complete, and lies in
no find and no construct that may still become one. Pure but for the clock that it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
from penstock.config.policies import ACTIONS, SCANNERS

from services.guardrails.findings import AnyScanner, Reference, Rule
from services.guardrails.masking import Numbering, mask_texts
from services.guardrails.policy import CompiledPolicy
from services.guardrails.release_points import (
    image_uses,
    last_boundary,
    last_sentence_end,
    left_open,
    next_boundary,
    open_construct,
)
from services.guardrails.screening import Finding, Limits, Screening, Segment, screen, stretch_of

__all__ = [
    "LOOK_BACK", "MARGIN", "MAX_HELD", "MAX_WHOLE", "WHOLE_ANSWER", "Asked", "Decision", "PieceJudge", "StreamState",
    "decide", "looking_back",
]  # fmt: skip

LOOK_BACK = 300
"""Released characters that are screened again in front of what follows: context words, and finds that begin there."""
MARGIN = 120
"""Characters that must follow a piece before it is released. Personal data is judged by 16 characters behind it; names,
addresses and numbers with spaces end within some 60.
"""
EXPRESSION_MARGIN = 400
"""The same where a policy has expressions of its own: nobody knows how long a text they match."""
MIN_PIECE = 60
"""Fewer characters are not worth a screening of their own, unless they are the last."""
MAX_HELD = 2_000
"""Characters that are held back at the most: what by then cannot be released ends the stream."""
MAX_SENTENCE = 600
"""A sentence longer than this is judged in parts."""
MAX_WHOLE = 100_000
"""The same where a rule judges the answer as a whole."""

WHOLE_ANSWER = frozenset({"format", "refusal", "groundedness", "language", "token_limit"})
"""Scanners that judge an answer as a whole: where a policy stops answers by one, nothing is released before the end."""
_STOPPING = ACTIONS.index("ask_again")
Rules = tuple[tuple[AnyScanner, Rule], ...]


class Asked(msgspec.Struct, frozen=True):
    """What the answer is judged against: fields as in Reference, but for ``ambiguous``."""

    system_prompt: str = ""
    prompt: str = ""
    question: str = ""
    passages: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    canary: str = ""
    ambiguous: tuple[str, ...] = ()
    """What the passages hold that reads like a pseudonym: it is never taken back."""


class StreamState(msgspec.Struct, frozen=True):
    """What is known of one streamed answer. Texts are as the model wrote them.

    ``held`` is not released yet, ``context`` are the last released characters; ``received`` characters came in all,
    with that ``digest``. ``sequence`` numbers the next released piece. ``highest`` and ``names`` are the numbering of
    the masks, ``persons`` who was found so far. Once ``ended``, everything that comes is dropped.
    """

    asked: Asked = Asked()
    received: int = 0
    digest: str = ""
    context: str = ""
    held: str = ""
    sequence: int = 0
    highest: dict[str, int] = {}
    names: list[tuple[str, str, str, str]] = []
    persons: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class PieceJudge:
    """By what pieces are judged: ``policy`` is None where it is not published. ``pseudonyms`` are the request's."""

    policy: CompiledPolicy | None
    key: bytes = field(repr=False)
    limits: Limits
    monotonic: Callable[[], float]
    pseudonyms: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """``text`` goes out, masked; the first ``taken`` held characters are done with; ``stop`` ends the stream."""

    text: str
    taken: int
    screening: Screening
    numbering: Numbering
    stop: bool = False


@dataclass(frozen=True, slots=True)
class _PieceRules:
    """The rules of a policy that can change what is released, by how much of an answer they must see.

    ``local`` finds have a place that can be masked; ``passage`` rules judge the text up to the end of a sentence; where
    there are ``whole`` rules nothing is released before the end. ``every`` are all of these in the policy's order.
    """

    local: Rules
    passage: Rules
    whole: Rules
    every: Rules
    margin: int
    fences: bool

    @classmethod
    def of(cls, policy: CompiledPolicy) -> _PieceRules:
        every = tuple(
            (scanner, rule)
            for scanner, rule in policy.stages["output"]
            if rule.enforced and (rule.action != "flag" or rule.repair)
        )
        whole = tuple((s, rule) for s, rule in every if s.name in WHOLE_ANSWER or rule.repair)
        part = [(s, rule) for s, rule in every if (s, rule) not in whole]
        phrases = max((len(word) for _, rule in part for word in rule.words), default=0)
        return cls(
            local=tuple((s, rule) for s, rule in part if SCANNERS[s.name].maskable),
            passage=tuple((s, rule) for s, rule in part if not SCANNERS[s.name].maskable),
            whole=whole,
            every=every,
            margin=max(MARGIN, 2 * phrases, EXPRESSION_MARGIN if any(rule.patterns for _, rule in part) else 0),
            fences=any(s.name in ("code", "unsafe_code") for s, _ in part),
        )


def decide(
    state: StreamState, judge: PieceJudge, policy: CompiledPolicy, *, last: bool, calls_tools: bool = False
) -> Decision | str | None:
    """Return what becomes of the held text; None where it waits, and why the stream must end where it waits in vain.

    ``calls_tools`` is known with the last piece: words beside calls of tools are no answer yet.
    """
    rules = _PieceRules.of(policy)
    if rules.whole:
        return _decide_whole(state, rules, judge, last=last, role="assistant" if calls_tools else "answer")
    return _decide_part(state, rules, judge, last=last)


def looking_back(released: str) -> str:
    """The end of ``released`` that is screened again in front of what follows. It begins with a token, and with what
    opens the code that it lies in.
    """
    if len(released) <= LOOK_BACK:
        return released
    start = next_boundary(released, len(released) - LOOK_BACK)
    return left_open(released[:start]) + released[start:]


def _decide_whole(
    state: StreamState, rules: _PieceRules, judge: PieceJudge, *, last: bool, role: str
) -> Decision | str | None:
    """Nothing before the end, then everything or nothing."""
    if not last:
        too_long = f"an answer over {MAX_WHOLE} characters is not held until it ends: read the result instead"
        return too_long if len(state.held) > MAX_WHOLE else None
    screening = _screen(state.held, rules.every, state, judge, role)
    stop = ACTIONS.index(screening.action) >= _STOPPING
    return Decision("" if stop else screening.texts[0], len(state.held), screening, Numbering(), stop)


def _decide_part(state: StreamState, rules: _PieceRules, judge: PieceJudge, *, last: bool) -> Decision | str | None:
    """As much as is safe; None where that is nothing yet, a text where it never will be."""
    context = state.context
    if any(scanner.name == "exfiltration" for scanner, _ in rules.local):
        context = image_uses(state.context + state.held) + context
    window, base = context + state.held, len(context)
    full = len(state.held) > MAX_HELD
    end = len(window) if last else _candidate(window, base, rules, full=full)
    if not last and end - base < (1 if full else MIN_PIECE):
        return f"no place to release it was found in {MAX_HELD} characters: read the result instead" if full else None
    screening = _screen(window, rules.local, state, judge)
    failed = [finding for finding in screening.findings if finding.kind == "SCANNER_FAILED"]
    clusters = _clusters(finding for finding in screening.findings if finding.end > base)
    stopping: _Cluster | None = None
    if failed:
        end = base
    elif not last:
        for cluster in reversed(clusters):
            if cluster.start < end < cluster.end:
                end = last_boundary(window, base, cluster.start)
        if end <= base:
            return f"a find goes on for more than {MAX_HELD} characters: read the result instead" if full else None
    if not failed:
        stopping = next((cluster for cluster in clusters if cluster.stops and cluster.start < end), None)
        end = end if stopping is None else max(stopping.start, base)
    stop = bool(failed or stopping)
    if rules.passage and end > base:
        judged = _screen(window[:end], rules.passage, state, judge)
        found = [finding for finding in judged.findings if finding.end > base or finding.kind == "SCANNER_FAILED"]
        screening = _joined(screening, judged)
        failed += found
        if found:
            end, stop = base, True
    relevant = [cluster for cluster in clusters if cluster.start < end or cluster is stopping]
    stretches = [
        replace(stretch, start=max(stretch.start, 0), end=min(stretch.end, end - base))
        for cluster in relevant
        if not cluster.stops
        for finding in cluster.findings
        if (stretch := stretch_of(finding, base)) and stretch.end > 0
    ]
    numbering = Numbering(state.highest, {(kind, value, action): name for kind, value, action, name in state.names})
    masked = mask_texts([window[base:end]], stretches, f"{state.asked.prompt}\n{window}", judge.key, numbering)
    origin = state.received - len(window)
    findings = tuple(
        replace(finding, start=finding.start + origin, end=finding.end + origin)
        for finding in [*(finding for cluster in relevant for finding in cluster.findings), *failed]
    )
    action = max((finding.action for finding in findings), key=ACTIONS.index, default="allow")
    told = replace(screening, action=action, findings=findings, would_action=None)
    return Decision(masked.texts[0], end - base, told, masked.numbering, stop)


def _candidate(window: str, base: int, rules: _PieceRules, *, full: bool) -> int:
    """The last place at which the text may be cut, finds aside; ``base`` where there is none."""
    end = last_boundary(window, base, len(window) - rules.margin)
    opened = open_construct(window, base, fences=rules.fences)
    whole = end if opened is None else min(end, last_boundary(window, base, opened))
    if rules.passage:
        sentence = last_sentence_end(window, base, whole)
        if sentence > base or whole - base < MAX_SENTENCE:
            whole = sentence
    return whole if whole > base or not full else end


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Finds that overlap."""

    start: int
    end: int
    findings: tuple[Finding, ...]

    @property
    def stops(self) -> bool:
        return any(ACTIONS.index(finding.action) >= _STOPPING for finding in self.findings)


def _clusters(findings: Iterable[Finding]) -> list[_Cluster]:
    clusters: list[_Cluster] = []
    for finding in sorted(findings, key=lambda f: (f.start, -f.end)):
        if clusters and finding.start < clusters[-1].end:
            last = clusters[-1]
            clusters[-1] = _Cluster(last.start, max(last.end, finding.end), (*last.findings, finding))
        else:
            clusters.append(_Cluster(finding.start, finding.end, (finding,)))
    return clusters


def _screen(text: str, rules: Rules, state: StreamState, judge: PieceJudge, role: str = "answer") -> Screening:
    asked = state.asked
    reference = Reference(
        asked.system_prompt,
        asked.prompt,
        asked.question,
        asked.passages,
        frozenset(asked.urls),
        asked.canary,
        state.persons,
    )
    return screen([Segment(text, role)], rules, reference, judge.limits, judge.monotonic, judge.key)


def _joined(one: Screening, other: Screening) -> Screening:
    """One screening of what two looked for; the finds are chosen later."""
    return replace(
        one,
        scores={**one.scores, **other.scores},
        scanners={**one.scanners, **other.scanners},
        errors={**one.errors, **other.errors},
        elapsed_s=one.elapsed_s + other.elapsed_s,
    )

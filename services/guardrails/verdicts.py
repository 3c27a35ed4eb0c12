"""What was judged, and the events that say so: the audit trail. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock.bus import Emit
from penstock.config.policies import ACTIONS
from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.envelope import derive
from penstock.contracts.records import (
    Alternative,
    Context,
    Finding,
    LlmResult,
    Purpose,
    Record,
    ResultChunk,
    Verdict,
)

from services.guardrails.masking import fingerprint
from services.guardrails.policy import CompiledPolicy
from services.guardrails.screening import Finding as Found
from services.guardrails.screening import Screening

__all__ = ["Judged", "findings_of", "verdicts"]


MAX_FINDINGS = 1_000
"""Finds that one event tells: a text full of them must not make a verdict too large for the log."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A screening together with the policy it was made under, the key of its fingerprints and the instant it was made.

    ``tried`` are the same texts under the policies that are tried in shadow.
    """

    screening: Screening
    policy: CompiledPolicy
    key: bytes = field(repr=False)
    now: datetime
    tried: tuple[tuple[CompiledPolicy, Screening], ...] = ()


def verdicts(
    cause: Record,
    stage: str,
    judged: Judged,
    released: LlmResult | ResultChunk | Alternative | None = None,
    *,
    ordinal: int = 0,
    sequence: int | None = None,
) -> list[Emit]:
    """Return the verdict on ``cause`` and those of the policies in shadow.

    ``released`` is what may be released on the strength of it, None where nothing may.
    """
    done = judged.screening.action
    digest = "" if released is None else released_digest(cause.request_id, released_texts(released))
    emits = [_verdict(cause, stage, f"guardrails.{stage}.verdict", judged, None, digest, ordinal, sequence)]
    for policy, screening in judged.tried:
        shadow = Judged(screening, policy, judged.key, judged.now)
        name = f"guardrails.{stage}.shadow.{policy.name}"
        emits.append(_verdict(cause, stage, name, shadow, done, "", ordinal, sequence))
    return emits


def _purpose_of(cause: Record) -> str:
    """Return what the request of a judged text is for; a document is there to be served."""
    context: Context | None = getattr(cause, "context", None)
    return Purpose.SERVE if context is None else context.purpose


def _verdict(
    cause: Record,
    stage: str,
    derivation: str,
    judged: Judged,
    done: str | None,
    digest: str,
    ordinal: int,
    sequence: int | None,
) -> Emit:
    """The verdict of one policy; ``done`` is what the policy in force did where this one is only tried."""
    screening, policy = judged.screening, judged.policy
    verdict = Verdict(
        **derive(cause, derivation, ordinal, judged.now),
        stage=stage,
        action=screening.action if done is None else done,
        policy_name=policy.name,
        policy_version=policy.version,
        findings=findings_of(judged, tried=done is not None),
        scanners=dict(screening.scanners),
        errors=dict(screening.errors),
        latency_us=round(screening.elapsed_s * 1e6),
        mode="enforce" if done is None else "shadow",
        purpose=_purpose_of(cause),
        would_action=screening.would_action if done is None else screening.would_action or screening.action,
        scores={name: round(score, 4) for name, score in screening.scores.items()},
        released=digest,
        sequence=sequence,
    )
    return Emit("verdicts", cause.request_id, verdict)


def findings_of(judged: Judged, *, tried: bool = False) -> list[Finding]:
    """Return what was found, as events tell it: places and keyed fingerprints, never the text.

    Of more than ``MAX_FINDINGS`` those count that weigh most: the first of every rule and kind, then by action and
    score. They keep their order.
    """
    return [
        Finding(
            scanner=find.scanner,
            kind=find.kind,
            start=find.start,
            end=find.end,
            score=round(find.score, 4),
            action=find.action,
            fingerprint=fingerprint(judged.key, find.kind, find.value),
            rule=find.rule if find.rule != find.scanner else "",
            enforced=find.enforced and not tried,
        )
        for find in _weightiest(judged.screening.findings)
    ]


def _weightiest(findings: Sequence[Found]) -> Sequence[Found]:
    if len(findings) <= MAX_FINDINGS:
        return findings
    firsts = {(find.rule, find.kind): index for index, find in reversed(list(enumerate(findings)))}
    kept = set(firsts.values())

    def weight(index: int) -> tuple[bool, bool, int, float]:
        find = findings[index]
        return index in kept, find.enforced, ACTIONS.index(find.action), find.score

    chosen = sorted(range(len(findings)), key=weight, reverse=True)[:MAX_FINDINGS]
    return [findings[index] for index in sorted(chosen)]

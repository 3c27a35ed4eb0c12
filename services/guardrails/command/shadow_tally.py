"""What rules and policies in shadow would have changed, counted from verdicts. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.config.policies import ACTIONS
from penstock.contracts.records import Verdict

__all__ = ["Change", "RuleTally", "ShadowTally", "Tried", "TriedKey"]


class TriedKey(NamedTuple):
    """What was tried: a version of a policy at a stage; ``mode`` is shadow for a whole policy, enforce for single rules."""

    policy: str
    version: str
    stage: str
    mode: str


class Change(NamedTuple):
    """What was done, and what would have been done."""

    done: str
    would: str

    @property
    def stricter(self) -> bool:
        """Whether more would have been done."""
        return ACTIONS.index(self.would) > ACTIONS.index(self.done)


@dataclass(slots=True)
class RuleTally:
    """``found``: texts in which a rule in shadow found something; ``decided``: those where it would have changed what was
    done, being among the rules that ask for the action that would have been taken.
    """

    found: int = 0
    decided: int = 0


@dataclass(slots=True)
class Tried:
    """The verdicts of one :class:`TriedKey`; ``samples`` are the newest request ids of each change."""

    kept_samples: int
    verdicts: int = 0
    outcomes: Counter[Change] = field(default_factory=Counter)
    rules: dict[str, RuleTally] = field(default_factory=dict)
    samples: dict[Change, deque[str]] = field(default_factory=dict)
    failed: int = 0
    latency_us: int = 0

    @property
    def changed(self) -> int:
        """Texts with which something else would have been done."""
        return sum(number for change, number in self.outcomes.items() if change.done != change.would)

    @property
    def stricter(self) -> int:
        return sum(number for change, number in self.outcomes.items() if change.stricter)

    def add(self, verdict: Verdict, would: str) -> None:
        change = Change(verdict.action, would)
        self.verdicts += 1
        self.outcomes[change] += 1
        self.failed += bool(verdict.errors)
        self.latency_us += verdict.latency_us
        changed = change.done != change.would
        tried = [finding for finding in verdict.findings if not finding.enforced]
        for name in {finding.rule or finding.scanner for finding in tried}:
            self.rules.setdefault(name, RuleTally()).found += 1
        if changed:
            for name in {finding.rule or finding.scanner for finding in tried if finding.action == would}:
                self.rules[name].decided += 1
            self.samples.setdefault(change, deque(maxlen=self.kept_samples)).append(verdict.request_id)


class ShadowTally:
    """Counts verdicts; a verdict that stands on the topic twice counts once."""

    def __init__(self, policy: str | None = None, kept_samples: int = 5) -> None:
        self.tried: dict[TriedKey, Tried] = {}
        self.traffic: Counter[str] = Counter()
        """Texts judged in all, by stage."""
        self.others: set[str] = set()
        """Policies with something in shadow that were not asked for."""
        self._policy = policy
        self._kept_samples = kept_samples
        self._seen: set[str] = set()

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        if verdict.event_id in self._seen:
            return
        self._seen.add(verdict.event_id)
        if verdict.mode == "enforce":
            self.traffic[verdict.stage] += 1
        if verdict.would_action is None:
            return
        if self._policy is not None and verdict.policy_name != self._policy:
            self.others.add(verdict.policy_name)
            return
        key = TriedKey(verdict.policy_name, verdict.policy_version, verdict.stage, verdict.mode)
        self.tried.setdefault(key, Tried(self._kept_samples)).add(verdict, verdict.would_action)

    def plain(self) -> list[Mapping[str, Any]]:
        """Everything as JSON-able values."""
        return [
            {
                **key._asdict(),
                "verdicts": tried.verdicts,
                "share_of_traffic": self.share(key),
                "changed": tried.changed,
                "stricter": tried.stricter,
                "milder": tried.changed - tried.stricter,
                "failed": tried.failed,
                "latency_ms_mean": tried.latency_us / tried.verdicts / 1e3,
                "outcomes": [
                    {
                        **change._asdict(),
                        "verdicts": number,
                        "request_ids": list(tried.samples.get(change, ())),
                    }
                    for change, number in sorted(tried.outcomes.items(), key=lambda item: -item[1])
                ],
                "rules": {
                    name: {"found": rule.found, "decided": rule.decided} for name, rule in sorted(tried.rules.items())
                },
            }
            for key, tried in sorted(self.tried.items())
        ]

    def share(self, key: TriedKey) -> float | None:
        """The part of the stage's texts on which this was tried; None where none was judged in force."""
        judged = self.traffic[key.stage]
        return min(1.0, self.tried[key].verdicts / judged) if judged else None

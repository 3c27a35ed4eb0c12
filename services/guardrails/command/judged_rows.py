"""One labelled row under a policy: what each rule said and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from penstock.config.policies import Policy

from services.guardrails.command.entities import is_lossless
from services.guardrails.command.labelled import Labelled
from services.guardrails.command.policies import compiled
from services.guardrails.command.scan import LIMITS
from services.guardrails.findings import AnyScanner, ConversationScanner, Reference, Repairs, Rule, Scanner, Span
from services.guardrails.screening import screen

__all__ = ["Found", "JudgedRow", "Judging", "judge_row", "timed"]


@dataclass(frozen=True, slots=True)
class Found:
    """A find that counts, at its place in the joined texts."""

    rule: str
    scanner: str
    span: Span
    action: str
    enforced: bool


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """``scores`` by rule; ``cpu_s`` and ``wall_s`` by rule, and under the empty name for all of them with masking.

    ``lossless`` says whether the personal data found could be masked and restored; None where there was none to find.
    """

    action: str
    scores: Mapping[str, float]
    found: tuple[Found, ...]
    errors: Mapping[str, str]
    cpu_s: Mapping[str, float]
    wall_s: Mapping[str, float]
    lossless: bool | None = None


@dataclass(slots=True)
class _Times:
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, cpu: float, wall: float) -> None:
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.thread_time() - cpu
        self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall


class _Timed:
    """A scanner whose time is taken under the name of the rule that uses it."""

    def __init__(self, scanner: Scanner, rule: str, times: _Times) -> None:
        self.name, self.version, self.default_threshold = scanner.name, scanner.version, scanner.default_threshold
        self._scanner, self._rule, self._times = scanner, rule, times

    def scan(self, text: str, rule: Rule, reference: Reference) -> Sequence[Span]:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            return self._scanner.scan(text, rule, reference)
        finally:
            self._times.add(self._rule, cpu, wall)


class _TimedRepairs(_Timed):
    def __init__(self, scanner: Repairs, rule: str, times: _Times) -> None:
        super().__init__(scanner, rule, times)
        self._repairs = scanner

    def repair(self, text: str, rule: Rule) -> str | None:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            return self._repairs.repair(text, rule)
        finally:
            self._times.add(self._rule, cpu, wall)


class _TimedConversation:
    def __init__(self, scanner: ConversationScanner, rule: str, times: _Times) -> None:
        self.name, self.version, self.default_threshold = scanner.name, scanner.version, scanner.default_threshold
        self._scanner, self._rule, self._times = scanner, rule, times

    def scan_conversation(self, texts: Sequence[str], rule: Rule, reference: Reference) -> Sequence[tuple[int, Span]]:
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            return self._scanner.scan_conversation(texts, rule, reference)
        finally:
            self._times.add(self._rule, cpu, wall)


def timed(scanner: AnyScanner, rule: str, times: _Times) -> AnyScanner:
    """``scanner``, its time taken under ``rule``."""
    if isinstance(scanner, ConversationScanner):
        return _TimedConversation(scanner, rule, times)
    if isinstance(scanner, Repairs):
        return _TimedRepairs(scanner, rule, times)
    return _Timed(scanner, rule, times)


@dataclass(frozen=True, slots=True)
class Judging:
    """Everything a process needs to judge rows."""

    policy: Policy
    stage: str

    def __call__(self) -> Callable[[Labelled], JudgedRow]:
        return partial(judge_row, compiled(self.policy).stages[self.stage], self.stage)


def judge_row(rules: Sequence[tuple[AnyScanner, Rule]], stage: str, row: Labelled) -> JudgedRow:
    """Screen a row and take the time of each rule."""
    times = _Times()
    clocked = [(timed(scanner, rule.name, times), rule) for scanner, rule in rules]
    cpu, wall = time.thread_time(), time.perf_counter()
    screening = screen(row.subject.segments, clocked, row.subject.reference, LIMITS[stage], time.perf_counter, b"")
    times.add("", cpu, wall)
    found = tuple(
        Found(find.rule, find.scanner, Span(find.kind, find.start, find.end, find.score), find.action, find.enforced)
        for find in screening.findings
    )
    data = [one.span for one in found if one.scanner == "pii" and one.span.end > one.span.start]
    lossless = is_lossless(row.subject.segments[0].text, data) if row.task == "pii" else None
    return JudgedRow(
        screening.action, dict(screening.scores), found, dict(screening.errors), times.cpu_s, times.wall_s, lossless
    )

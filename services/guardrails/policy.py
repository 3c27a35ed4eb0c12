"""A policy of the configuration, made ready for use: thresholds resolved, what is off left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.config.policies import STAGES, Policy, ScannerRule

from services.guardrails.findings import AnyScanner, Checks, Rule, Topic

__all__ = ["STAGES", "CompiledPolicy", "Scanners", "compile_policy"]

Scanners = Mapping[str, Mapping[str, AnyScanner]]
"""Scanners by stage and name: a stage may judge by another instance under the same name."""


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """Rules by stage, cheap scanners first, so that a time budget is spent on the most certain ones.

    ``canary`` says whether the system's instructions get a marker that no answer may repeat.
    """

    name: str
    version: str
    stages: Mapping[str, tuple[tuple[AnyScanner, Rule], ...]]
    shadows: str | None = None
    shadow_share: float = 1.0
    review_timeout_s: float = 3600

    @property
    def canary(self) -> bool:
        # Not for a rule in shadow: the marker changes what the model is told.
        return any(scanner.name == "canary" and rule.enforced for scanner, rule in self.stages["output"])

    @property
    def has_shadow_rules(self) -> Mapping[str, bool]:
        """Whether a stage holds a rule that is only tried."""
        return {stage: any(not rule.enforced for _, rule in rules) for stage, rules in self.stages.items()}


def compile_policy(policy: Policy, scanners: Scanners) -> CompiledPolicy:
    """Resolve ``policy`` against the scanners there are.

    Raises:
        ValueError: a rule names a scanner that this service does not have at that stage, or asks it for what this
            installation lacks.
    """
    stages: dict[str, tuple[tuple[AnyScanner, Rule], ...]] = {}
    for stage in STAGES:
        active: Mapping[str, ScannerRule] = {
            name: rule for name, rule in getattr(policy, stage).items() if rule.mode != "off"
        }
        known = scanners[stage]
        used = {name: rule.scanner or name for name, rule in active.items()}
        if missing := sorted({scanner for scanner in used.values() if scanner not in known}):
            raise ValueError(
                f"policy {policy.name!r} names {', '.join(missing)} under {stage}: this version has no such scanner"
            )
        stages[stage] = tuple(
            (scanner, _rule(name, scanner, active[name], policy))
            for scanner_name, scanner in known.items()
            for name in active
            if used[name] == scanner_name
        )
        for scanner, rule in stages[stage]:
            if isinstance(scanner, Checks):
                try:
                    scanner.check(rule)
                except ValueError as error:
                    raise ValueError(f"policy {policy.name!r}, {stage}, {rule.name}: {error}") from error
    return CompiledPolicy(
        policy.name, policy.version, stages, policy.shadows, policy.shadow_share, policy.review_timeout_s
    )


def _rule(name: str, scanner: AnyScanner, rule: ScannerRule, policy: Policy) -> Rule:
    return Rule(
        action=rule.action,
        threshold=scanner.default_threshold if rule.threshold is None else rule.threshold,
        fail_closed=(rule.fail or policy.fail) == "closed",
        name=name,
        enforced=rule.mode == "enforce",
        time_budget_s=None if rule.time_budget_ms is None else rule.time_budget_ms / 1000,
        kinds=None if rule.kinds is None else frozenset(rule.kinds),
        allow=frozenset(value.lower() for value in rule.allow),
        deny=frozenset(value.lower() for value in rule.deny),
        patterns=tuple(rule.patterns),
        words=tuple(rule.words),
        topics=tuple(Topic(topic.name, tuple(topic.examples)) for topic in rule.topics),
        languages=frozenset(value.lower() for value in rule.languages),
        same_language=rule.same_language,
        limit=rule.limit,
        json_schema=None if rule.json_schema is None else json.dumps(rule.json_schema, sort_keys=True),
        repair=rule.repair,
        model=rule.model,
        ner=rule.ner,
    )

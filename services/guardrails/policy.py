"""A policy of the configuration, made ready for use: thresholds resolved, what is off left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.config.policies import Policy, ScannerRule

from services.guardrails.findings import DEFAULT_TOKEN_LIMIT, Rule, Scanner

__all__ = ["STAGES", "CompiledPolicy", "compile_policy"]

STAGES = ("input", "output", "documents")

Scanners = Mapping[str, Mapping[str, Scanner]]
"""Scanners by stage and name: a stage may judge by another instance under the same name."""


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """Rules by stage and scanner, cheap scanners first, so that a time budget is spent on the most certain ones."""

    name: str
    version: str
    stages: Mapping[str, tuple[tuple[Scanner, Rule], ...]]


def compile_policy(policy: Policy, scanners: Scanners) -> CompiledPolicy:
    """Resolve ``policy`` against the scanners there are.

    Raises:
        ValueError: a rule names a scanner that this service does not have at that stage.
    """
    stages: dict[str, tuple[tuple[Scanner, Rule], ...]] = {}
    for stage in STAGES:
        rules: Mapping[str, ScannerRule] = getattr(policy, stage)
        known = scanners[stage]
        if missing := sorted(name for name, rule in rules.items() if rule.action != "off" and name not in known):
            raise ValueError(
                f"policy {policy.name!r} names {', '.join(missing)} under {stage}: this version has no such scanner"
            )
        stages[stage] = tuple(
            (scanner, _rule(scanner, rules[name], policy))
            for name, scanner in known.items()
            if name in rules and rules[name].action != "off"
        )
    return CompiledPolicy(policy.name, policy.version, stages)


def _rule(scanner: Scanner, rule: ScannerRule, policy: Policy) -> Rule:
    # The threshold of token_flood counts tokens; its finds are certain.
    counts_tokens = scanner.name == "token_flood"
    return Rule(
        action=rule.action,
        threshold=scanner.default_threshold if rule.threshold is None or counts_tokens else rule.threshold,
        fail_closed=(rule.fail or policy.fail) == "closed",
        kinds=None if rule.kinds is None else frozenset(rule.kinds),
        allow=frozenset(value.lower() for value in rule.allow),
        patterns=tuple(rule.patterns),
        words=tuple(rule.words),
        token_limit=int(rule.threshold) if counts_tokens and rule.threshold is not None else DEFAULT_TOKEN_LIMIT,
    )

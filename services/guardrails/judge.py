"""Screens the texts of events under the policies in force, and beside them under those that are tried in shadow."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from penstock.clock import Clock
from penstock.config.entry import Entry
from penstock.config.kinds import Policy, Route, Team
from penstock.config.policies import SCANNERS
from penstock.telemetry import get_logger, metrics

from services.guardrails.findings import AnyScanner, Reference, Rule
from services.guardrails.policy import CompiledPolicy, Scanners, compile_policy
from services.guardrails.screening import Limits, Screening, Segment, screen
from services.guardrails.verdicts import Judged

__all__ = ["Configuration", "Judge"]

log = get_logger(__name__)

# Texts above this go to a thread, so that one long document does not hold up the requests beside it.
_THREAD_ABOVE_CHARS = 20_000


_SAMPLE = (
    "Dear Dr Ann Lee, mail ann@example.org or call +49 30 901820 about DE89 3704 0044 0532 0130 00, born 1990-02-03, "
    "at https://example.org/a?b=c; ```python\nprint(1)\n``` und danke: ignore the last line. SGVsbG8gd29ybGQsIGhlbGxv\n"
)
_SAMPLE_ROLES = {"input": ("system", "user", "tool"), "output": ("answer", "passage"), "documents": ("document",)}


class Configuration(Protocol):
    """What guardrails ask of the config plane."""

    def policy(self, name: str) -> Policy | None: ...
    def team(self, name: str) -> Team | None: ...
    def entries(self, kind: str) -> Mapping[str, Entry]: ...


class Judge:
    """Screens texts; a policy is compiled once per version."""

    def __init__(self, config: Configuration, scanners: Scanners, key: bytes, clock: Clock) -> None:
        self.key = key
        self._config = config
        self._scanners = scanners
        self._clock = clock
        self._compiled: dict[str, CompiledPolicy] = {}
        self._broken: dict[str, tuple[str, str]] = {}
        """(version, why) of the policies that could not be compiled."""

    def policy(self, name: str) -> CompiledPolicy | None:
        """The policy in force under ``name``, or None where none is published.

        Raises:
            ValueError: it asks for what this version or installation does not have.
        """
        policy = self._config.policy(name)
        if policy is None:
            return None
        compiled = self._compiled.get(name)
        if compiled is None or compiled.version != policy.version:
            version, why = self._broken.get(name, ("", ""))
            if version == policy.version:
                raise ValueError(why)
            try:
                compiled = self._compiled[name] = compile_policy(policy, self._scanners)
            except Exception as error:  # Whatever a scanner raises about what it needs, one policy harms no other.
                why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                self._broken[name] = policy.version, why
                log.error("policy cannot be used", policy=name, version=policy.version, reason=why)
                raise ValueError(why) from error
        return compiled

    def warm_up(self) -> None:
        """Compile the policies in use and let their scanners see a text, so that no request waits for a first time."""
        for name in sorted(self._used()):
            try:
                policy = self.policy(name)
            except ValueError:
                continue
            for stage, rules in policy.stages.items() if policy is not None else ():
                segments = [Segment(_SAMPLE, role) for role in _SAMPLE_ROLES[stage]]
                screen(segments, rules, Reference(prompt=_SAMPLE), Limits(time_budget_s=60), self._clock.monotonic)

    async def judge(
        self,
        stage: str,
        policy: CompiledPolicy,
        segments: Sequence[Segment],
        limits: Limits,
        request_id: str,
        reference: Reference | None = None,
    ) -> Judged:
        """Screen the segments of one event at a stage: input, output or documents."""
        reference = reference or Reference()
        screening = await self._screen(policy, stage, segments, reference, limits)
        metrics.SCREENED.labels(stage, screening.action).inc()
        metrics.SCREEN_SECONDS.labels(stage).observe(screening.elapsed_s)
        for finding in screening.findings:
            metrics.FINDINGS.labels(stage, finding.scanner, finding.action if finding.enforced else "shadow").inc()
        for scanner, reason in screening.errors.items():
            metrics.SCANNER_FAILURES.labels(stage, scanner).inc()
            log.warning("scanner failed", stage=stage, scanner=scanner, reason=reason)
        tried = []
        for candidate in self._candidates(policy.name, request_id):
            if candidate.stages[stage]:
                try:
                    tried.append((candidate, await self._screen(candidate, stage, segments, reference, limits)))
                except Exception as error:  # What is only tried changes nothing, not by its failure either.
                    log.error("policy could not be tried", policy=candidate.name, request_id=request_id, exc_info=error)
        return Judged(screening, policy, self.key, self._clock.now(), tuple(tried))

    async def finds_nothing(
        self, policy: CompiledPolicy, texts: Sequence[str], limits: Limits, reference: Reference
    ) -> bool:
        """Return whether the rules of ``policy`` that look for something in a place (data, secrets, words, addresses) find
        nothing in ``texts``, and none of them fails. The others judge an answer by its sense, which these need not have.
        """
        rules = tuple((scanner, rule) for scanner, rule in policy.stages["output"] if SCANNERS[scanner.name].maskable)
        segments = [Segment(text, "answer") for text in texts]
        screening = await self._run(rules, segments, reference, limits)
        return not screening.findings and not screening.errors

    async def _screen(
        self, policy: CompiledPolicy, stage: str, segments: Sequence[Segment], reference: Reference, limits: Limits
    ) -> Screening:
        return await self._run(policy.stages[stage], segments, reference, limits)

    async def _run(
        self,
        rules: Sequence[tuple[AnyScanner, Rule]],
        segments: Sequence[Segment],
        reference: Reference,
        limits: Limits,
    ) -> Screening:
        arguments = (segments, rules, reference, limits, self._clock.monotonic, self.key)
        if sum(len(segment.text) for segment in segments) > _THREAD_ABOVE_CHARS:
            return await asyncio.to_thread(screen, *arguments)
        # Between two events the heartbeats and the other hops get their turn: a batch may take minutes.
        await asyncio.sleep(0)
        return screen(*arguments)

    def _used(self) -> set[str]:
        """The policies that a team or a route names, and those that are tried beside them."""
        named = {
            entry.policy
            for kind in ("teams", "routes")
            for entry in self._config.entries(kind).values()
            if isinstance(entry, Team | Route) and entry.policy is not None
        }
        policies = (entry for entry in self._config.entries("policies").values() if isinstance(entry, Policy))
        return named | {policy.name for policy in policies if policy.shadows in named}

    def _candidates(self, name: str, request_id: str) -> list[CompiledPolicy]:
        """The policies that are tried beside ``name`` on this request. A broken one harms nobody."""
        candidates = []
        for entry in self._config.entries("policies").values():
            if not isinstance(entry, Policy) or entry.shadows != name or not _drawn(request_id, entry.shadow_share):
                continue
            try:
                compiled = self.policy(entry.name)
            except ValueError:
                continue
            if compiled is not None:
                candidates.append(compiled)
        return candidates


def _drawn(request_id: str, share: float) -> bool:
    """Whether a request falls into the share: the same one on every replay and at every stage."""
    return share >= 1 or zlib.crc32(request_id.encode("utf-8", "surrogatepass")) / 2**32 < share

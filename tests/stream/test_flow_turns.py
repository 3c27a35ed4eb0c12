"""Stages of the request flow on the in-memory log: what one team floods with goes beside another's, not before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.bus import Hop, MemoryBus, run_hops
from penstock.clock import Clock, ManualClock, SystemClock
from penstock.config.kinds import Policy, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import AdmittedRequest, Completion, Context, LlmRequest, Message, Record
from penstock.settings import ServiceSettings

from services.guardrails.adapters import Claimed, MemoryReleases, Release
from services.guardrails.app import release_hop, request_hop
from services.guardrails.findings import Reference
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.policy import CompiledPolicy, Scanners
from services.guardrails.screening import Limits as ScanLimits
from services.guardrails.screening import Segment
from services.guardrails.verdicts import Judged
from services.intake.app import admission_hop
from services.intake.core import Claim, Judgement, Limits
from tests.stream.test_intake import MemoryClaims
from tests.stream.test_runner_window import until
from tests.unit.test_intake_core import PLANE

CLOCK = ManualClock()
FLOOD, OTHERS = 400, 5


class HeldClaims(MemoryClaims):
    """Claims that are decided once the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        await self.gate.wait()
        return await super().admit(judgements)


class HeldJudge(Judge):
    """Judges once the test opens the gate."""

    def __init__(self, config: ConfigPlane, scanners: Scanners, key: bytes, clock: Clock) -> None:
        super().__init__(config, scanners, key, clock)
        self.gate = asyncio.Event()

    async def judge(
        self,
        stage: str,
        policy: CompiledPolicy,
        segments: Sequence[Segment],
        limits: ScanLimits,
        request_id: str,
        reference: Reference | None = None,
    ) -> Judged:
        await self.gate.wait()
        return await super().judge(stage, policy, segments, limits, request_id, reference)


class HeldReleases(MemoryReleases):
    """Releases that are claimed once the test opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def claim(self, releases: Sequence[Release]) -> list[Claimed]:
        await self.gate.wait()
        return await super().claim(releases)


async def ends(
    hop: Hop, gate: asyncio.Event, topic: str, out: str, flood: Sequence[Record], others: Sequence[Record]
) -> list[str]:
    """Return the requests in the order in which ``hop`` sent them to ``out``; ``others`` stand in the log behind all of
    ``flood``.
    """
    bus = MemoryBus(Catalogue.load(), CLOCK)
    for record in [*flood, *others]:
        await bus.append(topic, record.request_id.encode(), bus.codec.encode(topic, record), partition=0)
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop))
    count = len(flood) + len(others)
    # All of it has been read before the first batch ends.
    await until(lambda: sum(sum(one.positions.values()) for one in bus._members.get(hop.group, [])) == count)
    gate.set()
    events = await bus.collect(out, count, 20)
    await bus.settled(hop.group, [topic])
    stop.set()
    await task
    return [event.record.request_id for event in events]


def check(order: Sequence[str], batch: int) -> None:
    """Of the flood goes what was at work already, and one for each of the others."""
    last = max(place for place, name in enumerate(order) if name.startswith("other"))
    assert last < batch + 2 * OTHERS
    assert len(set(order)) == FLOOD + OTHERS


def a_request(name: str, team: str, **changes: str) -> LlmRequest:
    return LlmRequest(
        event_id=f"event-{name}", request_id=name, tenant_id=team, occurred_at=CLOCK.now(), causation_id="",
        messages=[Message(role="user", content="hello")], **changes,  # type: ignore[arg-type]
    )  # fmt: skip


async def test_at_intake_a_flood_lets_others_go_in_turn() -> None:
    claims = HeldClaims()
    hop = admission_hop(PLANE, claims, Limits(), CLOCK)
    flood = [a_request(f"flood-{n}", "support") for n in range(FLOOD)]
    others = [a_request(f"other-{n}", "research") for n in range(OTHERS)]
    check(await ends(hop, claims.gate, "llm-requests", "requests-admitted", flood, others), hop.max_batch)


async def test_at_intake_a_priority_counts_only_where_the_team_may_have_it() -> None:
    claims, teams = HeldClaims(), [Team(name="modest", priorities=("standard", "batch")), Team(name="urgent")]
    kept = [entry for kind in ("routes", "policies", "prices") for entry in PLANE.entries(kind).values()]
    hop = admission_hop(ConfigPlane.of([*kept, *teams]), claims, Limits(), CLOCK)
    assert hop.urgency is not None
    bus = MemoryBus(Catalogue.load(), CLOCK)
    ranks = {}
    for team in ("modest", "urgent", "unknown"):
        await bus.publish("llm-requests", team, a_request(team, team, priority="interactive"))
    for event in await bus.collect("llm-requests", 3):
        ranks[event.record.tenant_id] = hop.urgency(event).rank
    assert ranks == {"modest": 1, "urgent": 0, "unknown": 1}


NO_SCANNERS: Scanners = {"input": {}, "output": {}, "documents": {}}
CONFIG = ConfigPlane.of([Policy(name="default"), Team(name="support"), Team(name="research")])


async def test_at_guardrails_a_flood_lets_others_go_in_turn() -> None:
    def admitted(name: str, team: str) -> AdmittedRequest:
        return AdmittedRequest(
            event_id=f"event-{name}", request_id=name, tenant_id=team, occurred_at=CLOCK.now(), causation_id="",
            context=Context(requested_at=CLOCK.now()), messages=[Message(role="user", content="hello")],
        )  # fmt: skip

    judge = HeldJudge(CONFIG, NO_SCANNERS, b"key", CLOCK)
    hop = request_hop(judge, MemoryVault(), MemoryReviews(), ScanLimits(), CLOCK, 16)
    flood = [admitted(f"flood-{n}", "support") for n in range(FLOOD)]
    others = [admitted(f"other-{n}", "research") for n in range(OTHERS)]
    check(await ends(hop, judge.gate, "requests-admitted", "requests-screened", flood, others), hop.max_batch)


async def test_at_the_release_gate_a_flood_lets_others_go_in_turn() -> None:
    def completion(name: str, team: str) -> Completion:
        return Completion(
            event_id=f"event-{name}", request_id=name, tenant_id=team, occurred_at=CLOCK.now(), causation_id="",
            context=Context(requested_at=CLOCK.now()), messages=[], content="Here you are.", model="m", backend="openai",
        )  # fmt: skip

    releases, judge = HeldReleases(), Judge(CONFIG, NO_SCANNERS, b"key", CLOCK)
    hop = release_hop(judge, releases, MemoryVault(), MemoryReviews(), ScanLimits(), CLOCK, 16)
    flood = [completion(f"flood-{n}", "support") for n in range(FLOOD)]
    others = [completion(f"other-{n}", "research") for n in range(OTHERS)]
    check(await ends(hop, releases.gate, "completions", "llm-results", flood, others), hop.max_batch)

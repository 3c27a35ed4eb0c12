"""penstock guard report: verdicts tallied into what rules and policies in shadow would have changed."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import MemoryBus
from penstock.clock import ManualClock
from penstock.config.policies import ACTIONS
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Finding, Verdict
from rich.console import Console

from services.guardrails.command.report import show, tally_topic
from services.guardrails.command.shadow_tally import Change, ShadowTally, TriedKey

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def verdict(number: int, action: str = "allow", would: str | None = None, **fields: Any) -> Verdict:
    plain: dict[str, Any] = {
        "event_id": f"e{number}", "request_id": f"r{number}", "tenant_id": "support", "occurred_at": NOW,
        "causation_id": "c", "stage": "input", "action": action, "policy_name": "default", "policy_version": "v1",
        "would_action": would, "latency_us": 1000,
    }  # fmt: skip
    return Verdict(**{**plain, **fields})


def finding(scanner: str, action: str, *, enforced: bool = False, rule: str = "") -> Finding:
    return Finding(scanner=scanner, kind="K", score=0.9, action=action, enforced=enforced, rule=rule)


def shadowed(number: int, action: str, would: str, *findings: Finding) -> Verdict:
    return verdict(
        number, action, would, mode="shadow", policy_name="candidate", policy_version="c1", findings=list(findings)
    )


CANDIDATE = TriedKey("candidate", "c1", "input", "shadow")


def test_what_a_candidate_would_have_changed() -> None:
    tally = ShadowTally()
    for number in range(4):
        tally.add(verdict(number, "block" if number == 3 else "allow"))
    tally.add(shadowed(10, "allow", "allow"))
    tally.add(shadowed(11, "allow", "block", finding("toxicity", "block"), finding("pii", "mask")))
    tally.add(shadowed(13, "block", "mask", finding("pii", "mask", rule="mail")))
    tried = tally.tried[CANDIDATE]
    assert tried.outcomes == {Change("allow", "allow"): 1, Change("allow", "block"): 1, Change("block", "mask"): 1}
    assert (tried.changed, tried.stricter) == (2, 1)
    rules = {name: (rule.found, rule.decided) for name, rule in tried.rules.items()}
    assert rules == {"toxicity": (1, 1), "pii": (1, 0), "mail": (1, 1)}
    assert tally.share(CANDIDATE) == 0.75
    assert list(tried.samples[Change("allow", "block")]) == ["r11"]


def test_rules_in_shadow_are_told_from_those_in_force() -> None:
    tally = ShadowTally()
    tally.add(
        verdict(1, "mask", "block", findings=[finding("pii", "mask", enforced=True), finding("toxicity", "block")])
    )
    tally.add(verdict(2, "mask", "mask", findings=[finding("pii", "mask", enforced=True)]))
    [(key, tried)] = tally.tried.items()
    assert key == TriedKey("default", "v1", "input", "enforce")
    assert set(tried.rules) == {"toxicity"}
    assert tried.changed == 1


def test_a_verdict_that_stands_on_the_topic_twice_counts_once() -> None:
    tally = ShadowTally()
    for _ in range(2):
        tally.add(verdict(0))
        tally.add(shadowed(1, "allow", "block", finding("toxicity", "block")))
    assert tally.traffic == {"input": 1}
    assert tally.tried[CANDIDATE].verdicts == 1
    assert tally.tried[CANDIDATE].rules["toxicity"].found == 1


def test_only_the_policy_that_is_asked_for_is_told_and_the_others_are_named() -> None:
    tally = ShadowTally(policy="other")
    tally.add(shadowed(1, "allow", "block"))
    assert tally.tried == {}
    assert tally.others == {"candidate"}
    assert "of these was: candidate" in shown(tally, "other")


def test_versions_and_stages_are_told_apart_and_the_newest_samples_kept() -> None:
    tally = ShadowTally(kept_samples=2)
    for number in range(5):
        tally.add(shadowed(number, "allow", "block"))
    tally.add(verdict(9, "allow", "flag", mode="shadow", policy_name="candidate", policy_version="c2", stage="output"))
    assert set(tally.tried) == {CANDIDATE, TriedKey("candidate", "c2", "output", "shadow")}
    assert list(tally.tried[CANDIDATE].samples[Change("allow", "block")]) == ["r3", "r4"]


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.none() | st.sampled_from(ACTIONS)), max_size=30))
def test_every_verdict_is_counted_in_one_place(outcomes: list[tuple[str, str | None]]) -> None:
    tally = ShadowTally()
    for number, (action, would) in enumerate(outcomes):
        tally.add(verdict(number, action, would))
    assert sum(tally.traffic.values()) == len(outcomes)
    assert sum(tried.verdicts for tried in tally.tried.values()) == sum(would is not None for _, would in outcomes)
    for tried in tally.tried.values():
        assert sum(tried.outcomes.values()) == tried.verdicts
        assert tried.stricter <= tried.changed <= tried.verdicts
        assert sum(len(ids) for ids in tried.samples.values()) <= tried.changed


def shown(tally: ShadowTally, policy: str | None = None) -> str:
    text = io.StringIO()
    show(Console(file=text, width=200), tally, policy, NOW)
    return text.getvalue()


def test_the_tables_say_what_changed_and_why() -> None:
    tally = ShadowTally()
    tally.add(verdict(0))
    tally.add(shadowed(1, "allow", "block", finding("toxicity", "block")))
    text = shown(tally)
    assert "candidate@c1, input: the whole policy on 1 texts, 100.0% of what was judged" in text
    assert "would have changed 1 (100.00%): 1 more strictly, 0 more mildly" in text
    assert "allow -> block, 1: r1" in text
    assert "nothing was in shadow" in shown(ShadowTally())


@pytest.mark.parametrize(("since_h", "counted"), [(1, 1), (48, 2)])
async def test_the_topic_is_read_from_the_instant_on_and_what_is_undecodable_counted(
    since_h: int, counted: int
) -> None:
    clock = ManualClock()
    catalogue = Catalogue.load()
    bus = MemoryBus(catalogue, clock)
    start = clock.now()
    old, new = start - timedelta(hours=24), start
    for number, at in enumerate((old, new)):
        await bus.publish("verdicts", f"r{number}", verdict(number, "allow", "block", occurred_at=at))
    await bus.append("verdicts", b"k", b"no record")
    reader = await bus.read(["verdicts"])
    tally, undecodable = await tally_topic(reader, bus.codec, start - timedelta(hours=since_h), None, 5)
    assert sum(tally.traffic.values()) == counted
    assert undecodable == 1

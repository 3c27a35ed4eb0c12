"""The scripts of admission against a plain model of integers: any sequence of requests, costs, ends and lapses.

``BUDGET_RUNS`` is the number of sequences; `make soak` sets more.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling
from penstock.money import Subject, bucket_of, from_pico, pico, subjects, window_of
from penstock.money.counters import first_bucket, open_reservations, read_counters
from redis import Redis as RedisClient
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.bounds import EMBEDDING, Call, holds_of
from services.intake.core import Decision, Judgement
from services.intake.redis_calls import source
from services.intake.settlement import Charge, Release

RUNS = int(os.environ.get("BUDGET_RUNS", "12"))
TTL_S = 8 * 24 * 3600
GRACE_S = 120
START = datetime(2026, 1, 30, 22, 0, 0, 7, tzinfo=UTC)
MODELS = ("small", "large")
# Around where doubles lose units, where a dollar begins, and the largest that a limit may be.
LIMITS = (1, 1_999_999_999_999, 2**53 + 1, 9 * 10**18 - 1)

Place = tuple[Subject, str]
"""A counter: whom it is for, and the window's id."""


@dataclass
class Sent:
    """A request that was sent, and what was decided about it."""

    judgement: Judgement
    decision: Decision
    admitted_at: datetime
    figures: tuple[int, int] | None


@dataclass
class Slot:
    """What one call holds in each counter, and when that lapses (milliseconds)."""

    held: dict[Place, tuple[int, int]]
    lapses_ms: int


@dataclass
class Model:
    """What the counters must say, in integers of 1e-12 USD."""

    spent: dict[Place, dict[int, int]] = field(default_factory=dict)
    slots: dict[tuple[str, str], Slot] = field(default_factory=dict)
    charged: set[str] = field(default_factory=set)

    def reserved(self, place: Place) -> dict[int, int]:
        found: dict[int, int] = {}
        for slot in self.slots.values():
            if place in slot.held:
                bucket, amount = slot.held[place]
                found[bucket] = found.get(bucket, 0) + amount
        return found

    def counts(self, subject: Subject, at: datetime) -> tuple[int, int]:
        """What is spent and reserved by ``subject`` in the window at an instant."""
        place, first = (subject, window_of(subject.budget, at).id), first_bucket(subject.budget, at)
        spent = sum(n for bucket, n in self.spent.get(place, {}).items() if bucket >= first)
        return spent, sum(n for bucket, n in self.reserved(place).items() if bucket >= first)


def milliseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


class Admission(RuleBasedStateMachine):
    """Redis and the model side by side."""

    requests = Bundle("requests")
    costs = Bundle("costs")
    redis_url = ""
    honest = True
    """Whether calls cost no more than was reserved for them: then no limit is ever exceeded."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = Redis.from_url(self.redis_url)
        self.claims = RedisClaims(self.redis, TTL_S, GRACE_S)
        self.team = f"team-{uuid.uuid4().hex[:10]}"
        self.now = START
        self.model = Model()
        self.sent = 0
        self.budgets: tuple[Budget, ...] = ()

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    def run(self, job: Any) -> Any:
        return self.runner.run(job)

    @initialize(limits=st.lists(st.sampled_from(LIMITS), min_size=4, max_size=4))
    def set_budgets(self, limits: list[int]) -> None:
        amounts = [from_pico(limit) for limit in limits]
        self.budgets = (
            Budget(name="day", limit=amounts[0]),
            Budget(name="hours", per="user", window="rolling", hours=6, limit=amounts[1]),
            Budget(name="models", per="model", window="month", limit=amounts[2]),
            Budget(name="chat", per="tag", tag="feature", match=("chat",), limit=amounts[3]),
        )

    @rule(
        target=requests,
        user=st.sampled_from(["ann", "bob", None]),
        feature=st.sampled_from(["chat", "search"]),
        share=st.sampled_from([0, 1, 2, 3, 4, 5, 7]),
        extra=st.integers(0, 3),
        slots=st.sampled_from([("0",), ("0", "1"), ("0", EMBEDDING), ("0", "1", EMBEDDING)]),
    )
    def send(self, user: str | None, feature: str, share: int, extra: int, slots: tuple[str, ...]) -> Sent:
        """Ask for about a share of the team's limit (or of nothing)."""
        self.sent += 1
        limit = pico(self.budgets[0].limit)
        amount = (limit // share if share else 0) + extra
        calls = [Call(slot, {model: amount // (place + 1) for place, model in enumerate(MODELS)}) for slot in slots]
        context = Context(requested_at=self.now, user_id=user, tags={"feature": feature})
        request = LlmRequest(
            event_id=f"event-{self.sent}", request_id=f"request-{self.sent}", tenant_id=self.team, occurred_at=self.now,
            causation_id="", messages=[Message(role="user", content=f"question {self.sent}")],
        )  # fmt: skip
        judgement = Judgement(
            request=request, context=context, messages=request.messages, sampling=Sampling(), at=self.now,
            team=Team(name=self.team, budgets=self.budgets), holds=holds_of(self.budgets, context, calls),
        )  # fmt: skip
        (claim,) = self.run(self.claims.admit([judgement]))
        decision, figures = self._expected(judgement)
        assert claim.decision is decision
        assert claim.admitted_at == self.now
        over = claim.exceeded
        assert (None if over is None else (over.spent, over.reserved)) == figures
        return Sent(judgement, decision, self.now, figures)

    def _expected(self, judgement: Judgement) -> tuple[Decision, tuple[int, int] | None]:
        """Decide in the model, and change it accordingly."""
        for key in [key for key, slot in self.model.slots.items() if slot.lapses_ms <= milliseconds(self.now)]:
            del self.model.slots[key]
        for hold in judgement.holds:
            figures = self.model.counts(hold.subject, self.now)
            if sum(figures) + hold.needed > pico(hold.subject.budget.limit):
                return Decision.OVER_BUDGET, figures
        lapses_ms = milliseconds(self.now + timedelta(seconds=TTL_S))
        for hold in judgement.holds:
            place = (hold.subject, window_of(hold.subject.budget, self.now).id)
            for slot, amount in hold.amounts.items():
                key = (judgement.request.request_id, slot)
                held = self.model.slots.setdefault(key, Slot({}, lapses_ms)).held
                held[place] = (bucket_of(hold.subject.budget, self.now), amount)
        return Decision.ADMITTED, None

    @rule(sent=requests)
    def replay(self, sent: Sent) -> None:
        (claim,) = self.run(self.claims.admit([sent.judgement]))
        assert (claim.decision, claim.admitted_at) == (sent.decision, sent.admitted_at)
        over = claim.exceeded
        assert (None if over is None else (over.spent, over.reserved)) == sent.figures

    @rule(sent=requests)
    def send_again(self, sent: Sent) -> None:
        from msgspec.structs import replace as changed

        request = changed(sent.judgement.request, event_id=f"again-{uuid.uuid4().hex}")
        again = Judgement(
            request=request, context=sent.judgement.context, messages=request.messages, sampling=Sampling(), at=self.now,
            team=sent.judgement.team, holds=sent.judgement.holds,
        )  # fmt: skip
        (claim,) = self.run(self.claims.admit([again]))
        assert claim.decision is Decision.DUPLICATE

    @rule(
        target=costs,
        sent=requests,
        slot=st.sampled_from(["0", "1", EMBEDDING]),
        model=st.sampled_from(MODELS),
        part=st.sampled_from([0, 1, 2, 5]),
        beyond=st.sampled_from([0, 1, 2**63 - 1, 10**24]),
        given_up=st.booleans(),
    )
    def charge(self, sent: Sent, slot: str, model: str, part: int, beyond: int, given_up: bool) -> Any:
        """A call of an admitted request is priced: for a part of what is held, or, where calls may, for more. It was the
        slot's last one, or was given up for another.
        """
        key = (sent.judgement.request.request_id, slot)
        open_slot = self.model.slots.get(key)
        counted = self._subjects(sent.judgement.context, model)
        if self.honest:
            if open_slot is None:
                return multiple()
            # What a call of this model was bounded by: the least that its counters hold.
            most = min(open_slot.held.get((s, window_of(s.budget, sent.admitted_at).id), (0, 0))[1] for s in counted)
            amount = most // part if part else 0
        else:
            amount = beyond + part
        event_id = f"cost-{uuid.uuid4().hex}"
        charge = Charge(self.team, key[0], event_id, slot, amount, tuple(counted), sent.admitted_at, given_up)
        self._charge(charge)
        return charge

    @rule(charge=costs)
    def charge_again(self, charge: Charge) -> None:
        self._charge(charge)

    def _charge(self, charge: Charge) -> None:
        self.run(self.claims.settle([charge], self.now))
        assert charge.slot is not None
        if charge.part:
            self._draw(charge)
        else:
            self.model.slots.pop((charge.request_id, charge.slot), None)
            if charge.slot == "0":
                self._soon(charge.request_id, EMBEDDING)
        if charge.event_id not in self.model.charged:
            self.model.charged.add(charge.event_id)
            for subject in charge.subjects:
                buckets = self.model.spent.setdefault((subject, window_of(subject.budget, charge.at).id), {})
                bucket = bucket_of(subject.budget, charge.at)
                buckets[bucket] = buckets.get(bucket, 0) + charge.amount

    def _draw(self, charge: Charge) -> None:
        """What is held pays for the call, and the rest for the one to come; once."""
        slot = self.model.slots.get((charge.request_id, str(charge.slot)))
        if slot is None or charge.event_id in self.model.charged:
            return
        for subject in charge.subjects:
            place = (subject, window_of(subject.budget, charge.at).id)
            if place in slot.held:
                bucket, amount = slot.held[place]
                slot.held[place] = bucket, amount - min(amount, charge.amount)

    def _soon(self, request_id: str, slot: str) -> None:
        held = self.model.slots.get((request_id, slot))
        if held is not None:
            held.lapses_ms = min(held.lapses_ms, milliseconds(self.now + timedelta(seconds=GRACE_S)))

    @rule(sent=requests, calls=st.integers(0, 2), at_once=st.booleans())
    def end(self, sent: Sent, calls: int, at_once: bool) -> None:
        request_id = sent.judgement.request.request_id
        self.run(self.claims.settle([Release(self.team, request_id, calls, at_once)], self.now))
        for slot in ("0", "1", EMBEDDING):
            if calls == 0 or (slot != EMBEDDING and int(slot) >= calls):
                if at_once:
                    self.model.slots.pop((request_id, slot), None)
                else:
                    self._soon(request_id, slot)

    @rule(
        hours=st.sampled_from([0.01, 0.25, 0.3, 2, 6, 7, 30, 8 * 24]),
    )
    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @invariant()
    def counters_are_the_models(self) -> None:
        counters = {(c.budget, c.window_id, c.value): c for c in self.run(read_counters(self.redis, self.team))}
        places = set(self.model.spent) | {place for slot in self.model.slots.values() for place in slot.held}
        for subject, window_id in places:
            # Of a rolling window the buckets that no longer count may be gone.
            first = first_bucket(subject.budget, self.now)
            counter = counters.get((subject.budget.name, window_id, subject.value))
            said = counter.since(first) if counter else None
            place = (subject, window_id)
            spent = sum(n for bucket, n in self.model.spent.get(place, {}).items() if bucket >= first)
            reserved = sum(n for bucket, n in self.model.reserved(place).items() if bucket >= first)
            assert (pico(said.spent) if said else 0, pico(said.reserved) if said else 0) == (spent, reserved)
            if self.honest:
                assert spent + reserved <= pico(subject.budget.limit)

    @invariant()
    def reservations_are_the_models(self) -> None:
        found = {(one.request_id, one.slot): one for one in self.run(open_reservations(self.redis, self.team))}
        assert found.keys() == self.model.slots.keys()
        for key, slot in self.model.slots.items():
            assert sorted(pico(hold.amount) for hold in found[key].holds) == sorted(n for _, n in slot.held.values())
            lapses_at = found[key].lapses_at
            assert lapses_at is not None
            assert milliseconds(lapses_at) == slot.lapses_ms

    def _subjects(self, context: Context, model: str) -> list[Subject]:
        return subjects(self.budgets, user=context.user_id, key=context.key_id, model=model, tags=context.tags)


@pytest.fixture
def machine(deployed: Mapping[str, str]) -> type[Admission]:
    class Machine(Admission):
        redis_url = deployed["REDIS_URL"]

    return Machine


AMOUNTS = st.one_of(
    st.integers(0, 10**27),
    st.integers(0, 3 * 10**12),
    st.integers(10**12 - 2, 10**12 + 2),
    st.integers(2**63 - 2, 2**63),
)


def test_amounts_are_added_subtracted_and_compared_exactly(deployed: Mapping[str, str]) -> None:
    redis = RedisClient.from_url(deployed["REDIS_URL"], decode_responses=True)
    count = redis.register_script(
        f"{source('amounts')} return {{add(ARGV[1], ARGV[2]), subtract(ARGV[1], ARGV[2]), tostring(more(ARGV[1], ARGV[2]))}}"
    )

    @settings(max_examples=1000, deadline=None, derandomize=True)
    @given(AMOUNTS, AMOUNTS)
    def check(left: int, right: int) -> None:
        assert count(args=[left, right]) == [str(left + right), str(max(0, left - right)), str(left > right).lower()]

    with redis:
        check()


@pytest.mark.timeout(60 + 4 * RUNS)
@pytest.mark.parametrize("honest", [True, False], ids=["bounded calls", "any calls"])
def test_the_scripts_count_as_the_model_does(machine: type[Admission], honest: bool) -> None:
    machine.honest = honest
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS if honest else RUNS // 2, stateful_step_count=40, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip

"""The ledger of claims on a real Redis: under concurrent clients, and against a plain model of it."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from penstock.bus import Transient
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling, Status
from penstock.money import Subject, counter_key, pico, subjects
from penstock.money.counters import open_reservations, read_counters, restore
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.assignment import NOT_ASSIGNED, Assigned
from services.intake.bounds import EMBEDDING, Call, holds_of
from services.intake.core import Decision, Judgement, Refused
from services.intake.redis_calls import may_evict
from services.intake.settlement import Charge, Release

NOW = datetime(2026, 1, 5, 9, 0, 0, 123457, tzinfo=UTC)
TTL_S = 600
DAILY = Budget(name="daily", limit=Decimal("0.7"))


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


@pytest.fixture
def claims(redis: Redis) -> RedisClaims:
    return RedisClaims(redis, TTL_S, grace_s=60)


@pytest.fixture
def tenant() -> str:
    return f"team-{uuid.uuid4().hex[:8]}"


def a_judgement(
    tenant: str,
    request_id: str,
    event_id: str,
    *,
    text: str = "hello",
    worst: Mapping[str, str] | None = None,
    budgets: Sequence[Budget] = (),
    rate: int | None = None,
    refused: Refused | None = None,
    user: str | None = None,
    at: datetime = NOW,
    place: str = "",
) -> Judgement:
    """A request that holds ``worst`` (USD by slot) in ``budgets``."""
    request = LlmRequest(
        event_id=event_id, request_id=request_id, tenant_id=tenant, occurred_at=at, causation_id="",
        messages=[Message(role="user", content=text)],
    )  # fmt: skip
    context = Context(requested_at=at, user_id=user)
    calls = [Call(slot, {"m": pico(Decimal(amount))}) for slot, amount in (worst or {}).items()]
    return Judgement(
        request=request, context=context, messages=request.messages, sampling=Sampling(), at=at,
        team=Team(name=tenant, budgets=tuple(budgets), requests_per_minute=rate),
        holds=holds_of(budgets, context, calls), refused=refused, place=place,
    )  # fmt: skip


def a_charge(tenant: str, request_id: str, amount: str, *, event_id: str = "", slot: str | None = "0",
             budgets: Sequence[Budget] = (DAILY,), at: datetime = NOW, part: bool = False) -> Charge:  # fmt: skip
    counted = subjects(budgets, user=None, key=None, model="m", tags={})
    return Charge(
        tenant,
        request_id,
        event_id or f"cost-{request_id}-{slot}",
        slot,
        pico(Decimal(amount)),
        tuple(counted),
        at,
        part,
    )


async def balance(redis: Redis, tenant: str) -> tuple[Decimal, Decimal]:
    """What the team's one counter says is spent and reserved."""
    (counter,) = await read_counters(redis, tenant)
    return counter.spent, counter.reserved


async def test_scripts_that_redis_has_forgotten_are_loaded_again(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await redis.script_flush()
    sent = [a_judgement(tenant, "r", "e1", worst={"0": "0.5"}, budgets=[DAILY]), a_judgement(tenant, "s", "e2")]
    assert [claim.decision for claim in await claims.admit(sent)] == [Decision.ADMITTED] * 2
    assert await balance(redis, tenant) == (Decimal(0), Decimal("0.5"))
    await redis.script_flush()
    await claims.settle([a_charge(tenant, "r", "0.25"), Release(tenant, "r", 1, at_once=False)], NOW)
    assert (await balance(redis, tenant))[0] == Decimal("0.25")


async def test_the_first_send_wins_a_replay_repeats_and_other_content_conflicts(
    claims: RedisClaims, tenant: str
) -> None:
    refused = Refused(Status.REJECTED, "unknown_route", "there is none")
    first = await claims.admit(
        [
            a_judgement(tenant, "r", "e1"),
            a_judgement(tenant, "r", "e1", at=NOW + timedelta(days=1)),
            a_judgement(tenant, "r", "e2"),
            a_judgement(tenant, "r", "e3", text="other"),
            a_judgement(tenant, "s", "e4", refused=refused),
            # The configuration has changed since: the decision has not.
            a_judgement(tenant, "s", "e4"),
        ]
    )
    assert [claim.decision for claim in first] == [
        Decision.ADMITTED, Decision.ADMITTED, Decision.DUPLICATE, Decision.CONFLICT, Decision.REFUSED, Decision.REFUSED,
    ]  # fmt: skip
    assert [claim.admitted_at for claim in first[:2]] == [NOW, NOW]
    assert first[4].refused == first[5].refused == refused


async def test_the_same_event_sent_again_is_no_replay_whatever_it_asks_for(claims: RedisClaims, tenant: str) -> None:
    decisions = await claims.admit(
        [
            a_judgement(tenant, "r", "e", worst={"0": "0.1"}, budgets=[DAILY], place="llm-requests/0/7"),
            a_judgement(tenant, "r", "e", worst={"0": "0.1"}, budgets=[DAILY], place="llm-requests/0/8"),
            a_judgement(tenant, "r", "e", text="a dearer one", place="llm-requests/0/9"),
            a_judgement(tenant, "r", "e", place="llm-requests/0/7"),
        ]
    )
    assert [claim.decision for claim in decisions] == [
        Decision.ADMITTED, Decision.DUPLICATE, Decision.CONFLICT, Decision.ADMITTED,
    ]  # fmt: skip


async def test_a_claim_remembers_the_arms_that_a_request_was_admitted_with(claims: RedisClaims, tenant: str) -> None:
    arms = Assigned({"models": "large"}, {"models": "9f2c1a7b3d4e5f60"}, route="large", prompt_label="brief")
    judgement = dataclasses.replace(a_judgement(tenant, "r1", "e1"), assigned=arms)
    (first,) = await claims.admit([judgement])
    changed = dataclasses.replace(judgement, assigned=Assigned({"models": "control"}, {"models": "another"}))
    (replayed,) = await claims.admit([changed])
    assert first.assigned == replayed.assigned == arms
    (plain,) = await claims.admit([a_judgement(tenant, "r2", "e2")])
    (begun_since,) = await claims.admit([dataclasses.replace(a_judgement(tenant, "r2", "e2"), assigned=arms)])
    assert plain.assigned == begun_since.assigned == NOT_ASSIGNED


async def test_a_budget_for_k_calls_admits_exactly_k_of_many_at_once(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    jobs = [
        claims.admit([a_judgement(tenant, f"r{n}", f"e{n}", worst={"0": "0.1"}, budgets=[DAILY])]) for n in range(60)
    ]
    decisions = Counter(claim.decision for (claim,) in await asyncio.gather(*jobs))
    assert decisions == {Decision.ADMITTED: 7, Decision.OVER_BUDGET: 53}
    assert await balance(redis, tenant) == (Decimal(0), Decimal("0.7"))


async def test_a_budget_is_kept_to_the_last_digit_beyond_what_doubles_count(claims: RedisClaims, tenant: str) -> None:
    # 9,000,000 USD are 9e18 units; doubles tell units apart to 9e15.
    budget = Budget(name="large", limit=Decimal("8999999.999999999999"))
    first, second, third = await claims.admit(
        [
            a_judgement(tenant, "r1", "e1", worst={"0": "8999999.999999999998"}, budgets=[budget]),
            a_judgement(tenant, "r2", "e2", worst={"0": "0.000000000002"}, budgets=[budget]),
            a_judgement(tenant, "r3", "e3", worst={"0": "0.000000000001"}, budgets=[budget]),
        ]
    )
    assert [c.decision for c in (first, second, third)] == [
        Decision.ADMITTED, Decision.OVER_BUDGET, Decision.ADMITTED,
    ]  # fmt: skip


async def test_all_budgets_are_reserved_or_none(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    per_user = Budget(name="per-user", per="user", window="rolling", hours=24, limit=Decimal("0.1"))
    (claim,) = await claims.admit(
        [a_judgement(tenant, "r1", "e1", worst={"0": "0.2"}, budgets=[DAILY, per_user], user="ann")]
    )
    assert claim.decision is Decision.OVER_BUDGET
    over = claim.exceeded
    assert over is not None
    assert (over.budget, over.subject, over.window) == ("per-user", "user 'ann'", "in any 24 hours")
    assert (over.limit, over.spent, over.reserved, over.needed) == (10**11, 0, 0, 2 * 10**11)
    assert await read_counters(redis, tenant) == []
    assert await open_reservations(redis, tenant) == []


async def test_a_refusal_tells_the_figures_and_the_first_of_an_hour_alerts(claims: RedisClaims, tenant: str) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.3"}, budgets=[DAILY])])
    await claims.settle([a_charge(tenant, "r1", "0.123456789012")], NOW)
    await claims.admit([a_judgement(tenant, "r2", "e2", worst={"0": "0.5"}, budgets=[DAILY])])
    late = [a_judgement(tenant, f"r{n}", f"e{n}", worst={"0": "0.2"}, budgets=[DAILY]) for n in (3, 4)]
    third, fourth = await claims.admit(late)
    assert third.exceeded is not None
    assert third.exceeded == fourth.exceeded
    assert (third.exceeded.spent, third.exceeded.reserved) == (123456789012, 500000000000)
    assert third.exceeded.ends_at == datetime(2026, 1, 6, tzinfo=UTC)
    assert (third.alert, fourth.alert) == (True, False)
    # A replay says it again: the alert may not have been sent.
    assert await claims.admit(late) == [third, fourth]


async def test_a_call_that_was_given_up_is_paid_from_the_slot_that_the_next_target_needs(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.6"}, budgets=[DAILY])])
    for _ in range(2):
        await claims.settle([a_charge(tenant, "r1", "0.2", event_id="given-up", part=True)], NOW)
        assert await balance(redis, tenant) == (Decimal("0.2"), Decimal("0.4"))
    await claims.settle([a_charge(tenant, "r1", "0.3")], NOW)
    assert await balance(redis, tenant) == (Decimal("0.5"), 0)


async def test_a_cost_settles_its_slot_once_and_counts_to_the_last_digit(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.3", "1": "0.4"}, budgets=[DAILY])])
    for _ in range(2):
        await claims.settle([a_charge(tenant, "r1", "0.100000000001")], NOW)
    assert await balance(redis, tenant) == (Decimal("0.100000000001"), Decimal("0.4"))
    for _ in range(2):
        await claims.settle([a_charge(tenant, "r1", "0.000000000009", slot="1")], NOW)
    assert await balance(redis, tenant) == (Decimal("0.10000000001"), Decimal(0))
    assert await open_reservations(redis, tenant) == []


async def test_the_end_of_a_request_gives_back_the_calls_it_did_not_make(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.3", "1": "0.4"}, budgets=[DAILY])])
    await claims.settle([Release(tenant, "r1", 1, at_once=True)] * 2, NOW)
    assert await balance(redis, tenant) == (Decimal(0), Decimal("0.3"))
    await claims.settle([a_charge(tenant, "r1", "0.2"), Release(tenant, "r1", 1, at_once=True)], NOW)
    assert await balance(redis, tenant) == (Decimal("0.2"), Decimal(0))


async def test_an_end_that_a_cost_may_follow_gives_back_after_the_grace(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.5"}, budgets=[DAILY])])
    await claims.settle([Release(tenant, "r1", 0, at_once=False)], NOW)
    # A replay does not put it off.
    await claims.settle([Release(tenant, "r1", 0, at_once=False)], NOW + timedelta(seconds=30))
    early, late = NOW + timedelta(seconds=59), NOW + timedelta(seconds=61)
    (refused,) = await claims.admit([a_judgement(tenant, "r2", "e2", worst={"0": "0.5"}, budgets=[DAILY], at=early)])
    assert refused.decision is Decision.OVER_BUDGET
    (admitted,) = await claims.admit([a_judgement(tenant, "r3", "e3", worst={"0": "0.5"}, budgets=[DAILY], at=late)])
    assert admitted.decision is Decision.ADMITTED
    # Its cost after all: charged, though nothing is held for it any more.
    await claims.settle([a_charge(tenant, "r1", "0.01")], late)
    assert await balance(redis, tenant) == (Decimal("0.01"), Decimal("0.5"))


async def test_an_embedding_is_settled_by_its_cost_or_goes_after_that_of_the_call(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    worst = {"0": "0.1", EMBEDDING: "0.05"}
    await claims.admit([a_judgement(tenant, n, f"e-{n}", worst=worst, budgets=[DAILY]) for n in ("r1", "r2", "r3")])
    await claims.settle([a_charge(tenant, "r1", "0.01", slot=EMBEDDING), a_charge(tenant, "r1", "0.02")], NOW)
    await claims.settle([a_charge(tenant, "r2", "0.02"), Release(tenant, "r2", 1, at_once=True)], NOW)
    await claims.settle([Release(tenant, "r3", 0, at_once=True)], NOW)
    await claims.settle([a_charge(tenant, "r2", "0.02")], NOW + timedelta(seconds=30))
    assert [(r.request_id, r.slot) for r in await open_reservations(redis, tenant)] == [("r2", EMBEDDING)]
    assert await balance(redis, tenant) == (Decimal("0.05"), Decimal("0.05"))
    await claims.admit([a_judgement(tenant, "r4", "e4", worst=worst, budgets=[DAILY], at=NOW + timedelta(seconds=61))])
    assert {r.request_id for r in await open_reservations(redis, tenant)} == {"r4"}


async def test_what_nothing_ends_lapses(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.5", "1": "0.2"}, budgets=[DAILY])])
    (lapse,) = {one.lapses_at for one in await open_reservations(redis, tenant)}
    assert lapse == NOW.replace(microsecond=123000) + timedelta(seconds=TTL_S)
    at = NOW + timedelta(seconds=TTL_S)
    (claim,) = await claims.admit([a_judgement(tenant, "r2", "e2", worst={"0": "0.7"}, budgets=[DAILY], at=at)])
    assert claim.decision is Decision.ADMITTED
    assert await balance(redis, tenant) == (Decimal(0), Decimal("0.7"))


async def test_a_counter_that_was_lost_is_not_brought_below_zero(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.5"}, budgets=[DAILY])])
    await redis.delete(counter_key(tenant, Subject(DAILY, ""), NOW))
    await claims.settle([a_charge(tenant, "r1", "0.000000000003")], NOW)
    assert await balance(redis, tenant) == (Decimal("0.000000000003"), Decimal(0))


async def test_a_cost_without_a_reservation_is_charged(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.settle([a_charge(tenant, "never", "0.25", slot=None)], NOW)
    assert await balance(redis, tenant) == (Decimal("0.25"), Decimal(0))


async def test_a_cost_of_a_window_that_is_gone_is_charged_nowhere(
    claims: RedisClaims, redis: Redis, tenant: str
) -> None:
    rolling = Budget(name="hour", window="rolling", hours=1, limit=Decimal(1))
    long_ago = NOW - timedelta(days=400)
    await claims.settle([a_charge(tenant, "r1", "0.5", budgets=[DAILY, rolling], at=long_ago)], NOW)
    assert await read_counters(redis, tenant) == []
    # Yesterday's is kept, to be compared with the ledger.
    await claims.settle([a_charge(tenant, "r2", "0.5", budgets=[DAILY, rolling], at=NOW - timedelta(days=1))], NOW)
    assert [(c.budget, c.window_id) for c in await read_counters(redis, tenant)] == [("daily", "2026-01-04")]


async def test_amounts_beyond_64_bits_add_up(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.5"}, budgets=[DAILY])])
    amounts = ["9223372.036854775807", "9223372.036854775807", "0.000000000001", "1000000000000"]
    await claims.settle([a_charge(tenant, f"other-{n}", amount, slot=None) for n, amount in enumerate(amounts)], NOW)
    assert await balance(redis, tenant) == (sum(map(Decimal, amounts)), Decimal("0.5"))
    # A worst case that no counter could hold is refused, and nothing of it stays.
    (claim,) = await claims.admit([a_judgement(tenant, "r2", "e2", worst={"0": "1e20"}, budgets=[DAILY])])
    assert claim.decision is Decision.OVER_BUDGET
    assert await balance(redis, tenant) == (sum(map(Decimal, amounts)), Decimal("0.5"))


async def test_a_rolling_window_forgets_what_is_older_and_takes_it_no_more(redis: Redis, tenant: str) -> None:
    claims = RedisClaims(redis, ttl_s=40 * 24 * 3600)
    rolling = Budget(name="hourly", window="rolling", hours=24, limit=Decimal(1))
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.9"}, budgets=[rolling])])
    for hours, decision in ((24, Decision.OVER_BUDGET), (25, Decision.ADMITTED)):
        at = NOW + timedelta(hours=hours)
        (claim,) = await claims.admit(
            [a_judgement(tenant, f"r-{hours}", f"e-{hours}", worst={"0": "0.9"}, budgets=[rolling], at=at)]
        )
        assert claim.decision is decision
    # What the first one cost at last lies in a bucket that no longer counts.
    late = NOW + timedelta(hours=25)
    await claims.settle([a_charge(tenant, "r1", "0.8", budgets=[rolling])], late)
    (claim,) = await claims.admit([a_judgement(tenant, "r9", "e9", worst={"0": "0.1"}, budgets=[rolling], at=late)])
    assert claim.decision is Decision.ADMITTED


async def test_the_ledger_is_restored_around_open_reservations(claims: RedisClaims, redis: Redis, tenant: str) -> None:
    await claims.admit([a_judgement(tenant, "r1", "e1", worst={"0": "0.3"}, budgets=[DAILY])])
    await claims.settle([a_charge(tenant, "r0", "0.111", slot=None)], NOW)
    stale = Budget(name="withdrawn", limit=Decimal(1))
    await claims.settle([a_charge(tenant, "r0", "0.5", slot=None, event_id="other", budgets=[stale])], NOW)
    team = Subject(DAILY, "")
    restored = await restore(
        redis, tenant, {team: {NOW: Decimal("0.2"), NOW + timedelta(hours=1): Decimal("0.000000000001")}}, ["cost-r1-0"],
        TTL_S, NOW,
    )  # fmt: skip
    assert {(c.budget, c.spent, c.reserved) for c in restored} == {("daily", Decimal("0.200000000001"), Decimal("0.3"))}
    # The cost that the ledger counted already: its slot is given back, and it is not charged again.
    await claims.settle([a_charge(tenant, "r1", "0.2")], NOW)
    assert await balance(redis, tenant) == (Decimal("0.200000000001"), Decimal(0))


async def test_the_rate_lets_its_burst_through_and_tells_when_to_come_back(claims: RedisClaims, tenant: str) -> None:
    # 60 a minute: one a second, with a burst of a tenth of the minute.
    decisions = await claims.admit([a_judgement(tenant, f"r{n}", f"e{n}", rate=60) for n in range(10)])
    assert [c.decision for c in decisions[:6]] == [Decision.ADMITTED] * 6
    assert all(c.decision is Decision.RATE_LIMITED for c in decisions[6:])
    assert 500 < (decisions[6].retry_after_ms or 0) <= 1000


async def test_a_redis_that_is_away_is_transient() -> None:
    nobody = Redis.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(Transient, match="Redis is away"):
        await RedisClaims(nobody, 60).admit([a_judgement("t", "r", "e")])
    await nobody.aclose()


async def test_a_redis_that_may_evict_counters_is_told_from_one_that_does_not(redis: Redis) -> None:
    before = await redis.config_get("maxmemory*")
    try:
        await redis.config_set("maxmemory", "200mb")
        await redis.config_set("maxmemory-policy", "noeviction")
        assert not await may_evict(redis)
        # Counters have a time to live, so this evicts them, too.
        await redis.config_set("maxmemory-policy", "volatile-ttl")
        assert await may_evict(redis)
        await redis.config_set("maxmemory", "0")
        assert not await may_evict(redis)
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            await redis.config_set(name, str(before[name]))
    with pytest.raises(Transient, match="Redis is away"):
        await may_evict(Redis(host="127.0.0.1", port=1))

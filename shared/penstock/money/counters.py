"""The counters of hard budgets in Redis: where they lie, and how a person or the ledger reads and restores them.

Admission (``services.intake``) alone changes them in the stream, by its scripts. All keys of a team share a hash slot:

===========================================  ==========================================================================
``penstock:{team}:budget:<budget>:<window    hash, one of a subject and window (``penstock.money.counter_key``). Fields
id>:<value>``                                ``spent:<bucket>`` and ``reserved:<bucket>``: integers of 1e-12 USD, as
                                             decimal digits. A calendar window has the one bucket 0; of a rolling one the
                                             buckets from :func:`first_bucket` on count, older ones are deleted later
``penstock:{team}:reservation:<request_id>`` hash: what the calls that a request may still lead to hold. Field: the
                                             slot ("0" and "1": its calls by attempt, "embedding"). Value: JSON array of
                                             [counter's key, bucket, amount as digits]
``penstock:{team}:lapses``                   sorted set of ``<slot>:<request_id>``, scored by when the slot lapses where
                                             nothing ends it, ms since the epoch
``penstock:{team}:settled:<event_id>``       a cost that was charged, so that a replay charges nothing
``penstock:{team}:claim:<request_id>``       what was decided about a request, so that a replay decides nothing anew
``penstock:{team}:deferral:<request_id>:     the same of one send that a rate or the concurrency of the team refused: the
<place>``                                    request itself is not decided
``penstock:{team}:rate``                     state of the team's requests per minute (GCRA): the instant up to which what was
                                             admitted takes the rate, us since the epoch on Redis' clock
``penstock:{team}:token-rate``               the same of its tokens per minute
``penstock:{team}:tokens:<request_id>``      what a request under way took of these, ``<tokens>:<us>``: its end corrects it
``penstock:{team}:running``                  sorted set of the request_ids under way, scored by when each lapses where no
                                             result ends it, us since the epoch on Redis' clock
``penstock:{team}:waiting:<priority>``       sorted set of the request_ids that wait for room in the flow, scored by when
                                             they came, us since the epoch on Redis' clock
``penstock:{team}:exhausted:<budget>:        on-call was told within the hour that the counter is exhausted
<window id>:<value>``
===========================================  ==========================================================================

What a budget has left is its limit less ``spent`` and less ``reserved``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from penstock.config.budgets import Budget
from penstock.money.amounts import from_pico, pico
from penstock.money.budgets import BUCKETS, Subject, bucket_of, window_of

__all__ = [
    "KEPT", "Balance", "Counter", "Hold", "Reservation", "claim_key", "counter_name", "deferral_key", "exhausted_key",
    "first_bucket", "is_kept", "kept_ms", "key_prefix", "lapses_key", "open_reservations", "rate_key", "read_counters",
    "reservation_key", "restore", "running_key", "settled_key", "token_rate_key", "tokens_key",
    "waiting_key",
]  # fmt: skip

KEPT = timedelta(days=40)
"""How long a counter outlives its window, so that the ledger can be compared with it."""

_COUNTER = re.compile(r"penstock:\{(?P<team>.*?)\}:budget:(?P<budget>[^:]+):(?P<window>[^:]+):(?P<value>.*)", re.DOTALL)
_SCAN_COUNT = 1000
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Balance:
    """What was spent and what is reserved, USD with 12 places."""

    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter.

    Attributes:
        window_id: of :class:`penstock.money.Window`.
        value: the user, key, model or tag's value; empty for the team.
        buckets: by number; a calendar window has bucket 0 alone, a rolling one also some that no longer count.
    """

    team: str
    budget: str
    window_id: str
    value: str
    buckets: Mapping[int, Balance] = field(default_factory=dict)

    @property
    def spent(self) -> Decimal:
        """Sum over all buckets, USD."""
        return sum((balance.spent for balance in self.buckets.values()), Decimal(0))

    @property
    def reserved(self) -> Decimal:
        """Sum over all buckets, USD."""
        return sum((balance.reserved for balance in self.buckets.values()), Decimal(0))

    def since(self, bucket: int) -> Balance:
        """Return the sums from ``bucket`` on: with :func:`first_bucket`, what counts against the limit."""
        live = [balance for number, balance in self.buckets.items() if number >= bucket]
        return Balance(
            sum((balance.spent for balance in live), Decimal(0)),
            sum((balance.reserved for balance in live), Decimal(0)),
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """What a slot of a reservation holds in one counter."""

    counter: str
    bucket: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one call that a request may still lead to holds, and when that lapses (None where it is not scored)."""

    request_id: str
    slot: str
    lapses_at: datetime | None
    holds: tuple[Hold, ...]


def key_prefix(team: str) -> str:
    """Return what every key of a team begins with; the braces put them into one hash slot."""
    return f"penstock:{{{team}}}:"


def reservation_key(team: str, request_id: str) -> str:
    """Return the key of a request's reservation."""
    return f"{key_prefix(team)}reservation:{request_id}"


def lapses_key(team: str) -> str:
    """Return the key of the sorted set of what lapses."""
    return f"{key_prefix(team)}lapses"


def claim_key(team: str, request_id: str) -> str:
    """Return the key of what was decided about a request."""
    return f"{key_prefix(team)}claim:{request_id}"


def rate_key(team: str) -> str:
    """Return the key of the state of a team's rate."""
    return f"{key_prefix(team)}rate"


def token_rate_key(team: str) -> str:
    """Return the key of the state of a team's tokens per minute."""
    return f"{key_prefix(team)}token-rate"


def tokens_key(team: str, request_id: str) -> str:
    """Return the key of what a request under way took of its team's tokens per minute."""
    return f"{key_prefix(team)}tokens:{request_id}"


def running_key(team: str) -> str:
    """Return the key of the set of a team's requests that are under way."""
    return f"{key_prefix(team)}running"


def waiting_key(team: str, priority: str) -> str:
    """Return the key of the set of a team's requests of one priority that wait for room in the flow."""
    return f"{key_prefix(team)}waiting:{priority}"


def deferral_key(team: str, request_id: str, place: str) -> str:
    """Return the key of what was decided about the send of a request at one place of the log."""
    return f"{key_prefix(team)}deferral:{request_id}:{place}"


def exhausted_key(team: str, subject: Subject, at: datetime) -> str:
    """Return the key that says that on-call was told of a window's exhaustion within the hour."""
    return f"{key_prefix(team)}exhausted:{subject.budget.name}:{window_of(subject.budget, at).id}:{subject.value}"


def settled_key(team: str, event_id: str) -> str:
    """Return the key that says that the cost ``event_id`` was charged."""
    return f"{key_prefix(team)}settled:{event_id}"


def counter_name(team: str, budget: str, window_id: str, value: str) -> str:
    """Return the key of a counter, as :func:`penstock.money.counter_key` does."""
    return f"{key_prefix(team)}budget:{budget}:{window_id}:{value}"


def first_bucket(budget: Budget, at: datetime) -> int:
    """Return the oldest bucket that counts at an instant; 0 for a calendar window, which has the one."""
    return bucket_of(budget, at) - BUCKETS if budget.window == "rolling" else 0


def kept_ms(budget: Budget, at: datetime, now: datetime) -> int:
    """Return how much longer to keep the counter of the window at an instant, milliseconds; 0 or less where it may go.

    It outlives its window by 40 days; a rolling one is kept so long, and for two lengths of its window, after it was last
    written. A time from now rather than an instant: then a clock that differs from Redis' own loses no counter.
    """
    if budget.hours is not None:
        return (2 * timedelta(hours=budget.hours) + KEPT) // _MILLISECOND
    return (window_of(budget, at).end + KEPT - now) // _MILLISECOND


def is_kept(budget: Budget, at: datetime, now: datetime) -> bool:
    """Return whether what counts at an instant is kept: 40 days after its window, a rolling one for one more length."""
    if budget.hours is not None:
        return bucket_of(budget, at) >= first_bucket(budget, now) - BUCKETS
    return kept_ms(budget, at, now) > 0


async def read_counters(redis: Any, team: str | None = None) -> list[Counter]:
    """Return every counter that Redis holds, of one team or of all, ordered by team, budget, window and value.

    Args:
        redis: a ``redis.asyncio.Redis``.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    counters = []
    async for key in _scan(redis, f"{key_prefix(_escaped(team) if team is not None else '*')}budget:*"):
        match = _COUNTER.fullmatch(key)
        if match is None or (team is not None and match["team"] != team):
            continue
        buckets = _buckets(await redis.hgetall(key))
        if buckets:
            counters.append(Counter(match["team"], match["budget"], match["window"], match["value"], buckets))
    return sorted(counters, key=lambda one: (one.team, one.budget, one.window_id, one.value))


async def open_reservations(redis: Any, team: str) -> list[Reservation]:
    """Return what is reserved for calls of ``team`` that are not settled yet, by request and slot.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    lapses = {
        _text(member): datetime.fromtimestamp(score / 1000, UTC)
        for member, score in await redis.zrange(lapses_key(team), 0, -1, withscores=True)
    }
    prefix = reservation_key(team, "")
    found = []
    async for key in _scan(redis, f"{reservation_key(_escaped(team), '')}*"):
        request_id = key.removeprefix(prefix)
        for slot, value in (await redis.hgetall(key)).items():
            name = _text(slot)
            holds = tuple(
                Hold(counter, int(bucket), from_pico(int(amount))) for counter, bucket, amount in json.loads(value)
            )
            found.append(Reservation(request_id, name, lapses.get(f"{name}:{request_id}"), holds))
    return sorted(found, key=lambda one: (one.request_id, one.slot))


async def restore(
    redis: Any,
    team: str,
    spent: Mapping[Subject, Mapping[datetime, Decimal]],
    counted: Iterable[str],
    ttl_s: int,
    now: datetime,
) -> list[Counter]:
    """Set what ``team`` has spent to what the ledger says, and return its counters after it.

    What is reserved stays. Counters of the team that ``spent`` does not name are set to nothing spent. The settlement of
    costs (intake) must stand still meanwhile; ``counted`` keeps it from charging again, when it goes on, what is in
    ``spent`` already.

    Args:
        redis: a ``redis.asyncio.Redis``.
        spent: by subject of a hard budget, the amounts (USD) by an instant of the window, or of the bucket, they count in:
            ``Cost.accounted_at`` does, and so does the start of a window.
        counted: event_id of every cost in ``spent`` that settlement may read again: those behind the offsets that the
            group ``intake-settlement`` has committed.
        ttl_s: how long these are remembered, seconds: ``IDEMPOTENCY_TTL_S`` of intake.
        now: the present; what is not kept any more (:func:`is_kept`) is not restored.

    Raises:
        ValueError: an amount is negative or has more than 12 places.
        redis.exceptions.RedisError: Redis is away; what was set before stays set, and the call can be repeated.
    """
    wanted: dict[str, dict[int, int]] = {}
    kept: dict[str, int] = {}
    for subject, amounts in spent.items():
        for at, amount in amounts.items():
            if amount < 0:
                raise ValueError(f"{amount} USD of budget {subject.budget.name!r} is negative: nothing spent can be")
            if not is_kept(subject.budget, at, now):
                continue
            key = counter_name(team, subject.budget.name, window_of(subject.budget, at).id, subject.value)
            buckets = wanted.setdefault(key, {})
            bucket = bucket_of(subject.budget, at)
            buckets[bucket] = buckets.get(bucket, 0) + pico(amount)
            kept[key] = kept_ms(subject.budget, at, now)
    held = {
        counter_name(one.team, one.budget, one.window_id, one.value): one for one in await read_counters(redis, team)
    }
    for key in sorted(wanted.keys() | held.keys()):
        async with redis.pipeline(transaction=True) as transaction:
            if stale := [f"spent:{bucket}" for bucket in (held[key].buckets if key in held else ())]:
                transaction.hdel(key, *stale)
            if key in wanted:
                transaction.hset(
                    key, mapping={f"spent:{bucket}": str(amount) for bucket, amount in wanted[key].items()}
                )
                transaction.pexpire(key, kept[key])
            await transaction.execute()
    async with redis.pipeline(transaction=False) as marks:
        for event_id in counted:
            marks.set(settled_key(team, event_id), "1", ex=ttl_s)
        await marks.execute()
    return await read_counters(redis, team)


def _buckets(fields: Mapping[bytes | str, bytes | str]) -> dict[int, Balance]:
    amounts: dict[int, dict[str, Decimal]] = {}
    for name, value in fields.items():
        what, _, bucket = _text(name).partition(":")
        if what in ("spent", "reserved"):
            amounts.setdefault(int(bucket), {})[what] = from_pico(int(value))
    return {bucket: Balance(**amounts[bucket]) for bucket in sorted(amounts)}


async def _scan(redis: Any, pattern: str) -> AsyncIterator[str]:
    """Yield every key once: SCAN may return one twice."""
    seen: set[str] = set()
    async for key in redis.scan_iter(match=pattern, count=_SCAN_COUNT):
        name = _text(key)
        if name not in seen:
            seen.add(name)
            yield name


def _escaped(team: str) -> str:
    """Return ``team`` for a pattern of SCAN, where * ? [ ] and \\ mean something."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", team)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

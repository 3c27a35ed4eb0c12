"""The ledger of claims in Redis: who sent a request first, how fast a team sends, what it may still spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from penstock.bus import Transient
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.intake.core import Claim, Decision, Judgement, content_hash, nano_usd

__all__ = ["Claims", "RedisClaims"]

# One script a request: the claim, the rate and the budget change together or not at all. A request that was seen before
# gets the decision it got then, so a replay decides nothing anew.
# Rate: the generic cell rate algorithm (GCRA, ITU-T I.371) on Redis' own clock; the burst is a tenth of the minute.
# Money: integers of 1e-9 USD. Lua's numbers are exact to 2^53, which is 9 million USD.
_ADMIT = """
local seen = redis.call('GET', KEYS[1])
if seen then
  local event, hash, decision = string.match(seen, '^(.-)|(.-)|(.*)$')
  if event == ARGV[1] then return {decision, '0'} end
  if hash == ARGV[2] then return {'duplicate', '0'} end
  return {'conflict', '0'}
end
local decision, wait = ARGV[4], 0
if decision == 'admitted' and tonumber(ARGV[5]) > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local interval = 60000000 / tonumber(ARGV[5])
  local burst = interval * math.max(1, tonumber(ARGV[5]) / 10)
  local arrival = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), now)
  if arrival + interval - now > burst + 0.5 then
    decision, wait = 'rate_limited', arrival + interval - now - burst
  else
    redis.call('SET', KEYS[2], string.format('%.0f', arrival + interval), 'PX', 120000)
  end
end
local reserve = tonumber(ARGV[6])
if decision == 'admitted' and reserve > 0 then
  for i = 3, 4 do
    local budget = tonumber(ARGV[4 + i])
    if budget >= 0 and tonumber(redis.call('GET', KEYS[i]) or '0') + reserve > budget then decision = 'over_budget' end
  end
  if decision == 'admitted' then
    for i = 3, 4 do
      redis.call('INCRBY', KEYS[i], ARGV[6])
      redis.call('EXPIRE', KEYS[i], 3456000)
    end
    redis.call('SET', KEYS[5], ARGV[6] .. '|' .. KEYS[3] .. '|' .. KEYS[4], 'EX', ARGV[3])
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2] .. '|' .. decision, 'EX', ARGV[3])
return {decision, string.format('%.0f', wait)}
"""

# A reservation is settled once: it is taken away with the same stroke that corrects the sums.
_SETTLE = """
local held = redis.call('GETDEL', KEYS[1])
if not held then return 0 end
local reserved, day, month = string.match(held, '^(.-)|(.-)|(.*)$')
local change = tonumber(ARGV[1]) - tonumber(reserved)
redis.call('INCRBY', day, string.format('%.0f', change))
redis.call('INCRBY', month, string.format('%.0f', change))
return 1
"""


class Claims(Protocol):
    """Decides what depends on other requests."""

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]: ...
    async def settle(self, settlements: Sequence[Settlement]) -> None: ...


@dataclass(frozen=True, slots=True)
class Settlement:
    """A reservation's end: what the request cost, in nano-USD."""

    tenant_id: str
    request_id: str
    amount: int


class RedisClaims:
    """Claims in Redis, one script a request, pipelined by batch. All keys of a team share a hash slot."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s
        self._admit = redis.register_script(_ADMIT)
        self._settle = redis.register_script(_SETTLE)

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        """Claim every request, in order.

        Raises:
            Transient: Redis is away.
        """
        if not judgements:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for judgement in judgements:
            await self._admit(keys=_keys(judgement), args=self._arguments(judgement), client=pipeline)
        answers = await _execute(pipeline)
        return [Claim(Decision(decision.decode()), float(wait) / 1e6) for decision, wait in answers]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle every reservation that still stands.

        Raises:
            Transient: Redis is away.
        """
        if not settlements:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for s in settlements:
            await self._settle(
                keys=[f"{_prefix(s.tenant_id)}:reserved:{s.request_id}"], args=[s.amount], client=pipeline
            )
        await _execute(pipeline)

    def _arguments(self, judgement: Judgement) -> list[str | int]:
        team = judgement.team
        daily = team.daily_budget if team else None
        monthly = team.monthly_budget if team else None
        held = daily is not None or monthly is not None
        reserve = nano_usd(judgement.reserve) if held and judgement.reserve is not None else 0
        return [
            judgement.request.event_id,
            content_hash(judgement.request),
            self._ttl_s,
            Decision.REFUSED if judgement.status is not None else Decision.ADMITTED,
            (team.requests_per_minute or 0) if team else 0,
            reserve,
            -1 if daily is None else nano_usd(daily),
            -1 if monthly is None else nano_usd(monthly),
        ]


async def _execute(pipeline: Any) -> list[Any]:
    try:
        answers: list[Any] = await pipeline.execute()
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise Transient(f"Redis is away: {error}; start it or set REDIS_URL") from error
    return answers


def _prefix(tenant_id: str) -> str:
    return f"penstock:{{{tenant_id}}}"


def _keys(judgement: Judgement) -> list[str]:
    request = judgement.request
    prefix = _prefix(request.tenant_id)
    at: datetime = request.occurred_at
    return [
        f"{prefix}:admitted:{request.request_id}",
        f"{prefix}:rate",
        f"{prefix}:spend:{at:%Y-%m-%d}",
        f"{prefix}:spend:{at:%Y-%m}",
        f"{prefix}:reserved:{request.request_id}",
    ]

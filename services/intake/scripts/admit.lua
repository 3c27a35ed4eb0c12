-- The claim, the rates, the concurrency and the budgets of one request change together or not at all. A request that was
-- seen before gets the decision it got then, so a replay decides nothing anew.
--   KEYS: claim, deferral, rate, token rate, tokens, running, reservation, lapses, the waiting room of the team and class;
--     then a counter for each of asked.counters
--   ARGV[1]: asked, JSON; instants are digits. ARGV[2]: what every key of the team begins with
-- Returns the decision, the claim, JSON, and 1 where it was decided before, 2 where it is not under way any more.

local COUNTERS = 9
local asked = cjson.decode(ARGV[1])
local claimed = redis.call('GET', KEYS[1])
if claimed then
  local claim = cjson.decode(claimed)
  -- The same event at another place is a second send, and its content may be another: nothing is held for that.
  local same_place = not claim.place or claim.place == asked.place
  if claim.event == asked.event and same_place then
    return {claim.decision, claimed, redis.call('ZSCORE', KEYS[6], asked.request_id) and 1 or 2}
  end
  if claim.hash == asked.hash then return {'duplicate', '{}', 1} end
  return {'conflict', '{}', 1}
end
local deferred = redis.call('GET', KEYS[2])
if deferred then
  local claim = cjson.decode(deferred)
  if claim.event == asked.event then return {claim.decision, deferred, 1} end
end
-- One that is in the waiting room is decided about there, and so are further sends of it.
if not asked.waited and redis.call('ZSCORE', KEYS[9], asked.request_id) then return {'waiting', '{}', 1} end

local claim = {event = asked.event, place = asked.place, hash = asked.hash, at = asked.at, decision = asked.decision, refused = asked.refused, assigned = asked.assigned}

-- Rates: the generic cell rate algorithm (GCRA, ITU-T I.371), with a burst of a tenth of the minute. What is larger than the
-- burst waits until all of it is free, and is a debt then. The clock is Redis' own, in us.
local limits, now, wait, taken, running = asked.limits, 0, 0, {}, 0
if limits then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
  if asked.late then claim.decision, wait = asked.late.decision, asked.late.told.wait_us end
  for _, rate in ipairs(limits.rates) do
    local interval = 60000000 / rate.limit
    local cost = interval * rate.cost
    local burst = math.max(interval * math.max(1, rate.limit / 10), cost)
    local finish = math.max(tonumber(redis.call('GET', KEYS[rate.key]) or '0'), now) + cost
    -- Half a microsecond is what rounding may add.
    local needed = math.ceil(finish - burst - now - 0.5)
    if needed > wait then claim.decision, wait = rate.decision, needed end
    taken[#taken + 1] = {KEYS[rate.key], finish}
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', string.format('%.0f', now))
  running = redis.call('ZCARD', KEYS[6])
  if limits.concurrent and running >= limits.concurrent.limit then
    -- What waits already goes on waiting.
    if asked.waited then return {'waiting', '{}', 0} end
    -- When the next one ends is not known: when it lapses is, and more than a second is no time to be told.
    local first = redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
    claim.decision, wait = limits.concurrent.decision, math.max(wait, math.min(1000000, tonumber(first[2]) - now))
  end
end
if claim.decision ~= asked.decision then
  -- Nothing of it is kept but what this send was told: sent again, it is decided anew.
  local late = asked.late and claim.decision == asked.late.decision and asked.late.told or nil
  local told = cjson.encode({event = claim.event, at = claim.at, decision = claim.decision, wait = string.format('%.0f', wait), assigned = claim.assigned, late = late})
  redis.call('SET', KEYS[2], told, 'EX', limits.deferral_ttl_s)
  return {claim.decision, told, 0}
end

local function take_rates()
  for _, one in ipairs(taken) do
    redis.call('SET', one[1], string.format('%.0f', one[2]), 'PX', math.ceil((one[2] - now) / 1000) + 1)
  end
  if limits.tokens then redis.call('SET', KEYS[5], limits.tokens, 'PX', limits.lease_ms) end
end

-- A team has so many in the flow; what comes beyond waits for room, and so does all of its class that comes after it.
if limits then
  local full = running >= limits.flow
  if asked.waited and full then return {'waiting', '{}', 0} end
  if not asked.waited and (full or redis.call('EXISTS', KEYS[9]) == 1) then
    take_rates()
    redis.call('ZADD', KEYS[9], string.format('%.0f', now), asked.request_id)
    redis.call('EXPIRE', KEYS[9], asked.ttl_s)
    return {'waiting', '{}', 0}
  end
end

if claim.decision == 'admitted' and #asked.counters > 0 then
  sweep(ARGV[2], asked.now_ms, 256)
  -- All are checked before anything is reserved in any of them.
  for i, counter in ipairs(asked.counters) do
    local spent, reserved = balance(KEYS[COUNTERS + i], counter.first)
    -- What is over the limit alone is not added up: it may be longer than the sums are exact.
    if more(counter.needed, counter.limit) or more(add(add(spent, reserved), counter.needed), counter.limit) then
      claim.decision = 'over_budget'
      claim.over = counter.about
      claim.over.spent, claim.over.reserved = spent, reserved
      claim.alert = redis.call('SET', counter.exhausted, '1', 'EX', 3600, 'NX') and true or false
      break
    end
  end
end

if claim.decision == 'admitted' and limits then
  take_rates()
  redis.call('ZADD', KEYS[6], string.format('%.0f', now + limits.lease_ms * 1000), asked.request_id)
  redis.call('EXPIRE', KEYS[6], asked.ttl_s)
end

if claim.decision == 'admitted' and #asked.counters > 0 then
  local last
  for i, counter in ipairs(asked.counters) do
    local key, field = KEYS[COUNTERS + i], 'reserved:' .. counter.bucket
    redis.call('HSET', key, field, add(redis.call('HGET', key, field) or '0', counter.needed))
    redis.call('PEXPIRE', key, counter.kept_ms)
    if not last or more(counter.kept_ms, last) then last = counter.kept_ms end
  end
  for slot, amounts in pairs(asked.slots) do
    local held = {}
    for _, amount in ipairs(amounts) do
      held[#held + 1] = {KEYS[COUNTERS + amount[1]], asked.counters[amount[1]].bucket, amount[2]}
    end
    redis.call('HSET', KEYS[7], slot, cjson.encode(held))
    redis.call('ZADD', KEYS[8], asked.lapses_ms, slot .. ':' .. asked.request_id)
  end
  -- As long as any counter that it is held in.
  redis.call('PEXPIRE', KEYS[7], last)
end

local told = cjson.encode(claim)
redis.call('SET', KEYS[1], told, 'EX', asked.ttl_s)
return {claim.decision, told, 0}

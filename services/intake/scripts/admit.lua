-- The claim, the rate and the budgets of one request change together or not at all. A request that was seen before gets
-- the decision it got then, so a replay decides nothing anew.
--   KEYS: claim, rate, reservation, lapses; then a counter for each of asked.counters
--   ARGV[1]: asked, JSON; instants are digits. ARGV[2]: what every key of the team begins with
-- Returns the decision and the claim, JSON.

local asked = cjson.decode(ARGV[1])
local claimed = redis.call('GET', KEYS[1])
if claimed then
  local claim = cjson.decode(claimed)
  -- The same event at another place is a second send, and its content may be another: nothing is held for that.
  local same_place = not claim.place or claim.place == asked.place
  if claim.event == asked.event and same_place then return {claim.decision, claimed} end
  if claim.hash == asked.hash then return {'duplicate', '{}'} end
  return {'conflict', '{}'}
end

local claim = {event = asked.event, place = asked.place, hash = asked.hash, at = asked.at, decision = asked.decision, refused = asked.refused, assigned = asked.assigned}

-- Rate: the generic cell rate algorithm (GCRA, ITU-T I.371) on Redis' own clock; the burst is a tenth of the minute.
if claim.decision == 'admitted' and asked.rate > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local interval = 60000000 / asked.rate
  local burst = interval * math.max(1, asked.rate / 10)
  local arrival = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), now)
  if arrival + interval - now > burst + 0.5 then
    claim.decision, claim.wait = 'rate_limited', string.format('%.0f', arrival + interval - now - burst)
  else
    redis.call('SET', KEYS[2], string.format('%.0f', arrival + interval), 'PX', 120000)
  end
end

if claim.decision == 'admitted' and #asked.counters > 0 then
  sweep(ARGV[2], asked.now_ms, 256)
  -- All are checked before anything is reserved in any of them.
  for i, counter in ipairs(asked.counters) do
    local spent, reserved = balance(KEYS[4 + i], counter.first)
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

if claim.decision == 'admitted' and #asked.counters > 0 then
  local last
  for i, counter in ipairs(asked.counters) do
    local key, field = KEYS[4 + i], 'reserved:' .. counter.bucket
    redis.call('HSET', key, field, add(redis.call('HGET', key, field) or '0', counter.needed))
    redis.call('PEXPIRE', key, counter.kept_ms)
    if not last or more(counter.kept_ms, last) then last = counter.kept_ms end
  end
  for slot, amounts in pairs(asked.slots) do
    local held = {}
    for _, amount in ipairs(amounts) do
      held[#held + 1] = {KEYS[4 + amount[1]], asked.counters[amount[1]].bucket, amount[2]}
    end
    redis.call('HSET', KEYS[3], slot, cjson.encode(held))
    redis.call('ZADD', KEYS[4], asked.lapses_ms, slot .. ':' .. asked.request_id)
  end
  -- As long as any counter that it is held in.
  redis.call('PEXPIRE', KEYS[3], last)
end

local told = cjson.encode(claim)
redis.call('SET', KEYS[1], told, 'EX', asked.ttl_s)
return {claim.decision, told}

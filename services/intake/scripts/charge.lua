-- A priced call: gives back what its slot holds, and adds its amount to the counters that it counts in. A call that was
-- given up for another target's (part) takes its amount from the slot, which pays for both. A replay finds the slot empty
-- and the mark set.
--   KEYS: the mark of the cost, then a counter for each of charge.counters
--   ARGV[1]: charge, JSON; instants are digits. ARGV[2]: what every key of the team begins with
-- Returns the counter in which more was charged than was held, or nothing.

local charge = cjson.decode(ARGV[1])
local prefix = ARGV[2]
local held = {}
if charge.slot and not charge.part then
  for _, hold in ipairs(release(prefix, charge.request_id, charge.slot) or {}) do held[hold[1]] = hold[3] end
  -- The embedding of a request is charged beside its first call, where it is charged at all: its cost is here by then.
  if charge.slot == '0' then
    local member = 'embedding:' .. charge.request_id
    redis.call('ZADD', prefix .. 'lapses', 'XX', 'LT', charge.soon_ms, member)
  end
end
if not redis.call('SET', KEYS[1], '1', 'EX', charge.ttl_s, 'NX') then return false end
if charge.part then
  local counters = {}
  for i = 2, #KEYS do counters[KEYS[i]] = true end
  for _, hold in ipairs(draw(prefix, charge.request_id, charge.slot, charge.amount, counters)) do held[hold[1]] = hold[3] end
end
local beyond = false
for i, counter in ipairs(charge.counters) do
  local key, field = KEYS[1 + i], 'spent:' .. counter.bucket
  redis.call('HSET', key, field, add(redis.call('HGET', key, field) or '0', charge.amount))
  redis.call('PEXPIRE', key, counter.kept_ms)
  if held[key] and more(charge.amount, held[key]) then beyond = key end
end
return beyond

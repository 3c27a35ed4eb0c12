-- What the other scripts begin with. Amounts are integers of 1e-12 USD, not negative, as decimal digits without leading
-- zeros. Lua's numbers are exact to 2^53 only, 9,007 USD of these: so whole dollars and the rest are counted apart.

local function parts(digits)
  if #digits <= 12 then return 0, tonumber(digits) end
  return tonumber(string.sub(digits, 1, -13)), tonumber(string.sub(digits, -12))
end

local function digits(dollars, rest)
  if dollars == 0 then return string.format('%.0f', rest) end
  return string.format('%.0f%012.0f', dollars, rest)
end

local function add(left, right)
  local dollars, rest = parts(left)
  local more_dollars, more_rest = parts(right)
  dollars, rest = dollars + more_dollars, rest + more_rest
  if rest >= 1e12 then dollars, rest = dollars + 1, rest - 1e12 end
  return digits(dollars, rest)
end

-- Nothing is less than nothing: a counter that was lost meanwhile stays at zero.
local function subtract(left, right)
  local dollars, rest = parts(left)
  local less_dollars, less_rest = parts(right)
  dollars, rest = dollars - less_dollars, rest - less_rest
  if rest < 0 then dollars, rest = dollars - 1, rest + 1e12 end
  if dollars < 0 then return '0' end
  return digits(dollars, rest)
end

local function more(left, right)
  if #left ~= #right then return #left > #right end
  return left > right
end

-- What is spent and reserved in the buckets of a counter that count, from `first` on. Older ones are deleted one window
-- later: another replica, with a slower clock, may count them still.
local function balance(key, first)
  local spent, reserved, old = '0', '0', {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local what, bucket = string.match(fields[i], '^(%l+):(-?%d+)$')
    if tonumber(bucket) >= first then
      if what == 'spent' then spent = add(spent, fields[i + 1]) else reserved = add(reserved, fields[i + 1]) end
    elseif tonumber(bucket) < first - 24 and #old < 1000 then
      old[#old + 1] = fields[i]
    end
  end
  if #old > 0 then redis.call('HDEL', key, unpack(old)) end
  return spent, reserved
end

-- Gives back what a slot holds and returns it; nil where it holds nothing (any more).
local function release(prefix, request_id, slot)
  local reservation = prefix .. 'reservation:' .. request_id
  redis.call('ZREM', prefix .. 'lapses', slot .. ':' .. request_id)
  local stored = redis.call('HGET', reservation, slot)
  if not stored then return nil end
  local held = cjson.decode(stored)
  for _, hold in ipairs(held) do
    local key, field = hold[1], 'reserved:' .. hold[2]
    local left = subtract(redis.call('HGET', key, field) or '0', hold[3])
    if left == '0' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, left) end
  end
  redis.call('HDEL', reservation, slot)
  return held
end

-- Takes an amount from what a slot holds in some counters, and returns what it held.
local function draw(prefix, request_id, slot, amount, counters)
  local reservation = prefix .. 'reservation:' .. request_id
  local stored = redis.call('HGET', reservation, slot)
  if not stored then return {} end
  local before, held = cjson.decode(stored), cjson.decode(stored)
  for _, hold in ipairs(held) do
    if counters[hold[1]] then
      local part, field = more(amount, hold[3]) and hold[3] or amount, 'reserved:' .. hold[2]
      hold[3] = subtract(hold[3], part)
      redis.call('HSET', hold[1], field, subtract(redis.call('HGET', hold[1], field) or '0', part))
    end
  end
  redis.call('HSET', reservation, slot, cjson.encode(held))
  return before
end

local function sweep(prefix, now_ms, most)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'lapses', '-inf', now_ms, 'LIMIT', 0, most)) do
    local slot, request_id = string.match(member, '^(.-):(.*)$')
    release(prefix, request_id, slot)
  end
end

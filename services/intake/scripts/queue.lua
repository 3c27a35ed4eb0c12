-- What the scripts of the queue of a route begin with: who stands in it, and how fast it is served.
--   KEYS: places, lapses, backlog, state, epochs; they share a hash slot
-- Instants and spans are us, on Redis' own clock. All fit a double exactly.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- An epoch is closed by a delivery: when so many were made in so much time in which somebody stood in the queue, or
-- after that time at the latest.
local DELIVERIES, SHORT, LONG = 8, 2000000, 10000000
local EPOCHS = 10
-- Epochs are of no use any more after this.
local REMEMBERED = 600000000
-- Weight of the newest request in the mean of what one takes that waits for nobody.
local NEWEST = 0.25
-- A queue that delivered nothing for so long, and so many times what one takes that waits for nobody, stood still.
local STALL, SLOW = 10000000, 3

local function whole(number) return string.format('%.0f', number) end

-- Counts the time since the last change: how long the queue was not empty, and how many stood in it times how long.
-- Returns how many stand there, and when it changed before.
local function tick()
  local length, changed = redis.call('ZCARD', KEYS[2]), tonumber(redis.call('HGET', KEYS[4], 'at') or now)
  if length > 0 then
    local since = math.max(0, now - changed)
    redis.call('HINCRBY', KEYS[4], 'busy', whole(since))
    redis.call('HINCRBY', KEYS[4], 'area', whole(length * since))
  end
  redis.call('HSET', KEYS[4], 'at', whole(now))
  return length, changed
end

-- How long nothing may be delivered before the queue stands still, where `base` is what one takes that waits for nobody.
local function patience(base) return math.max(STALL, SLOW * base) end

-- The epoch that is open begins anew.
local function forget() redis.call('HSET', KEYS[4], 'done', 0, 'busy', 0, 'area', 0, 'missed', 0) end

-- Takes a member out; returns when it came, what it was told (us), and 1 where nobody stood there then, or nothing.
local function remove(member)
  local stored = redis.call('HGET', KEYS[1], member)
  redis.call('ZREM', KEYS[2], member)
  if not stored then return nil end
  redis.call('HDEL', KEYS[1], member)
  local entered, told, rank, alone = string.match(stored, '^(%d+):(%d+):(%d+):(%d):')
  local team = rank .. ' ' .. string.match(member, '^(.*) ')
  redis.call('HINCRBY', KEYS[3], rank, -1)
  if redis.call('HINCRBY', KEYS[3], team, -1) <= 0 then
    redis.call('HDEL', KEYS[3], team)
    redis.call('HINCRBY', KEYS[3], rank .. '#', -1)
  end
  return entered, told, alone
end

-- What no result has ended counts no longer than it may be under way.
local function sweep()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, 256)) do remove(member) end
end

-- One was delivered that came at `entered`, to an empty queue where `alone` is 1: the epoch may be over.
local function deliver(entered, alone)
  local before = redis.call('HMGET', KEYS[4], 'last', 'base', 'still')
  local base = tonumber(before[2] or '0')
  local still = now - tonumber(before[1] or now) > patience(base)
  -- What was away and is back serves as it did before: the time between tells nothing of that, but where the next delivery
  -- takes as long again, that is how fast it is.
  local over = still and before[3] ~= '1'
  -- A clock that was set back shows no span.
  if alone == '1' and now >= tonumber(entered) then
    local took = over and math.min(patience(base), now - entered) or now - entered
    redis.call('HSET', KEYS[4], 'base', whole(math.max(1, base > 0 and base + NEWEST * (took - base) or took)))
  end
  redis.call('HSET', KEYS[4], 'last', whole(now), 'still', still and 1 or 0)
  if over then return forget() end
  local done = redis.call('HINCRBY', KEYS[4], 'done', 1)
  local state = redis.call('HMGET', KEYS[4], 'busy', 'area', 'missed')
  local busy, area = tonumber(state[1] or '0'), tonumber(state[2] or '0')
  if busy < SHORT or (done < DELIVERIES and busy < LONG) then return end
  redis.call('LPUSH', KEYS[5], table.concat({whole(now), done, whole(busy), whole(area), state[3] or '0'}, ':'))
  redis.call('LTRIM', KEYS[5], 0, EPOCHS - 1)
  redis.call('EXPIRE', KEYS[5], math.floor(REMEMBERED / 1000000))
  forget()
end

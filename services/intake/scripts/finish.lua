-- A request has ended: its place among the concurrent ones is free, and what it took of the tokens per minute is corrected
-- to the tokens that its calls took. A replay finds neither.
--   KEYS: tokens, token rate, running
--   ARGV[1]: request_id. ARGV[2]: tokens, or nothing where they are not known

-- An endpoint that counts wrongly shuts nobody out for longer: 30 days, in us.
local MOST = 2592000000000

redis.call('ZREM', KEYS[3], ARGV[1])
local taken = redis.call('GET', KEYS[1])
if not taken then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] == '' then return 0 end
local estimated, interval = string.match(taken, '^(%d+):(%S+)$')
local more_us = (tonumber(ARGV[2]) - tonumber(estimated)) * tonumber(interval)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local finish = tonumber(redis.call('GET', KEYS[2]) or '0')
-- What has been free since is not given back: it is free already.
finish = math.min(math.max(finish, now) + more_us, math.max(finish, now + MOST))
if finish <= now then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], string.format('%.0f', finish), 'PX', math.ceil((finish - now) / 1000) + 1)
end
return 0

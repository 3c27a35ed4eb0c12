-- A request was decided about in the waiting room, and what came of it is on the log: it waits no more. Nor does what came
-- there well before it, which was decided about before: who was to tell it was killed. Not all that came before: two
-- members may write to the log in another order than they came here.
--   KEYS: the waiting room of its team and class. ARGV[1]: request_id

-- Us: many times what a write to the log takes.
local APART = 200000

local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not since then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1 + redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', since - APART))

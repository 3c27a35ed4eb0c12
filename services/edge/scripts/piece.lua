-- Keeps a piece of the answer to a request that came through the edge.
--   KEYS: request, pieces, claim (intake's)
--   ARGV: the event's bytes, seconds that they are kept, event_id of the newest try
-- Returns 1 where whoever waits should look.

local hash = redis.call('HGET', KEYS[1], 'hash')
if not hash then return 0 end
-- Where one was kept, so are the others.
if redis.call('EXISTS', KEYS[2]) == 0 and is_anothers(KEYS[3], hash, ARGV[3]) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1

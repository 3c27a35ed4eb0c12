-- Keeps a piece of the answer to a request that came through the edge.
--   KEYS: request, pieces
--   ARGV: the event's bytes, seconds that they are kept
-- Returns 1 where whoever waits should look.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1

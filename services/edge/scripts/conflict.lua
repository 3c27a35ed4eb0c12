-- Notes that intake turned a try of a request away.
--   KEYS: request
--   ARGV: number of the try, why
-- Returns 1 where whoever waits should look.

if redis.call('HGET', KEYS[1], 'try') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'conflict', ARGV[2])
return 1

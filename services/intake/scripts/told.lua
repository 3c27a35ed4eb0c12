-- A request was told how long it will take: kept with its place, to be held against how long it took.
--   ARGV: member, us

local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], (string.gsub(stored, '^(%d+):%d+:', '%1:' .. ARGV[2] .. ':', 1)))
return 1

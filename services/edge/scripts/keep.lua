-- Keeps the result of a request that came through the edge: the first one that stands.
--   KEYS: request, result, claim (intake's)
--   ARGV: event_id, the event's bytes, '1' where the same request may be admitted later, seconds that they are kept,
--         seconds that the request is kept, where the event stands in the log, event_id of the newest try, why that is
--         turned away where the result is another request's
-- Returns 1 where whoever waits should look.

local held = redis.call('HMGET', KEYS[1], 'hash', 'event', 'again', 'was')
local hash, event, again, was = held[1], held[2], held[3], held[4]
if not hash or (was and string.find(was, ARGV[1], 1, true)) then return 0 end
if event and again ~= '1' then return event == ARGV[1] and 1 or 0 end
if is_anothers(KEYS[3], hash, ARGV[7]) then
  redis.call('HSET', KEYS[1], 'conflict', ARGV[8])
  return 1
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
redis.call('HSET', KEYS[1], 'event', ARGV[1], 'again', ARGV[3], 'place', ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1

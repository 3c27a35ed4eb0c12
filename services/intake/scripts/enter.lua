-- A request takes its place in the queue of its route, once, and sees who stands there with it.
--   ARGV: member ("<team> <request_id>"), team, rank, place in the log, us until it lapses, seconds that the queue is kept
-- Returns 2 where it stands there only now, 1 where it does by this place in the log, else 0; how many of its team and class, how many teams of its class,
-- how many of its class and how many of classes before it stand there, itself among them; now, the last delivery, what a
-- request takes that waits for nobody (0: not known); and the epochs, the newest first.

local member, team, rank, place = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
sweep()
local length, changed = tick()
local stored = redis.call('HGET', KEYS[1], member)
local standing = 1
if not stored then
  standing = 2
  if length == 0 then
    local before = redis.call('HMGET', KEYS[4], 'last', 'base')
    -- It emptied while it stood still: whoever left then says nothing of how fast it is.
    if changed - tonumber(before[1] or changed) > patience(tonumber(before[2] or '0')) then forget() end
    -- Nothing could be delivered while nobody stood there.
    redis.call('HSET', KEYS[4], 'last', whole(now))
  end
  redis.call('HSET', KEYS[1], member, table.concat({whole(now), 0, rank, length == 0 and 1 or 0, place}, ':'))
  redis.call('ZADD', KEYS[2], whole(now + ARGV[5]), member)
  redis.call('HINCRBY', KEYS[3], rank, 1)
  if redis.call('HINCRBY', KEYS[3], rank .. ' ' .. team, 1) == 1 then redis.call('HINCRBY', KEYS[3], rank .. '#', 1) end
  if length == 0 or redis.call('TTL', KEYS[4]) < ARGV[6] / 2 then
    for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[6]) end
  end
elseif string.match(stored, '^%d+:%d+:%d+:%d:(.*)$') ~= place then
  standing = 0
end
local backlog = redis.call('HMGET', KEYS[3], rank .. ' ' .. team, rank .. '#', rank)
local before = 0
for higher = 0, tonumber(rank) - 1 do before = before + tonumber(redis.call('HGET', KEYS[3], higher) or '0') end
local state = redis.call('HMGET', KEYS[4], 'last', 'base')
return {
  standing, backlog[1] or '0', backlog[2] or '0', backlog[3] or '0', whole(before),
  whole(now), state[1] or whole(now), state[2] or '0', redis.call('LRANGE', KEYS[5], 0, -1),
}

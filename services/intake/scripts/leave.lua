-- A request leaves the queue of its route: it has ended, or it was not admitted. A replay finds nothing.
--   ARGV: member; place in the log by which it must have come, or nothing for any; 1 where it was served, -1
--   where its deadline had passed, else 0
-- Returns how long it stood there and how long it was told that it would (0: nothing), us; nothing where it was not there.

if ARGV[2] ~= '' then
  local stored = redis.call('HGET', KEYS[1], ARGV[1])
  if not stored or string.match(stored, '^%d+:%d+:%d+:%d:(.*)$') ~= ARGV[2] then return false end
end
sweep()
tick()
local entered, told, alone = remove(ARGV[1])
if not entered then return false end
if ARGV[3] == '1' then deliver(entered, alone) end
if ARGV[3] == '-1' then redis.call('HINCRBY', KEYS[4], 'missed', 1) end
return {whole(math.max(0, now - entered)), told}

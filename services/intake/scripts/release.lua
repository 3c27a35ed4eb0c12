-- A request has ended: gives back what is held for calls that it will not make, at once or soon.
--   KEYS: reservation. ARGV[1]: ended, JSON; instants are digits. ARGV[2]: what every key of the team begins with

local ended = cjson.decode(ARGV[1])
for _, slot in ipairs(redis.call('HKEYS', KEYS[1])) do
  -- Without a call there is no cost beside which an embedding would be charged.
  local over = ended.calls == 0
  if slot ~= 'embedding' then over = tonumber(slot) >= ended.calls end
  if over and ended.at_once then
    release(ARGV[2], ended.request_id, slot)
  elseif over then
    redis.call('ZADD', ARGV[2] .. 'lapses', 'XX', 'LT', ended.soon_ms, slot .. ':' .. ended.request_id)
  end
end
return 0

-- Takes a request up, once for each content: a send that is repeated joins the first.
--   KEYS: request, result, pieces, claim (intake's)
--   ARGV: hash of the content, now (us, digits), seconds that it is kept, '1' where it is streamed, its
--         conversation ('' for none)
-- Returns how it stands (new, again, conflict), when it was taken up, the number of the try, '1' where it has a result,
-- and when intake had it already (us, digits; '' where intake has it not).

local WAS_BYTES = 1024
local held = redis.call('HMGET', KEYS[1], 'hash', 'taken', 'try', 'again', 'event', 'conflict', 'was')
local hash, taken, try, again, event, conflict, was = held[1], held[2], held[3], held[4], held[5], held[6], held[7]

if hash and not conflict then
  if hash ~= ARGV[1] then return {'conflict', taken, try, '', ''} end
  if again ~= '1' then return {'again', taken, try, event and '1' or '', ''} end
end
-- What intake turned away for another's sake is turned away again, unless it is the other one that comes now.
if conflict and hash == ARGV[1] then return {'conflict', taken, try, '', ''} end

local claim = redis.call('GET', KEYS[4])
claim = claim and cjson.decode(claim) or {}
if not hash or conflict then
  -- Intake has it already, or another one under its request_id, that came another way.
  if claim.hash and claim.hash ~= ARGV[1] then return {'conflict', ARGV[2], '0', '', ''} end
else
  claim = {}
end

-- The first send of it, or one after a refusal that waiting was to help: when that is read again, it is no result any more.
try = try and string.format('%.0f', try + 1) or '0'
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'hash', ARGV[1], 'taken', ARGV[2], 'try', try, 'stream', ARGV[4])
if again == '1' then was = string.sub((was or '') .. ' ' .. event, -WAS_BYTES) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'conversation', ARGV[5]) end
if was then redis.call('HSET', KEYS[1], 'was', was) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {'new', ARGV[2], try, '', claim.at or ''}

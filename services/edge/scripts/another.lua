-- What the scripts that keep what came of a request begin with.

-- Whether that is of another request, that came another way under the identity of the one which is known here: intake
-- admitted that one, and turns this one away. An intake of another version may hash otherwise, but knows our event.
--   claim: intake's, a key; hash: of what is known here; event: its newest try
local function is_anothers(claim, hash, event)
  local claimed = redis.call('GET', claim)
  if not claimed then return false end
  claimed = cjson.decode(claimed)
  return claimed.hash ~= hash and claimed.event ~= event
end


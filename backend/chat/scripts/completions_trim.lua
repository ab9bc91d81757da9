-- completions_trim: removes exactly the entries that every group of a stream has finished.
--   KEYS[1]  the stream
-- Returns the number of removed entries. Atomic, so that no entry can be delivered between the check and the trim.
local key = KEYS[1]
local groups = redis.pcall('XINFO', 'GROUPS', key)
if groups.err or #groups == 0 then return 0 end

-- True if the stream id a is less than b. Compares digits, since Lua numbers cannot hold 64 bits.
local function before(a, b)
  local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
  if #a1 ~= #b1 then return #a1 < #b1 end
  if a1 ~= b1 then return a1 < b1 end
  if #a2 ~= #b2 then return #a2 < #b2 end
  return a2 < b2
end

local keep
for _, group in ipairs(groups) do
  local fact = {}
  for i = 1, #group, 2 do fact[group[i]] = group[i + 1] end
  local oldest = redis.call('XPENDING', key, fact['name'])[2]
  -- The last delivered entry is kept although it is finished: a single entry does no harm.
  local needed = oldest or fact['last-delivered-id']
  if not keep or before(needed, keep) then keep = needed end
end
return redis.call('XTRIM', key, 'MINID', keep)

-- completions_trim: removes what every group of a stream has finished, and nothing else.
--   KEYS[1]  the stream
-- Returns how many entries were removed. One call: what is delivered meanwhile is pending and counts.
local key = KEYS[1]
local groups = redis.pcall('XINFO', 'GROUPS', key)
if groups.err or #groups == 0 then return 0 end

-- a before b, as stream ids; no arithmetic, their halves have up to 64 bits
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
  -- the last one that was delivered stays: it is finished, and one entry is no burden
  local needed = oldest or fact['last-delivered-id']
  if not keep or before(needed, keep) then keep = needed end
end
return redis.call('XTRIM', key, 'MINID', keep)

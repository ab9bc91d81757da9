-- note: appends one entry to a stream and announces it, if the attempt `fence` has written the newest entry.
--   KEYS[1]  the stream; the channel has the same name
--   ARGV     the command that announces, fence, body
-- Returns 1 appended | 3 fenced: another attempt has written the newest entry | 4 gone: the stream does not exist, or
-- is too long for occasional entries.
-- For occasional entries that may get lost: the call is not retried, and the TTL does not change.
local key, announce, fence, body = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local info = redis.pcall('XINFO', 'STREAM', key)
if info.err then
  if string.find(info.err, 'no such key', 1, true) then return 4 end
  return info
end
local top
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
end
local length
for i = 1, #info, 2 do
  if info[i] == 'length' then length = info[i + 1] end
end
if length >= 5000 then return 4 end
local top_fence, top_seq = string.match(top, '^(%d+)-(%d+)$')
if top_fence ~= fence then return 3 end
local id = fence .. '-' .. (tonumber(top_seq) + 1)
redis.call('XADD', key, id, 'd', body)
redis.call(announce, key, id .. ' ' .. id .. ' ' .. body)
return 1

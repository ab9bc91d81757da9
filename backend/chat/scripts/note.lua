-- note: adds one entry to a stream after its newest, if the attempt that wrote that is `fence`, and announces it.
--   KEYS[1]  the stream, also the channel
--   ARGV     fence, body
-- Returns 1 appended | 3 fenced: another attempt has written last | 4 gone: no stream.
-- For whoever writes now and then beside others, and has nothing to lose: not retried, and the TTL stays.
local key, fence, body = KEYS[1], ARGV[1], ARGV[2]
local info = redis.pcall('XINFO', 'STREAM', key)
if info.err then
  if string.find(info.err, 'no such key', 1, true) then return 4 end
  return info
end
local top
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then top = info[i + 1] end
end
local top_fence, top_seq = string.match(top, '^(%d+)-(%d+)$')
if top_fence ~= fence then return 3 end
local id = fence .. '-' .. (tonumber(top_seq) + 1)
redis.call('XADD', key, id, 'd', body)
redis.call('PUBLISH', key, id .. ' ' .. id .. ' ' .. body)
return 1

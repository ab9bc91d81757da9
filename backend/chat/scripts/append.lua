-- append: adds a batch to a stream under its explicit ids, announces it and refreshes the TTL. All or nothing.
--   KEYS[1]  the stream; the channel has the same name
--   ARGV     the command that announces, create (1: create the stream if it is missing), TTL in s, fence, first seq,
--            body, body, ...
-- Returns 1 appended | 2 already there | 3 fenced: a newer attempt has written | 4 gone: the stream does not exist, or
-- earlier entries of this attempt are missing from it.
-- A batch is sent again if its reply was lost. Its ids make the second call a no-op.
local key, announce, create, ttl, fence = KEYS[1], ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4]
local first, size = tonumber(ARGV[5]), #ARGV - 5
local last = first + size - 1

local function top()
  local info = redis.pcall('XINFO', 'STREAM', key)
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then return nil end
    error(info.err, 0)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return string.match(info[i + 1], '^(%d+)-(%d+)$') end
  end
end

-- Returns the reply if the batch cannot be appended; otherwise nil and the seq from which to write.
local function judge()
  -- last-generated-id, not the last entry: a takeover may delete that entry, but keeps the id
  local top_fence, top_seq = top()
  if not top_fence then
    if create then return nil, first end
    return 4
  end
  top_seq = tonumber(top_seq)
  if tonumber(top_fence) > tonumber(fence) then return 3 end
  if top_fence == fence and top_seq >= last then return 2 end
  if top_fence == fence and top_seq >= first - 1 then return nil, top_seq + 1 end
  if first > 1 then return 4 end
  return nil, first
end

local function add(seq)
  return redis.pcall('XADD', key, fence .. '-' .. seq, 'd', ARGV[5 + seq - first + 1])
end

-- The common case takes one read: the newest entry is the one right before this batch.
local from = first
local newest = first > 1 and redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if not newest or newest[1] ~= fence .. '-' .. (first - 1) then
  local verdict
  verdict, from = judge()
  if verdict then return verdict end
end

local added = add(from)
if added.err then
  if not string.find(added.err, 'equal or smaller', 1, true) then return added end
  return judge() or added
end
for seq = from + 1, last do
  added = add(seq)
  if added.err then return added end
end
redis.call('EXPIRE', key, ttl)
redis.call(announce, key, fence .. '-' .. first .. ' ' .. fence .. '-' .. last .. ' ' .. table.concat(ARGV, '\n', 6))
return 1

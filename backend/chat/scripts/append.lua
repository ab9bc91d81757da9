-- append: adds batches to streams under their explicit ids, announces them and refreshes the TTLs. Each batch is added
-- as a whole or not at all, whatever happens to the others.
--   KEYS     the streams; the channel of each has the same name
--   ARGV     the command that announces, TTL in s, then for each stream: "create fence first-seq bodies" (create is 1
--            if a missing stream is to be created, bodies is their number), body, body, ...
-- Returns for each: 1 appended | 2 already there | 3 fenced: a newer attempt has written | 4 gone: the stream does not
-- exist, or earlier entries of this attempt are missing from it | an error about this key alone. Any other error, such
-- as that of a server that takes no writes, is the reply as a whole; some batches may have been added then.
-- A batch is sent again if its reply was lost. Its ids make the second call a no-op.
local announce, ttl = ARGV[1], ARGV[2]

local function top(key)
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
local function judge(key, create, fence, first, last)
  -- last-generated-id, not the last entry: a takeover may delete that entry, but keeps the id
  local top_fence, top_seq = top(key)
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

-- `at` is the place of the first body in ARGV.
local function append(key, create, fence, first, size, at)
  local last = first + size - 1
  local function add(seq)
    return redis.pcall('XADD', key, fence .. '-' .. seq, 'd', ARGV[at + seq - first])
  end
  -- The common case takes one read: the newest entry is the one right before this batch.
  local from = first
  local newest = first > 1 and redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if not newest or newest[1] ~= fence .. '-' .. (first - 1) then
    local verdict
    verdict, from = judge(key, create, fence, first, last)
    if verdict then return verdict end
  end
  local added = add(from)
  if added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    return judge(key, create, fence, first, last) or added
  end
  for seq = from + 1, last do
    added = add(seq)
    if added.err then return added end
  end
  redis.call('EXPIRE', key, ttl)
  local ids = fence .. '-' .. first .. ' ' .. fence .. '-' .. last .. ' '
  redis.pcall(announce, key, ids .. table.concat(ARGV, '\n', at, at + size - 1))  -- without it, readers find the batch
  return 1
end

local replies, at = {}, 3
for i, key in ipairs(KEYS) do
  local create, fence, first, size = string.match(ARGV[at], '^(%d) (%d+) (%d+) (%d+)$')
  size = tonumber(size)
  local ok, reply = pcall(append, key, create == '1', fence, tonumber(first), size, at + 1)
  if not ok and type(reply) ~= 'table' then reply = {err = tostring(reply)} end
  if type(reply) == 'table' and not string.find(reply.err, 'WRONGTYPE', 1, true) then return reply end
  replies[i] = reply
  at = at + 1 + size
end
return replies

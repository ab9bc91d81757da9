-- turn_settle: removes an entry from a queue if it is still pending with this consumer. All or nothing.
--   KEYS  the queue; optionally the stream to which the entry is added: the same queue, or the dead letters
--   ARGV  group, consumer, entry id, MAXLEN of the second stream (0: no limit), field, value, field, value, ...
-- Returns 1, or 0 if the group is gone or the entry is no longer pending with this consumer, which was taken for dead.
local queue, group, consumer, id, keep = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pending = redis.pcall('XPENDING', queue, group, id, id, 1, consumer)
if pending.err then
  if string.find(pending.err, 'NOGROUP', 1, true) then return 0 end
  return pending
end
if #pending == 0 then return 0 end
if KEYS[2] then
  if keep > 0 then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', keep, '*', unpack(ARGV, 5))
  else
    redis.call('XADD', KEYS[2], '*', unpack(ARGV, 5))
  end
end
redis.call('XACK', queue, group, id)
redis.call('XDEL', queue, id)
return 1

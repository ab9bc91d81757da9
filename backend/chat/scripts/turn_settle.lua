-- turn_settle: takes an entry off a queue, if it is still pending with this consumer; all of it or nothing.
--   KEYS  the queue, where to put the entry again (the queue itself, the dead letters, or none)
--   ARGV  group, consumer, entry id, how many the other may keep (0: all), field, value, field, value, ...
-- Returns 1, or 0 when the entry is no longer this consumer's (it was taken for dead) or the group is gone.
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

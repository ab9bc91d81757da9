-- turn_inherit: moves a dead consumer's pending entries to a living one; removes the dead one when it has none left.
--   KEYS[1]  the queue
--   ARGV     group, the dead consumer, the living one, how many at most
-- Returns the entries, as XCLAIM does. One call, so that two living ones never get the same entry.
local queue, group, dead, living, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local ids, entries = {}, {}
if most > 0 then
  for i, pending in ipairs(redis.call('XPENDING', queue, group, '-', '+', most, dead)) do ids[i] = pending[1] end
end
if #ids > 0 then entries = redis.call('XCLAIM', queue, group, living, 0, unpack(ids)) end
if #redis.call('XPENDING', queue, group, '-', '+', 1, dead) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', queue, group, dead)
end
return entries

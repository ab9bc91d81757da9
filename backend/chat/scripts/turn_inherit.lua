-- turn_inherit: moves pending entries of a dead consumer to a living one. Removes a dead consumer without entries.
--   KEYS[1]  the queue
--   ARGV     group, dead consumer, living consumer, maximal number of entries
-- Returns the entries, as XCLAIM does. Atomic, so that two living consumers never get the same entry.
-- A consumer that leaves calls this with its own name twice and 0 entries: it is removed if nothing is pending with it.
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

-- completion_bury: moves an entry that is pending to the dead letters. All or nothing.
--   KEYS  the completions, the dead letters
--   ARGV  group, entry id, MAXLEN of the dead letters, field, value, field, value, ...
-- Returns 1, or 0 if the entry is no longer pending: another consumer has settled it, or an answer was lost.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1

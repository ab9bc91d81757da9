-- lock_release: deletes the lock if this holder has it.
--   KEYS[1]  the lock
--   ARGV     holder
-- Returns 1 if it was deleted, otherwise 0.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0

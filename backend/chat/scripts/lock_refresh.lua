-- lock_refresh: extends the lock if this holder has it, takes it if it is free.
--   KEYS[1]  the lock
--   ARGV     holder, TTL in ms
-- Returns 1, or 0 if another holder has the lock.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

-- lock_take_over: gives the lock of a dead holder, or a free lock, to a new holder.
--   KEYS[1]  the lock
--   ARGV     dead holder, new holder, TTL in ms
-- Returns 1, or 0 if a third holder has the lock.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1

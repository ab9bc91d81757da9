-- KEYS[1] lock; ARGV[1] the dead holder, ARGV[2] the new one, ARGV[3] its time in ms. 1 if the lock is now the new holder's.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1

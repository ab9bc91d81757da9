-- KEYS[1] lock; ARGV[1] the holder, ARGV[2] its time in ms. Extends the lock if it is the holder's, takes it if it is free.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

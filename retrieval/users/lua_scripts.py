"""Lua scripts that change the state of a user or the dictionary of a collection atomically."""

from __future__ import annotations

# KEYS: id, numbers, items, kinds of the dictionary. ARGV: id of a new dictionary, used if none
# exists; then names, "i" before an item id and "k" before a kind.
# Returns the id, and the number of each name.
NUMBER = """
local id = redis.call('GET', KEYS[1])
if not id then
  id = ARGV[1]
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], id)
end
local answer = {id}
for i = 2, #ARGV do
  local number = redis.call('HGET', KEYS[2], ARGV[i])
  if not number then
    local list = string.sub(ARGV[i], 1, 1) == 'k' and KEYS[4] or KEYS[3]
    number = redis.call('RPUSH', list, string.sub(ARGV[i], 2)) - 1
    redis.call('HSET', KEYS[2], ARGV[i], string.format('%.0f', number))
  end
  answer[i] = tonumber(number)
end
return answer
"""

# KEYS: id, items, kinds of the dictionary. ARGV: count of item numbers; item numbers; kind numbers.
# Returns the id, and the name of each number.
NAME = """
local answer = {redis.call('GET', KEYS[1])}
for i = 2, #ARGV do
  local list = i <= tonumber(ARGV[1]) + 1 and KEYS[2] or KEYS[3]
  answer[i] = redis.call('LINDEX', list, ARGV[i])
end
return answer
"""

# KEYS: state, recent, log, dictionary. ARGV: id of the dictionary; id of the one that it replaces
# (may be empty); SHA-1 of the history and of the recent events that were read; the new history and
# events; seconds to keep each of them; milliseconds to keep a log entry; then for each entry the
# number of its words, and the words.
# Returns 1, or 0 if another writer was faster. It always writes something, so that the WAITAOF that
# follows also covers the data that it found.
RECORD = """
local found = redis.call('GET', KEYS[4]) or 'none'
if found ~= ARGV[1] and found ~= ARGV[2] then return redis.error_reply('DICT ' .. found) end
if redis.sha1hex(redis.call('HGET', KEYS[1], 'h') or '') ~= ARGV[3]
    or redis.sha1hex(redis.call('GET', KEYS[2]) or '') ~= ARGV[4] then
  return 0
end
redis.call('SET', KEYS[4], ARGV[1])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'h', ARGV[5]) end
redis.call('EXPIRE', KEYS[1], ARGV[7])
if ARGV[6] == '' then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], ARGV[6], 'EX', ARGV[8])
end
local i = 10
while i <= #ARGV do
  redis.call('XADD', KEYS[3], '*', unpack(ARGV, i + 1, i + ARGV[i]))
  i = i + ARGV[i] + 1
end
if i > 10 then
  local oldest = redis.call('TIME')[1] * 1000 - ARGV[9]
  redis.call('XTRIM', KEYS[3], 'MINID', '~', string.format('%.0f', oldest))
end
return 1
"""

# KEYS: state, recent, log. ARGV: seconds to remember the deletion.
# Returns its time in microseconds, the deleted history, and the last entry of the log.
ERASE = """
local state = redis.call('HMGET', KEYS[1], 'h', 'x')
local clock = redis.call('TIME')
local time = math.max(clock[1] * 1000000 + clock[2], tonumber(state[2] or '0'))
time = string.format('%.0f', time)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'x', time)
redis.call('EXPIRE', KEYS[1], ARGV[1])
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
return {time, state[1] or '', last and last[1] or '0-0'}
"""

# KEYS: log. ARGV: user id, first and last entry to scan, limit of entries to scan.
# Returns the last entry that was scanned (empty at the end), and the entries of the user.
FIND = """
local entries = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local found = {}
for _, entry in ipairs(entries) do
  if entry[2][1] == 'user' and entry[2][2] == ARGV[1] then found[#found + 1] = entry end
end
return {#entries == tonumber(ARGV[4]) and entries[#entries][1] or '', found}
"""

"""Lua scripts that change the state of a user or the dictionary of a collection atomically."""

from __future__ import annotations

# KEYS: id, generation, numbers, items, kinds of the dictionary; items and kinds under which the
# dictionary that the caller knows is retired. ARGV: id of the dictionary that the caller knows (may
# be empty); id of a new one; seconds that the caller keeps a history; seconds that names are kept
# in addition; names after which a dictionary is replaced; then names, "i" before an item id and "k"
# before a kind.
# A dictionary that is older than any history, or full, is retired by the first caller that knows
# it: no other caller can name the keys. Returns the id, and the number of each name.
NUMBER = """
local now = redis.call('TIME')[1]
local id = redis.call('GET', KEYS[1])
local kept = math.max(tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[2], 'kept') or '0'))
local created = redis.call('HGET', KEYS[2], 'created') or now
if id and id == ARGV[1]
    and (now - created > kept or redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[5])) then
  for i = 4, 5 do
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('RENAME', KEYS[i], KEYS[i + 2])
      redis.call('EXPIRE', KEYS[i + 2], kept + ARGV[4])
    end
  end
  id = false
end
if not id then
  id = ARGV[2]
  kept = tonumber(ARGV[3])
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('SET', KEYS[1], id)
end
redis.call('HSETNX', KEYS[2], 'created', now)
redis.call('HSET', KEYS[2], 'kept', kept)
local answer = {id}
for i = 6, #ARGV do
  local number = redis.call('HGET', KEYS[3], ARGV[i])
  if not number then
    local list = string.sub(ARGV[i], 1, 1) == 'k' and KEYS[5] or KEYS[4]
    number = redis.call('RPUSH', list, string.sub(ARGV[i], 2)) - 1
    redis.call('HSET', KEYS[3], ARGV[i], string.format('%.0f', number))
  end
  answer[i - 4] = tonumber(number)
end
for i = 1, 5 do redis.call('EXPIRE', KEYS[i], kept + ARGV[4]) end
return answer
"""

# KEYS: id, items, kinds of the dictionary; items and kinds of the wanted one if it is retired.
# ARGV: id of the wanted dictionary; count of item numbers; item numbers; kind numbers.
# Returns the name of each number.
NAME = """
local items, kinds = KEYS[4], KEYS[5]
if redis.call('GET', KEYS[1]) == ARGV[1] then items, kinds = KEYS[2], KEYS[3] end
local answer = {}
for i = 3, #ARGV do
  answer[i - 2] = redis.call('LINDEX', i <= ARGV[2] + 2 and items or kinds, ARGV[i])
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

# KEYS: state, recent, log, marks. ARGV: seconds to remember the deletion; digest of the user.
# Returns its time in microseconds, the old history, the last entry of the log, the old attributes.
ERASE = """
local state = redis.call('HMGET', KEYS[1], 'h', 'x', 'a')
local clock = redis.call('TIME')
local time = math.max(clock[1] * 1000000 + clock[2], tonumber(state[2] or '0'))
time = string.format('%.0f', time)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'x', time)
redis.call('EXPIRE', KEYS[1], ARGV[1])
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if last then
  local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local upto = math.max(ms, tonumber(string.match(last[1], '%d+')))
  local oldest = string.format('%.0f', ms - ARGV[1] * 1000)
  redis.call('XADD', KEYS[4], 'MINID', '~', oldest, '*',
    'owner', ARGV[2], 'upto', string.format('%.0f', upto))
  redis.call('EXPIRE', KEYS[4], ARGV[1])
end
return {time, state[1] or '', last and last[1] or '0-0', state[3] or ''}
"""

# KEYS: state. ARGV: packed attributes; seconds to keep the state.
DESCRIBE = """
redis.call('HSET', KEYS[1], 'a', ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
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

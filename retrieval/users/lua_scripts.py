"""Lua scripts that change the state of a user or the dictionary of a collection atomically."""

from __future__ import annotations

# KEYS: id, generation, numbers, items, kinds of the dictionary; items and kinds under which the
# dictionary that the caller knows is retired. ARGV: id of the dictionary that the caller knows (may
# be empty); id of a new one; seconds that the caller keeps a history; seconds that names are kept
# in addition; names after which a dictionary is replaced; a tenant (may be empty), and how many it
# may make up; then names, "i" before an item id, "u" before that of an item that does not exist,
# and "k" before a kind. Fails with QUOTA if the tenant would make up more.
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
local made_up = 'of ' .. ARGV[6]
for i = 8, #ARGV do
  local tag, name = string.sub(ARGV[i], 1, 1), string.sub(ARGV[i], 2)
  local tagged = (tag == 'k' and 'k' or 'i') .. name
  local number = redis.call('HGET', KEYS[3], tagged)
  if not number then
    if ARGV[6] ~= '' and tag ~= 'i' then
      local count = tonumber(redis.call('HGET', KEYS[2], made_up) or '0')
      if count >= tonumber(ARGV[7]) then return redis.error_reply('QUOTA') end
      redis.call('HSET', KEYS[2], made_up, count + 1)
    end
    number = redis.call('RPUSH', tag == 'k' and KEYS[5] or KEYS[4], name) - 1
    redis.call('HSET', KEYS[3], tagged, string.format('%.0f', number))
  end
  answer[i - 6] = tonumber(number)
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

# KEYS: state, recent, log, dictionary, links. ARGV: id of the dictionary; id of the one that it
# replaces (may be empty); SHA-1 of the history and of the recent events that were read; the new
# history and events; seconds to keep each of them; milliseconds to keep a log entry; then for each
# entry the number of its words, and the words.
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
-- The last id of the log, also if that entry was deleted.
local tip = redis.call('EXISTS', KEYS[3]) == 1 and redis.call('XINFO', 'STREAM', KEYS[3])[8]
local back, user, i = redis.call('HGET', KEYS[1], 'l') or '', ARGV[11] == 'user', 10
while i <= #ARGV do
  local words = {unpack(ARGV, i + 1, i + ARGV[i])}
  if user then words[#words + 1], words[#words + 2] = 'back', back end
  back = redis.call('XADD', KEYS[3], '*', unpack(words))
  i = i + ARGV[i] + 1
end
if i > 10 then
  if user then redis.call('HSET', KEYS[1], 'l', back) end
  if redis.call('HGET', KEYS[5], 'last') ~= tip then
    redis.call('HSET', KEYS[5], 'unlinked', tip or '0-0')
  end
  redis.call('HSET', KEYS[5], 'last', back)
  local oldest = redis.call('TIME')[1] * 1000 - ARGV[9]
  redis.call('XTRIM', KEYS[3], 'MINID', '~', string.format('%.0f', oldest))
end
return 1
"""

# KEYS: state, recent, log, marks. ARGV: seconds to remember the deletion; digest of the user.
# Keeps the link to the user's log entries until they are deleted. Returns its time in microseconds,
# the old history, the last log entry of the user (may be empty), the old attributes.
ERASE = """
local state = redis.call('HMGET', KEYS[1], 'h', 'x', 'a', 'l')
local clock = redis.call('TIME')
local time = math.max(clock[1] * 1000000 + clock[2], tonumber(state[2] or '0'))
time = string.format('%.0f', time)
redis.call('DEL', KEYS[2])
redis.call('HDEL', KEYS[1], 'h', 'a')
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
return {time, state[1] or '', state[4] or '', state[3] or ''}
"""

# KEYS: state. ARGV: packed attributes; seconds to keep the state.
DESCRIBE = """
redis.call('HSET', KEYS[1], 'a', ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: state. ARGV: id of a log entry of the user. Removes the link to it, if it is still the last.
UNLINK = """
if redis.call('HGET', KEYS[1], 'l') == ARGV[1] then redis.call('HDEL', KEYS[1], 'l') end
"""

# KEYS: log. ARGV: id of an entry of a user, limit of entries.
# Returns the id of the next one (empty at the end), and this entry and those before it.
FOLLOW = """
local id, found = ARGV[1], {}
while id ~= '' and #found < tonumber(ARGV[2]) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not entry then return {'', found} end
  found[#found + 1] = entry
  id = entry[2][#entry[2]]
end
return {id, found}
"""

# KEYS: log, links. ARGV: first entry to scan, limit of entries, user id.
# Returns the next entry to scan (empty at the end), and the entries of the user without a link. Not
# in reverse: XREVRANGE walks all of a log that begins after the last entry to scan.
FIND = """
local tip = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'STREAM', KEYS[1])[8]
local upto = '+'
if redis.call('HGET', KEYS[2], 'last') == tip then
  upto = redis.call('HGET', KEYS[2], 'unlinked') or '0-0'
end
local entries = redis.call('XRANGE', KEYS[1], ARGV[1], upto, 'COUNT', ARGV[2])
local found = {}
for _, entry in ipairs(entries) do
  local words = entry[2]
  if words[1] == 'user' and words[2] == ARGV[3] and words[#words - 1] ~= 'back' then
    found[#found + 1] = entry
  end
end
return {#entries == tonumber(ARGV[2]) and '(' .. entries[#entries][1] or '', found}
"""

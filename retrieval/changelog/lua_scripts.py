"""Lua scripts that atomically create, append to, and trim one partition of a change log.

Each fails with LOGID and the id found if the partition belongs to another log or does not exist.
Those that a WAITAOF follows always write: it waits for the last write of its connection, and must
also cover what an earlier caller wrote.
"""

from __future__ import annotations

# KEYS: meta, log, versions. ARGV: log id, ids of the logs that it replaces.
CREATE = """
local found = redis.call('HGET', KEYS[1], 'log')
if found == ARGV[1] then
  redis.call('HSET', KEYS[1], 'log', found)
  return 0
end
for i = 2, #ARGV do
  if found == ARGV[i] then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    found = false
  end
end
if found then return redis.error_reply('LOGID ' .. found) end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'log', ARGV[1], 'seq', 0, 'trimmed', 0, 'nonce', ARGV[1], 'time', 0)
return 1
"""

# KEYS: meta, log, versions, and with an idempotency key: done.
# ARGV: log id, nonce, digest of the request, seconds to store its results, replicas that must have
# it before it is acknowledged; then for each write document id, kind (U, D, A), version in the
# snapshot (empty: absent), position up to which the snapshot overrides the log, required version
# (empty: any), effective time (empty: now), change.
# Returns the last number, and a word for each write: outcome (A: applied, R: replaced, D: deleted,
# N: absent, C: conflict, U: this very change of that time exists, S: a later one exists) and
# version.
APPEND = """
local meta = redis.call('HMGET', KEYS[1], 'log', 'seq', 'nonce', 'time')
if meta[1] ~= ARGV[1] then return redis.error_reply('LOGID ' .. (meta[1] or 'none')) end
local done = KEYS[4] and redis.call('GET', KEYS[4])
if done then
  if string.sub(done, 1, #ARGV[3]) ~= ARGV[3] then return redis.error_reply('KEYUSED') end
  redis.call('HSET', KEYS[1], 'seq', meta[2])
  return {meta[2], string.sub(done, #ARGV[3] + 1)}
end
local clock = redis.call('TIME')
local time = math.max(clock[1] * 1000000 + clock[2], tonumber(meta[4]))
time = string.format('%.0f', time)
local seq, nonce, results = tonumber(meta[2]), meta[3], {}
for i = 6, #ARGV, 7 do
  local id, kind, base, asked = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  local as_of = ARGV[i + 5]
  local kept = tonumber(redis.call('HGET', KEYS[3], id) or '0')
  local exists, version
  if math.abs(kept) > tonumber(ARGV[i + 3]) then
    exists, version = kept > 0, math.max(kept, 0)
  else
    exists, version = base ~= '', tonumber(base) or 0
  end
  local outcome
  if as_of ~= '' and kept ~= 0 then
    local number = string.format('%.0f', math.abs(kept)) .. '-0'
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], number, number)) do
      local fields, last = entry[2]
      for f = 1, #fields, 2 do
        if fields[f] == 'as_of' or fields[f] == 'time' and not last then last = fields[f + 1] end
      end
      if tonumber(last) == tonumber(as_of) then outcome = 'U' end
      if tonumber(last) > tonumber(as_of) then outcome = 'S' end
    end
  end
  if outcome then
    version = math.abs(kept)
  elseif asked ~= '' and tonumber(asked) ~= version then
    outcome = 'C'
  elseif kind ~= 'U' and not exists then
    outcome, version = 'N', 0
  else
    seq = seq + 1
    version = seq
    local number = string.format('%.0f', seq)
    local entry = {'id', id, 'change', ARGV[i + 6], 'time', time, 'nonce', ARGV[2], 'before', nonce}
    if as_of ~= '' then
      entry[#entry + 1] = 'as_of'
      entry[#entry + 1] = as_of
    end
    redis.call('XADD', KEYS[2], number .. '-0', unpack(entry))
    redis.call('HSET', KEYS[3], id, kind == 'D' and '-' .. number or number)
    nonce = ARGV[2]
    outcome = kind == 'D' and 'D' or exists and 'R' or 'A'
  end
  results[#results + 1] = outcome .. string.format('%.0f', version)
end
seq = string.format('%.0f', seq)
results = table.concat(results, ' ')
redis.call('HSET', KEYS[1], 'seq', seq, 'nonce', nonce, 'time', time, 'replicas', ARGV[5])
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[3] .. results, 'EX', ARGV[4]) end
return {seq, results}
"""

# KEYS: meta, log, versions. ARGV: log id.
# Returns the last number and its nonce. A WAITAOF says whether they are confirmed.
CONFIRM = """
local meta = redis.call('HMGET', KEYS[1], 'log', 'seq', 'nonce')
if meta[1] ~= ARGV[1] then return redis.error_reply('LOGID ' .. (meta[1] or 'none')) end
redis.call('HSET', KEYS[1], 'seq', meta[2])
return {meta[2], meta[3]}
"""

# KEYS: meta, log, versions. ARGV: log id, last number that is not lost, its nonce (empty: any),
# nonce for the entries that followed; then for each lost entry document id, kind (U, D, A), time,
# nonce, change.
# Inserts the lost entries; those that followed get new numbers after them, unless they are among
# the lost ones. Returns how many these are; nothing happens if the log has the lost entries. Fails
# with DIVERGED if the last entry that is not lost is not there.
RESTORE = """
local meta = redis.call('HMGET', KEYS[1], 'log', 'seq', 'nonce', 'time', 'trimmed')
if meta[1] ~= ARGV[1] then return redis.error_reply('LOGID ' .. (meta[1] or 'none')) end
local after, before, time = tonumber(ARGV[2]), meta[3], tonumber(meta[4])
if after < tonumber(meta[5]) or after > tonumber(meta[2]) then
  return redis.error_reply('DIVERGED')
end
local lost = {}
for i = 5, #ARGV, 5 do lost[ARGV[i] .. ' ' .. ARGV[i + 2]] = ARGV[i + 4] end
local kept, moved, versions = {}, {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
  local number, fields = tonumber(string.match(entry[1], '^%d+')), {}
  for f = 1, #entry[2], 2 do fields[entry[2][f]] = entry[2][f + 1] end
  if number <= after then
    kept[#kept + 1] = entry
    before = fields['nonce']
  else
    if number == after + 1 then
      if fields['nonce'] == ARGV[8] then return 0 end
      before = fields['before']
    end
    -- Of a server that did not have an earlier restoration, some followed the lost ones already.
    if lost[fields['id'] .. ' ' .. fields['time']] ~= fields['change'] then
      moved[#moved + 1] = fields
      local version = tonumber(redis.call('HGET', KEYS[3], fields['id']) or '0')
      if math.abs(version) == number then versions[#moved] = version < 0 and '-' or '' end
    end
  end
end
if ARGV[3] ~= '' and before ~= ARGV[3] then return redis.error_reply('DIVERGED') end
redis.call('DEL', KEYS[2])
for _, entry in ipairs(kept) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
local seq = after
for i = 5, #ARGV, 5 do
  seq = seq + 1
  local number, id = string.format('%.0f', seq), ARGV[i]
  redis.call('XADD', KEYS[2], number .. '-0', 'id', id, 'change', ARGV[i + 4], 'time', ARGV[i + 2],
    'nonce', ARGV[i + 3], 'before', before)
  redis.call('HSET', KEYS[3], id, ARGV[i + 1] == 'D' and '-' .. number or number)
  before, time = ARGV[i + 3], math.max(time, tonumber(ARGV[i + 2]))
end
for i, fields in ipairs(moved) do
  seq = seq + 1
  local number, flat = string.format('%.0f', seq), {}
  fields['before'], fields['nonce'], before = before, ARGV[4], ARGV[4]
  for _, name in ipairs({'id', 'change', 'time', 'nonce', 'before', 'as_of'}) do
    if fields[name] then
      flat[#flat + 1] = name
      flat[#flat + 1] = fields[name]
    end
  end
  redis.call('XADD', KEYS[2], number .. '-0', unpack(flat))
  if versions[i] then redis.call('HSET', KEYS[3], fields['id'], versions[i] .. number) end
end
redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'nonce', before,
  'time', string.format('%.0f', time))
return #moved
"""

# KEYS: meta, log, versions. ARGV: log id, last number to trim, maximum entries per call, a number
# and the nonce that its entry must have (empty: any).
# Returns the number of entries trimmed, and 1 if there are more.
TRIM = """
local meta = redis.call('HMGET', KEYS[1], 'log', 'seq', 'trimmed', 'nonce')
if meta[1] ~= ARGV[1] then return redis.error_reply('LOGID ' .. (meta[1] or 'none')) end
if ARGV[5] ~= '' then
  local found = ARGV[4] == meta[2] and meta[4]
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], ARGV[4] .. '-0', ARGV[4] .. '-0')) do
    for f = 1, #entry[2], 2 do
      if entry[2][f] == 'nonce' then found = entry[2][f + 1] end
    end
  end
  if found ~= ARGV[5] and tonumber(ARGV[4]) > tonumber(meta[3]) then
    return redis.error_reply('DIVERGED')
  end
end
local trimmed, upto = tonumber(meta[3]), math.min(tonumber(ARGV[2]), tonumber(meta[2]))
if upto <= trimmed then return {0, 0} end
local last = math.min(upto, trimmed + tonumber(ARGV[3]))
local lowest = string.format('%.0f', trimmed + 1)
local highest = string.format('%.0f', last)
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], lowest .. '-0', highest .. '-0')) do
  local id, number = entry[2][2], tonumber(string.match(entry[1], '^%d+'))
  local kept = redis.call('HGET', KEYS[3], id)
  if kept and math.abs(tonumber(kept)) == number then redis.call('HDEL', KEYS[3], id) end
end
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', last + 1) .. '-0')
redis.call('HSET', KEYS[1], 'trimmed', highest)
return {last - trimmed, last < upto and 1 or 0}
"""

# KEYS: metas. ARGV: fields. Returns the values of each meta; in one reply instead of 64, since
# each follower of each collection asks every second.
HEADS = """
local heads = {}
for i, meta in ipairs(KEYS) do heads[i] = redis.call('HMGET', meta, unpack(ARGV)) end
return heads
"""

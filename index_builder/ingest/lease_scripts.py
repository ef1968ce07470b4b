"""Lua scripts by which workers lease units of the queue; see `scripts`.

Redis at its memory limit lets a script end if its first write needs no memory, so each begins with
such a write: a full Redis must not end the leases of workers.
"""

from __future__ import annotations

from typing import Final

from index_builder.ingest.script_functions import CLOCK, HOLDS, TRIED

# Leases new units.
# KEYS: meta, tenants, leases, then the three lanes of each tenant. ARGV: worker, maximum number of
# units, milliseconds of the lease; then each tenant, by turn, and the names of its priorities.
# Replies with the name and entry of each unit.
TAKE: Final = (
    CLOCK
    + """
local meta, tenants, leases = KEYS[1], KEYS[2], KEYS[3]
local worker, room, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = {}
local known = (#ARGV - 3) / 4
local share = math.max(1, math.ceil(room / math.max(1, known)))
local function from(number, most)
  local tenant, got = ARGV[4 + (number - 1) * 4], 0
  for p = 1, 3 do
    local lane = KEYS[3 + (number - 1) * 3 + p]
    if got < most and redis.call('EXISTS', lane) == 1 then
      local found = redis.call('XREADGROUP', 'GROUP', 'workers', worker, 'COUNT', most - got,
        'STREAMS', lane, '>')
      for _, entry in ipairs(found and found[1][2] or {}) do
        local name = ARGV[4 + (number - 1) * 4 + p] .. ' ' .. entry[1] .. ' ' .. tenant
        redis.call('ZADD', leases, whole(now_ms + lease_ms), name)
        taken[#taken + 1] = {name, entry[2]}
        got = got + 1
      end
    end
  end
  room = room - got
  if got > 0 then
    -- Each tenant served is charged for its units.
    redis.call('HSET', meta, 'turn', redis.call('ZSCORE', tenants, tenant) or '0')
    redis.call('ZINCRBY', tenants, got, tenant)
  end
  if got < most then redis.call('ZREM', tenants, tenant) end
  return got == most
end
local left = {}
for number = 1, known do left[#left + 1] = number end
-- Each tenant gets its share, then what the others leave over.
while room > 0 and #left > 0 do
  local again = {}
  for _, number in ipairs(left) do
    if room > 0 and from(number, math.min(share, room)) then again[#again + 1] = number end
  end
  left = again
end
return taken
"""
)

# Leases units whose lease has expired or whose retry is due; those with which too many workers were
# lost become suspects instead.
# KEYS: leases, delayed, suspects, tries, then the lane of each unit. ARGV: worker, milliseconds of
# the lease, number of lost workers that makes a suspect; then the name and entry of each unit.
# Replies for each leased unit with its name, entry, number of failures and of lost workers.
RETAKE: Final = (
    CLOCK
    + TRIED
    + """
local leases, delayed, suspects, tries = unpack(KEYS, 1, 4)
local taken = {}
for number = 1, #KEYS - 4 do
  local name, id = ARGV[2 + number * 2], ARGV[3 + number * 2]
  local lane = KEYS[4 + number]
  local lease, delay = redis.call('ZSCORE', leases, name), redis.call('ZSCORE', delayed, name)
  local lost = lease and tonumber(lease) <= now_ms
  if lost or delay and tonumber(delay) <= now_ms then
    local claimed = redis.call('EXISTS', lane) == 1
      and redis.call('XCLAIM', lane, 'workers', ARGV[1], 0, id) or {}
    redis.call('ZREM', delayed, name)
    if claimed[1] then
      local failed, losses = tried(tries, name)
      if lost then
        losses = losses + 1
        redis.call('HSET', tries, name, failed .. ' ' .. losses)
      end
      if losses >= tonumber(ARGV[3]) then
        redis.call('ZREM', leases, name)
        redis.call('ZADD', suspects, whole(now_ms), name)
      else
        redis.call('ZADD', leases, whole(now_ms + ARGV[2]), name)
        taken[#taken + 1] = {name, claimed[1][2], failed, losses}
      end
    else
      redis.call('ZREM', leases, name)
      redis.call('HDEL', tries, name)
    end
  end
end
return taken
"""
)

# Leases a suspect.
# KEYS: leases, suspects, tries, lane. ARGV: worker, milliseconds of the lease, name, entry.
# Replies with its name, entry, number of failures and of lost workers; empty if another worker was
# faster or it was settled.
SUSPECT: Final = (
    CLOCK
    + TRIED
    + """
local leases, suspects, tries, lane = unpack(KEYS)
local worker, lease_ms, name, id = unpack(ARGV)
if redis.call('ZREM', suspects, name) == 0 or redis.call('EXISTS', lane) == 0 then return {} end
local claimed = redis.call('XCLAIM', lane, 'workers', worker, 0, id)
if not claimed[1] then return {} end
local failed, losses = tried(tries, name)
redis.call('ZADD', leases, whole(now_ms + lease_ms), name)
return {name, claimed[1][2], failed, losses}
"""
)

# Extends leases.
# KEYS: leases, then the lane of each unit. ARGV: worker, milliseconds; then the name and entry of
# each unit.
# Replies 1 for each unit that the worker still holds, otherwise 0.
EXTEND: Final = (
    CLOCK
    + HOLDS
    + """
local held = {}
for number = 1, #KEYS - 1 do
  local name, id, lane = ARGV[1 + number * 2], ARGV[2 + number * 2], KEYS[1 + number]
  local mine = holds(KEYS[1], lane, name, id, ARGV[1])
  if mine then
    redis.call('ZREM', KEYS[1], name)
    redis.call('ZADD', KEYS[1], whole(now_ms + ARGV[2]), name)
  end
  held[number] = mine and 1 or 0
end
return held
"""
)

# Gives units back for a retry.
# KEYS: leases, delayed, tries, then the lane of each unit. ARGV: worker; then for each unit its
# name, entry, milliseconds until the retry, and 1 if it failed.
# Replies 1 for each unit that the worker still held, otherwise 0.
GIVE_BACK: Final = (
    CLOCK
    + HOLDS
    + TRIED
    + """
local gave = {}
for number = 1, #KEYS - 3 do
  local at = number * 4
  local name, id, lane = ARGV[at - 2], ARGV[at - 1], KEYS[3 + number]
  local mine = holds(KEYS[1], lane, name, id, ARGV[1])
  if mine then
    redis.call('ZREM', KEYS[1], name)
    redis.call('ZADD', KEYS[2], whole(now_ms + ARGV[at]), name)
    if ARGV[at + 1] == '1' then
      local failed, losses = tried(KEYS[3], name)
      redis.call('HSET', KEYS[3], name, (failed + 1) .. ' ' .. losses)
    end
  end
  gave[number] = mine and 1 or 0
end
return gave
"""
)

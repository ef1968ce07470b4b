"""Lua functions shared by scripts of the queue; each script is prefixed with those it uses."""

from __future__ import annotations

from typing import Final

# The clock.
CLOCK: Final = """
local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)
local function whole(number) return string.format('%.0f', number) end
"""
# Finishes a job when nothing is left of it; its results expire from then on.
FINISH: Final = """
local function finish(job, results)
  local said = redis.call('HMGET', job, 'left', 'open', 'finish', 'ttl_ms')
  if said[1] == '0' and said[2] == '0' and not said[3] then
    redis.call('HSET', job, 'finish', whole(now_us))
    redis.call('PEXPIRE', job, said[4])
    redis.call('PEXPIRE', results, said[4])
  end
end
"""
# Returns whether a worker holds a unit.
HOLDS: Final = """
local function holds(leases, lane, name, id, worker)
  return redis.call('ZSCORE', leases, name) and redis.call('EXISTS', lane) == 1
    and #redis.call('XPENDING', lane, 'workers', id, id, 1, worker) > 0
end
"""
# Returns the number of failures of a unit, and of workers lost with it.
TRIED: Final = """
local function tried(tries, name)
  local failed, losses = string.match(redis.call('HGET', tries, name) or '0 0', '(%d+) (%d+)')
  return tonumber(failed), tonumber(losses)
end
"""
# About how many bytes Redis needs for a unit besides its source, for a dead letter besides its
# source, for a job, and for a result besides its text.
UNIT_BYTES: Final = 512
LETTER_BYTES: Final = 1_024
JOB_BYTES: Final = 1_024
RESULT_BYTES: Final = 128
SIZES: Final = f"local JOB_BYTES, RESULT_BYTES = {JOB_BYTES}, {RESULT_BYTES}\n"
# Returns which limit these additional units and bytes of a tenant would exceed, and its current
# value. letters: Number of dead letters.
ROOM: Final = f"""
local function full(meta, loads, tenant, count, bytes, letters, most_units, most_mine, most_bytes)
  local units = tonumber(redis.call('HGET', meta, 'units') or '0')
  local load = tonumber(redis.call('HGET', loads, tenant) or '0')
  local held = tonumber(redis.call('HGET', meta, 'bytes') or '0')
  held = held + units * {UNIT_BYTES} + letters * {LETTER_BYTES}
  if units + count > tonumber(most_units) then return {{'FULL', units}} end
  if load + count > tonumber(most_mine) then return {{'MINE', load}} end
  local more = bytes + count * {UNIT_BYTES}
  if held + more > tonumber(most_bytes) then return {{'BYTES', held, letters}} end
  local own = tonumber(redis.call('HGET', meta, 'bytes:' .. tenant) or '0') + load * {UNIT_BYTES}
  -- One source is never too large for a share.
  if (load > 1 or count > 1) and (own + more) * 2 > tonumber(most_bytes) then
    return {{'SHARE', own, 0}}
  end
end
"""
# Adds units to the counts.
COUNT: Final = """
local function count_in(meta, loads, tenant, job, count, bytes)
  redis.call('HINCRBY', meta, 'units', count)
  redis.call('HINCRBY', meta, 'bytes', bytes)
  redis.call('HINCRBY', meta, 'bytes:' .. tenant, bytes)
  redis.call('HINCRBY', loads, tenant, count)
  redis.call('HINCRBY', job, 'left', count)
  redis.call('HINCRBY', job, 'documents', count)
end
"""
# Creates a lane, and gives its tenant a turn.
PUT: Final = """
local function put(lane, tenant, tenants, meta)
  if redis.call('EXISTS', lane) == 0 then
    redis.call('XGROUP', 'CREATE', lane, 'workers', '0', 'MKSTREAM')
  end
  if not redis.call('ZSCORE', tenants, tenant) then
    -- It joins at the current turn: unused turns are not saved up.
    local first = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
    local turn = tonumber(first[2] or redis.call('HGET', meta, 'turn') or '0')
    redis.call('ZADD', tenants, turn, tenant)
  end
end
"""
# Deletes a dead letter; returns 1 if it existed.
FORGET: Final = """
local function drop_source(meta, sources, letter)
  local size = redis.call('HSTRLEN', sources, letter)
  if redis.call('HDEL', sources, letter) == 1 then
    redis.call('HINCRBY', meta, 'dead_bytes', -size)
  end
end
local function forget(meta, dead, sources, letter)
  drop_source(meta, sources, letter)
  return redis.call('XDEL', dead, letter)
end
"""
# Keeps the source of a dead letter; the oldest sources make room for it.
KEEP: Final = """
local function keep(meta, dead, sources, letter, source, most)
  if #source > most then return end
  redis.call('HSET', sources, letter, source)
  redis.call('HINCRBY', meta, 'dead_bytes', #source)
  while tonumber(redis.call('HGET', meta, 'dead_bytes')) > most do
    local after = redis.call('HGET', meta, 'dead_from')
    local oldest = redis.call('XRANGE', dead, after and '(' .. after or '-', '+', 'COUNT', 1)[1]
    if not oldest then return end
    drop_source(meta, sources, oldest[1])
    redis.call('HSET', meta, 'dead_from', oldest[1])
  end
end
"""

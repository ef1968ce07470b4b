"""Lua scripts for the atomic operations of the queue; those of leases are in `lease_scripts`.

SUBMIT and CLOSE always write if they succeed: the WAITAOF that follows waits for the last write of
its connection, and must also cover what an earlier caller wrote.

Times are those of Redis: milliseconds for leases and delays, microseconds elsewhere. Numbers are
written with %.0f, since Lua would write large ones with an exponent.
"""

from __future__ import annotations

from typing import Final

from index_builder.ingest.script_functions import (
    CLOCK,
    COUNT,
    FINISH,
    FORGET,
    HOLDS,
    KEEP,
    PUT,
    ROOM,
    SIZES,
)

# Adds sources to a job.
# KEYS: meta, tenants, loads, jobs, open, dead, sources of dead letters, lane, job, results, bytes
# of results, tenants of jobs. ARGV: job id, tenant, collection, priority, callback id, offset, 1 if
# more follow, milliseconds to keep results, limits of units, of the tenant's units and of bytes,
# traceparent of the submission (empty: it is not recorded); then for each source its bytes (empty:
# those of the dead letter), its submission time (empty: now) and the dead letter that it was
# (empty: none).
# Replies OK; GAP and the number of the job's sources; CLOSED; OTHER if the job has another tenant,
# collection or priority; FULL, MINE or BYTES with the current value; LETTER and one that does not
# exist; DROPPED and one whose source was dropped.
SUBMIT: Final = (
    SIZES
    + CLOCK
    + ROOM
    + COUNT
    + FINISH
    + PUT
    + FORGET
    + """
local meta, tenants, loads, jobs, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dead, sources, lane, job, results = unpack(KEYS, 6, 10)
local tenant, offset, more = ARGV[2], tonumber(ARGV[6]), ARGV[7] == '1'
local count = (#ARGV - 12) / 3
local trace = ARGV[12] ~= '' and {'trace', ARGV[12]} or {}
local said = redis.call('HMGET', job, 'sources', 'open', 'tenant', 'collection', 'priority',
  'units')
local known = tonumber(said[1] or '0')
if said[1] then
  if said[3] ~= tenant or said[4] ~= ARGV[3] or said[5] ~= ARGV[4] then return {'OTHER'} end
  if offset + count <= known then
    if offset + count == known and not more and said[2] == '1' then
      -- These were the last sources, which was not known when they came.
      redis.call('HSET', job, 'open', 0, 'update', whole(now_us))
      redis.call('ZREM', open, ARGV[1])
      finish(job, results)
    end
    redis.call('HSET', job, 'tenant', tenant)
    return {'OK'}
  end
  if said[2] ~= '1' then return {'CLOSED'} end
end
if offset ~= known then return {'GAP', known} end
local more_bytes = 0
for i = 13, #ARGV, 3 do
  local letter, size = ARGV[i + 2], #ARGV[i]
  if letter ~= '' then
    if #redis.call('XRANGE', dead, letter, letter) == 0 then return {'LETTER', letter} end
    if size == 0 then
      if redis.call('HEXISTS', sources, letter) == 0 then return {'DROPPED', letter} end
      size = redis.call('HSTRLEN', sources, letter)
    end
  end
  more_bytes = more_bytes + size
end
local refusal = full(meta, loads, tenant, count, more_bytes, redis.call('XLEN', dead), ARGV[9],
  ARGV[10], ARGV[11])
if refusal then return refusal end
if not said[1] then
  redis.call('HSET', job, 'tenant', tenant, 'collection', ARGV[3], 'priority', ARGV[4],
    'callback', ARGV[5], 'ttl_ms', ARGV[8], 'create', whole(now_us), 'left', 0, 'documents', 0,
    'units', 0)
  redis.call('ZADD', jobs, whole(now_us), ARGV[1])
  redis.call('ZADD', jobs .. ':' .. tenant, whole(now_us), ARGV[1])
  redis.call('HSET', KEYS[12], ARGV[1], tenant)
  redis.call('HINCRBY', KEYS[11], ARGV[1], JOB_BYTES)
  redis.call('HINCRBY', meta, 'result_bytes', JOB_BYTES)
end
put(lane, tenant, tenants, meta)
local place = tonumber(said[6] or '0')
local last = tonumber(redis.call('HGET', meta, 'clock') or '0')
for i = 13, #ARGV, 3 do
  local as_of = ARGV[i + 1]
  if as_of == '' then
    last = math.max(now_us, last + 1)
    as_of = whole(last)
  end
  local source, letter = ARGV[i], ARGV[i + 2]
  if letter ~= '' then
    if source == '' then source = redis.call('HGET', sources, letter) end
    forget(meta, dead, sources, letter)
  end
  redis.call('XADD', lane, '*', 'job', ARGV[1], 'place', whole(place), 'as_of', as_of,
    'collection', ARGV[3], 'source', source, unpack(trace))
  place = place + 1
end
redis.call('HSET', meta, 'clock', whole(last))
count_in(meta, loads, tenant, job, count, more_bytes)
redis.call('HSET', job, 'sources', whole(known + count), 'units', whole(place), 'update',
  whole(now_us), 'open', more and 1 or 0)
if more then
  redis.call('ZADD', open, whole(now_us), ARGV[1])
else
  redis.call('ZREM', open, ARGV[1])
end
return {'OK'}
"""
)

# Settles units; only the first settlement of a unit counts.
# KEYS: meta, loads, leases, delayed, suspects, tries, dead, sources of dead letters, bytes of
# results, then lane, job and results of each unit. ARGV: limit of bytes of sources of dead letters,
# bytes of results beyond which only those of dead letters are kept; then for each unit its name,
# entry, tenant, place, outcome, result; if it was indexed also log, partition and version,
# otherwise empty.
# Replies 1 for each unit settled by this call, otherwise 0.
SETTLE: Final = (
    SIZES
    + CLOCK
    + FINISH
    + FORGET
    + KEEP
    + """
local meta, loads, leases, delayed, suspects, tries, dead, sources = unpack(KEYS, 1, 8)
local settled = {}
for number = 1, (#KEYS - 9) / 3 do
  local lane, job, results = unpack(KEYS, 7 + number * 3, 9 + number * 3)
  local name, id, tenant, place, outcome, result, log, partition, version =
    unpack(ARGV, number * 9 - 6, number * 9 + 2)
  local entry = redis.call('EXISTS', lane) == 1 and redis.call('XRANGE', lane, id, id)[1]
  if entry then
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    redis.call('XACK', lane, 'workers', id)
    redis.call('XDEL', lane, id)
    if redis.call('XLEN', lane) == 0 then redis.call('DEL', lane) end
    redis.call('ZREM', leases, name)
    redis.call('ZREM', delayed, name)
    redis.call('ZREM', suspects, name)
    redis.call('HDEL', tries, name)
    redis.call('HINCRBY', meta, 'units', -1)
    redis.call('HINCRBY', meta, 'bytes', -#fields.source)
    redis.call('HINCRBY', meta, 'bytes:' .. tenant, -#fields.source)
    if redis.call('HINCRBY', loads, tenant, -1) <= 0 then
      redis.call('HDEL', loads, tenant)
      redis.call('HDEL', meta, 'bytes:' .. tenant)
    end
    if outcome == 'dead' then
      local about = redis.call('HMGET', job, 'priority', 'callback')
      local letter = redis.call('XADD', dead, '*', 'job', fields.job, 'tenant', tenant,
        'collection', fields.collection, 'priority', about[1] or '', 'callback', about[2] or '',
        'as_of', fields.as_of, 'bytes', #fields.source, 'result', result)
      keep(meta, dead, sources, letter, fields.source, tonumber(ARGV[1]))
    end
    if redis.call('EXISTS', job) == 1 then
      local kept = tonumber(redis.call('HGET', meta, 'result_bytes') or '0')
      if outcome == 'dead' or kept < tonumber(ARGV[2]) then
        redis.call('HSET', results, place, result)
        redis.call('HINCRBY', KEYS[9], fields.job, #result + RESULT_BYTES)
        redis.call('HINCRBY', meta, 'result_bytes', #result + RESULT_BYTES)
      end
      if outcome == 'expanded' then
        redis.call('HINCRBY', job, 'documents', -1)
        redis.call('HDEL', job, 'read:' .. place)
      else
        redis.call('HINCRBY', job, outcome, 1)
      end
      redis.call('HINCRBY', job, 'left', -1)
      redis.call('HSET', job, 'update', whole(now_us))
      if version ~= '' then
        if redis.call('HGET', job, 'log') ~= log then
          -- Positions in a replaced log do not apply to this one.
          for k = 0, 63 do redis.call('HDEL', job, 'at:' .. k) end
          redis.call('HSET', job, 'log', log)
        end
        local at = redis.call('HGET', job, 'at:' .. partition)
        if not at or tonumber(at) < tonumber(version) then
          redis.call('HSET', job, 'at:' .. partition, version)
        end
      end
      finish(job, results)
    end
  end
  settled[number] = entry and 1 or 0
end
return settled
"""
)

# Adds documents of a file to the queue.
# KEYS: meta, tenants, loads, leases, lane, job. ARGV: worker, tenant, name and entry of the file's
# unit, its place, number of its documents added before; limits of units, of the tenant's units and
# of bytes; then for each document its source, and why it is invalid (empty: it is valid).
# Replies with the number of the file's documents in the queue, and 1 if the queue is full for now
# or 0; -1 if the worker no longer holds the file, -2 if its job was cancelled.
EXPAND: Final = (
    CLOCK
    + HOLDS
    + ROOM
    + COUNT
    + PUT
    + """
local meta, tenants, loads, leases, lane, job = unpack(KEYS)
local worker, tenant, name, id, place = unpack(ARGV, 1, 5)
local mine = holds(leases, lane, name, id, worker)
if not mine or redis.call('EXISTS', job) == 0 then return {-1, 0} end
if redis.call('HGET', job, 'cancel') then return {-2, 0} end
local read = tonumber(redis.call('HGET', job, 'read:' .. place) or '0')
if read ~= tonumber(ARGV[6]) then return {read, 0} end
local count, more_bytes = (#ARGV - 9) / 2, 0
for i = 10, #ARGV, 2 do more_bytes = more_bytes + #ARGV[i] end
if full(meta, loads, tenant, count, more_bytes, 0, ARGV[7], ARGV[8], ARGV[9]) then
  return {read, 1}
end
local next_place = tonumber(redis.call('HGET', job, 'units'))
local entry = redis.call('XRANGE', lane, id, id)[1][2]
local file = {}
for i = 1, #entry, 2 do file[entry[i]] = entry[i + 1] end
put(lane, tenant, tenants, meta)
for i = 10, #ARGV, 2 do
  redis.call('XADD', lane, '*', 'job', file.job, 'place', whole(next_place), 'as_of', file.as_of,
    'collection', file.collection, 'source', ARGV[i], 'error', ARGV[i + 1])
  next_place = next_place + 1
end
count_in(meta, loads, tenant, job, count, more_bytes)
redis.call('HSET', job, 'units', whole(next_place), 'read:' .. place, whole(read + count), 'update',
  whole(now_us))
return {read + count, 0}
"""
)

# Marks jobs as running when a worker takes their units.
# KEYS: the jobs. Replies 1 for each that was cancelled, otherwise 0.
BEGIN: Final = """
local cancelled = {}
for number, job in ipairs(KEYS) do
  cancelled[number] = 0
  if redis.call('EXISTS', job) == 1 then
    -- The first write needs no memory, as in `lease_scripts`.
    redis.call('HDEL', job, 'begun')
    redis.call('HSET', job, 'begun', 1)
    if redis.call('HGET', job, 'cancel') then cancelled[number] = 1 end
  end
end
return cancelled
"""

# Forgets jobs that have expired, and if asked those that are finished, with their results. Adds
# those of earlier versions to the jobs of their tenant.
# KEYS: meta, jobs, bytes of results, tenants of jobs, then job and results of each job. ARGV: 1 to
# forget finished ones; then the jobs. Replies with the number of those forgotten.
FORGET_JOBS: Final = """
local forgotten = 0
for number = 2, #ARGV do
  local id, job, results = ARGV[number], KEYS[number * 2 + 1], KEYS[number * 2 + 2]
  local tenant = redis.call('HGET', KEYS[4], id)
  local gone = redis.call('EXISTS', job) == 0
  if gone or ARGV[1] == '1' and redis.call('HEXISTS', job, 'finish') == 1 then
    redis.call('UNLINK', job, results)
    redis.call('HINCRBY', KEYS[1], 'result_bytes', -(redis.call('HGET', KEYS[3], id) or 0))
    redis.call('HDEL', KEYS[3], id)
    redis.call('HDEL', KEYS[4], id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZREM', KEYS[2] .. ':' .. (tenant or ''), id)
    forgotten = forgotten + 1
  elseif not tenant then
    tenant = redis.call('HGET', job, 'tenant') or ''
    redis.call('HSET', KEYS[4], id, tenant)
    redis.call('ZADD', KEYS[2] .. ':' .. tenant, redis.call('ZSCORE', KEYS[2], id), id)
  end
end
return forgotten
"""

# Closes a job for more sources.
# KEYS: open, job, results. ARGV: job id, 1 to cancel its remaining units. Replies 1; 0 if there is
# no such job.
CLOSE: Final = (
    CLOCK
    + FINISH
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'tenant', redis.call('HGET', KEYS[2], 'tenant'))
if redis.call('HEXISTS', KEYS[2], 'finish') == 0 then
  redis.call('HSET', KEYS[2], 'open', 0, 'update', whole(now_us))
  if ARGV[2] == '1' then redis.call('HSET', KEYS[2], 'cancel', 1) end
  finish(KEYS[2], KEYS[3])
end
return 1
"""
)

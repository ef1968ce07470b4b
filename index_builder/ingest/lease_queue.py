"""The queue from a worker's side: units are leased for a time and settled once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from index_builder.ingest import keys, lease_scripts, scripts
from index_builder.ingest.capacity import Capacity
from index_builder.ingest.codec import pack_result, pack_source, unpack_source
from index_builder.ingest.keys import lanes_of, unit_of
from index_builder.ingest.records import (
    ALONE_AFTER,
    ExpansionProgress,
    QueueLimits,
    Settlement,
    Unit,
)
from index_builder.ingest.script_runner import (
    CLOCK,
    NEEDED_BY,
    clock_us,
    open_pipeline,
    run_script,
    to_microseconds,
)
from nearline.contract import IngestResult, IngestSource, SourceFile
from nearline.errors import NearlineError
from nearline.times import from_us
from retrieval.redis_client.connection import Redis, translate_redis_errors

# Maximum number of tenants considered in one call; the tenants whose turn is next come first.
_MAX_TENANTS = 16
_PRIORITIES = [one.value for one in keys.PRIORITIES]


class LeaseQueue:
    """Leases units to one worker, and settles them.

    After a lease expires, another worker may take the unit. Two workers may thus process a unit,
    but it is settled once.

    Args:
        client: Redis.
        worker_id: Unique name of the worker.
        lease_s: Length of a lease.
        limits: Capacity of the queue.
    """

    def __init__(self, client: Redis, worker_id: str, lease_s: float, limits: QueueLimits) -> None:
        self._client = client
        self._worker_id = worker_id
        self._lease_ms = int(lease_s * 1_000)
        self._capacity = Capacity(client, limits)

    async def take(self, limit: int) -> list[Unit]:
        """Leases up to `limit` units: first expired leases and due retries, then new units.

        Units with which `ALONE_AFTER` workers were lost are left to `take_suspect`. New units are
        shared equally among tenants; within a tenant, higher priorities come first.

        Raises: NotReady: Redis is unavailable.
        """
        due, tenants = await self._look(limit)
        taken = await self._retake(due) if due else []
        if tenants and len(taken) < limit:
            taken += await self._take(tenants, limit - len(taken))
        return taken

    async def has_suspects(self) -> bool:
        """Returns whether suspects wait for `take_suspect`. Raises: NotReady."""
        async with translate_redis_errors(NEEDED_BY):
            return bool(await self._client.zcard(keys.SUSPECTS))

    async def take_suspect(self) -> Unit | None:
        """Leases one suspect; None if none waits. The worker must hold nothing else.

        Raises: NotReady: Redis is unavailable.
        """
        while True:
            async with translate_redis_errors(NEEDED_BY):
                names: Any = await self._client.zrange(keys.SUSPECTS, 0, 0)
            if not names:
                return None
            name = names[0].decode()
            lane, entry = unit_of(name)
            taken = await run_script(
                self._client,
                lease_scripts.SUSPECT,
                [keys.LEASES, keys.SUSPECTS, keys.TRIES, lane.key],
                [self._worker_id, self._lease_ms, name, entry],
            )
            if taken:
                return _unit(*taken)

    async def extend(self, units: Sequence[Unit]) -> list[Unit]:
        """Extends leases; returns the units that this worker no longer holds.

        Raises: NotReady: Redis is unavailable.
        """
        if not units:
            return []
        words = chain.from_iterable((one.name, one.entry) for one in units)
        held = await run_script(
            self._client,
            lease_scripts.EXTEND,
            [keys.LEASES, *(one.lane.key for one in units)],
            [self._worker_id, self._lease_ms, *words],
        )
        return [one for one, mine in zip(units, held, strict=True) if not mine]

    async def give_back(self, units: Mapping[Unit, float] | Sequence[Unit], *, failed: bool) -> int:
        """Returns units to the queue for a retry; returns how many this worker still held.

        Args:
            units: Seconds until each may be retried; a plain sequence means immediately.
            failed: Whether this counts as a failure of the units.
        Raises: NotReady: Redis is unavailable.
        """
        if not units:
            return 0
        waits = units if isinstance(units, Mapping) else dict.fromkeys(units, 0.0)
        words: list[str | int] = []
        for one, wait_s in waits.items():
            words += [one.name, one.entry, int(wait_s * 1_000), int(failed)]
        gave = await run_script(
            self._client,
            lease_scripts.GIVE_BACK,
            [keys.LEASES, keys.DELAYED, keys.TRIES, *(one.lane.key for one in waits)],
            [self._worker_id, *words],
        )
        return sum(gave)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Settles units with their outcomes; returns those that were not settled before.

        Raises: NotReady: Redis is unavailable; the units may have been settled.
        """
        if not settlements:
            return []
        now = from_us(await clock_us(self._client))
        names = [keys.META, keys.LOADS, keys.LEASES, keys.DELAYED, keys.SUSPECTS]
        names += [keys.TRIES, keys.DEAD, keys.DEAD_SOURCES, keys.RESULT_BYTES]
        limits = await self._capacity.limits()
        words: list[str | bytes | int] = [limits.dead_bytes, 2 * limits.result_bytes]
        for one in settlements:
            unit = one.unit
            names += [unit.lane.key, keys.job_key(unit.job_id), keys.results_key(unit.job_id)]
            result = IngestResult(
                place=unit.place,
                document_id=one.document_id,
                outcome=one.outcome,
                version=0 if one.indexed is None else one.indexed.version,
                attempts=unit.failed + 1,
                reason=one.reason,
                message=one.message,
                time=now,
            )
            words += [unit.name, unit.entry, unit.lane.tenant, unit.place, one.outcome.value]
            words += [pack_result(result), *(one.indexed or ("", "", ""))]
        first_time = await run_script(self._client, scripts.SETTLE, names, words)
        return [one for one, first in zip(settlements, first_time, strict=True) if first]

    async def expand(
        self, unit: Unit, read: int, documents: Sequence[tuple[IngestSource, str]]
    ) -> ExpansionProgress | None:
        """Appends documents of a file to the queue.

        Args:
            unit: The file, held by this worker.
            read: Number of the file's documents already in the queue.
            documents: The next documents, each with the reason why it is invalid, empty if it is
                valid.
        Returns: The progress of the file, which may be beyond these documents if another worker was
            faster. None if this worker no longer holds the file, or the job was cancelled.
        Raises: NotReady: Redis is unavailable; repeat the call with the same arguments.
        """
        limits = await self._capacity.limits()
        words: list[str | bytes | int] = []
        for source, error in documents:
            words += [pack_source(source), error]
        lane = unit.lane
        reached, full = await run_script(
            self._client,
            scripts.EXPAND,
            [
                *(keys.META, keys.TENANTS, keys.LOADS, keys.LEASES),
                *(lane.key, keys.job_key(unit.job_id)),
            ],
            [
                *(self._worker_id, lane.tenant, unit.name, unit.entry, unit.place, read),
                *(limits.units, limits.tenant_units, limits.bytes, *words),
            ],
        )
        return None if reached < 0 else ExpansionProgress(reached, bool(full))

    async def read_so_far(self, unit: Unit) -> int:
        """Returns the number of a file's documents that are in the queue.

        Raises: NotReady: Redis is unavailable.
        """
        async with translate_redis_errors(NEEDED_BY):
            read = await self._client.hget(keys.job_key(unit.job_id), f"read:{unit.place}")
        return int(read or 0)

    async def begin(self, job_ids: Iterable[str]) -> set[str]:
        """Marks jobs as running; returns those that were cancelled.

        Raises: NotReady: Redis is unavailable.
        """
        names = list(dict.fromkeys(job_ids))
        if not names:
            return set()
        answer = await run_script(
            self._client, scripts.BEGIN, [keys.job_key(one) for one in names], []
        )
        return {one for one, cancelled in zip(names, answer, strict=True) if cancelled}

    async def _look(self, limit: int) -> tuple[list[str], list[str]]:
        """Returns units with expired leases or due retries, and the tenants whose turn is next."""
        async with open_pipeline(self._client) as pipe:
            pipe.eval(CLOCK, 1, keys.META)
            pipe.zrange(keys.LEASES, 0, limit - 1, withscores=True)
            pipe.zrange(keys.DELAYED, 0, limit - 1, withscores=True)
            pipe.zrange(keys.TENANTS, 0, _MAX_TENANTS - 1)
            replies, leased, delayed, waiting = await pipe.execute()
        now_ms = to_microseconds(replies) // 1_000
        due = [name.decode() for name, at_ms in (*leased, *delayed) if at_ms <= now_ms]
        return due[:limit], [one.decode() for one in waiting]

    async def _retake(self, names: Sequence[str]) -> list[Unit]:
        units = [unit_of(one) for one in names]
        words = chain.from_iterable(
            (name, entry) for name, (_, entry) in zip(names, units, strict=True)
        )
        taken = await run_script(
            self._client,
            lease_scripts.RETAKE,
            [
                keys.LEASES,
                keys.DELAYED,
                keys.SUSPECTS,
                keys.TRIES,
                *(lane.key for lane, _ in units),
            ],
            [self._worker_id, self._lease_ms, ALONE_AFTER, *words],
        )
        return [_unit(*one) for one in taken]

    async def _take(self, tenants: Sequence[str], limit: int) -> list[Unit]:
        lanes = chain.from_iterable(lanes_of(one) for one in tenants)
        words = chain.from_iterable((one, *_PRIORITIES) for one in tenants)
        taken = await run_script(
            self._client,
            lease_scripts.TAKE,
            [keys.META, keys.TENANTS, keys.LEASES, *(one.key for one in lanes)],
            [self._worker_id, limit, self._lease_ms, *words],
        )
        return [_unit(name, fields) for name, fields in taken]


def _unit(name: bytes, fields: Sequence[bytes], failed: int = 0, losses: int = 0) -> Unit:
    lane, entry = unit_of(name.decode())
    replies: dict[bytes, Any] = dict(zip(fields[::2], fields[1::2], strict=True))
    error = replies.get(b"error", b"").decode()
    try:
        source = unpack_source(replies[b"source"])
    except NearlineError as unreadable:
        # A malformed unit must not block the units leased with it.
        source, error = SourceFile("", b""), unreadable.message
    return Unit(
        lane=lane,
        entry=entry,
        job_id=replies[b"job"].decode(),
        collection=replies[b"collection"].decode(),
        place=int(replies[b"place"]),
        as_of=from_us(int(replies[b"as_of"])),
        source=source,
        error=error,
        failed=failed,
        losses=losses,
        trace=replies.get(b"trace", b"").decode(errors="replace"),
    )

"""The queue as workers see it: units taken for a time, and settled once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from index_builder.ingest import keys, scripts
from index_builder.ingest.codec import pack_result, pack_source, unpack_source
from index_builder.ingest.keys import lanes_of, unit_of
from index_builder.ingest.records import ExpansionProgress, QueueLimits, Settlement, Unit
from index_builder.ingest.script_runner import NEEDED_BY, clock_us, run_script, to_microseconds
from nearline.contract import IngestResult, IngestSource, SourceFile
from nearline.errors import NearlineError
from nearline.times import from_us
from retrieval.redis_client.connection import Redis, translate_redis_errors

# Tenants whose turn comes next; the others have theirs later.
_TENANTS_AT_ONCE = 16
_PRIORITIES = [one.value for one in keys.PRIORITIES]


class LeaseQueue:
    """Takes units and settles them, for one worker.

    A unit that was taken is this worker's until its lease is over; then another one may take it. It
    may so be worked on twice, but is settled once.

    Args:
        client: Redis.
        worker_id: Name of the worker, of no other one.
        lease_s: Length of a lease.
        limits: How much the queue takes.
    """

    def __init__(self, client: Redis, worker_id: str, lease_s: float, limits: QueueLimits) -> None:
        self._client = client
        self._worker_id = worker_id
        self._lease_ms = int(lease_s * 1_000)
        self._limits = limits

    async def take(self, most: int) -> list[Unit]:
        """Takes up to so many units: first those that were taken before, then new ones.

        Of the new ones every tenant gets an equal share; within it those of a higher priority come
        first.

        Raises: NotReady: Redis is away.
        """
        due, tenants = await self._look(most)
        taken = await self._retake(due) if due else []
        if tenants and len(taken) < most:
            taken += await self._take(tenants, most - len(taken))
        return taken

    async def extend(self, units: Sequence[Unit]) -> list[Unit]:
        """Lengthens leases; gives the units that are no longer this worker's.

        Raises: NotReady: Redis is away.
        """
        if not units:
            return []
        words = chain.from_iterable((one.name, one.entry) for one in units)
        held = await run_script(
            self._client,
            scripts.EXTEND,
            [keys.LEASES, *(one.lane.key for one in units)],
            [self._worker_id, self._lease_ms, *words],
        )
        return [one for one, mine in zip(units, held, strict=True) if not mine]

    async def give_back(self, units: Mapping[Unit, float] | Sequence[Unit], *, failed: bool) -> int:
        """Returns units back, to be tried again; gives how many were still this worker's.

        Args:
            units: Seconds until each may be tried again; without them it may be at once.
            failed: Whether that counts as a failure of theirs.
        Raises: NotReady: Redis is away.
        """
        if not units:
            return 0
        waits = units if isinstance(units, Mapping) else dict.fromkeys(units, 0.0)
        words: list[str | int] = []
        for one, wait_s in waits.items():
            words += [one.name, one.entry, int(wait_s * 1_000), int(failed)]
        gave = await run_script(
            self._client,
            scripts.GIVE_BACK,
            [keys.LEASES, keys.DELAYED, keys.TRIES, *(one.lane.key for one in waits)],
            [self._worker_id, *words],
        )
        return sum(gave)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Ends units, and says what became of them; gives those that nobody had ended before.

        Raises: NotReady: Redis is away; whether they have ended is not known.
        """
        if not settlements:
            return []
        async with translate_redis_errors(NEEDED_BY):
            now = from_us(await clock_us(self._client))
        names = [keys.META, keys.LOADS, keys.LEASES, keys.DELAYED, keys.TRIES, keys.DEAD]
        words: list[str | bytes | int] = []
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
        done = await run_script(self._client, scripts.SETTLE, names, words)
        return [one for one, first in zip(settlements, done, strict=True) if first]

    async def expand(
        self, unit: Unit, read: int, documents: Sequence[tuple[IngestSource, str]]
    ) -> ExpansionProgress | None:
        """Puts documents of a file into the queue, behind those that it has.

        Args:
            unit: The file, held by this worker.
            read: Documents of it that the queue has taken.
            documents: The next of them, each with why it can be none (empty: it can).
        Returns: How far they are in the queue, which is further than these where another worker
            was faster. None: the file is no longer this worker's, or its job was cancelled.
        Raises: NotReady: Redis is away; ask again with the same.
        """
        limits = self._limits
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
        """Returns how many documents of a file the queue has taken.

        Raises: NotReady: Redis is away.
        """
        async with translate_redis_errors(NEEDED_BY):
            read = await self._client.hget(keys.job_key(unit.job_id), f"read:{unit.place}")
        return int(read or 0)

    async def begin(self, job_ids: Iterable[str]) -> set[str]:
        """Notes that jobs have begun; gives those that were cancelled.

        Raises: NotReady: Redis is away.
        """
        names = list(dict.fromkeys(job_ids))
        answer = await run_script(
            self._client, scripts.BEGIN, [keys.job_key(one) for one in names], []
        )
        return {one for one, cancelled in zip(names, answer, strict=True) if cancelled}

    async def _look(self, most: int) -> tuple[list[str], list[str]]:
        """Returns units that were taken before and are due, and the tenants whose turn comes
        next."""
        async with (
            translate_redis_errors(NEEDED_BY),
            self._client.pipeline(transaction=False) as pipe,
        ):
            pipe.time()
            pipe.zrange(keys.LEASES, 0, most - 1, withscores=True)
            pipe.zrange(keys.DELAYED, 0, most - 1, withscores=True)
            pipe.zrange(keys.TENANTS, 0, _TENANTS_AT_ONCE - 1)
            said, leased, delayed, waiting = await pipe.execute()
        now_ms = to_microseconds(said) // 1_000
        due = [name.decode() for name, at_ms in (*leased, *delayed) if at_ms <= now_ms]
        return due[:most], [one.decode() for one in waiting]

    async def _retake(self, names: Sequence[str]) -> list[Unit]:
        units = [unit_of(one) for one in names]
        words = chain.from_iterable(
            (name, entry) for name, (_, entry) in zip(names, units, strict=True)
        )
        taken = await run_script(
            self._client,
            scripts.RETAKE,
            [keys.LEASES, keys.DELAYED, keys.TRIES, *(lane.key for lane, _ in units)],
            [self._worker_id, self._lease_ms, *words],
        )
        return [_unit(*one) for one in taken]

    async def _take(self, tenants: Sequence[str], most: int) -> list[Unit]:
        lanes = chain.from_iterable(lanes_of(one) for one in tenants)
        words = chain.from_iterable((one, *_PRIORITIES) for one in tenants)
        taken = await run_script(
            self._client,
            scripts.TAKE,
            [keys.META, keys.TENANTS, keys.LEASES, *(one.key for one in lanes)],
            [self._worker_id, most, self._lease_ms, *words],
        )
        return [_unit(name, fields) for name, fields in taken]


def _unit(name: bytes, fields: Sequence[bytes], failed: int = 0, losses: int = 0) -> Unit:
    lane, entry = unit_of(name.decode())
    said: dict[bytes, Any] = dict(zip(fields[::2], fields[1::2], strict=True))
    error = said.get(b"error", b"").decode()
    try:
        source = unpack_source(said[b"source"])
    except NearlineError as unreadable:
        # It must not hold up those that were taken with it.
        source, error = SourceFile("", b""), unreadable.message
    return Unit(
        lane=lane,
        entry=entry,
        job_id=said[b"job"].decode(),
        collection=said[b"collection"].decode(),
        place=int(said[b"place"]),
        as_of=from_us(int(said[b"as_of"])),
        source=source,
        error=error,
        failed=failed,
        losses=losses,
    )

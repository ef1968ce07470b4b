"""`nearline bench upkeep`: from drift to a promoted snapshot, and from drift to a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import NearlineError, NotReady
from nearline.store.snapshot import Store
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import (
    ServiceProcess,
    redis_process,
    retrieval_process,
    service_process,
)
from nearline_cli.terminal.output import JsonFlag, print_figures
from retrieval.snapshots.gate_reports import newest_number, require_gate_pass
from retrieval.snapshots.proposals import ProposalState, newest_proposal

_DIM = 32
_GROUPS = 8
_COLLECTION = c.DEFAULT_COLLECTION
_Matrix = NDArray[np.float32]


class UpkeepBench(NamedTuple):
    """Options of the benchmark."""

    items: Annotated[int, typer.Option(min=1_000, help="Items of the collection.")] = 5_000
    searches: Annotated[float, typer.Option(min=1, help="Searches per second.")] = 200.0
    window_s: Annotated[
        float, typer.Option("--window", min=0.5, help="Seconds of a window of drift.")
    ] = 2.0
    trial_s: Annotated[float, typer.Option("--trial", min=1, help="Seconds of the trial.")] = 15.0
    trial_requests: Annotated[
        int, typer.Option(min=1, help="Requests that the new snapshot must answer on trial.")
    ] = 200
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=10, help="Seconds for each of the two runs.")
    ] = 180.0
    seed: Annotated[int, typer.Option(help="Seed of vectors and searches.")] = 0


@dataclass(slots=True)
class _Searches:
    """Outcomes of the searches; answers by snapshot. groups: Groups that are searched now."""

    groups: tuple[int, ...]
    answers: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


def bench_upkeep(*, bench: UpkeepBench, as_json: JsonFlag = False) -> None:
    """Let searches drift under load, and wait until upkeep has acted on it.

    For example: nearline bench upkeep --searches 200

    Searches ask for half of the groups of items, then for the other half. The router notices and
    asks for a rebuild; upkeep builds a snapshot, asks the release gate, tries it on a share of the
    searches, and promotes it. In a second run, a broken feed has overwritten most of the items
    meanwhile: the gate must refuse the snapshot. No search may fail in either. Times are in
    seconds since the drift began.
    """
    for scenario in (_promotion, _refusal):
        with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
            record = asyncio.run(scenario(Path(folder), bench))
        print_figures(record, as_json=as_json)


async def _promotion(folder: Path, bench: UpkeepBench) -> dict[str, object]:
    async with _world(folder, bench) as world:
        await world.settle()
        world.drift()
        since = time.monotonic()
        await world.until(lambda: world.state() is ProposalState.ON_TRIAL)
        on_trial_s = time.monotonic() - since
        await world.until(lambda: world.state() is ProposalState.PROMOTED)
        promoted_s = time.monotonic() - since
        record = world.store.alias_in_force(_COLLECTION)
    return {
        "run": "promotion",
        "on_trial_s": round(on_trial_s, 1),
        "promoted_s": round(promoted_s, 1),
        **world.figures(),
        "gate_passed": record.gate.passed,
        "why": record.why,
    }


async def _refusal(folder: Path, bench: UpkeepBench) -> dict[str, object]:
    async with _world(folder, bench) as world:
        before = world.store.alias_in_force(_COLLECTION)
        await world.settle()
        await world.break_feed()
        world.drift()
        since = time.monotonic()
        await world.until(lambda: bool(world.refused()))
        refused_s = round(time.monotonic() - since, 1)
        await world.until(lambda: "refuses to serve it" in "".join(world.upkeep.log))
        record = world.store.alias_in_force(_COLLECTION)
    return {
        "run": "refusal",
        "refused_s": refused_s,
        **world.figures(),
        "still_current": record.current == before.current and not record.canary,
        "failed_checks": world.refused(),
    }


class _World:
    """A router and upkeep over one collection, and searches that never pause.

    upkeep: Its process.
    """

    def __init__(
        self,
        store: Store,
        bench: UpkeepBench,
        vectors: _Matrix,
        client: RetrievalClient,
        upkeep: ServiceProcess,
    ) -> None:
        self.store = store
        self.upkeep = upkeep
        self._first = store.alias_in_force(_COLLECTION).current
        self._bench = bench
        self._vectors = vectors
        self._client = client
        self._rng = np.random.default_rng(bench.seed + 1)
        self._searches = _Searches(tuple(range(_GROUPS // 2)))

    async def search(self) -> None:
        """Searches until cancelled."""
        await run_open_loop(self._bench.searches, itertools.count(), self._send)

    async def settle(self) -> None:
        """Waits until the router knows what is asked at first. Raises: NotReady: upkeep acts."""
        # The first 1,000 searches, and a window to compare them with.
        settled = 1_000 + 2 * self._bench.searches * self._bench.window_s
        await self.until(lambda: self._searches.answers.total() >= settled)
        if self.state() is not None or self.refused():
            raise NotReady("upkeep acted before anything had drifted; is --window too short?")

    def drift(self) -> None:
        """From now on, searches ask for the other groups."""
        self._searches.groups = tuple(range(_GROUPS // 2, _GROUPS))

    async def break_feed(self) -> None:
        """Overwrites two thirds of the items with the vector of another item."""
        wrong = 2 * len(self._vectors) // 3
        for first in range(0, wrong, 500):
            rows = range(first, min(first + 500, wrong))
            items = [c.Item(id=f"i{row}", vector=self._vectors[-1 - row]) for row in rows]
            await self._client.upsert_items(items, timeout_s=30.0)

    async def until(self, done: Callable[[], bool]) -> None:
        """Waits for a condition. Raises: NotReady: it takes too long; has the log of upkeep."""
        try:
            async with asyncio.timeout(self._bench.timeout_s):
                while not await asyncio.to_thread(done):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            tail = "\n".join(list(self.upkeep.log)[-10:])
            raise NotReady(f"upkeep has not acted in time; its last lines:\n{tail}") from None

    def state(self) -> ProposalState | None:
        """Returns the state of the newest proposal."""
        found = newest_proposal(self.store, _COLLECTION)
        return None if found is None else found.state

    def refused(self) -> list[str]:
        """Returns the failed checks of the newest snapshot that the gate refused."""
        newest = next(iter(self.store.snapshot_ids(_COLLECTION)))
        if newest == self._first or not newest_number(self.store, _COLLECTION, newest):
            return []
        verdict, _ = require_gate_pass(self.store, _COLLECTION, newest, forced_because="looked at")
        return list(verdict.failed)

    def figures(self) -> dict[str, object]:
        """Returns the numbers of searches."""
        answers = self._searches.answers
        return {
            "searches": answers.total(),
            "failed": self._searches.failed.total(),
            "answered_by_the_new_one": answers.total() - answers[self._first],
        }

    async def _send(self, number: int, due: float) -> None:
        groups = self._searches.groups
        # At random: the router samples every n-th search, which would all be of one group in turn.
        group = groups[int(self._rng.integers(len(groups)))]
        row = group + _GROUPS * int(self._rng.integers(len(self._vectors) // _GROUPS))
        try:
            query = c.Query(vector=self._vectors[row] + 0.01)
            reply = await self._client.search(query, c.SearchOptions(k=10), timeout_s=5.0)
        except NearlineError as error:
            self._searches.failed[type(error).__name__] += 1
        else:
            self._searches.answers[reply.info.snapshot_id] += 1


@contextlib.asynccontextmanager
async def _world(folder: Path, bench: UpkeepBench) -> AsyncIterator[_World]:
    store = folder / "store"
    vectors = _grouped(bench.items, np.random.default_rng(bench.seed))
    await _build(store, vectors)
    upkeep = [
        *("--store", str(store), "--every-s", "0.5", "--releases", "auto"),
        *("--share", "10", "--golden-queries", "50"),
        *("--trial-age", f"{bench.trial_s}s", "--trial-requests", str(bench.trial_requests)),
    ]
    router = [
        *("--drift-window-s", str(bench.window_s), "--drift-sample", "1"),
        *("--drift-rebuild", "0.1"),
    ]
    async with (
        redis_process(folder / "redis") as url,
        retrieval_process(store, [*router, "--redis", url]) as served,
        RetrievalClient(served.address) as client,
        service_process(
            "index_builder.maintenance",
            [*upkeep, "--redis", url, "--retrieval", served.address],
        ) as maintenance,
    ):
        world = _World(Store.open(str(store)), bench, vectors, client, maintenance)
        # The first change makes the change log, which upkeep maintains.
        await client.upsert_items([c.Item(id="i0", vector=vectors[0])], timeout_s=30.0)
        searches = asyncio.create_task(world.search())
        try:
            yield world
        finally:
            searches.cancel()
            await asyncio.wait((searches,))


def _grouped(count: int, rng: np.random.Generator) -> _Matrix:
    """Returns (count, 32) unit vectors around eight centres; row r belongs to group r % 8."""
    centres = rng.standard_normal((_GROUPS, _DIM))
    found = centres[np.arange(count) % _GROUPS] + 0.5 * rng.standard_normal((count, _DIM))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / lengths, np.float32)


async def _build(store: Path, vectors: _Matrix) -> None:
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    items = [c.Item(id=f"i{row}", vector=vector) for row, vector in enumerate(vectors)]
    await build_snapshot(items, BuildOptions(store=str(store), golden_queries=50, lexical=False))

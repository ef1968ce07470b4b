"""Requests of all kinds, kept up while faults happen; those that fail are part of the picture."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.sight_parts.deployment import Deployment
from nearline import Item, Query, RetrievalClient, SearchOptions
from nearline.clients import GenerationClient, IngestClient
from nearline.contract import Audience, Interaction, Question, SearchMode, SourceFile
from nearline.errors import NearlineError

_WORDS = ("compress a file", "parse a date", "open a socket", "sort a list", "read lines", "thread")
_DIMENSIONS = 384
_SEARCHERS = 6
_FLOOD = 100
_PAUSE_S = 0.5


class AllCallers:
    """Callers of a deployment.

    Args:
        deployment: The deployment.
        ids: Ids of its items.
        authority: Certificate that signs those of the services.
    """

    def __init__(self, deployment: Deployment, ids: Sequence[str], authority: Path) -> None:
        self._ids = ids
        self._dice = random.Random(1)
        self._numbers = np.random.default_rng(1)
        self._router = RetrievalClient(deployment.address)
        self._ingest = IngestClient(deployment.address)
        self._generation = GenerationClient(deployment.address)
        self._http = httpx2.AsyncClient(
            base_url=deployment.http, verify=str(authority), trust_env=False, timeout=10
        )
        self._count = itertools.count()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps up the load for the duration of the block."""
        searchers = [(self._search, 0.0)] * _SEARCHERS
        callers = [*searchers, (self._list, 0.02), (self._write, 0.2), (self._interact, 0.3)]
        callers += [(self._ask, _PAUSE_S), (self._submit, _PAUSE_S), (self._browse, 0.1)]
        tasks = [asyncio.create_task(_repeat(call, pause_s)) for call, pause_s in callers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for client in (self._router, self._ingest, self._generation):
                await client.close()
            await self._http.aclose()

    @contextlib.asynccontextmanager
    async def flood(self) -> AsyncIterator[None]:
        """Sends more searches at once than may run, for the duration of the block."""
        tasks = [asyncio.create_task(_repeat(self._hurry, 0.0)) for _ in range(_FLOOD)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def submit_poison(self) -> None:
        """Submits a document that cannot be indexed."""
        with contextlib.suppress(NearlineError):
            await self._ingest.submit([SourceFile("broken.pdf", b"%PDF-1.4 and nothing else")])

    def _vector(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return self._numbers.standard_normal(_DIMENSIONS).astype(np.float32)

    async def _hurry(self) -> None:
        options = SearchOptions(k=100, ef_search=600)
        await self._router.search(Query(vector=self._vector()), options, timeout_s=0.5)

    async def _search(self) -> None:
        at = next(self._count) % 10
        if at < 3:
            text = f"{self._dice.choice(_WORDS)} {self._dice.choice(_WORDS)}"
            mode = SearchMode.HYBRID if at else SearchMode.DENSE
            await self._router.search(Query(text=text), SearchOptions(mode=mode), timeout_s=2)
        elif at < 9:
            await self._router.search(Query(vector=self._vector()), timeout_s=2)
        else:
            options = SearchOptions(filter='kind = "class"')
            await self._router.search(Query(vector=self._vector()), options, timeout_s=2)

    async def _list(self) -> None:
        audience = Audience(user_id=f"u{self._dice.randrange(150)}")
        if self._dice.random() < 0.5:
            audience = Audience(item_ids=(self._dice.choice(self._ids[:50]),))
        await self._router.recommend(audience, timeout_s=2)

    async def _write(self) -> None:
        number = next(self._count)
        item = Item(id=f"new{number % 400}", title="a new item", text=f"It is item {number}.")
        await self._router.upsert_items([item], timeout_s=5)

    async def _interact(self) -> None:
        # Not what the snapshot has learned: popularity drifts.
        seen = [
            Interaction(item_id=item, user_id=f"u{self._dice.randrange(150)}")
            for item in self._dice.choices(self._ids[-20:], k=50)
        ]
        await self._router.record_interactions(seen, timeout_s=5)

    async def _ask(self) -> None:
        number = next(self._count) % 3
        text = ("What compresses a file?", "Why do threads need a lock?", "compare list and tuple")
        question = Question(text=text[number], backend=("", "small", "large")[number])
        async for _ in self._generation.generate(question, timeout_s=15):
            pass

    async def _submit(self) -> None:
        number = next(self._count)
        item = Item(id=f"queued{number % 100}", title="a queued item", text=f"Number {number}.")
        await self._ingest.submit([item], timeout_s=5)

    async def _browse(self) -> None:
        body = {"query": {"text": self._dice.choice(_WORDS)}}
        await self._http.post("/v1/collections/default/search", json=body)
        await self._http.post("/v1/collections/default/search", content=b"not JSON")
        await self._http.get("/v1/status")


async def _repeat(call: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        with contextlib.suppress(NearlineError, httpx2.HTTPError):
            await call()
        await asyncio.sleep(pause_s)

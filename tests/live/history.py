"""A history of changes, builds, rollbacks, kills and full disks, held against a dictionary.

Every change is sent until it is acknowledged, always with one idempotency key, as a careful caller
does. After each of them has been acknowledged it must be seen, in whatever snapshot is served then;
what was deleted must not be, and nothing may be there twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from nearline import contract as c
from nearline.errors import NearlineError, NotFound, NotReady
from nearline.filters import Equals
from nearline_cli.app import app
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks
from tests.live.world import World

# How long a disk or Redis is full while something is written.
_FULL_S = 1.0
_T = TypeVar("_T")
DIM = 8
_CORPUS = [f"c{number:02d}" for number in range(12)]
_NEW = [f"n{number:02d}" for number in range(8)]
_IDS = st.lists(st.sampled_from([*_CORPUS, *_NEW]), min_size=1, max_size=4, unique=True)
_collections = itertools.count()


class State(NamedTuple):
    """The state of an item. stock: An attribute that is also changed alone."""

    text: str
    vector: tuple[float, ...]
    stock: int


class History(RuleBasedStateMachine):
    """One history, in a collection of its own; some of them share their processes."""

    running: World
    runner: asyncio.Runner
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.collection = f"history-{next(_collections)}"
        self.corpus = self.running.store.parent / f"{self.collection}.jsonl"
        self.model: dict[str, State] = {}
        self.told: list[Watermark] = []
        self.numbers = itertools.count()

    @initialize()
    def begin(self) -> None:
        """Builds from a corpus, and waits until that is served."""
        rows = []
        for name in _CORPUS:
            self.model[name] = state = self.new_state()
            rows.append(
                {"id": name, "text": state.text, "vector": state.vector, "stock": state.stock}
            )
        self.corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self.run(self.build())
        self.run(self.served())

    @rule(ids=_IDS, kinds=st.lists(st.sampled_from("uuda"), min_size=4, max_size=4))
    def change(self, ids: list[str], kinds: list[str]) -> None:
        self.run(self.write(ids, kinds))

    @rule(
        victim=st.integers(0, 5),
        ids=_IDS,
        kinds=st.lists(st.sampled_from("uuda"), min_size=4, max_size=4),
    )
    def change_while_something_is_killed(
        self, victim: int, ids: list[str], kinds: list[str]
    ) -> None:
        async def both() -> None:
            parts = self.running.parts
            await asyncio.gather(parts[victim % len(parts)].kill(), self.write(ids, kinds))

        self.run(both())
        self.done["kills"] += 1

    @rule(ids=_IDS, kinds=st.lists(st.sampled_from("uuda"), min_size=4, max_size=4))
    def change_while_redis_is_full(self, ids: list[str], kinds: list[str]) -> None:
        self.run(self.write_while(self.running.full_redis(), ids, kinds))
        self.done["full Redis"] += 1

    @rule(ids=_IDS, kinds=st.lists(st.sampled_from("uuda"), min_size=4, max_size=4))
    def change_while_the_disk_is_full(self, ids: list[str], kinds: list[str]) -> None:
        if self.running.disk is not None:
            self.run(self.write_while(self.running.full_disk(), ids, kinds))
            self.done["full disk"] += 1

    @rule(compaction=st.booleans())
    def build_or_compact_while_the_disk_is_full(self, compaction: bool) -> None:
        words = self.compaction if compaction else self.building

        async def fail() -> None:
            async with self.running.full_disk():
                with contextlib.suppress(NearlineError):
                    await self.command(*words, patient=False)

        if self.running.disk is not None:
            self.run(fail())
            self.done["full disk"] += 1

    @rule(victim=st.integers(0, 5))
    def kill(self, victim: int) -> None:
        parts = self.running.parts
        self.run(parts[victim % len(parts)].kill())
        self.done["kills"] += 1

    @rule()
    def look(self) -> None:
        self.run(self.check())

    @rule()
    def build_from_the_same_corpus(self) -> None:
        self.run(self.build())

    @rule()
    def compact(self) -> None:
        self.run(self.command(*self.compaction))

    @rule(after_s=st.floats(0.5, 3.0))
    def build_and_be_killed(self, after_s: float) -> None:
        self.run(self.build(kill_after_s=after_s))

    @rule()
    def trim(self) -> None:
        self.run(self.command("changes", "trim", "--redis", self.running.redis_url))

    @rule()
    def roll_back(self) -> None:
        self.run(self.rolled_back())

    def teardown(self) -> None:
        """Ends with what loses things elsewhere: two builds, a trim, and the way back."""
        if not self.model and not self.told:
            return
        self.run(self.check())
        for _ in range(2):
            self.run(self.build())
            self.run(self.command("changes", "trim", "--redis", self.running.redis_url))
            self.run(self.check())
        self.run(self.rolled_back())
        self.run(self.check())
        self.done["histories"] += 1

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    def new_state(self, text: str = "") -> State:
        number = next(self.numbers)
        rng = random.Random(f"{self.collection} {number}")
        vector = tuple(round(rng.gauss(0, 1), 3) for _ in range(DIM))
        return State(text or f"state {number} of {self.collection}", vector, number)

    async def write(self, ids: list[str], kinds: list[str]) -> None:
        """Sends changes of three kinds, each kind in one request, until they are acknowledged."""
        by_kind = {
            kind: [one for one, its in zip(ids, kinds, strict=False) if its == kind]
            for kind in "uda"
        }
        client, collection = self.running.client, self.collection
        states = {name: self.new_state() for name in by_kind["u"]}
        stocks = {name: next(self.numbers) for name in by_kind["a"]}

        async def upsert(names: list[str], key: str) -> c.WriteReply:
            items = [
                c.Item(
                    id=name,
                    text=states[name].text,
                    vector=np.array(states[name].vector, np.float32),
                    attributes={"stock": states[name].stock},
                )
                for name in names
            ]
            return await client.upsert_items(
                items, collection=collection, idempotency_key=key, timeout_s=10.0
            )

        async def delete(names: list[str], key: str) -> c.WriteReply:
            return await client.delete_items(
                names, collection=collection, idempotency_key=key, timeout_s=10.0
            )

        async def set_stock(names: list[str], key: str) -> c.WriteReply:
            items = [c.Item(id=name, attributes={"stock": stocks[name]}) for name in names]
            return await client.upsert_items(
                items,
                collection=collection,
                idempotency_key=key,
                only_attributes=True,
                timeout_s=10.0,
            )

        await self.acknowledged(by_kind["u"], upsert)
        self.model |= states
        await self.acknowledged(by_kind["d"], delete)
        for name in by_kind["d"]:
            self.model.pop(name, None)
        await self.acknowledged(by_kind["a"], set_stock)
        for name in by_kind["a"]:
            if name in self.model:
                self.model[name] = self.model[name]._replace(stock=stocks[name])

    async def write_while(
        self, trouble: AbstractAsyncContextManager[None], ids: list[str], kinds: list[str]
    ) -> None:
        """Begins to send changes during some trouble, which passes after a while."""
        async with trouble:
            writing = asyncio.create_task(self.write(ids, kinds))
            await asyncio.wait([writing], timeout=_FULL_S)
        await writing

    async def acknowledged(
        self, names: list[str], send: Callable[[list[str], str], Awaitable[c.WriteReply]]
    ) -> None:
        """Sends a request until it is answered, and again what it put off."""
        while names:
            key, asked = secrets.token_hex(8), names
            reply = await self.running.patiently(lambda asked=asked, key=key: send(asked, key))  # type: ignore[misc]
            assert [one.id for one in reply.results] == asked
            if (mark := decode_watermark(reply.watermark)) is not None:
                self.told.append(mark)
            put_off = {one.id for one in reply.results if one.outcome is c.WriteOutcome.REJECTED}
            for one in reply.results:
                # A shard that is away cannot say what the snapshot has.
                assert one.id not in put_off or one.reason == "NOT_READY", one
                absent = one.outcome is c.WriteOutcome.ABSENT
                assert not (absent and one.id in self.model), one
            self.done["writes"] += len(asked) - len(put_off)
            names = [name for name in asked if name in put_off]
            if names:
                await asyncio.sleep(0.05)

    async def check(self) -> None:
        """Reads everything in four ways; all must agree with the model."""
        self.done["checks"] += 1
        least = merge_watermarks(tuple(self.told)).encode() if self.told else b""
        wanted = {name: (state.text, state.stock) for name, state in self.model.items()}
        payload = frozenset({c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})
        client, collection = self.running.client, self.collection

        async def listed() -> dict[str, tuple[str | None, object]]:
            page = await client.list_items(
                page_size=100,
                payload=payload,
                collection=collection,
                min_watermark=least,
                timeout_s=10.0,
            )
            assert len({item.id for item in page.items}) == len(page.items), "an item twice"
            return {item.id: (item.text, item.attributes["stock"]) for item in page.items}

        async def searched(query: c.Query, mode: c.SearchMode) -> list[c.Hit]:
            reply = await client.search(
                query,
                c.SearchOptions(
                    k=100,
                    mode=mode,
                    payload=payload,
                    require_full_coverage=True,
                    min_watermark=least,
                ),
                collection=collection,
                timeout_s=10.0,
            )
            return list(reply.results[0].hits)

        patiently = self.running.patiently
        assert await patiently(listed) == wanted
        by_vector = c.Query(vector=np.ones(DIM, np.float32))
        by_words = c.Query(text=f"state {self.collection}")
        for query, mode in ((by_vector, c.SearchMode.DENSE), (by_words, c.SearchMode.LEXICAL)):
            hits = await patiently(lambda query=query, mode=mode: searched(query, mode))  # type: ignore[misc]
            assert len({hit.id for hit in hits}) == len(hits), "an item twice"
            found = {hit.id: (hit.text, (hit.attributes or {})["stock"]) for hit in hits}
            assert found == wanted
            if mode is c.SearchMode.DENSE:
                for hit in hits:
                    assert hit.score == pytest.approx(self.score(hit.id), abs=1e-5)
        if self.model:
            name, state = sorted(self.model.items())[0]
            counted = await patiently(
                lambda: client.count_items(
                    Equals("stock", state.stock), collection=collection, min_watermark=least
                )
            )
            same = [one for one in self.model.values() if one.stock == state.stock]
            assert counted.count == len(same), name

    async def served(self) -> None:
        """Waits until the router has found the collection."""

        async def ask() -> None:
            try:
                await self.running.client.count_items(collection=self.collection, timeout_s=10.0)
            except NotFound as error:
                raise NotReady(error.message) from error

        await self.running.patiently(ask)

    def score(self, name: str) -> float:
        vector = np.array(self.model[name].vector)
        return float(vector.sum() / np.linalg.norm(vector) / np.sqrt(DIM))

    @property
    def building(self) -> Sequence[str]:
        columns = ("--vector-column", "vector", "--shards", str(len(self.running.shards)))
        return ("build", "--corpus", str(self.corpus), *columns, *self.forced)

    @property
    def compaction(self) -> Sequence[str]:
        return ("compact", *self.forced)

    @property
    def forced(self) -> Sequence[str]:
        # Half of a collection of twelve items changes from one snapshot to the next.
        return ("--force-promote", "any history", "--redis", self.running.redis_url)

    async def build(self, kill_after_s: float | None = None) -> None:
        await self.command(*self.building, kill_after_s=kill_after_s)

    async def rolled_back(self) -> None:
        await self.command("snapshots", "rollback", may_fail=True)

    async def command(
        self,
        *words: str,
        kill_after_s: float | None = None,
        may_fail: bool = False,
        patient: bool = True,
    ) -> None:
        """Runs a command, again while it fails for now; `check` waits for what it promoted."""
        self.done[f"{'killed ' if kill_after_s else ''}{words[0]}"] += 1
        where = ("--store", str(self.running.store), "--collection", self.collection, "--json")
        if kill_after_s is not None:
            await _killed((*words, *where), kill_after_s)
            return

        async def run() -> None:
            # A process of its own for each would take ten times as long.
            await asyncio.to_thread(app, (*words, *where), standalone_mode=False)

        with contextlib.suppress(*((NotFound,) if may_fail else ())):
            await (self.running.patiently(run) if patient else run())


async def _killed(words: Sequence[str], after_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "nearline_cli.main", *words),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.wait_for(process.wait(), after_s)
    except TimeoutError:
        # It may end by itself at this very moment.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

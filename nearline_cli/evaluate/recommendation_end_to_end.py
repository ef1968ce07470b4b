"""Measures a running router over a snapshot built for an evaluation task."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.filters import Equals
from nearline.times import from_us
from nearline_cli.evaluate.debias_rows import SIMILAR, USER, DebiasedLists, sample_items
from nearline_cli.local.processes import RETRIEVAL_SERVICES, redis_process, service_process

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from index_builder.behaviour.evaluation_task import EvaluationTask
    from index_builder.interactions.splits import Split

COLLECTION = "evaluated"
_HELD_OUT = "held_out"
_AT_ONCE = 8
_TIMEOUT_S = 60.0
# Lists that are requested alone, to time them.
_TIMED = 500


class ServedLists(NamedTuple):
    """Lists of the router.

    lists: (u, k) int32 item numbers, -1 where a list is shorter. settings: The blend of models.
    debiased: The same lists, and lists of similar items, without a discount for popularity, with
    that of the snapshot, and with the largest; empty if items are held out.
    build_s: Seconds of the build. p50_ms, p99_ms: Milliseconds of a list that is requested alone.
    """

    lists: NDArray[np.int32]
    settings: str
    debiased: Sequence[DebiasedLists]
    build_s: float
    p50_ms: float
    p99_ms: float


async def measure_served(
    parts: Split,
    task: EvaluationTask,
    how: str,
    k: int,
    *,
    content: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> ServedLists:
    """Builds a snapshot of the training part, serves it, and requests a list for each user.

    Users of the training part are known from the snapshot. Earlier interactions of other users are
    recorded first, as in an application.

    Args:
        parts, task: The split and its evaluation task.
        how: The split in words; the blend is chosen on one of the same kind inside the training
            part.
        k: Length of a list.
        content: (items, d) float32 content vectors. Optional.
        seed: Seed of random draws.
    Raises:
        NotReady: A service did not start.
    """
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.options.training_options import TrainingOptions
    from index_builder.pipeline.builder import build_snapshot

    cold = parts.held_out_items is not None
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        learning = TrainingOptions(interactions=parts.train, validate_on="" if cold else how, k=k)
        options = BuildOptions(
            store=store,
            collection=COLLECTION,
            golden_queries=0,
            lexical=False,
            title_only=True,
            index=IndexOptions(factory="Flat"),
            seed=seed,
            training=learning,
        )
        began = time.monotonic()
        built = await build_snapshot(_documents(parts, task, content), options)
        build_s = time.monotonic() - began
        async with _router(Path(folder), store, recorded=parts.fold_in is not None) as client:
            if parts.fold_in is not None:
                await _record(client, parts)
            requests = _Requests(client, parts, k, cold=cold)
            lists = await requests.lists(_users(parts, task))
            times_ms = await requests.times_ms(_users(parts, task)[:_TIMED])
            behaviour: Any = built.record()["behaviour"]
            kind = "repeats" if task.repeats else "no_repeats"
            debiased: Sequence[DebiasedLists] = ()
            if not cold:
                defaults = behaviour["popularity_debias"]
                debiased = [
                    *await _user_lists(requests, parts, task, defaults[kind], lists),
                    *await _similar_lists(requests, parts, task, defaults["similar"], seed),
                ]
    p50_ms, p99_ms = np.percentile(times_ms, (50, 99)).tolist()
    settings = str(behaviour["blend"][kind])
    return ServedLists(lists, settings, debiased, build_s, p50_ms, p99_ms)


def _documents(
    parts: Split, task: EvaluationTask, content: NDArray[np.float32] | None
) -> list[c.Item]:
    """Returns a document for each item that may be listed or occurred; its id is its title."""
    wanted = task.candidates.copy()
    wanted[parts.train.item] = True
    cold = np.zeros(len(wanted), np.bool_)
    if parts.held_out_items is not None:
        cold[parts.held_out_items] = True
    nothing = np.ones(1, np.float32)
    return [
        c.Item(
            id=parts.train.items[at],
            title=parts.train.items[at],
            vector=_direction(content[at]) if content is not None else nothing,
            attributes={_HELD_OUT: bool(cold[at])},
        )
        for at in np.flatnonzero(wanted).tolist()
    ]


def _direction(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a content vector; an item without content gets an arbitrary direction."""
    if vector.any():
        return vector
    some = np.zeros_like(vector)
    some[0] = 1
    return some


@contextlib.asynccontextmanager
async def _router(folder: Path, store: str, *, recorded: bool) -> AsyncIterator[RetrievalClient]:
    async with contextlib.AsyncExitStack() as stack:
        words = ["--store", store]
        if recorded:
            words += ["--redis", await stack.enter_async_context(redis_process(folder / "redis"))]
        router = await stack.enter_async_context(
            service_process("retrieval", words, ready_services=RETRIEVAL_SERVICES)
        )
        yield await stack.enter_async_context(RetrievalClient(router.address))


async def _record(client: RetrievalClient, parts: Split) -> None:
    rows = parts.fold_in
    assert rows is not None
    done = [
        c.Interaction(
            item_id=rows.items[item],
            user_id=rows.users[user],
            time=from_us(time_us),
            weight=weight,
        )
        for user, item, time_us, weight in zip(
            rows.user.tolist(),
            rows.item.tolist(),
            rows.time_us.tolist(),
            rows.weight.tolist(),
            strict=True,
        )
    ]
    for at in range(0, len(done), c.MAX_BATCH):
        await client.record_interactions(
            done[at : at + c.MAX_BATCH], collection=COLLECTION, timeout_s=_TIMEOUT_S
        )


class _Requests:
    """Requests lists from a router, several at once."""

    def __init__(self, client: RetrievalClient, parts: Split, k: int, *, cold: bool) -> None:
        self._client = client
        self._ids = parts.train.items
        self._numbers = {one: at for at, one in enumerate(self._ids)}
        self._k = k
        held_out = Equals(_HELD_OUT, True) if cold else None
        self._options = c.RecommendOptions(n=k, filter=held_out, payload=frozenset())

    async def lists(
        self, audiences: Sequence[c.Audience], debias: float | None = None
    ) -> NDArray[np.int32]:
        """Returns a list for each audience: (audiences, k) item numbers, padded by -1."""
        lists = np.full((len(audiences), self._k), -1, np.int32)
        options = replace(self._options, popularity_debias=debias)
        left = iter(enumerate(audiences))

        async def ask() -> None:
            for row, audience in left:
                reply = await self._client.recommend(
                    audience, options, collection=COLLECTION, timeout_s=_TIMEOUT_S
                )
                found = [self._numbers[one.hit.id] for one in reply.recommendations]
                lists[row, : len(found)] = found

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(ask())
        return lists

    async def times_ms(self, audiences: Sequence[c.Audience]) -> list[float]:
        """Requests a list for each audience, one after the other, and returns how long each took.

        The lists are longer than those of `lists`, so that none comes from a cache.
        """
        options = replace(self._options, n=self._k + 1)
        found = []
        for audience in audiences:
            began = time.perf_counter()
            await self._client.recommend(
                audience, options, collection=COLLECTION, timeout_s=_TIMEOUT_S
            )
            found.append((time.perf_counter() - began) * 1e3)
        return found


def _users(parts: Split, task: EvaluationTask) -> list[c.Audience]:
    surface = "cart" if task.repeats else "home"
    names = parts.train.users
    return [c.Audience(user_id=names[user], surface=surface) for user in task.users.tolist()]


def _discounts(default: float) -> list[float]:
    """Returns none, that of the snapshot, and the largest, each once."""
    return sorted({0.0, default, 1.0})


async def _user_lists(
    requests: _Requests,
    parts: Split,
    task: EvaluationTask,
    default: float,
    served: NDArray[np.int32],
) -> list[DebiasedLists]:
    """Returns the lists of users for each discount; `served` has that of the snapshot."""
    found = []
    for debias in _discounts(default):
        lists = served
        if debias != default:
            lists = await requests.lists(_users(parts, task), debias)
        found.append(DebiasedLists(USER, debias, debias == default, lists, lists))
    return found


async def _similar_lists(
    requests: _Requests, parts: Split, task: EvaluationTask, default: float, seed: int
) -> list[DebiasedLists]:
    """Returns the lists of similar items for each discount."""
    users, ids = parts.train.users, parts.train.items
    pages = [
        c.Audience(user_id=users[user], item_ids=(ids[int(history.items[0])],), surface="item_page")
        for user, history in zip(task.users.tolist(), task.histories, strict=True)
    ]
    items = [
        c.Audience(item_ids=(ids[item],), surface="item_page")
        for item in sample_items(task, seed).tolist()
    ]
    return [
        DebiasedLists(
            *(SIMILAR, debias, debias == default),
            await requests.lists(pages, debias),
            await requests.lists(items, debias),
        )
        for debias in _discounts(default)
    ]

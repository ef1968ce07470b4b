"""Click-through of searches ordered by the taste of simulated users, on a real router.

    python -m benchmarks.personal_search

A shop has 40 kinds of items in 12 styles; each user loves two styles. Models learn from what users
did; then users search for a kind, whose items match the query about equally well. Users look at a
place with probability 1 / log2(1 + place), and click what they see more often if they love its
style. So the click-through, the share of searches with a click on the first page, is computed, not
drawn. Newcomers have no history: their replies are compared byte by byte. It prints lines of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.processes import router_process
from index_builder.evaluation.bootstrap import interval, paired_interval
from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c, wire
from nearline.clients import RetrievalClient
from nearline.times import DAY_US
from nearline_cli.local.processes import redis_process

_KINDS, _STYLES, _LOVED = 40, 12, 2
_K, _DAYS = 10, 60
_WEIGHTS = (0.0, 0.1, 0.3, 1.0)
# Probability of a click on an item seen, if its style is loved and if it is not.
_CLICK = (0.3, 0.06)
_EXAMINED = 1 / np.log2(np.arange(2, _K + 2))


class SimulatedShop(NamedTuple):
    """kind, style: (items,). loved: (users, styles) bool. rows: What users did before."""

    kind: NDArray[np.int64]
    style: NDArray[np.int64]
    loved: NDArray[np.bool_]
    rows: Interactions

    def documents(self, rng: np.random.Generator) -> Iterator[c.Item]:
        """Yields the items; their texts are of different lengths, and none names its style."""
        for number, kind in enumerate(self.kind.tolist()):
            filler = " ".join(f"word{word}" for word in rng.integers(0, 2_000, rng.integers(5, 40)))
            text = f"{filler} kind{kind}" if rng.random() < 0.5 else filler
            yield c.Item(id=_item(number), title=f"kind{kind} number{number}", text=text)

    def click_through(self, user: int, ids: Sequence[str]) -> float:
        """Returns the probability that a user clicks on a page."""
        styles = self.style[[int(one[1:]) for one in ids]]
        click = np.where(self.loved[user, styles], *_CLICK)
        return float(1 - np.prod(1 - _EXAMINED[: len(ids)] * click))


def make_shop(items: int, users: int, events: int, faithful: float, seed: int) -> SimulatedShop:
    """Returns a shop.

    Args:
        faithful: Share of what users do that is about their loved styles; the rest is about any.
    """
    rng = np.random.default_rng(seed)
    style = rng.integers(0, _STYLES, items)
    loved = np.zeros((users, _STYLES), np.bool_)
    for user in range(users):
        loved[user, rng.choice(_STYLES, _LOVED, replace=False)] = True
    popularity = 1 / (rng.permutation(items) + 20)
    item = np.empty((users, events), np.int32)
    for user in range(users):
        fits = np.where(loved[user, style], popularity, 0)
        shares = faithful * fits / fits.sum() + (1 - faithful) * popularity / popularity.sum()
        item[user] = rng.choice(items, events, p=shares)
    now_us = time.time_ns() // 1_000
    rows = Interactions(
        [f"u{number}" for number in range(users)],
        [_item(number) for number in range(items)],
        np.repeat(np.arange(users, dtype=np.int32), events),
        item.ravel(),
        now_us - rng.integers(0, _DAYS * DAY_US, users * events),
        np.ones(users * events, np.float32),
    )
    return SimulatedShop(rng.integers(0, _KINDS, items), style, loved, rows)


async def measure(
    shop: SimulatedShop, folder: Path, known: int, searches: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Returns the figures.

    Args:
        known: Users that the models learned from; the others record their events afterwards.
        searches: Number of searches of each group.
    """
    rng = np.random.default_rng(seed)
    trained = shop.rows.some(shop.rows.user < known)
    options = BuildOptions(
        store=str(folder / "store"),
        shards=1,
        golden_queries=0,
        training=TrainingOptions(interactions=trained),
    )
    vectors = np.eye(_KINDS, 8, dtype=np.float32) + 1
    documents = [
        replace(one, vector=vectors[kind])
        for one, kind in zip(shop.documents(rng), shop.kind.tolist(), strict=True)
    ]
    await build_snapshot(documents, options)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(redis_process(folder / "redis"))
        router = await stack.enter_async_context(
            router_process(["--store", str(folder / "store"), "--redis", url], 0)
        )
        client = await stack.enter_async_context(RetrievalClient(router.address))
        users = len(shop.loved)
        later = rng.choice(np.arange(known, users), min(100, users - known), replace=False)
        for user in later.tolist():
            rows = np.flatnonzero(shop.rows.user == user)[:5]
            await client.record_interactions(
                [
                    c.Interaction(item_id=_item(int(shop.rows.item[row])), session_id=f"s{user}")
                    for row in rows
                ]
            )
        groups = {
            "learned": [(f"u{one}", "", one) for one in rng.integers(0, known, searches).tolist()],
            "session of five": [
                ("", f"s{one}", one) for one in rng.choice(later, searches).tolist()
            ],
            "newcomer": [
                (f"new{one}", "", one) for one in rng.integers(0, users, searches).tolist()
            ],
        }
        kinds = rng.integers(0, _KINDS, searches).tolist()
        figures = []
        for name, group in groups.items():
            figures += await _compare(shop, client, name, group, kinds)
    return iter(figures)


async def _compare(
    shop: SimulatedShop,
    client: RetrievalClient,
    name: str,
    group: Sequence[tuple[str, str, int]],
    kinds: Sequence[int],
) -> list[dict[str, Any]]:
    """Searches by each weight in turn, so that all of them meet the same noise."""
    clicks = {weight: np.empty(len(group)) for weight in _WEIGHTS}
    spent = {weight: np.empty(len(group)) for weight in _WEIGHTS}
    same = dict.fromkeys(_WEIGHTS, 0)
    for number, ((user_id, session_id, user), kind) in enumerate(zip(group, kinds, strict=True)):
        plain = b""
        for weight in _WEIGHTS:
            options = c.SearchOptions(
                k=_K,
                mode=c.SearchMode.LEXICAL,
                user_id=user_id,
                session_id=session_id,
                personal=weight,
            )
            start = time.perf_counter()
            reply = await client.search(c.Query(text=f"kind{kind}"), options)
            spent[weight][number] = time.perf_counter() - start
            clicks[weight][number] = shop.click_through(user, [hit.id for hit in reply.hits])
            found = b"".join(map(wire.hit_to_bytes, reply.hits))
            plain = plain or found
            same[weight] += found == plain
    return [
        {
            "users": name,
            "personal": weight,
            "searches": len(group),
            "click_through": round(float(clicks[weight].mean()), 4),
            "gain": round(float(clicks[weight].mean() / clicks[0.0].mean() - 1), 4),
            "gain_low": round(
                paired_interval(clicks[weight], clicks[0.0]).low / interval(clicks[0.0]).mean, 4
            ),
            "identical": same[weight],
            "p50_ms": round(float(np.quantile(spent[weight], 0.5)) * 1e3, 2),
            "p99_ms": round(float(np.quantile(spent[weight], 0.99)) * 1e3, 2),
        }
        for weight in _WEIGHTS
    ]


def _item(number: int) -> str:
    return f"i{number:05d}"


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=3_000, help="Items of the shop")
    parser.add_argument("--users", type=int, default=2_000, help="Users; a tenth is not learned")
    parser.add_argument("--events", type=int, default=20, help="Interactions of a user")
    parser.add_argument("--faithful", type=float, default=0.6, help="Share about loved styles")
    parser.add_argument("--searches", type=int, default=500, help="Searches of a group")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the shop")
    wanted = parser.parse_args()
    shop = make_shop(wanted.items, wanted.users, wanted.events, wanted.faithful, wanted.seed)
    with tempfile.TemporaryDirectory() as folder:
        known = wanted.users * 9 // 10
        for row in asyncio.run(measure(shop, Path(folder), known, wanted.searches, wanted.seed)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

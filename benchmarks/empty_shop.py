"""Learning of a deployment: from an empty store, over HTTP alone, to lists for users.

    python -m benchmarks.empty_shop events.csv.gz --fleet compose

It runs compose.yaml, or the manifests for one node, as processes; writes items, and all
interactions of their users but the last; and measures how often that last item is among ten
recommended ones: before the first training, once upkeep has trained and promoted, and after a build
by hand; how soon a burst is trending; and how many visitors a new item needs to go with another. It
prints lines of JSON.

Columns of the file: user, item, time; seconds since 1970, of which only the order counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.fleet import sandbox
from benchmarks.fleet.cluster import cluster
from benchmarks.fleet.compose import compose_fleet
from benchmarks.fleet.image_folders import ADDED, image_folders
from benchmarks.fleet.manifests import read_manifests

_ROOT = Path(__file__).parents[1]
_OVERLAY = "deploy/kubernetes/overlays/dev"
_COLLECTION = "/v1/collections/default"
_K, _BATCH, _ITEM_BATCH = 10, 1_000, 500
# Seconds of a round of live lists, with those that routers keep a list; and until a burst counts.
_ROUND_S, _SOON_S = 5.0, 60.0


class Shop(NamedTuple):
    """Items, interactions in order of time, and the last item of each user, which is not sent."""

    items: Sequence[str]
    interactions: Sequence[dict[str, str]]
    last: dict[str, str]


class RunningFleet(NamedTuple):
    """A running deployment. gateway: host:port. build: Trains by hand; None: it cannot."""

    gateway: str
    build: Callable[[], Awaitable[None]] | None


def read_shop(path: Path, items: int) -> Shop:
    """Returns the most popular items of a file, and the users who had three of them or more.

    The days since a user's last interaction stay as they are; the newest is of now.
    """
    with gzip.open(path, "rt") as lines:
        rows = list(csv.DictReader(lines))
    popular = Counter(row["item"] for row in rows)
    kept = {item for item, _ in popular.most_common(items)}
    by_user = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row["time"])):
        if row["item"] in kept:
            by_user[row["user"]].append(row)
    users = {user: found for user, found in by_user.items() if len(found) >= 3}
    shift_s = int(time.time()) - max(int(row["time"]) for row in rows)
    sent = [row for found in users.values() for row in found[:-1]]
    return Shop(
        sorted(kept),
        [
            {
                "user_id": row["user"],
                "item_id": row["item"],
                "kind": "view",
                "time": datetime.fromtimestamp(int(row["time"]) + shift_s, UTC).isoformat(),
            }
            for row in sorted(sent, key=lambda row: int(row["time"]))
        ],
        {user: found[-1]["item"] for user, found in users.items()},
    )


def call(gateway: str, method: str, path: str, body: object = None) -> Any:
    """Returns what a gateway answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://{gateway}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def fill(gateway: str, shop: Shop) -> float:
    """Creates the collection, and writes items and interactions; returns the seconds of these."""
    call(gateway, "PUT", _COLLECTION, {})
    for start in range(0, len(shop.items), _ITEM_BATCH):
        part = shop.items[start : start + _ITEM_BATCH]
        items = [{"id": one, "text": f"Product {one}"} for one in part]
        call(gateway, "PUT", f"{_COLLECTION}/items", {"items": items})
    began = time.monotonic()
    for start in range(0, len(shop.interactions), _BATCH):
        body = {"interactions": shop.interactions[start : start + _BATCH]}
        call(gateway, "POST", f"{_COLLECTION}/interactions", body)
    return time.monotonic() - began


def hit_rates(gateway: str, shop: Shop, users: Sequence[str]) -> dict[str, object]:
    """Returns how often the last item of a user is among ten, by list."""
    counts = Counter(row["item_id"] for row in shop.interactions)
    counted = {item for item, _ in counts.most_common(_K)}
    hits = {"popular by hand": sum(shop.last[user] in counted for user in users)}
    for surface in ("home", "trending"):
        hits[surface] = 0
        for user in users:
            request = {"user_id": user, "surface": surface, "n": _K}
            hits[surface] += shop.last[user] in listed(gateway, request)
    return {name: round(count / len(users), 4) for name, count in hits.items()}


def burst_s(gateway: str, item: str, visitors: int = 200) -> float:
    """Lets visitors see an item at once; returns the seconds until it is in ten trending ones."""
    sent = [{"session_id": f"{item}-{n}", "item_id": item, "kind": "view"} for n in range(visitors)]
    call(gateway, "POST", f"{_COLLECTION}/interactions", {"interactions": sent})
    began = time.monotonic()
    while item not in listed(gateway, {"surface": "trending", "n": _K}):
        assert time.monotonic() - began < _SOON_S, f"{item} is not trending"
        time.sleep(0.1)
    return round(time.monotonic() - began, 2)


def visitors_of_a_new_item(gateway: str, name: str, other: str) -> int:
    """Adds an item; returns after how many visitors of both it goes with another one."""
    item = {"id": name, "text": f"Product {name}"}
    call(gateway, "PUT", f"{_COLLECTION}/items", {"items": [item]})
    for number in range(1, 21):
        seen = [
            {"user_id": f"{name}-{number}", "item_id": one, "kind": "view"} for one in (other, name)
        ]
        call(gateway, "POST", f"{_COLLECTION}/interactions", {"interactions": seen})
        until_s = time.monotonic() + 2 * _ROUND_S
        while time.monotonic() < until_s:
            found = listed(gateway, {"surface": "item_page", "item_ids": [name], "n": 3})
            if found[:1] == [other]:
                return number
            time.sleep(0.2)
    raise AssertionError(f"{name} does not go with {other} after 20 visitors")


def listed(gateway: str, request: Mapping[str, object]) -> list[str]:
    """Returns the ids of a list."""
    reply = call(gateway, "POST", f"{_COLLECTION}/recommend", request)
    return [one["hit"]["id"] for one in reply["recommendations"]]


def read_status(gateway: str) -> Any:
    """Returns the status of the collection."""
    (status,) = call(gateway, "GET", "/v1/status")["collections"]
    return status


def until_trained(gateway: str, limit_s: float) -> dict[str, Any]:
    """Waits for the first models; returns how long it took, and how well that was foretold.

    worst: Of the estimates of the time that was left, made after the first tenth of the training,
    the largest factor to the truth.
    """
    began = time.monotonic()
    estimates: list[tuple[float, float]] = []
    while not (training := read_status(gateway).get("training", {})).get("trained"):
        elapsed_s = time.monotonic() - began
        assert elapsed_s < limit_s, f"not trained after {limit_s} s: {training}"
        head, _, left = training.get("progress", "").rpartition(", ")
        if "behaviour" in head:
            seconds = float(left.removesuffix(" s left").replace(",", ""))
            estimates.append((time.monotonic(), seconds))
        time.sleep(0.5)
    end_s = estimates[-1][0] if estimates else 0.0
    spans = [(end_s - at, left) for at, left in estimates if end_s - at > 2.0]
    later = [(true, left) for true, left in spans if true <= 0.9 * spans[0][0]]
    worst = max((max(true / left, left / true) for true, left in later), default=0.0)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "training_s": round(spans[0][0], 1) if spans else 0.0,
        "worst": round(worst, 2),
        "estimates": [(round(true, 1), left) for true, left in spans[:: max(1, len(spans) // 20)]],
    }


def until_served(gateway: str, before: str, limit_s: float) -> None:
    """Waits until another snapshot is served."""
    began = time.monotonic()
    while read_status(gateway)["snapshot_id"] == before:
        assert time.monotonic() - began < limit_s, f"{before} is still served"
        time.sleep(0.5)


@contextlib.asynccontextmanager
async def running_fleet(kind: str, folder: Path) -> AsyncIterator[RunningFleet]:
    """Runs a deployment over an empty store."""
    images = await asyncio.to_thread(image_folders)
    if kind == "compose":
        async with compose_fleet(_ROOT / "compose.yaml", folder, images, added=ADDED) as fleet:
            await fleet.up()

            async def build() -> None:
                done = await fleet.run("build", [], [])
                assert done.code == 0, done.output

            yield RunningFleet(fleet.address("gateway", 7706), build)
        return
    words = ["kustomize", "build", "--load-restrictor", "LoadRestrictionsNone", _OVERLAY]
    text = subprocess.run(words, check=True, capture_output=True, text=True, cwd=_ROOT).stdout
    dockerfile = (_ROOT / "Dockerfile").read_text("utf-8")
    async with cluster(read_manifests(text), dockerfile, folder, images, ADDED) as running:
        await running.apply()
        yield RunningFleet(f"{running.of('gateway')[0].address}:7706", None)


async def _run(options: argparse.Namespace) -> None:
    shop = read_shop(options.events, options.items)
    users = random.Random(0).sample(sorted(shop.last), min(options.sample, len(shop.last)))

    def show(event: str, fields: Mapping[str, object]) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)

    counts = {"items": len(shop.items), "users": len(shop.last)}
    show("shop", {**counts, "interactions": len(shop.interactions)})
    with tempfile.TemporaryDirectory(prefix="nearline-empty-shop-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with running_fleet(options.fleet, folder / "fleet") as one:

            async def show_moves(when: str) -> None:
                item, other = random.Random(when).sample(shop.items, 2)
                found = {
                    "burst_s": await asyncio.to_thread(burst_s, one.gateway, item),
                    "visitors": await asyncio.to_thread(
                        visitors_of_a_new_item, one.gateway, f"new-{when.split()[0]}", other
                    ),
                }
                show(when, found)

            show("filled", {"seconds": await asyncio.to_thread(fill, one.gateway, shop)})
            show("before", await asyncio.to_thread(hit_rates, one.gateway, shop, users))
            await show_moves("without models")
            show("trained", await asyncio.to_thread(until_trained, one.gateway, options.limit_s))
            show("learned", await asyncio.to_thread(hit_rates, one.gateway, shop, users))
            await show_moves("with models")
            if one.build is None:
                return
            before = read_status(one.gateway)["snapshot_id"]
            await one.build()
            await asyncio.to_thread(until_served, one.gateway, before, options.limit_s)
            show("built by hand", await asyncio.to_thread(hit_rates, one.gateway, shop, users))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.empty_shop")
    parser.add_argument("events", type=Path)
    parser.add_argument("--fleet", choices=("compose", "kubernetes"), default="compose")
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--sample", type=int, default=1_000, help="Users whose lists are read.")
    parser.add_argument("--limit-s", type=float, default=1_800.0, help="Until the first training.")
    if why := sandbox.why_not():
        sys.exit(why)
    asyncio.run(_run(parser.parse_args()))

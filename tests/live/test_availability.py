"""Cached lists of real processes: what cannot be had, or has expired, is not on them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.contract import Audience, RecommendOptions
from nearline_cli.app import app
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks
from tests.live.world import World, world
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
RAIL = Audience(surface="rail")
CACHED = c.ServedBy(source=c.Source.CACHE, reason="near")
POLICIES = """
version = 1
[surfaces.rail]
from = "trending"
only = "in_stock = true AND NOT closed EXISTS"
"""


def item(name: str, *, in_stock: bool = True) -> c.Item:
    vector = np.eye(ITEMS, dtype=np.float32)[int(name[1:])]
    attributes: dict[str, c.AttributeValue] = {"in_stock": in_stock}
    if name == "i11":
        attributes["closed"] = "x"
    return c.Item(id=name, title=name, vector=vector, attributes=attributes)


async def listed(client: RetrievalClient, watermark: bytes = b"") -> list[str]:
    reply = await client.recommend(RAIL, RecommendOptions(n=ITEMS, min_watermark=watermark))
    # Whatever happens to items, nothing stands in for the list.
    assert reply.info.served_by.source is not c.Source.FALLBACK
    return [one.hit.id for one in reply.recommendations]


async def available(client: RetrievalClient, names: Sequence[str], in_stock: bool) -> bytes:
    """Writes whether items can be had; returns the watermark of these writes, and no others."""
    written = [c.Item(id=name, attributes={"in_stock": in_stock}) for name in names]
    reply = await client.upsert_items(written, only_attributes=True)
    assert {one.outcome for one in reply.results} == {c.WriteOutcome.REPLACED}
    return reply.watermark


async def cached(client: RetrievalClient) -> list[str]:
    """Returns the list as it is when it comes from the cache."""
    async with asyncio.timeout(10):
        while True:
            reply = await client.recommend(RAIL, RecommendOptions(n=ITEMS))
            if reply.info.served_by == CACHED:
                return [one.hit.id for one in reply.recommendations]


async def until_gone(client: RetrievalClient, name: str) -> None:
    """Asks until the router has read of it in the log, which it follows on its own."""
    async with asyncio.timeout(10):
        while name in await listed(client):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[World]:
    options = BuildOptions(
        store=str(folder / "store"), shards=2, lexical=False, title_only=True,
        training=TrainingOptions(interactions=walks()),
    )  # fmt: skip
    await build_snapshot([item(name, in_stock=name != "i10") for name in documents()], options)
    file = folder / "policies.toml"
    file.write_text(POLICIES, "utf-8")
    async with world(folder, replicas=1, router=("--policies", str(file))) as running:
        yield running


async def test_what_cannot_be_had_or_has_expired_is_on_no_cached_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path) as running:
        client = running.client
        first = await listed(client)
        assert set(first) == set(documents()) - {"i10", "i11"}
        assert await cached(client) == first
        # Gone: for who wrote it at once, for others as soon as the router has read of it; and what
        # is cached then lacks it.
        gone, other = first[2], first[0]
        without = [one for one in first if one != gone]
        watermark = await available(client, [gone], False)
        assert await listed(client, watermark) == without
        assert await cached(client) == without
        await available(client, [other], False)
        await until_gone(client, other)
        assert await cached(client) == without[1:]
        # Back, on its old place; also what could not be had when the snapshot was made.
        watermark = await available(client, [other, "i10"], True)
        back = await listed(client, watermark)
        assert [one for one in back if one != "i10"] == without and "i10" in back
        assert await cached(client) == back
        # What expires is on the list until then, and nobody writes it again.
        expires = datetime.now(UTC) + timedelta(seconds=1.5)
        written = await client.upsert_items([replace(item("i04"), expires=expires)])
        before = await listed(client, written.watermark)
        assert "i04" in back and (before == back or datetime.now(UTC) >= expires)
        await until_gone(client, "i04")
        assert datetime.now(UTC) >= expires
        assert await cached(client) == [one for one in back if one != "i04"]
        # Surfaces that no file names are there, too: this one shows what cannot be had.
        words = ("recommend", "--surface", "trending", "-n", "12", "--address", running.address)
        await asyncio.to_thread(app, (*words, "--json"), standalone_mode=False)
        told = json.loads(capsys.readouterr().out)
        assert told["policy"].startswith("trending/0/")
        shown = {one["id"] for one in told["recommendations"]}
        assert shown == set(documents()) - {"i04"}

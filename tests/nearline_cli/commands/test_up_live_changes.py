"""Tests of live changes under `nearline up`: visible at once, and again after a crash."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline import Item, Query, RetrievalClient, SearchOptions
from nearline.contract import PayloadField
from nearline.errors import NearlineError, NotReady
from nearline_cli.local.processes import retrieval_process
from tests.nearline_cli.conftest import Run, Up
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]
Start = Callable[..., Up]
WHOLE = SearchOptions(k=2, require_full_coverage=True, payload=frozenset({PayloadField.TEXT}))


def axis(number: int) -> Query:
    return Query(vector=np.eye(32, dtype=np.float32)[number])


def item(document_id: str, text: str, number: int) -> Item:
    return Item(id=document_id, text=text, vector=np.eye(32, dtype=np.float32)[number])


async def found(client: RetrievalClient, number: int, watermark: bytes) -> dict[str, str | None]:
    """Returns id and text of what lies on an axis."""
    options = replace(WHOLE, min_watermark=watermark)
    hits = (await client.search(axis(number), options, timeout_s=5.0)).hits
    return {hit.id: hit.text for hit in hits if hit.score > 0.5}


def shown_live(nearline: Run, address: str) -> dict[str, Any]:
    """Returns what `nearline status` says of live changes."""
    shown = nearline("status", "--address", address, "--embedding", "", "--json")
    live: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])["live"]
    return live


async def when_it_answers(
    client: RetrievalClient, number: int, watermark: bytes
) -> dict[str, str | None]:
    async with asyncio.timeout(60):
        while True:
            try:
                return await found(client, number, watermark)
            except NotReady:
                await asyncio.sleep(0.05)


async def test_live_changes_survive_every_crash(up: Start, nearline: Run, store: Path) -> None:
    running = up("--separate", redis=True)
    async with RetrievalClient(running.address) as client:
        reply = await client.upsert_items(
            [item("d07", "changed", 7), item("new", "new", 9)], timeout_s=10.0
        )
        gone = await client.delete_items(["d09"], timeout_s=10.0)
        mark = gone.watermark
        both = await found(client, 7, reply.watermark)
        assert both == {"d07": "changed"}
        assert await found(client, 9, mark) == {"new": "new"}
        for victim in ("shard-0", "shard-1", "redis"):
            running.named(victim).kill()
            running.until("state", state="died", name=victim)
            running.until("state", state="serving", name=victim)
            assert await when_it_answers(client, 7, mark) == {"d07": "changed"}
            assert await when_it_answers(client, 9, mark) == {"new": "new"}
        # Redis came back with what it had, and takes the next change.
        async with asyncio.timeout(60):
            while True:
                try:
                    reply = await client.upsert_items([item("d07", "again", 7)], timeout_s=5.0)
                    break
                except NearlineError:
                    await asyncio.sleep(0.05)
        assert await found(client, 7, reply.watermark) == {"d07": "again"}
    # What a shard of another process says of itself is as old as its last word to the router.
    deadline = time.monotonic() + 30
    while (live := shown_live(nearline, running.address))["behind"] and time.monotonic() < deadline:
        pass
    assert (live["rows"], live["hidden_rows"], live["behind"], live["problem"]) == (2, 2, 0, "")
    assert live["not_archived"] == 4
    assert 0 <= live["oldest_change_s"] < 120
    assert "behind" in nearline("status", "--address", running.address, "--embedding", "").stdout


async def test_without_redis_live_changes_are_missing_and_every_reply_says_so(
    up: Start, store: Path
) -> None:
    running = up(redis=True)
    async with RetrievalClient(running.address) as client:
        await client.upsert_items([item("d07", "changed", 7)], timeout_s=10.0)
    async with (
        retrieval_process(store) as alone,
        RetrievalClient(alone.address) as client,
    ):
        reply = await client.search(axis(7), WHOLE)
        assert reply.hits[0].text == "text 7"
        assert "no --redis was given" in reply.info.served_by.reason

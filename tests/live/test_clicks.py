"""Clicks on recorded searches, from a router to the proposal of a weight."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nearline import contract as c
from nearline.clients import AsyncClient
from nearline_cli.app import app
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    RETRIEVAL_SERVICES,
    ServiceProcess,
    service_process,
)
from retrieval.search.fusion import DEFAULT_DENSE_WEIGHT
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis]
ITEMS, SEARCHES = 30, 12


def items() -> list[c.Item]:
    return [
        c.Item(id=f"i{n}", text=" ".join(f"w{(n * step) % 17}" for step in range(1, 5)))
        for n in range(ITEMS)
    ]


async def test_clicks_on_recorded_searches_propose_a_weight(tmp_path: Path) -> None:
    store = str(tmp_path / "store")

    @contextlib.asynccontextmanager
    async def router() -> AsyncIterator[ServiceProcess]:
        words = ["--store", store, "--redis", redis, "--embedding", embedding.address]
        words += ["--allow-empty", "--alias-poll-s", "0.1", "--record-share", "1"]
        words += ["--record-queries", "texts"]
        async with service_process(
            "retrieval", words, ready_services=RETRIEVAL_SERVICES
        ) as running:
            yield running

    async def propose(address: str) -> tuple[int, str]:
        words = ["eval", "clicks", "--store", store, "--redis", redis, "--address", address]
        words += ["--collection", "shop", "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        return result.exit_code, result.output + str(result.exception or "")

    async with (
        valkey() as redis,
        service_process(
            "tests.live.word_embedding", ready_services=EMBEDDING_SERVICES
        ) as embedding,
    ):
        async with router() as first, AsyncClient(first.address, collection="shop") as client:
            await client.collections.create("shop")
            await client.upsert(items())
            code, said = await propose(first.address)
            assert code and "only 0 recorded hybrid searches have clicks" in said
            for number in range(SEARCHES):
                text = f"w{number} w{number + 2}"
                reply = await client.search(text, mode="hybrid")
                assert len(reply.hits) > 3
                # Everybody wants the third hit.
                click = c.Interaction(
                    item_id=reply.hits[2].id,
                    user_id=f"u{number}",
                    list_id=reply.info.list_id,
                    position=2,
                )
                await client.retrieval.record_interactions([click], collection="shop")
        # A router writes what it recorded when it ends.
        async with router() as second:
            code, said = await propose(second.address)
    assert code == 0, said
    found = json.loads(said)
    assert (
        found["served"] == pytest.approx(DEFAULT_DENSE_WEIGHT) and 0 <= found["dense_weight"] <= 1
    )
    assert found["searches"] == SEARCHES - int(0.7 * SEARCHES)
    assert found["gain"]["low"] <= found["gain"]["mean"] <= found["gain"]["high"]
    assert found["better"] == (found["gain"]["low"] > 0)

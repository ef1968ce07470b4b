"""A client of several services: over real gRPC, as commands that embed documents have it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embedding.servicer import registration
from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item, Lane
from nearline.errors import InvalidRequest, NotReady
from nearline.serving import running
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.local.processes import free_port
from retrieval.embedders.clients import EmbeddingClients
from tests.index_builder.embedders import HashEmbedder, vector_of


@contextlib.asynccontextmanager
async def serving(*embedders: HashEmbedder) -> AsyncIterator[list[str]]:
    """Serves embedders; yields their addresses."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running([registration(lambda one=one: cast(Any, one))])  # type: ignore[misc]
            )
            for one in embedders
        ]


async def test_services_share_the_texts_and_one_that_is_away_costs_nothing() -> None:
    first, second = HashEmbedder(), HashEmbedder()
    async with serving(first, second) as addresses:
        away = f"127.0.0.1:{free_port()}"
        async with EmbeddingClients([away, *addresses]) as client:
            texts = [f"text {number}" for number in range(64)]
            replies = await asyncio.gather(
                *(client.embed([text], lane=Lane.BULK, timeout_s=10.0) for text in texts)
            )
            assert client.size == 2
            found = np.concatenate([reply.vectors for reply in replies])
    np.testing.assert_allclose(found, np.stack([vector_of(text) for text in texts]), rtol=1e-6)
    assert sorted(first.texts + second.texts) == sorted(texts)
    assert min(len(first.texts), len(second.texts)) >= 16


async def test_services_of_different_models_are_refused_by_name() -> None:
    async with (
        serving(HashEmbedder(fingerprint="a"), HashEmbedder(fingerprint="b")) as addresses,
        EmbeddingClients(addresses) as client,
    ):
        with pytest.raises(InvalidRequest, match=r"different models: hash \(a\), hash \(b\)"):
            await client.info()


async def test_without_any_service_the_error_names_one() -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    async with EmbeddingClients(addresses) as client:
        with pytest.raises(NotReady, match=addresses[0]):
            await client.info()


async def test_a_build_embeds_at_all_services_of_its_command(tmp_path: Path) -> None:
    first, second = HashEmbedder(), HashEmbedder()
    items = [Item(id=str(number), text=f"item number {number}") for number in range(1_000)]
    options = BuildOptions(store=str(tmp_path), index=IndexOptions(factory="Flat"))
    async with (
        serving(first, second) as addresses,
        open_embedder(",".join(addresses), quiet=True) as client,
    ):
        assert client.address == ",".join(addresses)
        await build_snapshot(items, options, client)
    assert sorted(first.texts + second.texts) == sorted(item.text for item in items)
    assert min(len(first.texts), len(second.texts)) >= 200

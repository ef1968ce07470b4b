"""A model served with the first numbers of its vectors is another model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from embedding.model import DEFAULT_MODEL, find_model
from embedding.model_cache import ModelCache
from embedding.service import EmbedCall, EmbeddingService, open_service
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings, cache_folder
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import EmbeddingClient, Item, TextRole
from nearline.errors import InvalidRequest, SettingsError, SnapshotMismatch
from nearline.serving import running
from nearline.store.snapshot import Store
from tests.embedding.fakes import DIM, FakeBackend, word_model


@asynccontextmanager
async def served(folder: Path, dimensions: int) -> AsyncIterator[EmbeddingService]:
    model = word_model(folder / str(dimensions)).truncated(dimensions)
    service = EmbeddingService(model, FakeBackend(), EmbeddingSettings())
    await service.start()
    try:
        yield service
    finally:
        await service.close()


def test_the_fingerprint_covers_the_dimensions(tmp_path: Path) -> None:
    whole = word_model(tmp_path)
    prints = [whole.truncated(number).fingerprint for number in range(1, DIM + 1)]
    assert len(set(prints)) == DIM
    assert prints[-1] == whole.fingerprint == whole.truncated(0).fingerprint
    with pytest.raises(SettingsError, match=r"dimensions is 5, vectors of words have 4 numbers"):
        whole.truncated(DIM + 1)


async def test_vectors_are_the_first_numbers_at_unit_length(tmp_path: Path) -> None:
    texts = ["w1 w2", "w7"]
    async with served(tmp_path, 0) as whole, served(tmp_path, 3) as short:
        full = (await whole.embed(texts)).vectors
        reply = await short.embed(texts)
        even_less = (await short.embed(texts, dimensions=2)).vectors
        streamed = [one async for one in short.embed_stream(_calls(texts))]
        info = await short.info()
    wanted = full[:, :3] / np.linalg.norm(full[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(reply.vectors, wanted, rtol=1e-6)
    np.testing.assert_array_equal(streamed[0].vectors, reply.vectors)
    two = full[:, :2] / np.linalg.norm(full[:, :2], axis=1, keepdims=True)
    np.testing.assert_allclose(even_less, two, rtol=1e-6)
    assert (info.dim, info.fingerprint) == (3, reply.fingerprint)


async def _calls(texts: list[str]) -> AsyncIterator[EmbedCall]:
    yield EmbedCall(texts=texts)


async def test_the_whole_model_and_more_numbers_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path, 0) as whole, served(tmp_path, 3) as short:
        for dimensions in (0, 4):
            refused = rf"dimensions is {dimensions}; 1\.\.3 are served"
            with pytest.raises(InvalidRequest, match=refused):
                await short.embed(["w1"], dimensions=dimensions)
        for dimensions in (1, 3):
            reply = await short.embed(["w1"], dimensions=dimensions)
            assert reply.vectors.shape == (1, dimensions)
        of_whole = (await whole.info()).fingerprint
        with pytest.raises(SnapshotMismatch, match="send it to the embedder of that model"):
            await short.embed(["w1"], expected_fingerprint=of_whole)


@pytest.mark.service
@pytest.mark.timeout(300)  # The first start of a machine converts and measures.
async def test_a_build_against_such_a_service_makes_a_snapshot_of_as_many_dimensions(
    tmp_path: Path,
) -> None:
    settings = EmbeddingSettings(dimensions=128)
    cache = cache_folder(settings, os.environ)
    texts = {"a": "A kettle boils water.", "b": "The harbour was dug in 1811."}
    whole = find_model(DEFAULT_MODEL, cache_folder=cache)
    async with open_service(EmbeddingSettings(), cache) as service:
        full = (await service.embed(list(texts.values()), TextRole.DOCUMENT)).vectors
    async with (
        open_service(settings, cache) as service,
        running([registration(lambda: service)]) as address,
        EmbeddingClient(address) as client,
    ):
        info = await client.info()
        short = (await client.embed(list(texts.values()), TextRole.DOCUMENT)).vectors
        items = [Item(id=name, text=text) for name, text in texts.items()]
        options = BuildOptions(store=str(tmp_path / "store"), golden_queries=0)
        result = await build_snapshot(items, options, client)
    assert info.dim == result.dim == short.shape[1] == 128
    assert info.min_cosine > 0.999
    assert info.fingerprint == whole.truncated(128).fingerprint != whole.fingerprint
    # Golden vectors, graph and choice are those of the whole model.
    assert not ModelCache(cache, whole.truncated(128)).folder.exists()
    wanted = full[:, :128] / np.linalg.norm(full[:, :128], axis=1, keepdims=True)
    # A bf16 engine rounds by what else is in the batch.
    np.testing.assert_allclose(short, wanted, atol=0.01)
    manifest = Store.open(options.store).manifest("default", result.snapshot_id)
    assert manifest.embedder.fingerprint == info.fingerprint
    (ref,) = manifest.models
    assert (ref.name, ref.version, ref.fingerprint) == (DEFAULT_MODEL, 1, info.fingerprint)

"""Fixtures with a generator over a small real snapshot, in process and over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from generation.evidence.evidence_reader import EvidenceReader
from generation.service import GenerationService
from generation.servicer import GenerationServicer
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.clients import GenerationClient
from nearline.contract import Generator, Item
from nearline.serving import Registration, running
from nearline.v1 import generation_pb2_grpc
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

DIM = 64
ITEMS = [
    Item(
        id="kettle",
        title="Kettle manual",
        text="The kettle boils water in 3 minutes. Descale it with vinegar every month. "
        "The cord is 80 cm long [7]. Never open the lid while it boils.",
        attributes={"kind": "manual"},
    ),
    Item(
        id="lamp",
        title="Lamp manual",
        text="The lamp takes two batteries. Press the red button to switch it on. "
        "It glows for 9 hours on full batteries.",
        attributes={"kind": "manual"},
    ),
    Item(
        id="tale",
        title="A tale",
        text="Once a fox met a crow. The crow held some cheese. The fox praised its voice.",
        attributes={"kind": "story"},
    ),
]


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder(DIM)


@pytest.fixture
async def store(tmp_path: Path, embedder: WordEmbedder) -> Path:
    options = BuildOptions(
        store=str(tmp_path), shards=2, chunks=ChunkOptions(max_tokens=24, overlap_sentences=1)
    )
    await build_snapshot(ITEMS, options, embedder)
    return tmp_path


@pytest_asyncio.fixture(params=["object", "gRPC"])
async def generator(
    store: Path, embedder: WordEmbedder, request: pytest.FixtureRequest
) -> AsyncIterator[Generator]:
    async with contextlib.AsyncExitStack() as stack:
        retriever = await stack.enter_async_context(opened(OBJECT, store, embedder))
        service = GenerationService(retriever, EvidenceReader(retriever, embedder))
        if request.param == "object":
            yield service
            return
        address = await stack.enter_async_context(running([registration(service)]))
        yield await stack.enter_async_context(GenerationClient(address))


def registration(service: GenerationService) -> Registration:
    return Registration(
        "nearline.v1.GenerationService",
        lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationServicer(service), server
        ),
    )

"""The collections of the conformance suite: shards of them, and services of their features."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytest_asyncio

from nearline.contract import Retriever
from tests.milvus.fixtures import address_of
from tests.retrieval.conformance.features import WAYS, Catalogue
from tests.retrieval.conformance.implementations import (
    IMPLEMENTATIONS,
    LARGE,
    PARAMETERS,
    SMALL,
    Held,
    Implementation,
)
from tests.retrieval.conformance.model import Model
from tests.retrieval.segment_pairs import FIELDS, random_document
from tests.retrieval.service_modes import LIVE
from tests.retrieval.small_snapshots import Document, write_snapshot

DIM_LARGE = 16


class Material(NamedTuple):
    """A store with two collections, and models of their answers.

    small: Whole numbers, so that scores are exact and many are equal. large: Unit vectors behind a
    graph.
    """

    store: Path
    small: Model
    large: Model


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Writes the store, once."""
    rng = np.random.default_rng(7)
    store = tmp_path_factory.mktemp("conformance")
    small = [random_document(rng, f"d{number:03d}") for number in range(70)]
    write_snapshot(store, small, collection=SMALL, fields=FIELDS, language="none")
    matrix = rng.normal(size=(3_000, DIM_LARGE)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    large = [
        Document(
            id=f"e{number:04d}",
            vectors=matrix[[number]],
            text="0123456789",
            attributes={"year": 2000 + number % 50},
        )
        for number in range(len(matrix))
    ]
    write_snapshot(
        store,
        large,
        collection=LARGE,
        fields=FIELDS,
        factory="HNSW32,Flat",
        metric="cosine",
    )
    return Material(store, Model(small), Model(large))


@pytest.fixture(scope="module", params=PARAMETERS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Returns each implementation in turn."""
    return IMPLEMENTATIONS[request.param]


@pytest.fixture(scope="module")
def server(implementation: Implementation, request: pytest.FixtureRequest) -> str:
    """Returns the address of the server that the implementation needs; empty: none."""
    return address_of(implementation.server, request) if implementation.server else ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(
    implementation: Implementation, material: Material, server: str
) -> AsyncIterator[Held]:
    """Returns the shard of the small collection."""
    async with implementation.opened(material.store, SMALL, server) as held:
        yield held


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def large(
    implementation: Implementation, material: Material, server: str
) -> AsyncIterator[Held]:
    """Returns the shard of the large collection."""
    async with implementation.opened(material.store, LARGE, server) as held:
        yield held


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Returns each way to serve the features of a search in turn."""
    name: str = request.param
    return name


Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def stores() -> dict[tuple[int, str], Path]:
    """Returns the stores that were built: by catalogue, and the module that changes it."""
    return {}


@pytest.fixture(scope="module")
def built(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    stores: dict[tuple[int, str], Path],
) -> Build:
    """Returns what builds the CATALOGUE of the module for a way to serve it, once."""
    catalogue: Catalogue = request.module.CATALOGUE

    def build(way: str) -> Path:
        # Live changes are written once to a store.
        key = (id(catalogue), request.module.__name__ if way == LIVE else "")
        if key not in stores:
            stores[key] = catalogue.build(tmp_path_factory.mktemp("features"), way)
        return stores[key]

    return build


@pytest.fixture(scope="module")
def store(built: Build, way: str) -> Path:
    """Returns the store of a way."""
    return built(way)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    request: pytest.FixtureRequest, store: Path, way: str
) -> AsyncIterator[Retriever]:
    """Returns a service of the CATALOGUE of the module."""
    async with request.module.CATALOGUE.served(store, way) as retriever:
        yield retriever

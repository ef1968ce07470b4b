"""A router whose items belong to two tenants, and a client of each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline.clients import AdminClient, RetrievalClient
from nearline.contract import Item
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.processes import free_port, retrieval_process
from tests.index_builder.behaviour.circular_walks import ITEMS, documents, walks

# Of each item its readers; the user of a walk goes from each item to the next one.
READERS = {
    one: [("public", "tenant:a", "tenant:b", "role:staff")[number % 4]]
    for number, one in enumerate(documents())
} | {"i01": ["tenant:a", "tenant:b"], "i11": []}
OF_A = {one for one, readers in READERS.items() if {"public", "tenant:a"} & set(readers)}
OF_B = {one for one, readers in READERS.items() if {"public", "tenant:b"} & set(readers)}
Ids = set[str]


def unit(number: int) -> NDArray[np.float32]:
    vector = np.zeros(ITEMS, np.float32)
    vector[number] = 1
    return vector


@dataclass
class Tenants:
    """Clients of one router.

    staff: Of tenant a, with a role. elsewhere: Of tenant a, with a right in another collection.
    keys: The ids of their keys. metrics_port: The port of the router's metrics.
    """

    a: RetrievalClient
    b: RetrievalClient
    staff: RetrievalClient
    operator: RetrievalClient
    elsewhere: AdminClient
    keys: Ids
    metrics_port: int


@pytest_asyncio.fixture(name="tenants", scope="module", loop_scope="module")
async def give_tenants(
    shared_redis: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants")
    items = [
        Item(
            id=one,
            title=f"title {one}",
            text=f"text {one}",
            vector=unit(number),
            attributes={"brand": f"brand {number % 2}"}
            | ({"readers": READERS[one]} if READERS[one] else {}),
        )
        for number, one in enumerate(documents())
    ]
    options = BuildOptions(
        store=str(folder / "store"), shards=2, training=TrainingOptions(interactions=walks())
    )
    await build_snapshot(items, options)
    store = KeyStore(folder / "keys.toml")
    keys = {
        name: store.create(tenant, rights, roles)[0]
        for name, tenant, rights, roles in (
            ("a", "a", {EVERY: Right.WRITE}, ()),
            ("b", "b", {EVERY: Right.WRITE}, ()),
            ("staff", "a", {EVERY: Right.READ}, ("staff",)),
            ("operator", EVERY, {EVERY: Right.SERVICE}, ()),
            ("elsewhere", "a", {"other": Right.ADMIN}, ()),
        )
    }
    port = free_port()
    words = ["--readers-attribute", "readers", "--keys", str(folder / "keys.toml")]
    words += ["--search-cache", "1000", "--redis", shared_redis, "--metrics-port", str(port)]
    ids = {key.split("_")[1] for key in keys.values()}
    async with (
        retrieval_process(folder / "store", words) as router,
        contextlib.AsyncExitStack() as stack,
    ):
        elsewhere = AdminClient(router.address, token=keys.pop("elsewhere"))
        yield Tenants(
            **{
                name: await stack.enter_async_context(RetrievalClient(router.address, token=key))
                for name, key in keys.items()
            },
            elsewhere=await stack.enter_async_context(elsewhere),
            keys=ids,
            metrics_port=port,
        )

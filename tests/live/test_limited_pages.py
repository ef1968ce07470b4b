"""Our own clients, and a drop, work under limits of a page and of calls per second."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from nearline import contract as c
from nearline.clients import AdminClient, IngestClient, RetrievalClient
from nearline.retry import retry_while_overloaded
from nearline_cli.app import app
from nearline_cli.local.processes import ingest_process, retrieval_process
from tests.redis_server import needs_redis, valkey

pytestmark = [pytest.mark.service, needs_redis, pytest.mark.asyncio(loop_scope="module")]
DIM, ROWS = 4, 30
LIMITS = "[default]\npage = 2\nrequests_per_s = 20\nburst = 5"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="address")
async def give_address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("limited")
    (folder / "limits.toml").write_text(LIMITS)
    limits = ("--limits", str(folder / "limits.toml"))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(valkey())
        queue = await stack.enter_async_context(ingest_process(url, limits))
        words = ("--redis", url, "--ingest", queue.address, "--allow-empty", *limits)
        router = retrieval_process(folder / "store", words)
        yield (await stack.enter_async_context(router)).address


async def wait(call: Callable[[], Awaitable[Any]]) -> Any:
    return await retry_while_overloaded(call)


def item(row: int) -> c.Item:
    return c.Item(
        id=f"a{row:02d}", text=f"lamp {row}", vector=np.ones(DIM, np.float32), attributes={"n": row}
    )


async def test_clients_read_all_pages_and_a_drop_ends(address: str, tmp_path: Path) -> None:
    async with (
        AdminClient(address) as admin,
        RetrievalClient(address) as client,
        IngestClient(address) as ingest,
    ):
        await wait(partial(admin.create_collection, "shop", dim=DIM, attributes={"n": "int"}))
        items = [item(row) for row in range(ROWS)]
        written = await wait(partial(client.upsert_items, items, collection="shop"))
        read = partial(client.list_items, page_size=2, collection="shop")
        await wait(partial(read, min_watermark=written.watermark))
        ids = [one.id async for one in client.items(collection="shop")]
        assert ids == [one.id for one in items]
        file = tmp_path / "shop.jsonl"
        words = ["items", "export", str(file), "--collection", "shop", "--address", address]
        exported = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert exported.exit_code == 0, exported.output
        assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ids
        deleted = await wait(partial(client.delete_matching, "n >= 3", collection="shop"))
        assert (deleted.deleted, deleted.more) == (ROWS - 3, False)
        for row in range(9):
            await wait(partial(ingest.submit, [item(row)], collection="shop"))
        words = ["jobs", "list", "--collection", "shop", "--json", "--address", address]
        listed = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert listed.exit_code == 0, listed.output
        assert len(listed.output.splitlines()) == 9
        receipt = await wait(partial(admin.drop_collection, "shop"))
        assert receipt.cancelled_jobs == 9

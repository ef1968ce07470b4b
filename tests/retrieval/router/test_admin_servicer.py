"""Requests of an administrator that need a store only: pages, histories, aliases."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from nearline import serving
from nearline.access.rights import Right
from nearline.clients import AdminClient
from nearline.errors import Conflict, InvalidRequest, NotFound
from nearline.settings import ServerSettings
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2
from nearline.v1.admin_pb2_grpc import AdminServiceStub, add_AdminServiceServicer_to_server
from nearline_cli.local.key_store import KeyStore
from retrieval.protocols.compute_threads import read_store
from retrieval.router.admin_servicer import AdminServicer
from retrieval.router.live_reports import LiveReporter
from tests.retrieval.small_snapshots import documents_of, write_snapshot

NO_CONTEXT = cast(Any, None)


class Admin(AdminServicer):
    """A servicer of a store only."""

    def __init__(self, root: Path) -> None:
        store = Store(root)
        live = LiveReporter(store, None, cast(Any, None))
        super().__init__(store, *cast(Any, (None, None, live, None, None, None)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a store with four snapshots, each of which was current."""
    root = tmp_path_factory.mktemp("store")
    for _ in range(4):
        write_snapshot(root, documents_of(np.ones((1, 2), np.float32)))
    return root


async def list_snapshots(root: Path, **fields: Any) -> admin_pb2.ListSnapshotsResponse:
    return await Admin(root).ListSnapshots(admin_pb2.ListSnapshotsRequest(**fields), NO_CONTEXT)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
async def test_pages_together_list_every_snapshot_once_newest_first(root: Path, size: int) -> None:
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        page = await list_snapshots(root, page_size=size, page_token=token)
        token = page.next_page_token
        assert not any(one.files for one in page.snapshots)
        pages.append([one.snapshot_id for one in page.snapshots])
    ids = Store(root).snapshot_ids("default")
    assert pages == [ids[at : at + size] for at in range(0, len(ids), size)]


async def test_of_a_damaged_snapshot_its_id_is_listed_and_the_others_are_whole(
    root: Path,
) -> None:
    ids = Store(root).snapshot_ids("default")
    manifest = Store(root).snapshot_folder("default", ids[1]) / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text("{")
    try:
        page = await list_snapshots(root)
    finally:
        manifest.write_text(whole)
    assert [one.snapshot_id for one in page.snapshots] == ids
    assert [bool(one.schema_version) for one in page.snapshots] == [True, False, True, True]


async def test_a_page_without_a_size_has_a_hundred_snapshots_and_the_largest_a_thousand(
    root: Path,
) -> None:
    for size in (0, 1_000):
        page = await list_snapshots(root, page_size=size)
        assert len(page.snapshots) == 4 and not page.next_page_token
    with pytest.raises(InvalidRequest, match="page_size is 1001") as caught:
        await list_snapshots(root, page_size=1_001)
    assert caught.value.field == "page_size"


async def test_a_page_token_must_be_a_snapshot_id(root: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await list_snapshots(root, page_token="../x")
    assert caught.value.field == "page_token"


async def test_a_collection_without_snapshots_is_not_found(root: Path) -> None:
    with pytest.raises(NotFound, match="'books' has no published snapshot"):
        await list_snapshots(root, collection="books")


@pytest.mark.parametrize(
    ("history", "epochs"), [(0, []), (1, [3]), (2, [3, 2]), (1_000, [3, 2, 1])]
)
async def test_the_history_of_an_alias_follows_the_record_in_force(
    root: Path, history: int, epochs: list[int]
) -> None:
    request = admin_pb2.GetAliasesRequest(history=history)
    reply = await Admin(root).GetAliases(request, NO_CONTEXT)
    assert reply.in_force.epoch == 4
    assert [record.epoch for record in reply.history] == epochs


async def test_a_history_is_limited(root: Path) -> None:
    with pytest.raises(InvalidRequest, match="history is 1001") as caught:
        await Admin(root).GetAliases(admin_pb2.GetAliasesRequest(history=1_001), NO_CONTEXT)
    assert caught.value.field == "history"


async def test_the_current_snapshot_is_returned_unless_another_is_named(root: Path) -> None:
    oldest = Store(root).snapshot_ids("default")[-1]
    for named, expected in (("", Store(root).alias_in_force("default").current), (oldest, oldest)):
        request = admin_pb2.GetSnapshotRequest(snapshot_id=named)
        reply = await Admin(root).GetSnapshot(request, NO_CONTEXT)
        assert reply.snapshot.snapshot_id == expected
        assert reply.snapshot.files


@pytest.mark.parametrize("kind", ["promotion", "canary", "end of a trial", "rollback"])
async def test_a_decision_about_an_older_state_of_the_aliases_is_a_conflict(
    root: Path, kind: str
) -> None:
    store = Store(root)
    before = store.alias_in_force("default")
    # The gate has not judged it, but that is no reason to judge it now.
    oldest = store.snapshot_ids("default")[-1]
    admin = Admin(root)
    with pytest.raises(Conflict, match="current epoch of 'default' is 4, but 3 was expected"):
        if kind == "promotion":
            await admin.PromoteSnapshot(
                admin_pb2.PromoteSnapshotRequest(snapshot_id=oldest, expected_epoch=3), NO_CONTEXT
            )
        elif kind == "rollback":
            await admin.RollbackSnapshot(
                admin_pb2.RollbackSnapshotRequest(expected_epoch=3), NO_CONTEXT
            )
        else:
            canary = oldest if kind == "canary" else ""
            await admin.SetTrafficSplit(
                admin_pb2.SetTrafficSplitRequest(
                    canary_snapshot_id=canary, canary_share=0.1, expected_epoch=3
                ),
                NO_CONTEXT,
            )
    assert store.alias_in_force("default") == before


async def test_the_share_of_a_canary_is_checked_before_the_gate(root: Path) -> None:
    oldest = Store(root).snapshot_ids("default")[-1]
    request = admin_pb2.SetTrafficSplitRequest(canary_snapshot_id=oldest, canary_share=1.0)
    with pytest.raises(InvalidRequest) as caught:
        await Admin(root).SetTrafficSplit(request, NO_CONTEXT)
    assert caught.value.field == "canary_share"


def registration(root: Path) -> serving.Registration:
    servicer = Admin(root)
    return serving.Registration(
        "nearline.v1.AdminService",
        lambda server: add_AdminServiceServicer_to_server(servicer, server),
    )


@pytest.mark.service
async def test_readers_of_a_slow_store_keep_neither_other_threads_nor_changes_waiting(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began, read = threading.Event(), threading.Semaphore(0), Store.manifest
    reads: list[str] = []

    def slow(self: Store, collection: str, snapshot_id: str) -> Any:
        reads.append(snapshot_id)
        began.release()
        assert go.wait(20)
        return read(self, collection, snapshot_id)

    monkeypatch.setattr(Store, "manifest", slow)
    settings = ServerSettings(max_calls=40)
    async with (
        serving.running([registration(root)], settings=settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = AdminServiceStub(channel)
        calls = [stub.ListSnapshots(admin_pb2.ListSnapshotsRequest()) for _ in range(80)]
        for _ in range(4):
            assert await asyncio.to_thread(began.acquire, timeout=20)
        async with asyncio.timeout(20):
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
            with pytest.raises(grpc.aio.AioRpcError, match="canary_share"):
                await stub.SetTrafficSplit(admin_pb2.SetTrafficSplitRequest(canary_snapshot_id="a"))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    go.set()
    # Of a page that its caller no longer waits for, no further snapshot is read.
    threads = threading.Barrier(4)
    await asyncio.gather(*(read_store(threads.wait, 20) for _ in range(4)))
    assert len(reads) == 4


@pytest.mark.service
async def test_who_of_a_release_is_its_caller_and_not_whom_the_request_names(
    tmp_path: Path,
) -> None:
    for _ in range(3):
        write_snapshot(tmp_path / "store", documents_of(np.ones((1, 2), np.float32)))
    key, bob = KeyStore(tmp_path / "keys.toml").create("shop", {"*": Right.ADMIN})
    added = registration(tmp_path / "store")
    names = []
    for keys in (str(tmp_path / "keys.toml"), ""):
        async with (
            serving.running([added], settings=ServerSettings(keys=keys)) as address,
            AdminClient(address, token=key) as client,
        ):
            names.append((await client.roll_back(who="alice")).who)
    # Without credentials, the request is all there is.
    assert names == [bob, "alice"]

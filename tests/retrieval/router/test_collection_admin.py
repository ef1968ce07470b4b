"""Collections are listed and dropped, whatever fails meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nearline.errors import Conflict, InvalidRequest, NotFound, NotReady
from nearline.store.removal import remove_files, remove_older_records
from nearline.store.snapshot import Store
from nearline.v1 import admin_pb2, snapshot_pb2
from retrieval.rollout.collections import ServedCollections
from retrieval.router.collection_admin import CollectionAdmin
from retrieval.router.new_collection import CollectionLimits
from retrieval.snapshots import aliases
from retrieval.snapshots.collection_names import CollectionNames
from tests.retrieval.small_snapshots import documents_of, write_snapshot

DOCUMENTS = documents_of(np.ones((1, 2), np.float32))


class Follower:
    """A follower of a router that serves nothing."""

    async def poll(self) -> None:
        pass


class OtherPart:
    """What another system holds of a collection; removing it fails at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.removed: list[str] = []

    async def drop(self, name: str) -> None:
        if self.failures:
            self.failures -= 1
            raise NotReady("it does not answer")
        self.removed.append(name)


def admin_of(store: Store, other: OtherPart | None = None, most: int = 10) -> CollectionAdmin:
    limits = CollectionLimits(collections=most, servers=0, poll_s=0.0)
    return CollectionAdmin(
        store,
        ServedCollections(),
        cast(Any, Follower()),
        None,
        (),
        None,
        limits,
        CollectionNames(store, 1.0),
        None if other is None else other.drop,
    )


async def names_listed(store: Store) -> list[tuple[str, int]]:
    page = await admin_of(store).describe_page(lambda name: True, "", 10)
    return [(one.name, one.dim) for one in page.collections]


async def test_a_drop_that_failed_is_finished_by_the_same_router_at_once(tmp_path: Path) -> None:
    write_snapshot(tmp_path, DOCUMENTS, collection="shop")
    other = OtherPart(failures=1)
    admin = admin_of(Store(tmp_path), other)
    with pytest.raises(NotReady):
        await admin.drop("shop", "ann", "tidy")
    # Another router cannot know that it has failed.
    with pytest.raises(Conflict, match=r"ann is dropping 'shop'; .* try again in [56]. s"):
        await admin_of(Store(tmp_path), other).drop("shop", "bob", "tidy")
    # What could be removed counts once.
    await admin.drop("shop", "ann", "tidy")
    assert other.removed == ["shop"]
    assert [one.name for one in (tmp_path / "shop").rglob("*.json")] == ["0000000003.json"]
    with pytest.raises(NotFound):
        await admin.drop("shop", "ann", "tidy")


async def test_a_collection_dropped_while_collections_are_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_snapshot(tmp_path, DOCUMENTS, collection=name)
    store = Store(tmp_path)
    read = store.manifest

    def manifest(collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
        if collection == "a":
            other = Store(tmp_path)
            dropped = aliases.drop(other, "a")
            remove_files(other, "a", dropped)
            remove_older_records(other, "a", dropped)
        return read(collection, snapshot_id)

    monkeypatch.setattr(store, "manifest", manifest)
    assert await names_listed(store) == [("b", 2)]


@pytest.mark.parametrize("file", ["manifest.json", "0000000001.json"])
async def test_a_damaged_collection_does_not_hide_the_others(tmp_path: Path, file: str) -> None:
    for name in ("a", "b"):
        write_snapshot(tmp_path, DOCUMENTS, collection=name)
    [damaged] = (tmp_path / "a").rglob(file)
    damaged.write_text("{")
    assert await names_listed(Store(tmp_path)) == [("a", 0), ("b", 2)]


async def test_a_store_with_as_many_collections_as_allowed_takes_no_more(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_snapshot(tmp_path, DOCUMENTS, collection=name)
    request = admin_pb2.CreateCollectionRequest(collection="c", dim=2)
    with pytest.raises(InvalidRequest, match="has 2 collections, and may have 2"):
        await admin_of(Store(tmp_path), most=2).create(request)
    assert Store(tmp_path).collections() == ["a", "b"]

"""The receipt of a deletion names the snapshots that learned from the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from index_builder.behaviour.table_writer import write_tables
from index_builder.pipeline.publisher import list_files, publish, temporary_snapshot
from nearline import contract as c
from nearline.store.snapshot import SCHEMA_VERSION, Store
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.protocols.snapshot import read_snapshot_ref
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases
from retrieval.users.records import DeletionResult
from tests.retrieval.behaviour.test_ranker import card_of, tables

RESULT = DeletionResult(deleted_us=1_000_000, interactions=2, log_entries=3, sessions=4)


class States:
    """A state of users that deletes every user."""

    async def delete(self, collection: str, user_id: str) -> DeletionResult:
        return RESULT


def write(store: Store, day: int, user: str) -> str:
    """Publishes a snapshot that learned from one user; from nobody if it is empty."""
    snapshot_id = f"202601{day:02}T000000Z-000000"
    with temporary_snapshot(store, "default", snapshot_id) as folder:
        manifest = snapshot_pb2.Manifest(
            schema_version=SCHEMA_VERSION, snapshot_id=snapshot_id, collection="default"
        )
        if user:
            learned = tables()
            write_tables(
                learned._replace(histories=learned.histories._replace(users=[user])), folder
            )
            manifest.behaviour.CopyFrom(card_of())
        manifest.files.extend(list_files(folder))
        publish(store, folder, manifest)
    return snapshot_id


@pytest.fixture(name="store", scope="module")
def give_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Returns a store with snapshots of ann, bob, ann and nobody; the second of ann is current."""
    root: Path = tmp_path_factory.mktemp("store")
    store = Store(root)
    made = [write(store, day, user) for day, user in enumerate(("ann", "bob", "ann", ""), 1)]
    aliases.promote(store, "default", made[2])
    return store


def service(store: Store, *, reads_store: bool = True) -> RecommendationService:
    collections = ServedCollections()
    snapshot = read_snapshot_ref(store, "default", store.alias_in_force("default").current, 1)
    collections.serve(ServedCollection(snapshot, []))
    return RecommendationService(
        collections,
        default_policies(),
        cast(Any, States()),
        store=store if reads_store else None,
    )


@pytest.mark.parametrize(
    ("user", "expected"), [("ann", [(3, True), (1, False)]), ("bob", [(2, False)]), ("eve", [])]
)
async def test_the_snapshots_that_learned_from_a_user_are_named_newest_first(
    store: Store, user: str, expected: list[tuple[int, bool]]
) -> None:
    receipt = await service(store).delete_user(user)
    found = [(int(one.snapshot_id[6:8]), one.in_force) for one in receipt.snapshots]
    assert found == expected


async def test_a_receipt_counts_what_was_deleted(store: Store) -> None:
    receipt = await service(store, reads_store=False).delete_user("ann")
    assert receipt == c.DeletionReceipt(
        deleted=from_us(1_000_000), interactions=2, log_entries=3, sessions=4, snapshots=()
    )

"""What a service says that snapshots learned from a user, and the receipt of a deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format

from index_builder.behaviour.table_writer import write_tables
from nearline import contract as c
from nearline.store.manifest_files import list_files
from nearline.store.publication import publish, temporary_snapshot
from nearline.store.snapshot import SCHEMA_VERSION, Store
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.model import BehaviourModel
from retrieval.protocols.snapshot import read_snapshot_ref
from retrieval.recommend.deletion_trace import influenced_snapshots
from retrieval.recommend.policies import default_policies
from retrieval.recommend.service import RecommendationService
from retrieval.rollout.collections import ServedCollections
from retrieval.search.collection import ServedCollection
from retrieval.snapshots import aliases
from retrieval.users.records import DeletionResult
from tests.retrieval.behaviour.test_ranker import card_of, tables
from tests.retrieval.recommend.small_model import learned

RECORDED = c.Interaction(item_id="b", user_id="ann")
RESULT = DeletionResult(deleted_us=1_000_000, interactions=2, log_entries=3, sessions=4)


class States:
    """The state of a user. deleted_us: When the user was deleted; 0: never."""

    def __init__(self, deleted_us: int = 0) -> None:
        self._deleted = from_us(deleted_us) if deleted_us else None

    async def export(self, collection: str, user_id: str) -> c.UserRecord:
        return c.UserRecord(interactions=[RECORDED], deleted=self._deleted)

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


def service(
    store: Store,
    *,
    reads_store: bool = True,
    deleted_us: int = 0,
    known: BehaviourModel | None = None,
) -> RecommendationService:
    collections = ServedCollections()
    snapshot = read_snapshot_ref(store, "default", store.alias_in_force("default").current, 1)
    collections.serve(ServedCollection(snapshot, [], known))
    return RecommendationService(
        collections,
        default_policies(),
        cast(Any, States(deleted_us)),
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


async def test_a_snapshot_that_cannot_be_read_may_have_learned_from_a_user(store: Store) -> None:
    oldest = store.snapshot_ids("default")[-1]
    manifest = store.snapshot_folder("default", oldest) / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text("{")
    try:
        receipt = await service(store).delete_user("bob")
    finally:
        manifest.write_text(whole)
    assert [int(one.snapshot_id[6:8]) for one in receipt.snapshots] == [2, 1]


async def test_a_snapshot_of_a_newer_version_may_have_learned_from_a_user(store: Store) -> None:
    newest = store.snapshot_ids("default")[0]
    manifest = store.snapshot_folder("default", newest) / "manifest.json"
    whole = manifest.read_text()
    newer = snapshot_pb2.Manifest()
    json_format.Parse(whole, newer)
    newer.schema_version = 99
    manifest.write_text(json_format.MessageToJson(newer))
    try:
        receipt = await service(store).delete_user("bob")
    finally:
        manifest.write_text(whole)
    assert [int(one.snapshot_id[6:8]) for one in receipt.snapshots] == [4, 2]


async def test_a_snapshot_that_is_pruned_meanwhile_holds_nothing_of_a_user(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ["20260105T000000Z-000000", *store.snapshot_ids("default")]
    monkeypatch.setattr(store, "snapshot_ids", lambda collection: listed)
    receipt = await service(store).delete_user("bob")
    assert [int(one.snapshot_id[6:8]) for one in receipt.snapshots] == [2]


async def test_without_an_alias_no_snapshot_is_in_force(store: Store, tmp_path: Path) -> None:
    unpromoted = Store(tmp_path)
    write(unpromoted, 1, "ann")
    served = service(store)
    served._store = unpromoted
    receipt = await served.delete_user("ann")
    assert [one.in_force for one in receipt.snapshots] == [False]


async def test_a_receipt_counts_what_was_deleted(store: Store) -> None:
    receipt = await service(store, reads_store=False).delete_user("ann")
    assert receipt == c.DeletionReceipt(
        deleted=from_us(1_000_000), interactions=2, log_entries=3, sessions=4, snapshots=()
    )


@pytest.mark.parametrize(
    ("deleted_us", "expected"),
    [(0, [("a", 2), ("g", 1)]), (999_999, [("a", 2), ("g", 1)]), (1_000_000, [("a", 2)]),
     (2_000_000, [])],
)  # fmt: skip
async def test_what_a_snapshot_learned_before_a_deletion_is_not_shown(
    store: Store, deleted_us: int, expected: list[tuple[str, int]]
) -> None:
    had = {"ann": [("a", 2_000_000), ("g", 1_000_000)]}
    known = learned(["a", "b", "g"], {"a": {"b": 1.0}}, {"a": 1.0}, had)
    record = await service(store, deleted_us=deleted_us, known=known).get_user("ann")
    assert record.interactions == [RECORDED]
    assert [(one.item_id, one.time) for one in record.learned] == [
        (item_id, from_us(second * 1_000_000)) for item_id, second in expected
    ]
    assert {one.user_id for one in record.learned} <= {"ann"}


async def test_of_another_user_nothing_was_learned(store: Store) -> None:
    known = learned(["a", "b"], {}, {"a": 1.0}, {"ann": [("a", 1)]})
    for model in (known, None):
        assert (await service(store, known=model).get_user("eve")).learned in ((), [])


def test_a_snapshot_that_is_being_built_may_have_a_trace_as_well(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published, building = write(store, 1, "ann"), "20260109T000000Z-000000"
    for one in (published, building):
        store.files.create(f"default/begun/{one}", b"")
    for user, found in (("ann", [building, published]), ("bob", [building])):
        influenced = influenced_snapshots(store, "default", user)
        assert [one.snapshot_id for one in influenced] == found

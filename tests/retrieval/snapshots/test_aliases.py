"""Promotion, rollback, trials and pruning."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from nearline.errors import Conflict, InvalidRequest, NotFound, NotReady, SnapshotCorrupt
from nearline.store.files import StoreFiles
from nearline.store.json_records import RecordSeries
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.snapshots import aliases, retention
from tests.retrieval.small_snapshots import documents_of, write_snapshot

LATER = datetime.now(UTC) + timedelta(hours=2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def make(store: Store, count: int) -> list[str]:
    """Writes and promotes snapshots in turn; their ids sort by time."""
    matrix = np.ones((4, 4), np.float32)
    made = []
    for number in range(count):
        old = write_snapshot(Path(store.url), documents_of(matrix), promote=False)
        name = f"2026010{number + 1}T000000Z-00000{number}"
        folder = store.snapshots_folder("default")
        manifest = (folder / old / "manifest.json").read_text().replace(old, name)
        (folder / old).rename(folder / name)
        (folder / name / "manifest.json").write_text(manifest)
        aliases.promote(store, "default", name, who="test")
        made.append(name)
    return made


def make_one(store: Store) -> str:
    """Writes a snapshot that is not promoted."""
    matrix = np.ones((4, 4), np.float32)
    return write_snapshot(Path(store.url), documents_of(matrix), promote=False)


def current(store: Store) -> str:
    return store.alias_in_force("default").current


class InterruptedFiles:
    """The files of a store; `meanwhile` runs once, before the operation of a number."""

    def __init__(self, store: Store, number: int, meanwhile: Callable[[], object]) -> None:
        self._files, self._left, self._meanwhile = store.files, number, meanwhile
        self.done = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if not callable(found):
            return found
        self._left -= 1
        if self._left == -1:
            self.done = True
            self._meanwhile()
        return found


def test_what_is_promoted_or_tried_after_a_plan_was_made_is_not_pruned(store: Store) -> None:
    a, b, _ = make(store, 3)
    aliases.promote(store, "default", make_one(store))
    planned = retention.plan_prune(store, "default", 0, now=LATER)
    assert {one.name for one in planned if not one.kept} == {a, b}
    aliases.promote(store, "default", a)
    aliases.split(store, "default", b, 0.5)
    retention.prune(store, "default", planned)
    assert {a, b} <= set(store.snapshot_ids("default"))


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("inner", ["promote", "prune"])
def test_of_a_promotion_and_a_prune_at_any_moment_no_alias_names_what_is_gone(
    tmp_path: Path, inner: str, is_split: bool
) -> None:
    outcomes = set()
    for number in range(200):
        store = Store(tmp_path / str(number))
        a, _, c = make(store, 3)
        before = store.alias_in_force("default")
        planned = retention.plan_prune(store, "default", 0, now=LATER)

        def promote(at: Store, wanted: str = a) -> None:
            with contextlib.suppress(NotFound, SnapshotCorrupt, NotReady):
                if is_split:
                    aliases.split(at, "default", wanted, 0.5)
                else:
                    aliases.promote(at, "default", wanted)

        def prune(at: Store, planned: Sequence[retention.PruneCandidate] = planned) -> None:
            retention.prune(at, "default", planned)

        inside, outside = (promote, prune) if inner == "promote" else (prune, promote)
        files = InterruptedFiles(store, number, partial(inside, store))
        outside(Store(cast(StoreFiles, files)))
        if not files.done:
            break
        in_force = store.alias_in_force("default")
        for named in {in_force.current, in_force.canary} - {""}:
            store.verify("default", named)
        is_used = a in (in_force.current, in_force.canary)
        if not is_used:
            assert (in_force.current, in_force.canary) == (before.current, before.canary) == (c, "")
        outcomes.add((is_used, a in store.snapshot_ids("default")))
    assert number > 5
    assert outcomes == {(True, True), (False, False)}


def test_rollback_goes_back_step_by_step(store: Store) -> None:
    a, b, c = make(store, 3)
    assert aliases.roll_back(store, "default").current == b
    assert aliases.roll_back(store, "default", why="worse").current == a
    with pytest.raises(NotFound, match=f"no snapshot of 'default' was current before {a}"):
        aliases.roll_back(store, "default")
    aliases.promote(store, "default", c)
    assert aliases.roll_back(store, "default").current == a
    record = store.alias_in_force("default")
    assert (record.epoch, record.rollback_to_epoch) == (7, 1)
    assert record.why == f"rollback from {c}"
    assert "@" in record.who


def test_a_record_requires_the_expected_epoch(store: Store) -> None:
    a, _ = make(store, 2)
    with pytest.raises(Conflict, match="current epoch of 'default' is 2, but 1 was expected"):
        aliases.promote(store, "default", a, expected_epoch=1)
    with pytest.raises(Conflict, match="7 was expected"):
        aliases.roll_back(store, "default", expected_epoch=7)
    assert aliases.promote(store, "default", a, expected_epoch=2).epoch == 3


@pytest.mark.parametrize("expected", [0, 2])
@pytest.mark.parametrize("change", ["promote", "roll_back", "split"])
def test_a_change_between_check_and_record_is_a_conflict(
    store: Store, monkeypatch: pytest.MonkeyPatch, change: str, expected: int
) -> None:
    a, b = make(store, 2)
    create = store.create_alias_record

    def overtaken(collection: str, record: snapshot_pb2.AliasRecord) -> None:
        monkeypatch.setattr(store, "create_alias_record", create)
        aliases.promote(store, collection, b, why="faster")
        create(collection, record)

    def decide() -> snapshot_pb2.AliasRecord:
        if change == "promote":
            return aliases.promote(store, "default", a, expected_epoch=expected)
        if change == "split":
            return aliases.split(store, "default", a, 0.1, expected_epoch=expected)
        return aliases.roll_back(store, "default", expected_epoch=expected)

    monkeypatch.setattr(store, "create_alias_record", overtaken)
    if change == "promote" and not expected:
        # Any epoch is accepted: the later change counts.
        assert (decide().epoch, current(store)) == (4, a)
        return
    with pytest.raises(Conflict, match="current epoch of 'default' is 3, but 2 was expected"):
        decide()
    assert (store.alias_in_force("default").why, current(store)) == ("faster", b)


@pytest.mark.parametrize("change", ["promote", "roll_back", "split"])
def test_a_change_during_the_checks_is_a_conflict(store: Store, change: str) -> None:
    a, b = make(store, 2)

    def check(manifest: snapshot_pb2.Manifest) -> None:
        aliases.promote(store, "default", b, why="faster")

    with pytest.raises(Conflict, match="is 3, but 2 was expected"):
        if change == "promote":
            aliases.promote(store, "default", a, expected_epoch=2, check=check)
        elif change == "split":
            aliases.split(store, "default", a, 0.1, check=check)
        else:
            aliases.roll_back(store, "default", check=check)
    assert (store.alias_in_force("default").why, current(store)) == ("faster", b)


def test_a_corrupt_snapshot_cannot_be_promoted(store: Store) -> None:
    a, b = make(store, 2)
    path = store.snapshot_folder("default", a) / "shards/000/items.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SnapshotCorrupt, match="the manifest says"):
        aliases.promote(store, "default", a)
    with pytest.raises(SnapshotCorrupt, match="the manifest says"):
        aliases.roll_back(store, "default")
    with pytest.raises(NotFound, match="has no snapshot"):
        aliases.promote(store, "default", "20250101T000000Z-000000")
    assert current(store) == b


def test_prune_keeps_what_is_needed_and_the_newest(store: Store) -> None:
    a, b, c, d, e = make(store, 5)
    aliases.promote(store, "default", b)
    # b is current, e is where a rollback goes; of the others one stays.
    planned = retention.plan_prune(store, "default", 1, now=LATER)
    assert {one.name: one.kept for one in planned} == {
        e: "target of a rollback",
        d: "one of the newest 1",
        c: "",
        b: "current",
        a: "",
    }
    retention.prune(store, "default", planned)
    assert store.snapshot_ids("default") == [e, d, b]
    assert aliases.roll_back(store, "default").current == e


def test_pruning_does_not_read_the_whole_history(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store, 5)
    read = []
    real = RecordSeries.read

    def noted(self: RecordSeries[snapshot_pb2.AliasRecord], name: str) -> snapshot_pb2.AliasRecord:
        read.append(name)
        return real(self, name)

    monkeypatch.setattr(RecordSeries, "read", noted)
    retention.plan_prune(store, "default", 0)
    assert set(read) == {"0000000005.json", "0000000004.json"}


def test_prune_keeps_young_snapshots_unless_forced(store: Store) -> None:
    make(store, 1)
    young = [
        write_snapshot(Path(store.url), documents_of(np.ones((2, 2), np.float32)), promote=False)
        for _ in range(2)
    ]
    kept = {one.name: one.kept for one in retention.plan_prune(store, "default", 0)}
    assert [kept[one] for one in young] == ["new: a build may still promote it"] * 2
    kept = {
        one.name: one.kept
        for one in retention.plan_prune(store, "default", 0, min_age=timedelta(0))
    }
    assert [kept[one] for one in young] == ["", ""]
    with pytest.raises(InvalidRequest, match="keep is -1"):
        retention.plan_prune(store, "default", -1)


def test_prune_reports_the_size_of_each_snapshot(store: Store) -> None:
    (name,) = make(store, 1)
    size = sum(one.bytes for one in store.manifest("default", name).files)
    (planned,) = retention.plan_prune(store, "default", 0)
    assert planned.bytes == size > 0


@pytest.mark.parametrize(("minutes", "kept"), [(59, "new: a build may still promote it"), (60, "")])
def test_prune_reads_the_age_of_a_snapshot_without_a_manifest_from_its_id(
    store: Store, minutes: int, kept: str
) -> None:
    broken, _, _ = make(store, 3)
    (store.snapshot_folder("default", broken) / "manifest.json").write_text("{", "utf-8")
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    planned = retention.plan_prune(store, "default", 0, now=now)
    assert (planned[-1].name, planned[-1].bytes, planned[-1].kept) == (broken, 0, kept)


def test_prune_removes_remains_of_killed_builds(store: Store) -> None:
    make(store, 1)
    folders = [store.snapshots_folder("default") / f".tmp-2026{n}" for n in range(2)]
    for folder in folders:
        (folder / "shards").mkdir(parents=True)
        (folder / "shards/part").write_bytes(b"xyz")
    past = time.time() - 7200
    for path in (folders[0], folders[0] / "shards", folders[0] / "shards/part"):
        os.utime(path, (past, past))
    planned = retention.plan_prune(store, "default", 0, min_age=timedelta(0))
    assert {one.name: one.kept for one in planned if one.folder} == {
        ".tmp-20260": "",
        ".tmp-20261": "written to within the hour",
    }
    retention.prune(store, "default", planned)
    assert [folder.exists() for folder in folders] == [False, True]
    assert len(store.snapshot_ids("default")) == 1


@pytest.mark.parametrize(("newest_s", "stays"), [(0, True), (7200, False)])
def test_prune_keeps_the_folder_of_a_long_build_that_still_writes(
    store: Store, newest_s: int, stays: bool
) -> None:
    make(store, 1)
    folder = store.snapshots_folder("default") / ".tmp-x"
    folder.mkdir()
    for name, age_s in (("first", 7200), ("last", newest_s), ("", 7200)):
        if name:
            (folder / name).write_bytes(b"xyz")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    retention.prune(store, "default", retention.plan_prune(store, "default", 0))
    assert folder.exists() == stays


def test_a_trial_keeps_the_current_snapshot_until_it_is_promoted(store: Store) -> None:
    a, b = make(store, 2)
    begun = aliases.split(store, "default", a, 0.1, why="smaller")
    assert (begun.current, begun.canary, begun.canary_share, begun.epoch) == (b, a, 0.1, 3)
    assert begun.rollout.rollout_id and begun.rollout.HasField("start_time")
    more = aliases.split(store, "default", a, 0.5)
    # Those whom it answers go on being answered by it.
    assert more.rollout.rollout_id == begun.rollout.rollout_id
    assert more.rollout.start_time == begun.rollout.start_time
    promoted = aliases.promote(store, "default", a, expected_epoch=4)
    assert (promoted.current, promoted.canary, promoted.canary_share) == (a, "", 0.0)
    assert aliases.roll_back(store, "default").current == b


def test_a_trial_of_policies_is_replaced_by_no_other_trial(store: Store) -> None:
    a, _ = make(store, 2)
    first, second = (release_pb2.Rollout(policies=f"version = {one}") for one in (1, 2))
    begun = aliases.split(store, "default", "", 0.1, rollout=first)
    with pytest.raises(Conflict, match="other policies are on trial"):
        aliases.split(store, "default", "", 0.1, rollout=second)
    with pytest.raises(Conflict, match="other policies are on trial"):
        aliases.split(store, "default", a, 0.1)
    more = aliases.split(store, "default", "", 0.5, rollout=first)
    assert more.rollout.rollout_id == begun.rollout.rollout_id
    aliases.end_split(store, "default")
    aliases.split(store, "default", a, 0.1)
    with pytest.raises(Conflict, match=f"{a} is on trial"):
        aliases.split(store, "default", "", 0.1, rollout=second)
    assert store.alias_in_force("default").canary == a


def test_a_rollback_during_a_trial_only_ends_the_trial(store: Store) -> None:
    a, b = make(store, 2)
    aliases.split(store, "default", a, 0.1)
    ended = aliases.roll_back(store, "default")
    assert (ended.current, ended.canary) == (b, "")
    assert ended.why == f"rollback of the trial of {a}"
    assert aliases.roll_back(store, "default").current == a
    aliases.split(store, "default", b, 0.1)
    assert aliases.end_split(store, "default", why="worse").why == "worse"
    with pytest.raises(NotFound, match="no canary of 'default' is on trial alongside"):
        aliases.end_split(store, "default")


def test_ending_a_trial_late_does_not_end_a_newer_one(store: Store) -> None:
    a, _ = make(store, 2)
    first = aliases.split(store, "default", a, 0.1)
    aliases.split(store, "default", a, 0.2)
    with pytest.raises(Conflict, match="3 was expected"):
        aliases.end_split(store, "default", expected_epoch=first.epoch)
    aliases.promote(store, "default", a)
    with pytest.raises(Conflict, match="3 was expected"):
        aliases.end_split(store, "default", expected_epoch=first.epoch)


@pytest.mark.parametrize(
    ("name", "least", "most", "step"),
    [
        ("false_alarm", 1e-6, 0.5, 1e-7),
        ("latency_ratio", 1.0, 100.0, 0.1),
        ("min_recall", 0.0, 0.999, 0.001),
        ("recall_sample", 0.0, 1.0, 0.01),
        ("away_s", 1.0, 1e6, 0.5),
    ],
)
def test_the_limits_of_a_trial_have_ranges(
    store: Store, name: str, least: float, most: float, step: float
) -> None:
    canary, _ = make(store, 2)

    def split(value: float) -> snapshot_pb2.AliasRecord:
        rollout = release_pb2.Rollout(limits=release_pb2.RolloutLimits(**{name: value}))
        return aliases.split(store, "default", canary, 0.1, rollout=rollout)

    for value in (least, most):
        assert getattr(split(value).rollout.limits, name) == value
    for value in (least - step, most + step, float("nan")):
        with pytest.raises(InvalidRequest, match=f"{name} is") as caught:
            split(value)
        assert caught.value.field == f"rollout.limits.{name}"


def test_an_invalid_canary_is_rejected(store: Store) -> None:
    a, b = make(store, 2)
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InvalidRequest, match="above 0 and below 1"):
            aliases.split(store, "default", a, share)
    with pytest.raises(InvalidRequest, match="is already the current snapshot"):
        aliases.split(store, "default", b, 0.1)
    with pytest.raises(NotFound, match="has no snapshot"):
        aliases.split(store, "default", "20250101T000000Z-000000", 0.1)
    limits = release_pb2.RolloutLimits(latency_ratio=0.5)
    with pytest.raises(InvalidRequest, match=r"latency_ratio is 0\.5"):
        aliases.split(store, "default", a, 0.1, rollout=release_pb2.Rollout(limits=limits))
    path = store.snapshot_folder("default", a) / "shards/000/items.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SnapshotCorrupt, match="the manifest says"):
        aliases.split(store, "default", a, 0.1)
    assert store.alias_in_force("default").epoch == 2


def test_policies_are_tried_on_the_current_snapshot(store: Store) -> None:
    a, b = make(store, 2)
    tried = release_pb2.Rollout(policies="version = 1")
    with pytest.raises(InvalidRequest, match=f"{a} and policies cannot be tried together"):
        aliases.split(store, "default", a, 0.5, rollout=tried)
    first = aliases.split(store, "default", "", 0.1, rollout=tried)
    assert (first.current, first.canary, first.rollout.policies) == (b, b, "version = 1")
    # Its users stay where they are if its share grows, but not if other policies follow.
    more = aliases.split(store, "default", b, 0.5, rollout=tried)
    assert more.rollout.rollout_id == first.rollout.rollout_id
    aliases.end_split(store, "default")
    tried.policies = "version = 2"
    other = aliases.split(store, "default", "", 0.5, rollout=tried)
    assert other.rollout.rollout_id != first.rollout.rollout_id
    ended = aliases.roll_back(store, "default")
    assert (ended.current, ended.canary, ended.rollout.policies) == (b, "", "")


def test_a_store_that_has_gone_is_not_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store, 1)
    store.alias_in_force("default")
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(NotReady, match="has no record of 'default' any more"):
        aliases.drop(store, "default")
    assert not (tmp_path / "store").exists()
    (tmp_path / "away").rename(tmp_path / "store")
    assert aliases.drop(store, "default").epoch == 2

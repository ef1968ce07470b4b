"""Policies that are set by API: checked, kept in the store, followed by every router."""

from __future__ import annotations

import numpy as np
import pytest

from nearline.errors import Conflict, InvalidRequest, NotFound, NotReady
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2
from retrieval.recommend.policies import default_policies
from retrieval.recommend.stored_policies import MAX_BYTES, StoredPolicies
from retrieval.snapshots import aliases
from tests.retrieval.small_snapshots import documents_of, write_snapshot
from tests.waits import until

PINNED = 'version = 2\n[surfaces.home]\npinned = ["a"]\n'


@pytest.fixture(name="store", scope="module")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("store")
    for name in ("default", "other"):
        write_snapshot(root, documents_of(np.ones((1, 2), np.float32)), collection=name)
    return Store(root)


def router(store: Store, poll_s: float = 60.0) -> StoredPolicies:
    return StoredPolicies(store, default_policies(), lambda: ["default", "other"], poll_s)


async def test_a_set_applies_at_once_here_and_soon_elsewhere(store: Store) -> None:
    here, elsewhere = router(store), router(store, poll_s=0.01)
    await elsewhere.start()
    try:
        made = await here.write("default", PINNED, expected=0, who="me", why="sale")
        assert (made.number, made.who, made.why) == (1, "me", "sale")
        assert here.of("default").for_surface("home").pinned == ("a",)
        assert (
            here.of("default").for_surface("cart").label
            == default_policies().for_surface("cart").label
        )
        assert here.of("other").for_surface("home").pinned == ()
        await until(lambda: elsewhere.of("default").for_surface("home").pinned == ("a",))
        assert (await elsewhere.read("default")).toml == PINNED
        assert (await here.write("default", "", expected=1, who="", why="")).number == 2
        assert here.of("default").for_surface("home").pinned == ()
    finally:
        await elsewhere.close()
    started = router(store)
    await started.start()
    assert started.of("default").for_surface("home").pinned == ()
    await started.close()


async def test_a_set_that_is_wrong_changes_nothing(store: Store) -> None:
    here = router(store)
    before = await here.read("other")
    for toml, message in (
        ("[surfaces.home", "is not TOML"),
        ("version = 1\n[surfaces.home]\npined = []\n", "pined is unknown; use one of"),
        ("#" * (MAX_BYTES + 1), f"{MAX_BYTES:,} are allowed"),
    ):
        with pytest.raises(InvalidRequest, match=message) as refused:
            await here.write("other", toml, expected=0, who="", why="")
        assert refused.value.field == "toml"
    with pytest.raises(NotFound, match="'nothing' has no published snapshot"):
        await here.write("nothing", PINNED, expected=0, who="", why="")
    assert await here.read("other") == before


async def test_policies_on_trial_replace_the_set_once_they_are_promoted(store: Store) -> None:
    here, current = router(store), store.alias_in_force("other").current
    number = (await here.read("other")).number
    tried = aliases.split(store, "other", "", 0.5, rollout=release_pb2.Rollout(policies=PINNED))
    name = tried.rollout.rollout_id
    here.try_out("other", tried.rollout)
    assert here.of("other", name).for_surface("home").pinned == ("a",)
    for unknown in ("", "another"):
        assert here.of("other", unknown).for_surface("home").pinned == ()
    with pytest.raises(Conflict, match="other policies are on trial"):
        await here.write("other", "", expected=0, who="", why="")
    ended = await here.promote("other", tried, who="me", why="better")
    assert (ended.current, ended.canary, ended.why) == (current, "", "better")
    assert here.of("other").for_surface("home").pinned == ("a",)
    made = await here.read("other")
    assert (made.number, made.toml, made.who, made.why) == (number + 1, PINNED, "me", "better")
    with pytest.raises(InvalidRequest, match="is not TOML"):
        here.try_out("other", release_pb2.Rollout(policies="["))
    await here.write("other", "", expected=0, who="", why="")


async def test_a_trial_that_was_backed_out_is_not_promoted(store: Store) -> None:
    here = router(store)
    before = await here.read("other")
    tried = aliases.split(store, "other", "", 0.5, rollout=release_pb2.Rollout(policies=PINNED))
    aliases.end_split(store, "other")
    with pytest.raises(Conflict):
        await here.promote("other", tried, who="me", why="better")
    assert await here.read("other") == before
    assert here.of("other").for_surface("home").pinned == ()


async def test_a_promotion_that_cannot_write_says_what_is_in_force(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = router(store)
    tried = aliases.split(store, "other", "", 0.5, rollout=release_pb2.Rollout(policies=PINNED))

    def full(*_: object) -> None:
        raise NotReady("no space left")

    monkeypatch.setattr(here, "_write", full)
    with pytest.raises(NotReady, match="ended, but its policies are not in force: no space left"):
        await here.promote("other", tried, who="me", why="better")
    assert here.of("other").for_surface("home").pinned == ()


async def test_a_set_for_another_state_is_a_conflict(store: Store) -> None:
    here = router(store)
    number = (await here.write("other", PINNED, expected=0, who="", why="")).number
    with pytest.raises(Conflict, match=f"set {number} of policies is in force"):
        await here.write("other", "", expected=number + 1, who="", why="")

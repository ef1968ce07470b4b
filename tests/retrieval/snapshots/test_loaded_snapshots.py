"""Random life cycles of snapshots: nothing in use is dropped, everything unused is in the end."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retrieval.snapshots.desired_state import DesiredState
from retrieval.snapshots.loaded_snapshots import LoadedSnapshots, SnapshotKey

DRAIN_S = 10.0
RETRY_S = 1.0
SNAPSHOTS = ("a", "b", "c", "d")


class Lives(RuleBasedStateMachine):
    """One collection: a store with aliases, a process that follows them, and requests."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.loaded: LoadedSnapshots[str] = LoadedSnapshots(DRAIN_S, lambda: self.now)
        self.pursuit = DesiredState(retry_s=RETRY_S)
        self.epoch = 0
        self.named = ""
        # What is being got ready: (epoch, snapshot).
        self.loading: tuple[int, str] | None = None
        # Requests: the snapshot each began with, and how it ends.
        self.requests: list[tuple[str, ExitStack]] = []

    @rule(snapshot=st.sampled_from(SNAPSHOTS))
    def promote(self, snapshot: str) -> None:
        self.epoch += 1
        self.named = snapshot

    @precondition(lambda self: self.epoch)
    @rule()
    def look_at_the_aliases(self) -> None:
        self.pursuit.update(self.epoch, self.named)
        self.loaded.set_named("x", {self.named})
        if self.loading is None and self.pursuit.is_due(self.now):
            self.loading = self.pursuit.epoch, self.pursuit.snapshot_id

    @precondition(lambda self: self.loading)
    @rule(ok=st.booleans())
    def load(self, ok: bool) -> None:
        assert self.loading is not None
        (epoch, snapshot), self.loading = self.loading, None
        before = self.loaded.current("x")
        if not ok:
            self.pursuit.mark_failed(epoch, "no", self.now)
            assert self.loaded.current("x") is before
            return
        self.loaded.add("x", snapshot, snapshot)
        newest_seen = self.pursuit.epoch
        if self.pursuit.mark_prepared(epoch):
            self.loaded.make_current("x", snapshot)
            assert epoch == newest_seen
        else:
            assert epoch < newest_seen
            assert self.loaded.current("x") is before

    @precondition(lambda self: self.loaded.current("x"))
    @rule(data=st.data())
    def a_request_begins(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.loaded.of_collection("x")))
        stack = ExitStack()
        self.requests.append((stack.enter_context(held), stack))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def a_request_ends(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.requests) - 1))
        _, stack = self.requests.pop(at)
        stack.close()

    @rule(seconds=st.sampled_from([0.0, 1.0, DRAIN_S / 2, DRAIN_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        in_use = {snapshot for snapshot, _ in self.requests}
        for key in self.loaded.droppable():
            assert key.snapshot_id not in in_use
            assert self.loaded.get(*key).idle_since <= self.now - DRAIN_S  # type: ignore[union-attr]
            self.loaded.drop(key)

    @invariant()
    def what_requests_use_is_held(self) -> None:
        held = {one.key.snapshot_id: one for one in self.loaded.of_collection("x")}
        for snapshot, _ in self.requests:
            assert held[snapshot].value == snapshot
            assert held[snapshot].in_use

    @invariant()
    def what_is_in_force_is_held(self) -> None:
        current = self.loaded.current("x")
        if current is not None:
            assert self.loaded.get("x", current.key.snapshot_id) is current
            assert current.key not in self.loaded.droppable()

    def teardown(self) -> None:
        for _, stack in self.requests:
            stack.close()
        if not self.epoch:
            return
        # Left alone, with loads that succeed, one snapshot stays: the one that the alias names.
        self.now += 100.0
        self.pursuit.update(self.epoch, self.named)
        self.loaded.set_named("x", {self.named})
        if self.pursuit.is_due(self.now):
            self.loaded.add("x", self.named, self.named)
            assert self.pursuit.mark_prepared(self.epoch)
            self.loaded.make_current("x", self.named)
        self.now += DRAIN_S
        for key in self.loaded.droppable():
            self.loaded.drop(key)
        assert [one.key for one in self.loaded.all] == [SnapshotKey("x", self.named)]
        assert self.loaded.current("x") is self.loaded.get("x", self.named)


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase


def test_failures_back_off_and_a_new_record_is_due_at_once() -> None:
    pursuit = DesiredState(retry_s=1.0)
    pursuit.update(1, "a")
    now, waits = 0.0, []
    for _ in range(8):
        assert pursuit.is_due(now)
        pursuit.mark_failed(1, "corrupt", now)
        wait = next(w for w in (1, 2, 4, 8, 16, 32, 60) if pursuit.is_due(now + w))
        assert not pursuit.is_due(now + wait - 0.5)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (pursuit.has_failed, pursuit.problem) == (True, "corrupt")
    pursuit.update(2, "b")
    assert pursuit.is_due(now) and not pursuit.has_failed
    pursuit.mark_failed(1, "an older attempt", now)
    assert pursuit.is_due(now)
    assert pursuit.mark_prepared(2) and not pursuit.is_due(now + 1000)


def test_draining_starts_when_the_alias_moves_on() -> None:
    now = [0.0]
    loaded: LoadedSnapshots[str] = LoadedSnapshots(DRAIN_S, lambda: now[0])
    loaded.add("x", "a", "a")
    loaded.set_named("x", {"a"})
    now[0] = 1000.0
    loaded.set_named("x", {"b"})
    assert loaded.droppable() == []
    now[0] += DRAIN_S
    assert loaded.droppable() == [SnapshotKey("x", "a")]


def test_a_snapshot_loaded_again_is_kept_for_another_drain_time() -> None:
    now = [0.0]
    loaded: LoadedSnapshots[str] = LoadedSnapshots(DRAIN_S, lambda: now[0])
    loaded.add("x", "a", "first")
    now[0] = 1000.0
    assert loaded.add("x", "a", "second").value == "second"
    assert loaded.droppable() == []
    now[0] += DRAIN_S
    assert loaded.droppable() == [SnapshotKey("x", "a")]
    assert loaded.drop(SnapshotKey("x", "a")) == "second"


def test_draining_starts_when_another_snapshot_becomes_current() -> None:
    now = [0.0]
    loaded: LoadedSnapshots[str] = LoadedSnapshots(DRAIN_S, lambda: now[0])
    for snapshot in ("a", "b"):
        loaded.add("x", snapshot, snapshot)
    loaded.make_current("x", "a")
    now[0] = 1000.0
    loaded.make_current("x", "b")
    assert loaded.droppable() == []
    now[0] += DRAIN_S
    assert loaded.droppable() == [SnapshotKey("x", "a")]


def test_draining_starts_when_the_last_request_ends() -> None:
    now = [0.0]
    loaded: LoadedSnapshots[str] = LoadedSnapshots(DRAIN_S, lambda: now[0])
    with loaded.add("x", "a", "a"):
        now[0] = 1000.0
        assert loaded.droppable() == []
    assert loaded.droppable() == []
    now[0] += DRAIN_S
    assert loaded.droppable() == [SnapshotKey("x", "a")]

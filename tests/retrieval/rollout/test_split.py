"""Assignment of requests to arms."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, strategies as st

from nearline.contract import Arm
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.rollout.split import Requester, TrafficSplit, parse_split

RECORD = snapshot_pb2.AliasRecord(
    epoch=7,
    current="a",
    canary="b",
    canary_share=0.3,
    rollout=release_pb2.Rollout(rollout_id="r1"),
)


def make(
    share: float = 0.3,
    split_by: release_pb2.SplitBy = release_pb2.SPLIT_BY_UNSPECIFIED,
    rollout_id: str = "r1",
) -> TrafficSplit:
    split = parse_split("default", RECORD, snapshot_pb2.Manifest())
    return replace(split, share=share, split_by=split_by, rollout_id=rollout_id)


def test_a_user_stays_in_one_arm_across_sessions() -> None:
    split = make()
    assert split.unit_of(Requester("u", "s1")) == split.unit_of(Requester("u", "s2"))
    assert split.unit_of(Requester("", "s1")) == split.unit_of(Requester("", "s1"))
    # A session that is named like a user is somebody else.
    assert split.unit_of(Requester("x", "")) != split.unit_of(Requester("", "x"))
    assert split.unit_of(Requester()) != split.unit_of(Requester())


def test_the_split_uses_the_configured_unit() -> None:
    sessions = make(split_by=release_pb2.SPLIT_BY_SESSION)
    assert sessions.unit_of(Requester("u1", "s")) == sessions.unit_of(Requester("u2", "s"))
    requests = make(split_by=release_pb2.SPLIT_BY_REQUEST)
    assert requests.unit_of(Requester("u", "s")) != requests.unit_of(Requester("u", "s"))
    assert not requests.dealt_by_unit and sessions.dealt_by_unit


def test_shares_match_and_rollouts_are_independent() -> None:
    users = [Requester(f"user-{n}") for n in range(20_000)]
    split, other = make(0.3), make(0.3, rollout_id="r2")
    mine = {one.user for one in users if split.to_canary(split.unit_of(one))}
    theirs = {one.user for one in users if other.to_canary(other.unit_of(one))}
    # Five deviations of a binomial of 20,000 by 0.3 are 324.
    assert abs(len(mine) - 6_000) < 324
    # Independent of each other: 0.09 of all, five deviations are 202.
    assert abs(len(mine & theirs) - 1_800) < 202


@given(st.text(max_size=20), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_a_larger_share_keeps_its_users(user: str, one: float, other: float) -> None:
    small, great = make(min(one, other)), make(max(one, other))
    unit = small.unit_of(Requester(user or "u"))
    assert unit == great.unit_of(Requester(user or "u"))
    assert great.to_canary(unit) or not small.to_canary(unit)


def test_limits_come_from_the_record_or_defaults() -> None:
    manifest = snapshot_pb2.Manifest(
        quality=snapshot_pb2.QualitySummary(queries=100, recall_at_10=0.99)
    )
    usual = parse_split("default", RECORD, manifest)
    assert abs(usual.limits.min_recall - 0.94) < 1e-12
    assert (usual.limits.false_alarm, usual.limits.latency_ratio) == (0.01, 1.1)
    assert usual.recall_sample == 0.05
    record = snapshot_pb2.AliasRecord()
    record.CopyFrom(RECORD)
    record.rollout.limits.min_recall = 0.0
    record.rollout.limits.recall_sample = 0.5
    given_by_record = parse_split("default", record, manifest)
    assert (given_by_record.limits.min_recall, given_by_record.recall_sample) == (0.0, 0.5)


@given(st.integers(1, 1 << 40), st.sampled_from(Arm), st.text("0123456789abcdef-", min_size=1))
def test_a_list_id_names_rollout_and_arm(epoch: int, arm: Arm, name: str) -> None:
    split = replace(make(), epoch=epoch)
    marked = split.mark_list_id(name, arm)
    assert split.is_from_canary(marked) is (arm is Arm.CANARY)
    assert replace(split, epoch=epoch + 1).is_from_canary(marked) is None
    assert replace(split, rollout_id="r2").is_from_canary(marked) is None
    assert split.is_from_canary(name) is None


def test_a_made_up_list_id_belongs_to_no_arm() -> None:
    split = make()
    marked = split.mark_list_id("abc", Arm.CURRENT)
    head, proof = marked.rsplit(".", 1)
    assert head == "abc.7b"
    for made_up in ("", ".", "abc.", "abc.7", "abc.7b", "x.7c", "abc.7c." + proof):
        assert split.is_from_canary(made_up) is None
    for made_up in (f"abd.7b.{proof}", f"abc.7b.{proof}0", f"abc.7b.{proof[:-1]}", "é\ud800.7b.0"):
        assert split.is_from_canary(made_up) is None

"""The info of an answer during the trial of a canary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nearline.contract import Arm, ServedBy, Source
from nearline.errors import NotReady
from nearline.store.snapshot import Store
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.protocols.snapshot import read_snapshot_ref
from retrieval.protocols.watermark import AppliedState, Watermark
from retrieval.rollout.analysis import CanaryAnalysis, CanaryLimits
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.split import TrafficSplit, parse_split
from retrieval.rollout.trial import Trial
from retrieval.router.reply_info import ReplyInfoBuilder
from retrieval.search.collection import ServedCollection
from retrieval.search.request_context import RequestContext
from tests.retrieval.fakes import FailingShard
from tests.retrieval.small_snapshots import documents_of, write_snapshot

EPOCH = 7


@pytest.fixture(name="served", scope="module")
def give_served(tmp_path_factory: pytest.TempPathFactory) -> dict[Arm, ServedCollection]:
    """Returns a current snapshot and a canary."""
    root: Path = tmp_path_factory.mktemp("store")
    shards = [FailingShard(NotReady("it is away"))]
    return {
        arm: ServedCollection(
            read_snapshot_ref(
                Store(root),
                "default",
                write_snapshot(root, documents_of(np.ones((1, 2), np.float32))),
                EPOCH,
            ),
            shards,
        )
        for arm in (Arm.CURRENT, Arm.CANARY)
    }


def split_of(served: dict[Arm, ServedCollection]) -> TrafficSplit:
    record = snapshot_pb2.AliasRecord(
        epoch=EPOCH,
        current=served[Arm.CURRENT].snapshot_id,
        canary=served[Arm.CANARY].snapshot_id,
        canary_share=0.2,
        rollout=release_pb2.Rollout(rollout_id="r1"),
    )
    return parse_split("default", record, snapshot_pb2.Manifest())


@pytest.mark.parametrize(
    ("arm", "shadow", "listed", "counted"),
    [
        (Arm.CURRENT, False, True, (1, 0)),
        (Arm.CANARY, False, True, (0, 1)),
        (Arm.CANARY, False, False, (0, 0)),
        (Arm.CURRENT, True, True, (0, 0)),
    ],
)
def test_a_list_counts_for_the_arm_that_its_id_names(
    served: dict[Arm, ServedCollection],
    arm: Arm,
    shadow: bool,
    listed: bool,
    counted: tuple[int, int],
) -> None:
    collections = ServedCollections()
    split = replace(split_of(served), shadow=shadow)
    analysis = CanaryAnalysis(0.2, CanaryLimits(), dealt_by_unit=True)
    held = collections.loaded.add("default", split.canary, served[Arm.CANARY])
    collections.trials["default"] = Trial(split, held, analysis)
    info = ReplyInfoBuilder(collections).info(
        served[arm], RequestContext(), total_s=0.1, listed=listed
    )
    current, canary = analysis.arms()
    assert (current.lists, canary.lists) == counted
    assert (info.arm, info.snapshot_id) == (arm, served[arm].snapshot_id)
    assert bool(info.list_id) == listed
    marked = {(1, 0): False, (0, 1): True}.get(counted)
    assert split.is_from_canary(info.list_id) is marked


def test_without_a_trial_an_answer_names_no_arm(served: dict[Arm, ServedCollection]) -> None:
    builder = ReplyInfoBuilder(ServedCollections())
    infos = [builder.info(served[Arm.CURRENT], RequestContext(), total_s=0.1) for _ in range(2)]
    assert [info.arm for info in infos] == [None, None]
    assert infos[0].list_id != infos[1].list_id
    assert "." not in infos[0].list_id


FAR = ServedBy(source=Source.CACHE, reason="far")
POPULAR = ServedBy(rung="popular")
BEHIND = "the change log does not answer"


def fallback(rung: str, reason: str) -> ServedBy:
    return ServedBy(source=Source.FALLBACK, rung=rung, reason=reason)


@pytest.mark.parametrize(
    ("own", "stale", "expected"),
    [
        (None, "", ServedBy()),
        (ServedBy(), "", ServedBy()),
        (FAR, "", FAR),
        (POPULAR, "", POPULAR),
        (None, BEHIND, fallback("stale", BEHIND)),
        (ServedBy(), BEHIND, fallback("stale", BEHIND)),
        (FAR, BEHIND, fallback("stale", f"far; {BEHIND}")),
        (POPULAR, BEHIND, fallback("popular", BEHIND)),
    ],
)
def test_an_answer_names_the_fallbacks_of_the_service_and_of_its_shards(
    served: dict[Arm, ServedCollection], own: ServedBy | None, stale: str, expected: ServedBy
) -> None:
    context = RequestContext()
    context.record_applied(0, [AppliedState(Watermark("log"), stale)])
    builder = ReplyInfoBuilder(ServedCollections())
    info = builder.info(served[Arm.CURRENT], context, total_s=0.1, served_by=own)
    assert info.served_by == expected


@pytest.mark.parametrize("given", [None, b"", b"of a cached list"])
def test_the_watermark_is_that_of_the_shards_unless_the_service_has_another(
    served: dict[Arm, ServedCollection], given: bytes | None
) -> None:
    context = RequestContext()
    context.record_applied(0, [AppliedState(Watermark("log"))])
    builder = ReplyInfoBuilder(ServedCollections())
    info = builder.info(served[Arm.CURRENT], context, total_s=0.1, watermark=given)
    assert info.watermark == (Watermark("log").encode() if given is None else given)


def test_shards_that_failed_are_missing_from_the_coverage(
    served: dict[Arm, ServedCollection],
) -> None:
    context = RequestContext(failures={0: NotReady("it is away")})
    info = ReplyInfoBuilder(ServedCollections()).info(served[Arm.CURRENT], context, total_s=0.1)
    assert (info.coverage.shards_answered, info.coverage.shards_total) == (0, 1)

"""Tests of `nearline bench swap`: the checks of replies, and a small run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.commands.swap import swap_figures
from benchmarks.workloads.swap_checks import ReplyChecker, find_stamps
from benchmarks.workloads.swap_dataset import (
    STAMPS,
    common_questions,
    is_liked,
    item_id,
    snapshot_items,
)
from benchmarks.workloads.swap_load import LoadPhase, LoadResults, RequestKind
from nearline import contract as c
from tests.nearline_cli.conftest import Run
from tests.scale import nightly

TEXTS = {
    item.id: item.text
    for stamp in STAMPS
    for item in snapshot_items(stamp, 100, np.random.default_rng(STAMPS.index(stamp)))
}
IDS = {stamp: f"snapshot-{number}" for number, stamp in enumerate(STAMPS)}
NOBODY = c.Audience()
USER = c.Audience(user_id="u0001")


@pytest.fixture
def checker() -> ReplyChecker:
    return ReplyChecker({snapshot_id: stamp for stamp, snapshot_id in IDS.items()}, TEXTS)


def hit(stamp: str, row: int) -> c.Hit:
    """Returns document `row` as a reply has it."""
    one = item_id(stamp, row)
    return c.Hit(id=one, score=1.0, end=len(TEXTS[one]), title=f"Some place ({stamp})",
                 text=TEXTS[one])  # fmt: skip


def info(stamp: str, missing: tuple[int, ...] = ()) -> c.ReplyInfo:
    coverage = c.Coverage(shards_answered=2 - len(missing), shards_total=2, missing_shards=missing)
    return c.ReplyInfo(epoch=1, snapshot_id=IDS[stamp], fingerprint="", coverage=coverage)


def search_reply(stamp: str, *hits: c.Hit) -> c.SearchReply:
    return c.SearchReply(results=[c.HitList(hits=hits)], info=info(stamp))


def list_reply(
    stamp: str, rows: Sequence[int], ignored: Sequence[str] = (), missing: tuple[int, ...] = ()
) -> c.RecommendReply:
    return c.RecommendReply(
        recommendations=[c.Recommendation(hit=hit(stamp, row)) for row in rows],
        ignored_ids=[c.IgnoredId(one, c.IgnoredReason.NOT_FOUND) for one in ignored],
        info=info(stamp, missing),
        policy="home/0/0",
    )


def answer_events(stamp: str, row: int) -> list[c.AnswerEvent]:
    """Returns an answer that cites the first sentence of a document."""
    said = TEXTS[item_id(stamp, row)].partition(". ")[0] + "."
    cited = c.Citation(
        number=1, document_id=item_id(stamp, row), chunk=0, char_start=0, char_end=len(said),
        text_hash=hashlib.sha256(said.encode()).hexdigest(), snapshot_id=IDS[stamp],
    )  # fmt: skip
    evidence = c.Evidence(documents=[hit(stamp, row), hit(stamp, row + 1)], info=info(stamp))
    done = c.Done(tokens=9, citations=1, evidence_probability=1.0, calibrated=False)
    return [evidence, c.Delta(f"{said} [1]"), cited, done]


def test_every_sentence_and_title_has_only_the_stamp_of_its_snapshot() -> None:
    for stamp in STAMPS:
        for item in snapshot_items(stamp, 300, np.random.default_rng(0)):
            sentences = item.text.split(". ")
            assert len(sentences) == 3
            assert all(find_stamps([part]) == {stamp} for part in (item.title, *sentences))
    assert not find_stamps(common_questions(300, 50, np.random.default_rng(0)))


def test_every_document_is_liked_in_one_snapshot() -> None:
    for row in range(100):
        assert sum(is_liked(stamp, row) for stamp in STAMPS) == 1


def test_a_reply_from_a_single_snapshot_passes(checker: ReplyChecker) -> None:
    assert checker.search(search_reply("alpha", hit("alpha", 1), hit("alpha", 2))) == ""
    assert checker.recommendations(list_reply("bravo", [1, 4]), NOBODY) == ""
    assert checker.answer(answer_events("charlie", 7)) == ""


def test_hits_of_an_unnamed_snapshot_are_mixed(checker: ReplyChecker) -> None:
    mixed = checker.search(search_reply("alpha", hit("alpha", 1), hit("bravo", 2)))
    assert mixed == "a reply from alpha has ids of alpha and bravo"
    assert (
        checker.search(search_reply("alpha", hit("bravo", 1)))
        == "a reply from alpha has ids of bravo"
    )
    assert checker.search(search_reply("alpha")) == "a reply from alpha has ids of none"
    of_nobody = replace(
        search_reply("alpha", hit("alpha", 1)), info=replace(info("alpha"), snapshot_id="")
    )
    assert checker.search(of_nobody) == "there is no snapshot ''"


def test_texts_of_another_snapshot_or_document_are_mixed(checker: ReplyChecker) -> None:
    stolen = replace(hit("alpha", 1), text=TEXTS[item_id("bravo", 1)])
    assert "for alpha-d000001" in checker.search(search_reply("alpha", stolen))
    titled = replace(hit("alpha", 1), title="Some place (bravo)")
    assert "for alpha-d000001" in checker.search(search_reply("alpha", titled))
    swapped = replace(hit("alpha", 1), text=TEXTS[item_id("alpha", 2)])
    assert "has a text that alpha-d000001 does not" in checker.search(
        search_reply("alpha", swapped)
    )


def test_a_list_learned_in_another_snapshot_is_mixed_whatever_its_ids(
    checker: ReplyChecker,
) -> None:
    # Rows that users of bravo had, as documents of alpha.
    assert checker.recommendations(list_reply("alpha", [0, 1, 4]), NOBODY) == (
        "alpha was trained on only 1 of 3 items of a list"
    )
    assert checker.recommendations(list_reply("alpha", [5, 8]), USER) == ""
    assert checker.recommendations(list_reply("bravo", [1, 4]), USER) == ""
    assert checker.recommendations(list_reply("alpha", [5, 8]), USER) == ""
    assert checker.recommendations(list_reply("alpha", [5], missing=(1,)), USER) == ""
    assert "for u0001, but" in checker.recommendations(list_reply("alpha", [8, 5]), USER)


def test_only_the_snapshot_with_an_item_may_accept_it(checker: ReplyChecker) -> None:
    item = item_id("alpha", 3)
    audience = c.Audience(item_ids=(item,))
    assert checker.recommendations(list_reply("alpha", [0, 6]), audience) == ""
    assert checker.recommendations(list_reply("bravo", [1, 4], [item]), audience) == ""
    assert "ignored" in checker.recommendations(list_reply("bravo", [1, 4]), audience)
    assert "ignored" in checker.recommendations(list_reply("alpha", [0, 6], [item]), audience)


@pytest.mark.parametrize(
    ("place", "changes", "problem"),
    [
        (0, {"documents": [hit("bravo", 7)]}, "has ids of bravo"),
        (1, {"text": "The bravo harbour holds 7 boats. [1]"}, "says bravo"),
        (1, {"text": "The harbour holds 7 boats. [1]"}, "says none"),
        (2, {"snapshot_id": IDS["bravo"]}, "cites alpha-d000007 of snapshot-1"),
        (2, {"document_id": "alpha-d000009"}, "is not in its evidence"),
        (2, {"document_id": "alpha-d000008"}, "does not have that text"),
        (2, {"char_start": 1}, "does not have that text"),
    ],
)
def test_an_answer_is_checked_against_its_evidence_and_cited_spans(
    checker: ReplyChecker, place: int, changes: dict[str, object], problem: str
) -> None:
    events = answer_events("alpha", 7)
    events[place] = replace(events[place], **changes)  # type: ignore[arg-type]
    assert problem in checker.answer(events)


def test_ratios_are_of_the_99th_percentiles_over_all_requests_and_by_kind() -> None:
    seen = LoadResults(requests=400, epochs={0: {1, 2, 3}, 1: {1, 3}})
    seen.latencies_s = {
        (LoadPhase.REST, RequestKind.SEARCH): [0.010] * 100,
        (LoadPhase.FLIPS, RequestKind.SEARCH): [0.010] * 98 + [0.030] * 2,
        (LoadPhase.REST, RequestKind.GENERATE): [0.020] * 100,
        (LoadPhase.FLIPS, RequestKind.GENERATE): [0.025] * 99,
        (LoadPhase.SETTLE, RequestKind.SEARCH): [9.0],
    }
    seen.errors["NotReady"] += 1
    row = swap_figures(seen, flips=2)
    assert (row["failed"], row["flips"], row["flips_seen"]) == (1, 2, 1)
    assert (row["p99_ratio_search"], row["p99_ratio_generate"]) == (3.0, 1.25)
    assert row["p99_ratio_recommend"] is None
    # Of 199 during the flips the slowest two are the 30 ms.
    assert (row["p99_ms"], row["p99_at_rest_ms"]) == (25.1, 20.0)
    assert row["p99_ratio"] == 1.255


@nightly
@pytest.mark.service
@pytest.mark.timeout(300)
def test_swaps_under_load_cause_no_failure_and_no_mixed_reply(nearline: Run) -> None:
    done = nearline(
        *("bench", "swap", "--json", "--rate", "40", "--flips", "2", "--every", "1"),
        *("--warm-up", "1", "--rest", "1", "--documents", "100", "--drain", "0.5"),
        # Snapshots learn first.
        timeout_s=280,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    # 1 s at rest, 2 of flips, and 1.5 until the last one is unloaded.
    assert row["requests"] == 180
    assert (row["failed"], row["mixed_epochs"], row["partial"]) == (0, 0, 0), row
    assert row["answered"] + row["refused"] == 9
    assert row["answered"] >= 6
    assert (row["flips"], 1 <= row["flips_seen"] <= 2) == (2, True)
    for kind in ("", "search_", "text_search_", "recommend_", "generate_"):
        assert 0 < row[f"{kind}p50_ms"] <= row[f"{kind}p99_ms"]

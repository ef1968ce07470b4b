"""Rows by segment of a made-up replay, and the requests whose answers differ most."""

from __future__ import annotations

from typing import Any

from index_builder.releases.probes import Probe
from index_builder.releases.replay import Answer, Replay, ReplayPair, breakdown_rows, worst_pairs
from nearline import contract as c
from tests.index_builder.releases.made_up_comparisons import LIST, SEARCH

NOTHING = Answer([], None, 0.0)
K = 2


def replay(*pairs: ReplayPair) -> Replay:
    none: Any = None
    return Replay(first=none, second=none, pairs=pairs, source="recorded", k=K)


def pair(
    first: Answer, second: Answer, overlap: float, probe: Probe = SEARCH, refused: str = ""
) -> ReplayPair:
    return ReplayPair(probe=probe, first=first, second=second, overlap=overlap, refused=refused)


# Beyond k, lists may differ.
SAME = pair(Answer(["a", "b", "c"], 0.5, 0.001), Answer(["a", "b", "d"], 0.75, 0.003), 1.0)
SWAPPED = pair(Answer(["a", "b"], 0.5, 0.002), Answer(["b", "a"], 0.5, 0.002), 1.0)
HALF = pair(Answer(["a", "b"], 1.0, 0.003), Answer(["b", "c"], 0.5, 0.001), 0.5, LIST)
EMPTY = pair(Answer(["a"], 1.0, 0.004), Answer([], None, 0.002), 0.0)
REFUSED = pair(Answer(["a"], 1.0, 9.0), NOTHING, 0.0, refused="no filters")
ALL = replay(SAME, SWAPPED, HALF, EMPTY, REFUSED)


def test_the_first_row_is_of_all_requests() -> None:
    row = breakdown_rows(ALL)[0]
    assert row == {
        "segment": "all",
        "requests": 5,
        "overlap@2": 0.5,
        "unchanged": 0.2,
        # Of the requests with a best score on both sides.
        "drift": round((0.25 + 0.0 - 0.5) / 3, 5),
        "refused": 1,
        # Without the refused request.
        "p50_ms_first": 2.5,
        "p50_ms_second": 2.0,
        "p50_ratio": 0.8,
        "p99_ms_first": 3.97,
        "p99_ms_second": 2.97,
        "p99_ratio": 0.748,
    }


def test_a_request_is_in_one_segment_of_each_division() -> None:
    rows = {str(row["segment"]): row["requests"] for row in breakdown_rows(ALL)}
    assert rows == {
        "all": 5,
        "kind vector": 4,
        "kind list": 1,
        "filter none": 5,
        "surface home": 1,
        "personal no": 1,
    }
    assert list(rows) == ["all", *sorted(set(rows) - {"all"})]


def test_a_segment_in_which_every_request_is_refused_has_no_times() -> None:
    [row, *_] = breakdown_rows(replay(REFUSED))
    assert (row["requests"], row["refused"], row["overlap@2"], row["unchanged"]) == (1, 1, 0, 0)
    assert {row[name] for name in row if "_ms_" in name or "ratio" in name} == {None}
    assert row["drift"] is None


def test_a_replay_without_requests_has_one_row_without_values() -> None:
    [row] = breakdown_rows(replay())
    assert (row["segment"], row["requests"], row["overlap@2"], row["p99_ms_first"]) == (
        *("all", 0),
        *(None, None),
    )


def test_refused_requests_are_the_worst_and_equal_answers_are_left_out() -> None:
    assert worst_pairs(ALL, 10) == [REFUSED, EMPTY, HALF]
    assert worst_pairs(ALL, 2) == [REFUSED, EMPTY]
    assert ALL.answered == [SAME, SWAPPED, HALF, EMPTY]


def test_the_drift_is_that_of_the_best_scores() -> None:
    assert [one.drift for one in ALL.pairs] == [0.25, 0.0, -0.5, None, None]


def test_requests_are_described_by_kind_and_length() -> None:
    def text(words: int) -> dict[str, str]:
        return Probe(fingerprint="", query=c.Query(text="word " * words)).segments()

    bands = {words: text(words)["length"] for words in (1, 2, 3, 5, 6, 10, 11, 20, 21)}
    assert bands == {
        **dict.fromkeys((1, 2), "1 to 2 words"),
        **dict.fromkeys((3, 5), "3 to 5 words"),
        **dict.fromkeys((6, 10), "6 to 10 words"),
        **dict.fromkeys((11, 20), "11 to 20 words"),
        21: "21 words or more",
    }
    assert text(1)["mode"] == "default" and text(1)["kind"] == "text"

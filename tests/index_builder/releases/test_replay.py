"""Recorded requests replayed on two snapshots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builder.releases.probes import Probe, probe_of, probes_for
from index_builder.releases.replay import (
    Answer,
    Replay,
    ReplayPair,
    overlap,
    replay,
    summarize,
    worst_pairs,
)
from index_builder.releases.snapshot_loader import load_snapshot
from nearline import contract as c
from nearline.contract import Embedder
from nearline.filters import Equals
from nearline.internal.v1 import traffic_pb2
from nearline.store.snapshot import Store
from nearline.store.traffic import write_traffic
from nearline.v1 import retrieval_pb2
from nearline.wire.queries import options_to_proto, query_to_proto
from tests.index_builder.embedders import HashEmbedder, vector_of
from tests.index_builder.releases.gate_snapshots import FINGERPRINT, documents, publish, texts

WORDS = texts(200)
MATRIX = np.stack([vector_of(word) for word in WORDS])
PLAIN = c.SearchOptions()
HERE: dict[str, Embedder] = {"here": HashEmbedder()}


def search(
    query: c.Query,
    options: c.SearchOptions = PLAIN,
    *,
    vector: bytes = b"",
    fingerprint: str = FINGERPRINT,
) -> traffic_pb2.RecordedRequest:
    return traffic_pb2.RecordedRequest(
        fingerprint=fingerprint,
        search=retrieval_pb2.SearchRequest(
            query=query_to_proto(query), options=options_to_proto(options)
        ),
        vector=vector,
    )


def by_vector(text: str, fingerprint: str = FINGERPRINT) -> traffic_pb2.RecordedRequest:
    return search(c.Query(vector=vector_of(text)), fingerprint=fingerprint)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Returns two snapshots: the second has other texts in place of the first half."""
    folder = tmp_path_factory.mktemp("replay")
    first = publish(folder, documents(WORDS), promote=True)
    return folder, first, publish(folder, documents([*texts(300)[200:], *WORDS[100:]]))


async def replayed(
    folder: Path,
    first: str,
    second: str,
    recorded: list[traffic_pb2.RecordedRequest],
    embedders: dict[str, Embedder] | None = None,
) -> Replay:
    store = Store(folder)
    name = f"default/traffic/{'0' * 8}T000000Z-aaaaaa.pb.gz"
    if recorded:
        name = f"default/traffic/{write_traffic(store, 'default', recorded)}"
    try:
        async with (
            load_snapshot(store, "default", first, embedders or {}) as one,
            load_snapshot(store, "default", second, embedders or {}) as other,
        ):
            return await replay(one, other, probes_for(store, "default", one, 1_000))
    finally:
        store.files.remove_file(name)


async def test_a_snapshot_agrees_with_itself(pair: tuple[Path, str, str]) -> None:
    folder, first, _ = pair
    found = await replayed(folder, first, first, [by_vector(f"query {n}") for n in range(5)])
    row = summarize(found)
    assert (row["requests"], row["overlap@10"], row["unchanged"], row["refused"]) == (5, 1, 1, 0)
    assert found.source == "recorded"
    assert worst_pairs(found, 10) == []


async def test_the_overlap_is_that_of_the_ten_best_by_brute_force(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    # The best hit of a stored text is that text; the second snapshot lacks half of them.
    found = await replayed(folder, first, second, [by_vector(WORDS[0]), by_vector(WORDS[150])])
    wanted = []
    for word in (WORDS[0], WORDS[150]):
        best = [
            set(np.argsort(-(np.stack([vector_of(one) for one in words]) @ vector_of(word)))[:10])
            for words in (WORDS, [*texts(300)[200:], *WORDS[100:]])
        ]
        wanted.append(len(best[0] & best[1]) / 10)
    assert summarize(found)["overlap@10"] == pytest.approx(np.mean(wanted))
    assert worst_pairs(found, 1)[0].overlap == min(one.overlap for one in found.pairs)


async def test_vectors_of_another_model_are_left_out_and_counted(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    recorded = [by_vector("query 1"), by_vector("query 2", fingerprint="other")]
    found = await replayed(folder, first, second, recorded)
    assert len(found.pairs) == 1
    assert dict(found.left_out) == {"its vector is from a different model": 1}


async def test_texts_need_an_embedder_or_the_vector_they_were_embedded_to(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    vector = vector_of("query 1").astype("<f4").tobytes()
    recorded = [search(c.Query(text="query 1")), search(c.Query(text="query 1"), vector=vector)]
    found = await replayed(folder, first, second, recorded)
    assert len(found.pairs) == 1
    assert [one.split(":")[0] for one in found.left_out] == [
        "no embedding service of its model was given"
    ]
    with_embedder = await replayed(folder, first, second, recorded, HERE)
    assert len(with_embedder.pairs) == 2
    assert with_embedder.pairs[0].first.ids == with_embedder.pairs[1].first.ids


@pytest.mark.parametrize("mode", [None, c.SearchMode.HYBRID, c.SearchMode.DENSE])
async def test_a_recorded_vector_is_searched_in_the_mode_of_its_request(
    tmp_path: Path, mode: c.SearchMode | None
) -> None:
    snapshot = publish(tmp_path, documents(WORDS), promote=True, language="english")
    # Words find a text that is far from the vector.
    text = "thing 42"
    vector = vector_of("query 1").astype("<f4").tobytes()
    plain = c.SearchOptions(mode=mode)
    found = await replayed(
        tmp_path, snapshot, snapshot, [search(c.Query(text=text), plain, vector=vector)]
    )
    (only,) = found.pairs
    nearest = [f"d{at:05d}" for at in np.argsort(-(MATRIX @ vector_of("query 1")))[:10]]
    if mode is c.SearchMode.DENSE:
        assert only.first.ids == nearest
    else:
        assert "d00042" in only.first.ids and "d00042" not in nearest


async def test_requests_refused_by_a_snapshot_are_counted_or_shown(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, _ = pair
    # Neither has attributes: the first refuses the request, so there is nothing to compare.
    odd = search(c.Query(vector=vector_of("x")), c.SearchOptions(filter=Equals("price", 3)))
    # The second lacks that item: a router would refuse the request after the flip.
    gone = search(c.Query(item_ids=("d00150",)))
    fewer = publish(folder, documents(WORDS[:100]))
    found = await replayed(folder, first, fewer, [by_vector("query 1"), odd, gone])
    assert [one.split(" refuses")[0] for one in found.left_out] == [first]
    [refused, answered] = sorted(found.pairs, key=lambda one: not one.refused)
    assert "d00150" in refused.refused and refused.probe.query == c.Query(item_ids=("d00150",))
    assert (refused.overlap, refused.second) == (0.0, Answer([], 0.0))
    assert len(refused.first.ids) == 10 and found.answered == [answered]


async def test_lists_are_replayed_without_their_user(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    request = retrieval_pb2.RecommendRequest(item_ids=["d00150"], surface="item_page", n=5)
    message = traffic_pb2.RecordedRequest(recommend=request, personal=True)
    probe = probe_of(message)
    assert probe.audience == c.Audience(item_ids=("d00150",), surface="item_page")
    found = await replayed(folder, first, second, [message])
    (only,) = found.pairs
    assert len(only.first.ids) == 5 and "d00150" not in only.first.ids


async def test_golden_queries_are_used_if_nothing_was_recorded(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    found = await replayed(folder, first, second, [])
    assert (found.source, len(found.pairs)) == ("golden", 60)
    assert len(worst_pairs(found, 3)) == 3


def test_the_overlap_is_that_of_the_longer_list() -> None:
    assert overlap([], []) == 1
    assert overlap(["a", "b"], ["b", "c"]) == 0.5
    assert overlap(["a"], ["a", "b", "c", "d"]) == 0.25


def test_figures_are_over_all_requests_and_the_worst_are_those_that_differ_most() -> None:
    def pair(
        first: str, second: str, seconds: tuple[float, float], refused: str = ""
    ) -> ReplayPair:
        ours, theirs = list(first), list(second)
        return ReplayPair(
            probe=Probe(fingerprint=""),
            first=Answer(ours, seconds[0]),
            second=Answer(theirs, seconds[1]),
            overlap=overlap(ours[:2], theirs[:2]),
            refused=refused,
        )

    # Beyond k, lists may differ.
    same, swapped = pair("abc", "abd", (0.001, 0.003)), pair("ab", "ba", (0.002, 0.002))
    third, empty = pair("ab", "bc", (0.003, 0.001)), pair("a", "", (0.004, 0.002))
    refused = pair("a", "", (9.0, 0.0), "no filters")
    none: Any = None
    pairs = [same, swapped, third, empty, refused]
    found = Replay(first=none, second=none, pairs=pairs, source="recorded", k=2)
    assert summarize(found) == {
        "requests": 5,
        "overlap@2": (1 + 1 + 1 / 2) / 5,
        "unchanged": 0.2,
        "refused": 1,
        # Without the refused request.
        "p50_ms_first": 2.5,
        "p50_ms_second": 2.0,
        "p50_ratio": 0.8,
        "p99_ms_first": 3.97,
        "p99_ms_second": 2.97,
        "p99_ratio": 0.748,
    }
    assert worst_pairs(found, 10) == [refused, empty, third]
    assert worst_pairs(found, 2) == [refused, empty]
    assert found.answered == [same, swapped, third, empty]
    assert summarize(replace(found, pairs=[])) == {
        "requests": 0,
        "overlap@2": None,
        "unchanged": None,
        "refused": 0,
    }

"""Recorded requests replayed on two snapshots: overlap by segment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.releases.probes import probe_of, probes_for
from index_builder.releases.replay import (
    Answer,
    Replay,
    breakdown_rows,
    overlap,
    replay,
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
    (row, *_) = breakdown_rows(found)
    assert (row["requests"], row["overlap@10"], row["unchanged"], row["drift"]) == (5, 1, 1, 0)
    assert row["refused"] == 0 and found.source == "recorded"
    assert worst_pairs(found, 10) == []


async def test_differences_are_reported_by_segment(pair: tuple[Path, str, str]) -> None:
    folder, first, second = pair
    # The best hit of a stored text is that text; the second snapshot lacks half of them.
    recorded = [by_vector(WORDS[0]), by_vector(WORDS[150])]
    recorded.append(search(c.Query(item_ids=("d00150",)), c.SearchOptions(k=3)))
    found = await replayed(folder, first, second, recorded)
    shown = {str(row["segment"]): row for row in breakdown_rows(found)}
    assert set(shown) == {"all", "kind vector", "kind items", "filter none"}
    assert (shown["kind vector"]["requests"], shown["kind items"]["requests"]) == (2, 1)
    # By brute force: the ids that the ten best of both have in common.
    wanted = []
    for word in (WORDS[0], WORDS[150]):
        best = [
            set(np.argsort(-(np.stack([vector_of(one) for one in words]) @ vector_of(word)))[:10])
            for words in (WORDS, [*texts(300)[200:], *WORDS[100:]])
        ]
        wanted.append(len(best[0] & best[1]) / 10)
    assert shown["kind vector"]["overlap@10"] == pytest.approx(np.mean(wanted))
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
    segments = {str(row["segment"]) for row in breakdown_rows(with_embedder)}
    assert {"kind text", "mode default", "length 1 to 2 words"} <= segments


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
    assert (refused.overlap, refused.second) == (0.0, Answer([], None, 0.0))
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
    assert {str(row["segment"]) for row in breakdown_rows(found)} == {
        *("all", "kind list", "filter none", "surface item_page", "personal yes")
    }


async def test_golden_queries_are_used_if_nothing_was_recorded(
    pair: tuple[Path, str, str],
) -> None:
    folder, first, second = pair
    found = await replayed(folder, first, second, [])
    assert (found.source, len(found.pairs)) == ("golden", 60)
    assert "No requests were recorded" in found.describe_source()
    assert len(worst_pairs(found, 3)) == 3


def test_the_overlap_is_that_of_the_longer_list() -> None:
    assert overlap([], []) == 1
    assert overlap(["a", "b"], ["b", "c"]) == 0.5
    assert overlap(["a"], ["a", "b", "c", "d"]) == 0.25

"""Fusion: the formula by hand, independent of the distribution of documents to shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from nearline.errors import SnapshotMismatch
from nearline.v1 import snapshot_pb2
from retrieval.protocols.shard import TITLE_SCORE, LexicalColumns, ShardHits
from retrieval.search.fusion import NORMALISATION, FusionParams, fuse, fuse_hits


class Doc(NamedTuple):
    """A document with both exact scores: lexical for chunk 1, dense for chunk 0.

    title: The level of its title; a matching title may do without words that count (a compound).
    """

    id: str
    dense: float
    lexical: float
    title: float = 0.0


def by_words_and_title(one: Doc) -> float:
    """Returns the score by which a shard chooses its candidates of the lexical leg."""
    return float(np.float32(one.lexical) + np.float32(one.title) * np.float32(TITLE_SCORE))


def shard_hits(documents: Sequence[Doc], most: int) -> ShardHits:
    """Returns the answer of a shard: its best candidates of each leg, with both scores."""
    by_dense = sorted(documents, key=lambda d: (-d.dense, d.id))[:most]
    by_words = sorted(documents, key=lambda d: (-by_words_and_title(d), d.id))[:most]
    found = sorted({*by_dense, *(d for d in by_words if d.lexical > 0 or d.title > 0)})
    n = len(found)
    return ShardHits(
        [d.id for d in found],
        [d.dense for d in found],
        [0] * n,
        [0] * n,
        [5] * n,
        lexical=LexicalColumns(
            [d.lexical for d in found],
            [1] * n,
            [6] * n,
            [9] * n,
            [d.title for d in found],
            TITLE_SCORE,
        ),
    )


def expected(
    documents: Sequence[Doc], candidates: int, weight: float, floor: float
) -> list[tuple[str, float]]:
    """Fuses by brute force, over all documents at once."""
    by_dense = sorted(documents, key=lambda d: (-d.dense, d.id))[:candidates]
    by_words = sorted(documents, key=lambda d: (-by_words_and_title(d), d.id))[:candidates]
    kept = {*by_dense, *(d for d in by_words if d.lexical > 0 or d.title > 0)}
    floor = min(floor, min(d.dense for d in kept))
    span = max(d.dense for d in kept) - floor
    top = max(d.lexical for d in kept)
    scored = []
    for one in kept:
        # In the order of the code: ties must be ties to the last bit.
        dense = (one.dense - floor) * (weight / span if span > 0 else 0.0)
        words = one.lexical * ((1 - weight) / top if top > 0 else 0.0)
        scored.append((-float(np.float32(dense + words + 32 * one.title)), one.id))
    return [(one, -score) for score, one in sorted(scored)]


scores = st.integers(-8, 8).map(lambda number: number / 8)
levels = st.sampled_from([0.0] * 6 + [0.5, 1.0, 1.5, 2.0, 2.25, 3.0])
documents = st.lists(
    st.tuples(scores, st.integers(0, 5).map(float), levels), min_size=1, max_size=40
).map(lambda values: [Doc(f"d{n:02d}", *one) for n, one in enumerate(values)])


@given(
    documents,
    st.integers(1, 4),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.25, 0.6, 1.0]),
    st.sampled_from([-1.5, 0.0, 0.9]),
    st.randoms(use_true_random=False),
)
def test_hybrid_hits_do_not_depend_on_the_distribution_to_shards(
    documents: list[Doc], shards: int, candidates: int, weight: float, floor: float, random: object
) -> None:
    dealt: list[list[Doc]] = [[] for _ in range(shards)]
    for one in documents:
        dealt[random.randrange(shards)].append(one)  # type: ignore[attr-defined]
    parts = [(number, shard_hits(mine, candidates)) for number, mine in enumerate(dealt)]
    found = fuse_hits(parts, 1_000, candidates=candidates, dense_weight=weight, floor=floor)
    wanted = expected(documents, candidates, weight, floor)
    assert [hit.id for _, hit in found] == [one for one, _ in wanted]
    np.testing.assert_allclose(
        [hit.score for _, hit in found], [score for _, score in wanted], rtol=1e-6, atol=1e-9
    )
    assert all(hit.id in {d.id for d in dealt[shard]} for shard, hit in found)


@given(documents, st.sampled_from([0.25, 0.65, 1.0]), st.sampled_from([-1.0, 0.3, 2.0]))
def test_no_floor_hides_the_order_of_a_leg_or_lets_it_outgrow_its_weight(
    documents: list[Doc], weight: float, floor: float
) -> None:
    cosines = np.array([one.dense for one in documents], np.float32)
    words = np.array([one.lexical for one in documents], np.float32)
    dense, lexical = fuse(cosines, words, dense_weight=weight, floor=floor)
    for part, scores, most in ((dense, cosines, weight), (lexical, words, 1 - weight)):
        assert (part >= 0).all() and (part <= most + 1e-12).all()
        assert (np.diff(part[np.argsort(scores, kind="stable")]) >= 0).all()
    if len(set(cosines.tolist())) > 1:
        assert len(set(dense.tolist())) == len(set(cosines.tolist()))


def test_a_hit_shows_the_chunk_of_the_stronger_leg_and_its_explanation() -> None:
    found = [Doc("meaning", 1.0, 0.0), Doc("words", 0.0, 4.0)]
    parts = [(3, shard_hits(found, 10))]
    hits = fuse_hits(parts, 10, candidates=10, dense_weight=0.6, floor=0.0, explain=True)
    (_, meaning), (_, words) = hits
    assert (meaning.id, meaning.chunk, meaning.start, meaning.end) == ("meaning", 0, 0, 5)
    assert (words.id, words.chunk, words.start, words.end) == ("words", 1, 6, 9)
    assert [meaning.score, words.score] == pytest.approx([0.6, 0.4])
    said = words.explanation
    assert said is not None
    assert (said.dense_score, said.lexical_score, said.shard) == (0.0, 4.0, 3)
    assert (said.dense_rank, said.lexical_rank) == (2, 1)
    assert meaning.explanation is not None and meaning.explanation.lexical_rank is None
    assert said.title_level == meaning.explanation.title_level == 0


def test_a_title_that_the_query_names_comes_first_and_is_explained() -> None:
    found = [Doc("both", 1.0, 9.0), Doc("named", -1.0, 0.0, 2.0), Doc("misspelt", 0.0, 1.0, 0.5)]
    parts = [(0, shard_hits(found[:1], 1)), (1, shard_hits(found[1:], 1))]
    hits = fuse_hits(parts, 10, candidates=1, dense_weight=0.6, floor=0.0, explain=True)
    # Of the legs, each with one candidate: the best vector, and the best title.
    assert [hit.id for _, hit in hits] == ["named", "both"]
    assert [hit.score for _, hit in hits] == pytest.approx([64.0, 1.0])
    named, both = (hit.explanation for _, hit in hits)
    assert named is not None and both is not None
    assert (named.title_level, named.lexical_rank, named.dense_rank) == (2.0, 1, None)
    assert (both.title_level, both.lexical_rank, both.dense_rank) == (0.0, None, 1)


def test_no_candidates_give_no_hits() -> None:
    empty = ShardHits([], [], [], [], [], lexical=LexicalColumns([], [], [], [], []))
    assert fuse_hits([(0, empty)], 5, candidates=5, dense_weight=0.5, floor=0.0) == []
    dense, lexical = fuse(np.empty(0, np.float32), np.empty(0, np.float32), dense_weight=1, floor=0)
    assert len(dense) == len(lexical) == 0


def test_a_weight_of_another_normalisation_is_refused() -> None:
    manifest = snapshot_pb2.Manifest(snapshot_id="s")
    assert FusionParams.of(manifest) == FusionParams()
    manifest.fusion.normalisation = NORMALISATION
    manifest.fusion.dense_weight, manifest.fusion.dense_constant = 0.25, -0.5
    manifest.fusion.candidates = 50
    assert FusionParams.of(manifest) == FusionParams(0.25, -0.5, 50)
    manifest.fusion.normalisation = "ranks"
    with pytest.raises(SnapshotMismatch, match="rebuild"):
        FusionParams.of(manifest)

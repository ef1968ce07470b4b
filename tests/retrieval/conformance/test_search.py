"""Searches of every shard implementation: hits, order, filters, groups and payload."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline import filters as f
from nearline.contract import Boost, Decay, Filter, Grouping, HitLevel, PayloadField, SearchMode
from nearline.errors import InvalidRequest, SnapshotGone, Unsupported
from retrieval.protocols.shard import ShardHits, ShardOptions, ShardQueries
from tests.retrieval.conformance.conftest import DIM_LARGE, Material
from tests.retrieval.conformance.implementations import Held, Implementation
from tests.retrieval.conformance.model import Row
from tests.retrieval.segment_pairs import DIM

pytestmark = pytest.mark.asyncio(loop_scope="module")
GONE = "20260101T000000Z-000000"
VECTORS = np.array([[1, 0, -1, 1], [0, 0, 0, 0], [-1, 1, 1, 0], [0, 1, 0, 0]], np.float32)
FILTERS: dict[str, Filter] = {
    "equals": f.Equals("kind", "a"),
    "in": f.In("year", (2000, 2003)),
    "range": f.Range("year", gt=2000, lte=2002),
    "a list": f.Equals("tags", "x"),
    "not": f.Not(f.Equals("kind", "a")),
    "not in a list": f.Not(f.In("tags", ("x", "y"))),
    "exists": f.Exists("kind"),
    "absent": f.All(f.Not(f.Exists("kind")), f.Not(f.Exists("tags"))),
    "any": f.Any(f.Equals("kind", "b"), f.All(f.Equals("tags", "z"), f.Range("year", lt=2002))),
    "all": f.All(),
    "nothing": f.Equals("kind", 'nowhere" or 1==1'),
}


async def searched(held: Held, queries: ShardQueries, options: ShardOptions) -> list[ShardHits]:
    """Searches, and returns one record per query."""
    results = await held.shard.search(held.snapshot_id, queries, options)
    assert len(results) == queries.count
    return list(results)


def rows(hits: ShardHits) -> list[Row]:
    """Returns hits as the model does."""
    columns = zip(hits.scores, hits.ids, hits.chunks, strict=True)
    return [Row(-score, one, chunk) for score, one, chunk in columns]


def same(found: ShardHits, wanted: list[Row]) -> None:
    """Asserts that hits are those expected, in the same order, with scores to 1e-5."""
    assert [row[1:] for row in rows(found)] == [row[1:] for row in wanted]
    np.testing.assert_allclose(found.scores, [-row.negated for row in wanted], atol=1e-5)


def words(*texts: str) -> ShardQueries:
    return ShardQueries(np.empty((0, DIM), np.float32), texts)


@pytest.mark.parametrize("level", HitLevel)
@pytest.mark.parametrize("k", [1, 7, 500])
async def test_exact_hits_are_the_best_by_score_then_id_then_chunk(
    small: Held, material: Material, k: int, level: HitLevel
) -> None:
    options = ShardOptions(k, level=level, exact=True)
    for vector, hits in zip(
        VECTORS, await searched(small, ShardQueries(VECTORS), options), strict=True
    ):
        same(hits, material.small.dense(vector, k, level))
        for one, chunk, start, end in zip(
            hits.ids, hits.chunks, hits.starts, hits.ends, strict=True
        ):
            assert (start, end) == material.small.documents[one].spans()[chunk]


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("k", [4, 500])
async def test_filtered_hits_are_the_best_of_the_matching_items(
    small: Held, material: Material, name: str, k: int
) -> None:
    filter = FILTERS[name]
    for level in HitLevel:
        options = ShardOptions(k, level=level, exact=True, filter=filter)
        results = await searched(small, ShardQueries(VECTORS), options)
        for vector, hits in zip(VECTORS, results, strict=True):
            same(hits, material.small.dense(vector, k, level, filter))


async def test_an_index_finds_most_of_the_best(
    large: Held, material: Material, implementation: Implementation, rng: np.random.Generator
) -> None:
    queries: NDArray[np.float32] = rng.normal(size=(20, DIM_LARGE)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for filter in (None, f.Range("year", lt=2025), f.Equals("year", 2007)):
        everything = ShardOptions(10, exact=True, filter=filter)
        if "exact" in large.lacks:
            with pytest.raises(Unsupported, match="exact"):
                await searched(large, ShardQueries(queries), everything)
        else:
            exact = await searched(large, ShardQueries(queries), everything)
            for query, best in zip(queries, exact, strict=True):
                same(best, material.large.dense(query, 10, filter=filter))
        found = await searched(large, ShardQueries(queries), ShardOptions(10, filter=filter))
        recalls = []
        for query, hits in zip(queries, found, strict=True):
            wanted = material.large.dense(query, 10, filter=filter)
            assert len(hits.ids) == 10
            assert hits.scores == sorted(hits.scores, reverse=True)
            true = dict((row.id, -row.negated) for row in material.large.dense(query, 3_000))
            np.testing.assert_allclose(hits.scores, [true[one] for one in hits.ids], atol=1e-5)
            recalls.append(len({row.id for row in wanted} & set(hits.ids)) / 10)
        assert np.mean(recalls) >= implementation.recall_at_10, filter


@pytest.mark.parametrize("mode", SearchMode)
async def test_values_of_boosts_are_those_of_the_attributes(
    small: Held, material: Material, mode: SearchMode
) -> None:
    boosts = (
        Boost(field="kind", any_of=("a", "c")),
        Boost(field="tags", any_of=("x",)),
        Boost(field="year", decay=Decay(scale=1.0, origin=2003)),
    )
    options = ShardOptions(500, mode=mode, grouping=Grouping("year"), boosts=boosts)
    if {mode.value, "boosts"} & small.lacks:
        with pytest.raises(Unsupported):
            await searched(small, words("plum"), options)
        return
    vectors = VECTORS[:1] if mode is not SearchMode.LEXICAL else VECTORS[:0]
    texts = ("plum fig",) if mode is not SearchMode.DENSE else ()
    (hits,) = await searched(small, ShardQueries(vectors, texts), options)
    assert len(hits.ids) > 4, "not only the best of each group"
    for one, found, group in zip(hits.ids, hits.boosts, hits.groups, strict=True):
        attributes = material.small.documents[one].attributes
        wanted = [
            *(
                float(f.admits(f.In(boost.field, boost.any_of), attributes))  # type: ignore[arg-type]
                for boost in boosts[:2]
            ),
            0.5 ** ((attributes["year"] - 2003) ** 2),  # type: ignore[operator]
        ]
        assert list(found) == pytest.approx(wanted, abs=1e-6)
        assert group == attributes["year"]
    titled = len(hits.title_scores)
    assert titled == (len(hits.ids) if mode is SearchMode.LEXICAL else 0)


@pytest.mark.parametrize("field", ["kind", "tags", "year"])
async def test_groups_are_ordered_by_their_best_hits(
    small: Held, material: Material, field: str
) -> None:
    if "grouping" in small.lacks:
        with pytest.raises(Unsupported, match="FAISS"):
            await searched(small, ShardQueries(VECTORS), ShardOptions(2, grouping=Grouping(field)))
        return
    for k in (2, 50):
        options = ShardOptions(k, exact=True, grouping=Grouping(field))
        results = await searched(small, ShardQueries(VECTORS), options)
        for vector, hits in zip(VECTORS, results, strict=True):
            wanted = material.small.groups(vector, k, field)
            assert list(hits.groups) == [value for value, _ in wanted]
            same(hits, [row for _, row in wanted])


async def test_hits_carry_the_requested_payload(small: Held, material: Material) -> None:
    queries = ShardQueries(VECTORS[:1])
    for payload in (frozenset(PayloadField), *(frozenset({one}) for one in PayloadField)):
        (hits,) = await searched(small, queries, ShardOptions(20, exact=True, payload=payload))
        for one, chunk, found in zip(hits.ids, hits.chunks, hits.payloads, strict=True):
            document = material.small.documents[one]
            start, end = document.spans()[chunk]
            wanted = {
                PayloadField.TITLE: document.title,
                PayloadField.TEXT: document.text[start:end],
                PayloadField.ATTRIBUTES: document.attributes,
            }
            for part, value in zip(wanted, found[:3], strict=True):
                # What was not asked for is None; over the wire attributes are empty then.
                assert value == wanted[part] if part in payload else not value
            if PayloadField.VECTOR in payload:
                assert found.vector is not None
                np.testing.assert_allclose(found.vector, document.vectors[chunk], atol=1e-6)
            else:
                assert found.vector is None
    (hits,) = await searched(small, queries, ShardOptions(20, exact=True))
    assert not hits.payloads


@pytest.mark.parametrize("text", ["fig", "plum apple", "nowhere", "kiwi kiwi"])
async def test_lexical_hits_contain_one_of_the_words(
    small: Held, material: Material, text: str
) -> None:
    options = ShardOptions(500, mode=SearchMode.LEXICAL)
    if "lexical" in small.lacks:
        with pytest.raises(Unsupported):
            await searched(small, words(text), options)
        return
    for filter in (None, FILTERS["equals"], FILTERS["not in a list"]):
        (hits,) = await searched(small, words(text), options._replace(filter=filter))
        assert set(hits.ids) == material.small.with_words(text.split(), filter)
        assert len(set(hits.ids)) == len(hits.ids)
        assert all(score > 0 for score in hits.scores)
        by_score = sorted(rows(hits), key=lambda row: row[:2])
        assert rows(hits) == by_score
        for one, chunk in zip(hits.ids, hits.chunks, strict=True):
            start, end = material.small.documents[one].spans()[chunk]
            assert set(text.split()) & set(material.small.documents[one].text[start:end].split())
        (few,) = await searched(small, words(text), options._replace(filter=filter, k=5))
        assert rows(few) == by_score[:5]


@pytest.mark.parametrize("name", [None, "equals", "not in a list", "nothing"])
async def test_candidates_contain_the_best_of_both_legs_with_exact_scores(
    small: Held, material: Material, name: str | None
) -> None:
    filter = None if name is None else FILTERS[name]
    options = ShardOptions(6, mode=SearchMode.HYBRID, exact=True, filter=filter)
    both = ShardQueries(VECTORS[:1], ("plum fig",))
    if "hybrid" in small.lacks:
        with pytest.raises(Unsupported):
            await searched(small, both, options)
        return
    (hits,) = await searched(small, both, options)
    scored = {row.id: row for row in material.small.dense(VECTORS[0], 500, filter=filter)}
    by_words = ShardOptions(500, mode=SearchMode.LEXICAL, filter=filter)
    (lexical,) = await searched(small, words("plum fig"), by_words)
    true_words = dict(zip(lexical.ids, lexical.scores, strict=True))
    assert {row.id for row in list(scored.values())[:6]} | set(lexical.ids[:6]) == set(hits.ids)
    assert hits.lexical is not None or not hits.ids
    for at, row in enumerate(rows(hits)):
        assert row[1:] == scored[row.id][1:]
        assert row.negated == pytest.approx(scored[row.id].negated, abs=1e-5)
        assert hits.lexical is not None
        assert hits.lexical.scores[at] == pytest.approx(true_words.get(row.id, 0.0), abs=1e-5)


async def test_each_query_of_a_batch_is_answered_as_if_alone(small: Held) -> None:
    options = ShardOptions(10, exact=True)
    together = await searched(small, ShardQueries(VECTORS), options)
    for number, hits in enumerate(together):
        (alone,) = await searched(small, ShardQueries(VECTORS[[number]]), options)
        same(alone, rows(hits))


async def test_unsupported_searches_are_refused(small: Held, material: Material) -> None:
    with pytest.raises(SnapshotGone):
        await small.shard.search(GONE, ShardQueries(VECTORS), ShardOptions(3))
    for filter in (f.Exists("nowhere"), f.Equals("year", "x"), f.Range("year", gte=1, lt=True)):
        with pytest.raises(InvalidRequest):
            await searched(small, ShardQueries(VECTORS), ShardOptions(3, filter=filter))
    with pytest.raises(Unsupported if "grouping" in small.lacks else InvalidRequest):
        await searched(small, ShardQueries(VECTORS), ShardOptions(3, grouping=Grouping("nowhere")))

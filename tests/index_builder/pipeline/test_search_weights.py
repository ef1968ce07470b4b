"""Weights of fields last: in builds, in live changes, in compactions and in rebuilds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import Mode
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.pipeline.settings import IndexBuilderSettings
from nearline.contract import Attributes, SearchMode
from nearline.errors import InvalidRequest
from retrieval.index.lexical.bm25_index import K1, B
from retrieval.live.live_changes import LiveChanges
from retrieval.protocols.shard import ShardOptions, ShardQueries
from retrieval.protocols.snapshot import read_snapshot_ref
from retrieval.shards.local_provider import LocalShardProvider
from tests.index_builder.live_collection import Living

WEIGHTS = {"title": 2.0, "genres": 0.5, "note": 3.0}
FILMS: Mapping[str, Attributes] = {
    "f1": {"genres": ["comedy", "drama"], "note": "drama", "year": 1999},
    "f2": {"genres": ["drama"], "year": 2001},
    "f3": {"genres": "western", "note": "A comedy of sorts."},
    "f4": {"year": 1987},
}


async def scores(living: Living, text: str) -> dict[str, float]:
    """Returns the lexical scores of the current snapshot and the live changes, by id."""
    manifest = living.manifest
    live = LiveChanges(living.store, lambda collection: living.log)
    provider = LocalShardProvider(living.store, 1, live=live)
    try:
        snapshot = read_snapshot_ref(living.store, "default", manifest.snapshot_id, 1)
        found: dict[str, float] = {}
        for shard in await provider.prepare(snapshot):
            options = ShardOptions(10, mode=SearchMode.LEXICAL)
            (hits,) = await shard.search(
                snapshot.snapshot_id, ShardQueries(np.empty((0, 0), np.float32), (text,)), options
            )
            found |= dict(zip(hits.ids, hits.scores, strict=True))
        return found
    finally:
        await provider.close()


@pytest.fixture
async def films(tmp_path: Path) -> Living:
    living = Living(tmp_path, shards=2)
    rows = [{"id": key, "text": f"film {key}", **one} for key, one in FILMS.items()]
    await living.build_rows(rows, search_weights=WEIGHTS)
    living.clock.now = 20
    return living


async def test_a_live_item_has_the_score_of_the_same_item_in_the_snapshot(films: Living) -> None:
    assert dict(films.manifest.lexical.weights) == WEIGHTS
    before = await scores(films, "drama western")
    assert set(before) == {"f1", "f2", "f3"}
    assert await scores(films, "1999") == {}
    for key, attributes in FILMS.items():
        await films.upsert(key, f"film {key}", attributes)
    live = await scores(films, "drama western")
    assert live == before
    await compact(compaction_options(films.options), films.log, films.embedder)
    assert await scores(films, "drama western") == before
    assert dict(films.manifest.lexical.weights) == WEIGHTS


async def test_the_score_is_that_of_weighted_fields(films: Living) -> None:
    card = films.manifest.lexical
    # By genre and note: 0.5 + 3 of drama in a length of 2 + 2 * 0.5 + 3; 0.5 in 2 + 0.5.
    lengths = {"f1": 2 + 1 + 3, "f2": 2 + 0.5, "f3": 2 + 0.5 + 3 * 2, "f4": 2.0}
    mean = sum(lengths.values()) / 4
    assert card.mean_length == pytest.approx(mean)
    found = await scores(films, "drama")
    occurrences = {"f1": 3.5, "f2": 0.5}
    shares = {
        key: count / (count + K1 * (1 - B + B * lengths[key] / mean))
        for key, count in occurrences.items()
    }
    assert found["f1"] / found["f2"] == pytest.approx(shares["f1"] / shares["f2"], rel=1e-6)


async def test_a_change_of_an_attribute_changes_the_words_of_an_item(films: Living) -> None:
    await films.set("f4", {"genres": "western"})
    assert set(await scores(films, "western")) == {"f3", "f4"}
    await films.set("f3", {"genres": None})
    assert set(await scores(films, "western")) == {"f4"}


async def test_a_new_collection_keeps_its_weights_when_it_is_compacted(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    await living.create_empty(search_weights=WEIGHTS)
    for key, attributes in FILMS.items():
        await living.upsert(key, f"film {key}", attributes)
    assert set(await scores(living, "drama")) == {"f1", "f2"}
    await compact(compaction_options(living.options), living.log, living.embedder)
    assert dict(living.manifest.lexical.weights) == WEIGHTS
    assert set(await scores(living, "drama")) == {"f1", "f2"}


async def test_a_rebuild_keeps_the_weights_unless_it_has_others(films: Living) -> None:
    corpus = films.corpus({"f5": "film f5"}, 30, "more")
    for mode in Mode:
        await films.build(corpus, mode=mode)
        assert dict(films.manifest.lexical.weights) == WEIGHTS
    await films.build(corpus, search_weights={"title": 1.0})
    assert dict(films.manifest.lexical.weights) == {"title": 1.0}


async def test_the_report_of_a_build_has_the_weights(films: Living) -> None:
    snapshot = films.store.snapshot_folder("default", films.manifest.snapshot_id)
    folder = snapshot / "golden"
    assert json.loads((folder / "report.json").read_text())["search_weights"] == WEIGHTS


def test_settings_have_weights_separated_by_commas() -> None:
    settings = IndexBuilderSettings(search_weights="title=2, genres=0.5,")
    assert settings.options().search_weights == {"title": 2.0, "genres": 0.5}
    with pytest.raises(InvalidRequest, match="'price' has a search weight, but is declared"):
        IndexBuilderSettings(search_weights="price=1", attributes="price:double").options()

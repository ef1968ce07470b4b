"""Languages of attributes last: in builds, in live changes, in compactions and in rebuilds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, Mode
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.pipeline.settings import IndexBuilderSettings
from nearline.contract import Attributes
from nearline.errors import InvalidRequest
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.test_search_weights import scores

WEIGHTS = {"title": 2.0, "brand": 3.0, "note": 0.5}
LANGUAGES = {"brand": "none", "note": "german"}
BANDS: Mapping[str, Attributes] = {
    "b1": {"brand": "The The", "note": "ein Album"},
    "b2": {"brand": ["Running", "Kings"], "note": "drei Alben"},
    "b3": {"brand": "runs", "note": "the king"},
    "b4": {"note": "die Kings"},
}
QUERY = "the running kings of alben"


@pytest.fixture
async def bands(tmp_path: Path) -> Living:
    living = Living(tmp_path, shards=2)
    rows = [{"id": key, "text": f"band {key}, running", **one} for key, one in BANDS.items()]
    await living.build_rows(rows, search_weights=WEIGHTS, search_languages=LANGUAGES)
    living.clock.now = 20
    return living


async def test_a_live_item_has_the_score_of_the_same_item_in_the_snapshot(bands: Living) -> None:
    assert dict(bands.manifest.lexical.languages) == LANGUAGES
    queries = (QUERY, "the", "run", "runing", "king*", "albums", "die")
    before = {query: await scores(bands, query) for query in queries}
    assert {query: set(found) for query, found in before.items()} == {
        QUERY: {"b1", "b2", "b3", "b4"},
        # In brands, and in German notes.
        "the": {"b1", "b3"},
        "run": {"b1", "b2", "b3", "b4"},
        "runing": {"b1", "b2", "b3", "b4"},
        "king*": {"b2", "b3", "b4"},
        "albums": {"b1"},
        "die": set(),
    }
    for key, attributes in BANDS.items():
        await bands.upsert(key, f"band {key}, running", attributes)
    assert {query: await scores(bands, query) for query in queries} == before
    await compact(compaction_options(bands.options), bands.log, bands.embedder)
    assert {query: await scores(bands, query) for query in queries} == before
    assert dict(bands.manifest.lexical.languages) == LANGUAGES


async def test_one_shard_and_many_have_the_same_scores(tmp_path: Path) -> None:
    found = []
    for shards in (1, 3):
        folder = tmp_path / str(shards)
        folder.mkdir()
        living = Living(folder, shards=shards)
        rows = [{"id": key, "text": f"band {key}", **one} for key, one in BANDS.items()]
        await living.build_rows(rows, search_weights=WEIGHTS, search_languages=LANGUAGES)
        found.append([await scores(living, query) for query in (QUERY, "the", "runnin", "k*")])
    assert found[0] == found[1]
    assert all(found[0])


async def test_a_new_collection_keeps_its_languages_when_it_is_compacted(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    await living.create_empty(search_weights=WEIGHTS, search_languages=LANGUAGES)
    for key, attributes in BANDS.items():
        await living.upsert(key, f"band {key}", attributes)
    for _ in range(2):
        assert set(await scores(living, "the running")) == {"b1", "b2", "b3"}
        assert dict(living.manifest.lexical.languages) == LANGUAGES
        await compact(compaction_options(living.options), living.log, living.embedder)
    assert set(await scores(living, "the running")) == {"b1", "b2", "b3"}


async def test_a_rebuild_keeps_the_languages_of_attributes_with_a_weight(bands: Living) -> None:
    corpus = bands.corpus({"b5": "band b5"}, 30, "more")
    for mode in Mode:
        await bands.build(corpus, mode=mode)
        assert dict(bands.manifest.lexical.languages) == LANGUAGES
    await bands.build(corpus, search_weights={"brand": 1.0})
    assert dict(bands.manifest.lexical.languages) == {"brand": "none"}
    # Weights are kept; the languages are replaced as a whole.
    await bands.build(corpus, search_languages={"brand": "french"})
    assert dict(bands.manifest.lexical.weights) == {"brand": 1.0}
    assert dict(bands.manifest.lexical.languages) == {"brand": "french"}
    await bands.build(corpus, search_weights={"title": 1.0})
    assert dict(bands.manifest.lexical.languages) == {}


async def test_an_attribute_that_is_not_searched_fails_the_build_before_anything_is_embedded(
    bands: Living,
) -> None:
    corpus = bands.corpus({"b5": "band b5"}, 30, "more")
    embedded = len(bands.embedder.texts)
    with pytest.raises(InvalidRequest, match="'genre' has a search language, but no search weight"):
        await bands.build(corpus, search_languages={"genre": "none"})
    assert len(bands.embedder.texts) == embedded
    with pytest.raises(InvalidRequest, match="'genre' has a search language, but no search weight"):
        BuildOptions(store="x", search_weights=WEIGHTS, search_languages={"genre": "none"}).check()


async def test_the_report_of_a_build_has_the_languages(bands: Living) -> None:
    folder = bands.store.snapshot_folder("default", bands.manifest.snapshot_id) / "golden"
    assert json.loads((folder / "report.json").read_text())["search_languages"] == LANGUAGES


def test_settings_have_languages_separated_by_commas() -> None:
    settings = IndexBuilderSettings(
        search_weights="brand=2,a=b=1", search_languages="brand=none, a=b=german,"
    )
    assert settings.options().search_languages == {"brand": "none", "a=b": "german"}
    with pytest.raises(
        InvalidRequest, match="the search language of 'brand' is 'klingon'; use one"
    ):
        IndexBuilderSettings(search_weights="brand=1", search_languages="brand=klingon").options()

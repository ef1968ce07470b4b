"""Synonyms last: in builds, in live changes, in compactions and in rebuilds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from index_builder.options.build_options import BuildOptions, Mode
from index_builder.pipeline.compaction import compact, compaction_options, reembed
from index_builder.pipeline.settings import IndexBuilderSettings
from nearline.errors import InvalidRequest
from retrieval.index.lexical.synonym_rules import parse_synonyms
from retrieval.index.lexical.synonyms import SYNONYMS
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.live_collection import Living
from tests.index_builder.pipeline.test_search_weights import scores

RULES = parse_synonyms(["tv, television", "nyc => new york city"])
TEXTS = {"a": "a television", "b": "the city of New York", "c": "a tv", "d": "a radio"}


@pytest.fixture
async def shop(tmp_path: Path) -> Living:
    living = Living(tmp_path, shards=2)
    await living.build(living.corpus(TEXTS, 10), synonyms=RULES)
    living.make_log()
    living.clock.now = 20
    return living


def listed(living: Living) -> bool:
    """Returns whether the manifest lists a file of synonyms."""
    return f"lexical/{SYNONYMS}" in {entry.path for entry in living.manifest.files}


async def test_a_live_item_is_found_by_synonyms_with_the_score_of_the_snapshot(
    shop: Living,
) -> None:
    assert shop.manifest.lexical.synonym_rules == 2 and listed(shop)
    before = {text: await scores(shop, text) for text in ("tv", "nyc", "new york city")}
    assert set(before["tv"]) == {"a", "c"} and before["tv"]["c"] > before["tv"]["a"]
    assert set(before["nyc"]) == set(before["new york city"]) == {"b"}
    for key, text in TEXTS.items():
        await shop.upsert(key, text)
    assert {text: await scores(shop, text) for text in before} == before
    await compact(compaction_options(shop.options), shop.log, shop.embedder)
    assert shop.manifest.lexical.synonym_rules == 2 and listed(shop)
    assert {text: await scores(shop, text) for text in before} == before


async def test_a_build_keeps_the_synonyms_unless_it_has_others(shop: Living) -> None:
    more = shop.corpus({"a": "a television", "e": "a stereo"}, 30, "more")
    for mode in Mode:
        await shop.build(more, mode=mode)
        assert set(await scores(shop, "tv")) >= {"a"}
    # As words of its own language.
    await shop.build(more, language="german")
    assert set(await scores(shop, "tv")) == {"a"}
    await shop.build(more, synonyms=parse_synonyms(["radio => stereo"]))
    assert await scores(shop, "tv") == {}
    assert set(await scores(shop, "radio")) == {"e"}
    await shop.build(more, synonyms=parse_synonyms([]))
    assert await scores(shop, "radio") == {}
    assert shop.manifest.lexical.synonym_rules == 0 and not listed(shop)


async def test_other_synonyms_need_no_document_and_no_embedding(shop: Living) -> None:
    changed = replace(shop.options, synonyms=parse_synonyms(["wireless => radio"]))
    result = await compact(compaction_options(changed), shop.log, shop.embedder)
    assert (result.documents, result.embedded) == (4, 0)
    assert set(await scores(shop, "wireless")) == {"d"}
    assert await scores(shop, "nyc") == {}


async def test_another_model_keeps_the_synonyms(shop: Living) -> None:
    await reembed(compaction_options(shop.options), shop.log, HashEmbedder(fingerprint="other"))
    assert shop.manifest.lexical.synonym_rules == 2


async def test_a_new_collection_keeps_its_synonyms_when_it_is_compacted(tmp_path: Path) -> None:
    living = Living(tmp_path, shards=2)
    await living.create_empty(synonyms=RULES.rules)
    for key, text in TEXTS.items():
        await living.upsert(key, text)
    assert set(await scores(living, "tv")) == {"a", "c"}
    await compact(compaction_options(living.options), living.log, living.embedder)
    assert living.manifest.lexical.synonym_rules == 2
    assert set(await scores(living, "tv")) == {"a", "c"}


async def test_the_report_of_a_build_counts_the_rules(shop: Living) -> None:
    folder = shop.store.snapshot_folder("default", shop.manifest.snapshot_id) / "golden"
    assert json.loads((folder / "report.json").read_text())["synonym_rules"] == 2


def test_settings_name_a_file_which_is_checked_before_the_build(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("tv, television\n")
    settings = IndexBuilderSettings(synonyms=str(path))
    synonyms = settings.options().synonyms
    assert synonyms is not None and [*synonyms.rules] == [*parse_synonyms(["tv, television"]).rules]
    assert IndexBuilderSettings().options().synonyms is None
    with pytest.raises(InvalidRequest, match="synonyms need a lexical index; remove --synonyms"):
        IndexBuilderSettings(synonyms=str(path), lexical=False).options()
    path.write_text("a1 => b1\nb1 => a1\n")
    with pytest.raises(InvalidRequest, match=r"rules.txt, lines 1, 2: .* cycle"):
        settings.options()
    with pytest.raises(InvalidRequest, match=r"synonyms, lines 1, 2: .* cycle"):
        BuildOptions(store="x", synonyms=parse_synonyms(["a1 => b1", "b1 => a1"])).check()

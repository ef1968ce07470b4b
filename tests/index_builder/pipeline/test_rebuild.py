"""A rebuild loses no change, restores no deleted document and embeds nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from index_builder.lineage.parent_snapshot import ParentDocuments
from index_builder.options.build_options import IndexOptions, Mode
from index_builder.pipeline.compaction import compact, compaction_options
from nearline.contract import Item
from nearline.errors import Conflict, InvalidRequest, NotReady, SnapshotMismatch
from retrieval.changelog.retention import drop_archived_segments, trim_log
from retrieval.protocols.watermark import decode_watermark
from tests.index_builder.embedders import HashEmbedder, vector_of
from tests.index_builder.live_collection import Living
from tests.retrieval.changelog.memory_log import MemoryLog

TEXTS = {f"d{n}": f"Text {n}." for n in range(12)}


@pytest.fixture
async def living(tmp_path: Path) -> Living:
    """A collection of twelve documents, imported as of second 10 and changed later."""
    found = Living(tmp_path)
    await found.build(found.corpus(TEXTS, 10), log=None)
    found.make_log()
    found.clock.now = 20
    await found.upsert("d1", "Changed 1.", {"price": 5})
    await found.upsert("new", "New.")
    await found.delete("d2")
    await found.set("d3", {"price": 7})
    return found


def _expected() -> dict[str, str]:
    wanted = {**TEXTS, "d1": "Changed 1.", "new": "New."}
    del wanted["d2"]
    return wanted


async def test_a_build_without_a_log_has_no_lineage(tmp_path: Path) -> None:
    living = Living(tmp_path)
    result = await living.build(living.corpus(TEXTS, 10))
    manifest = living.manifest
    assert result.merged is None
    assert (manifest.change_log_id, manifest.watermark, manifest.parent_snapshot_id) == (
        "",
        b"",
        "",
    )
    assert manifest.sources[0].import_time.ToSeconds() == 1_700_000_010
    assert not any(entry.path.startswith("changes/") for entry in manifest.files)
    assert list(living.rows()["d0"]) == [
        *("id", "title", "text", "chunk_starts", "chunk_ends", "attributes")
    ]


async def test_changes_survive_every_rebuild_from_the_same_corpus(living: Living) -> None:
    corpus = living.folder / "corpus.jsonl"
    for round_ in range(3):
        result = await living.build(corpus)
        assert living.texts() == _expected()
        rows = living.rows()
        assert rows["d1"]["attributes"] == {"price": 5}
        assert rows["d3"]["attributes"] == {"from": "corpus", "price": 7}
        assert result.merged is not None
        assert result.merged.changes == (4 if round_ == 0 else 0)
        for snapshot_id in living.store.snapshot_ids("default"):
            if snapshot_id != result.snapshot_id:
                living.store.remove_snapshot("default", snapshot_id)
        assert await trim_log(living.store, living.log) == (4 if round_ == 0 else 0)
        drop_archived_segments(living.store, "default")
        corpus.touch()  # The same bytes, as if new.


async def test_documents_with_known_vectors_are_not_embedded_again(living: Living) -> None:
    living.embedder.texts.clear()
    await living.build(living.folder / "corpus.jsonl")
    assert living.embedder.texts == []
    vectors = living.vectors()
    assert {key: vectors[key].tolist() for key in vectors} == {
        key: [vector_of(text).tolist()] for key, text in _expected().items()
    }
    later = living.corpus({**TEXTS, "d5": "Other 5.", "d20": "Text 20."}, 15)
    await living.build(later)
    assert Counter(living.embedder.texts) == Counter(["Other 5.", "Text 20."])


async def test_the_manifest_names_parent_log_and_watermark(living: Living) -> None:
    before = living.manifest.snapshot_id
    await living.build(living.folder / "corpus.jsonl")
    manifest = living.manifest
    assert manifest.parent_snapshot_id == before
    assert manifest.change_log_id == living.log.log_id
    assert decode_watermark(manifest.watermark) == (await living.log.state()).head
    assert manifest.sources[0].import_time.ToSeconds() == 1_700_000_010
    rows = living.rows()
    assert rows["d1"]["version"] == rows["d3"]["version"] == rows["new"]["version"] == 1
    assert rows["d0"]["version"] == 0
    assert rows["d1"]["changed"] == 1_700_000_020_000_000
    assert rows["d0"]["changed"] == rows["d3"]["changed"] == 0


async def test_a_newer_import_overrides_only_older_changes(living: Living) -> None:
    living.clock.now = 40
    await living.upsert("d4", "Changed 4.")
    newer = living.corpus({key: f"Newer {key}." for key in TEXTS}, 30, "newer")
    await living.build(newer)
    wanted = {key: f"Newer {key}." for key in TEXTS} | {"d4": "Changed 4."}
    assert living.texts() == wanted  # d2 is there again, "new" is not: the import is later.
    assert living.rows()["d3"]["attributes"] == {"from": "newer"}


async def test_attributes_set_after_an_import_stay_on_its_newer_text(living: Living) -> None:
    await living.build(living.folder / "corpus.jsonl")
    # Made before the change of second 20, imported after a snapshot took that in.
    between = living.corpus({**TEXTS, "d3": "Better 3."}, 15, "between")
    await living.build(between)
    row = living.rows()["d3"]
    assert (row["text"], row["attributes"]) == ("Better 3.", {"from": "between", "price": 7})


async def test_an_older_import_does_not_restore_deleted_documents(living: Living) -> None:
    await living.build(living.folder / "corpus.jsonl")
    older = living.corpus({**TEXTS, "d0": "Older 0."}, 5, "older")
    for _ in range(2):
        await living.build(older)
        assert "d2" not in living.texts()
        assert living.texts()["d1"] == "Changed 1."
    await compact(compaction_options(living.options), living.log, living.embedder)
    assert "d2" not in living.texts()
    await living.build(older, mode=Mode.MERGE)
    assert "d2" not in living.texts()


async def test_a_deletion_is_remembered_while_a_source_is_older(tmp_path: Path) -> None:
    day_s = 86_400.0
    living = Living(tmp_path)
    oldest = living.corpus(TEXTS, 0)
    await living.build(oldest)
    living.make_log()
    living.clock.now = 50 * day_s
    await living.delete("d2")
    newest = living.corpus({"d0": "Newer 0."}, 199 * day_s, "newest")
    await living.build(newest, mode=Mode.MERGE)
    parent = ParentDocuments(living.store, living.manifest, with_vectors=False)
    with contextlib.closing(parent):
        assert [*parent.deleted] == ["d2"]
    await living.build(oldest, mode=Mode.MERGE)
    wanted = {**TEXTS, "d0": "Newer 0."}
    del wanted["d2"]
    assert living.texts() == wanted


async def test_a_merge_keeps_documents_that_the_import_lacks(living: Living) -> None:
    few = living.corpus({"d1": "Imported 1.", "d5": "Imported 5.", "x": "X."}, 15, "few")
    result = await living.build(few, mode=Mode.MERGE)
    assert living.texts() == {**_expected(), "d5": "Imported 5.", "x": "X."}
    assert result.merged is not None and result.merged.outdated == 1
    assert [source.uri.rpartition("/")[2] for source in living.manifest.sources] == [
        "few.jsonl",
        "corpus.jsonl",
    ]
    again = await living.build(few, mode=Mode.MERGE)
    assert len(living.manifest.sources) == 2
    assert (again.embedded, again.documents) == (0, 13)


async def test_a_merge_needs_no_log(tmp_path: Path) -> None:
    living = Living(tmp_path)
    await living.build(living.corpus(TEXTS, 10))
    result = await living.build(living.corpus({"x": "X.", "d0": "Y."}, 20, "more"), mode=Mode.MERGE)
    assert living.texts() == {**TEXTS, "x": "X.", "d0": "Y."}
    assert result.embedded == 2
    assert living.manifest.change_log_id == ""
    await living.build(living.corpus({"d0": "Z.", "d1": "Z."}, 15, "old"), mode=Mode.MERGE)
    await living.build(living.corpus({"d2": "Z."}, 5, "older"), mode=Mode.MERGE)
    assert [living.texts()[key] for key in ("d0", "d1", "d2")] == ["Y.", "Z.", "Text 2."]
    as_of = datetime.fromtimestamp(1_700_000_030, UTC)
    await living.build(living.corpus({"d0": "Z!"}, 15, "as-of"), mode=Mode.MERGE, as_of=as_of)
    assert living.texts()["d0"] == "Z!"


async def test_an_expired_document_is_dropped_without_restoring_the_one_it_replaced(
    living: Living,
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    later = datetime.now(UTC) + timedelta(days=1)
    await living.upsert("d6", "For a while.", expires=past)
    await living.upsert("d7", "For a day.", expires=later)
    for _ in range(2):
        await living.build(living.folder / "corpus.jsonl")
        assert "d6" not in living.texts()
        assert living.texts()["d7"] == "For a day."
        assert living.rows()["d7"]["expires"] == int(later.timestamp() * 1e6)
        assert living.rows()["d8"]["expires"] is None


async def test_a_deletion_during_a_build_is_left_to_the_replay(living: Living) -> None:
    class Deleting(HashEmbedder):
        async def info(self):  # type: ignore[no-untyped-def]
            return await super().info()

        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not deleted:
                deleted.append("d9")
                await living.delete("d9")
            return await super().embed(*args, **kwargs)

    deleted: list[str] = []
    more = living.corpus({**TEXTS, "d30": "Text 30."}, 25, "more")
    before = (await living.log.state()).head
    await living.build(more, embedder=Deleting())
    assert deleted == ["d9"]
    assert "d9" in living.texts()
    assert decode_watermark(living.manifest.watermark) == before
    # What a replica replays, and what the next build takes in.
    manifest = living.manifest
    start = decode_watermark(manifest.watermark)
    assert start is not None
    replayed = await living.log.read(dict(enumerate(start.positions)))
    assert [entry.change.document_id for entry in replayed] == ["d9"]
    await living.build(more)
    assert "d9" not in living.texts()


async def test_a_build_uses_the_archive_while_the_log_is_away(living: Living) -> None:
    corpus = living.folder / "corpus.jsonl"
    living.log.away = True
    with pytest.raises(NotReady, match="never archived"):
        await living.build(corpus)
    living.log.away = False
    await living.build(corpus)
    await living.upsert("d8", "Not archived.")
    living.log.away = True
    result = await living.build(corpus)
    assert living.texts() == _expected()
    assert result.merged is not None and "is away" in result.merged.notes[0]
    living.log.away = False
    await living.build(corpus)
    assert living.texts() == {**_expected(), "d8": "Not archived."}


async def test_a_build_without_the_location_of_the_log_is_refused(living: Living) -> None:
    from index_builder.pipeline.builder import build_corpus
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    corpus = Corpus([living.folder / "corpus.jsonl"], DocumentColumns())
    with pytest.raises(InvalidRequest, match="--redis"):
        await build_corpus(corpus, living.options, living.embedder)


async def test_changes_of_ancestor_logs_are_included(living: Living) -> None:
    from retrieval.changelog.archive import archive_changes

    await archive_changes(living.store, living.log)
    old = living.log
    living.log = MemoryLog(clock=living.clock)
    living.make_log(follows=old.log_id)
    await living.upsert("d7", "Of the new log.")
    await living.build(living.folder / "corpus.jsonl")
    assert living.texts() == {**_expected(), "d7": "Of the new log."}
    assert living.manifest.change_log_id == living.log.log_id
    living.log = MemoryLog(clock=living.clock)
    living.make_log(follows="0" * 32)
    with pytest.raises(SnapshotMismatch, match="does not continue"):
        await living.build(living.folder / "corpus.jsonl")


async def test_a_resumed_build_keeps_its_original_watermark(living: Living) -> None:
    more = living.corpus({**TEXTS, **{f"e{n}": f"More {n}." for n in range(600)}}, 15, "more")
    task = asyncio.create_task(living.build(more))
    while len(living.embedder.texts) < 12 + 128:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun = len(living.embedder.texts)
    await living.upsert("d8", "Since the kill.")
    result = await living.build(more)
    assert result.resumed > 0
    assert len(living.embedder.texts) - begun == 600 - result.resumed
    assert living.texts()["d8"] == TEXTS["d8"]  # Replayed by the replicas.
    assert living.texts()["d1"] == "Changed 1." and "d2" not in living.texts()
    assert result.merged is not None and result.merged.changes == 4
    await living.build(more)
    assert living.texts()["d8"] == "Since the kill."


async def test_a_merge_into_an_outdated_snapshot_is_refused(living: Living) -> None:
    class Overtaken(HashEmbedder):
        async def embed(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not overtaken:
                overtaken.append(True)
                await living.build(living.folder / "corpus.jsonl")
            return await super().embed(*args, **kwargs)

    overtaken: list[bool] = []
    few = living.corpus({"x": "X."}, 15, "few")
    with pytest.raises(Conflict, match="run it again"):
        await living.build(few, mode=Mode.MERGE, embedder=Overtaken())
    assert not list((living.folder / "store" / "default").glob(".build/*/documents.sqlite"))
    await living.build(few, mode=Mode.MERGE)
    assert living.texts() == {**_expected(), "x": "X."}


async def test_texts_with_approximate_vectors_are_embedded_again(living: Living) -> None:
    rough = IndexOptions(factory="SQ8")
    corpus = living.folder / "corpus.jsonl"
    await living.build(corpus, index=rough)
    living.embedder.texts.clear()
    result = await living.build(corpus, index=rough)
    assert Counter(living.embedder.texts) == Counter(_expected().values())
    assert result.merged is not None and "SQ8" in result.merged.notes[0]


async def test_another_model_embeds_everything_again(living: Living) -> None:
    other = HashEmbedder(fingerprint="other")
    await living.build(living.folder / "corpus.jsonl", embedder=other)
    assert Counter(other.texts) == Counter(_expected().values())
    assert living.manifest.embedder.fingerprint == "other"


async def test_vectors_of_the_user_are_kept(tmp_path: Path) -> None:
    from index_builder.pipeline.builder import build_snapshot

    living = Living(tmp_path)
    items = [Item(id=f"v{n}", vector=vector_of(str(n))) for n in range(5)]
    await build_snapshot(items, living.options)
    living.make_log()
    own = vector_of("own")[np.newaxis]
    await living.upsert("v1", "", vectors={"": own}, bounds=np.array([(0, 0)]))
    await living.delete("v2")
    await compact(compaction_options(living.options), living.log, None)
    vectors = living.vectors()
    assert sorted(vectors) == ["v0", "v1", "v3", "v4"]
    assert np.array_equal(vectors["v1"], own)
    assert np.array_equal(vectors["v3"], vector_of("3")[np.newaxis])

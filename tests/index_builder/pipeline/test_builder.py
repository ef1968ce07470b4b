"""Builds publish complete snapshots and refuse bad input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from index_builder.options.build_options import BuildOptions, ChunkOptions, IndexOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_corpus, build_snapshot
from index_builder.pipeline.work_folder import locked
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Item, Lane
from nearline.errors import Conflict, InvalidRequest, NotReady, Overloaded
from nearline.store.snapshot import Store, shard_of
from tests.index_builder.embedders import HashEmbedder, vector_of

_IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
DOCUMENTS = [Item(id=f"d{n:03}", title=f"Title {n}", text=f"Text {n}.") for n in range(40)]


def _options(tmp_path: Path, **changes: object) -> BuildOptions:
    return dataclasses.replace(BuildOptions(store=str(tmp_path / "store")), **changes)  # type: ignore[arg-type]


def _items(result: BuildResult, shard: int = 0) -> list[dict[str, object]]:
    path = result.folder / "shards" / f"{shard:03d}" / "items.arrow"
    rows: list[dict[str, object]] = (
        pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
    )
    return rows


def _with_vectors(matrix: NDArray[np.float32]) -> list[Item]:
    return [Item(id=f"{n:05}", vector=row) for n, row in enumerate(matrix)]


async def test_a_build_publishes_a_snapshot_that_verifies(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    result = await build_snapshot(DOCUMENTS, _options(tmp_path, shards=3), embedder)
    store = Store.open(str(tmp_path / "store"))
    manifest = store.manifest("default", result.snapshot_id)
    assert store.alias_in_force("default").current == result.snapshot_id
    assert result.epoch == 1
    assert store.verify("default", result.snapshot_id) == result.bytes
    assert (manifest.documents, manifest.chunks, manifest.dim) == (40, 40, 8)
    assert manifest.embedder.fingerprint == "hash"
    assert manifest.index_factory == "Flat"
    assert [p for shard in manifest.shards for p in shard.partitions] == list(range(64))
    assert sum(shard.documents for shard in manifest.shards) == 40
    assert sorted(embedder.texts) == sorted(f"Title {n} Text {n}." for n in range(40))
    assert embedder.lanes == {Lane.BULK}
    assert not (tmp_path / "store" / "default" / ".build").exists()


async def test_rows_of_the_index_are_the_chunks_in_id_order(tmp_path: Path) -> None:
    documents = [Item(id=f"x{n}", text=f"One {n} a. Two {n} b. Three {n} c.") for n in range(30)]
    options = _options(tmp_path, shards=2, chunks=ChunkOptions(max_tokens=4, overlap_sentences=0))
    result = await build_snapshot(documents, options, HashEmbedder())
    for shard in range(2):
        rows = _items(result, shard)
        ids = [str(row["id"]) for row in rows]
        assert ids == sorted(item.id for item in documents if shard_of(item.id, 2) == shard)
        texts = [
            str(row["text"])[start:end]
            for row in rows
            for start, end in zip(row["chunk_starts"], row["chunk_ends"], strict=True)  # type: ignore[call-overload]
        ]
        assert len(texts) == 3 * len(rows)
        stored = _stored_vectors(result, shard, len(texts))
        assert np.array_equal(stored, np.stack([vector_of(text) for text in texts]))
    manifest = Store.open(options.store).manifest("default", result.snapshot_id)
    assert manifest.max_chunks_per_document == 3


def _stored_vectors(result: BuildResult, shard: int, rows: int) -> NDArray[np.float32]:
    # A Flat index ends with its vectors, so the file itself is the witness.
    path = result.folder / "shards" / f"{shard:03d}" / "dense.faiss"
    data = path.read_bytes()[-rows * result.dim * 4 :]
    return np.frombuffer(data, "<f4").reshape(rows, result.dim)


@settings(deadline=None, max_examples=8)
@given(st.sets(_IDS), st.data())
async def test_every_document_is_in_the_shard_of_its_id(
    tmp_path_factory: pytest.TempPathFactory, ids: set[str], data: st.DataObject
) -> None:
    ids = ids or {"a"}
    shards = data.draw(st.integers(1, 5))
    documents = [Item(id=name, vector=vector_of(name)) for name in ids]
    options = BuildOptions(
        store=str(tmp_path_factory.mktemp("shards")), shards=shards, golden_queries=0
    )
    result = await build_snapshot(documents, options)
    found = [[str(row["id"]) for row in _items(result, shard)] for shard in range(shards)]
    assert sorted(name for shard in found for name in shard) == sorted(ids)
    assert all(shard == sorted(shard) for shard in found)
    assert all(shard_of(name, shards) == n for n, shard in enumerate(found) for name in shard)


async def test_attributes_keep_their_types(tmp_path: Path) -> None:
    attributes = {
        "int": 1 << 62,
        "double": 0.1,
        "truth": True,
        "text": "ü",
        "list": ["a", "b", None],
        "time": datetime(2024, 5, 1, 12, 30, tzinfo=UTC),
        "nothing": None,
        "nested": {"deep": {"er": 1}, "list": [[1], [2]]},
    }
    item = Item(id="a", text="x", attributes=attributes)  # type: ignore[arg-type]
    result = await build_snapshot([item], _options(tmp_path), HashEmbedder())
    assert json.loads(str(_items(result)[0]["attributes"])) == {
        "int": 1 << 62,
        "double": 0.1,
        "truth": True,
        "text": "ü",
        "list": ["a", "b"],
        "time": {"$time": "2024-05-01T12:30:00+00:00"},
        "nested.deep.er": 1,
        "nested.list": "[[1], [2]]",
    }


async def test_vectors_of_the_user_are_normalised_and_need_no_embedder(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    matrix = rng.integers(1, 9, (50, 4)).astype(np.float32)
    result = await build_snapshot(_with_vectors(matrix), _options(tmp_path))
    stored = _stored_vectors(result, 0, 50)
    assert np.allclose(stored, matrix / np.linalg.norm(matrix, axis=1, keepdims=True), atol=1e-6)
    manifest = Store.open(str(tmp_path / "store")).manifest("default", result.snapshot_id)
    assert not manifest.HasField("embedder")
    raw = _options(tmp_path, index=IndexOptions(metric="inner_product"))
    unscaled = await build_snapshot(_with_vectors(matrix), raw)
    assert np.array_equal(_stored_vectors(unscaled, 0, 50), matrix)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item(id="", text="x"), "the id is empty"),
        (Item(id="ü" * 257, text="x"), "the id has 514 bytes, 512 are allowed"),
        (Item(id="a", text=" \n"), "the text is empty"),
        (Item(id="a", text="\ud83d"), "half a surrogate pair"),
        (Item(id="a", text="x", attributes={"n": 1 << 64}), "more than 64 bits"),
        (Item(id="a", text="x", attributes={"n": float("inf")}), "'n' is inf"),
        (Item(id="a", text="x", attributes={"n": b"x"}), "of type bytes"),
    ],
)
async def test_a_malformed_document_is_named(tmp_path: Path, item: Item, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"1 malformed row.*\n  document:41: .*{reason}"):
        await build_snapshot([*DOCUMENTS, item], _options(tmp_path), HashEmbedder())
    result = await build_snapshot(
        [*DOCUMENTS, item], _options(tmp_path, max_bad_rows=1), HashEmbedder()
    )
    assert (result.documents, result.bad_rows) == (40, 1)
    assert reason in result.bad_row_sample[0]
    report = json.loads((result.folder / "golden" / "report.json").read_text())
    assert (report["bad_rows"], report["bad_row_sample"]) == (1, list(result.bad_row_sample))


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([1.0, float("nan")], "NaN or infinite"),
        ([1e39, 0.0], "NaN or infinite"),
        ([0.0, 0.0], "all zeros"),
        ([1.0, 2.0, 3.0], "has 3 numbers, 2 are needed"),
        ([], r"shape \(0,\)"),
        (None, "the vector is missing"),
    ],
)
async def test_a_malformed_vector_is_named(
    tmp_path: Path, vector: Sequence[float] | None, reason: str
) -> None:
    given_vector = None if vector is None else np.array(vector)
    documents = [
        Item(id="a", text="x", vector=np.ones(2, np.float32)),
        Item(id="b", text="x", vector=given_vector),
    ]
    with pytest.raises(InvalidRequest, match=f"document:2: .*{reason}"):
        await build_snapshot(documents, _options(tmp_path))


async def test_malformed_rows_are_counted_and_five_are_shown(tmp_path: Path) -> None:
    documents = [Item(id=f"b{n}", text="") for n in range(9)]
    with pytest.raises(InvalidRequest) as caught:
        await build_snapshot(documents, _options(tmp_path, max_bad_rows=8), HashEmbedder())
    assert caught.value.message.startswith("9 malformed rows, 8 allowed; ")
    assert caught.value.message.count("\n") == 6
    assert caught.value.message.endswith("… and 4 more")


async def test_a_duplicate_id_is_refused_with_both_locations(tmp_path: Path) -> None:
    for name, ids in (("a.jsonl", "xyz"), ("b.jsonl", "wyx")):
        lines = [json.dumps({"id": id_, "text": "t"}) for id_ in ids]
        (tmp_path / name).write_text("\n".join(lines))
    corpus = Corpus([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], DocumentColumns())
    with pytest.raises(InvalidRequest, match="duplicate ids") as caught:
        await build_corpus(corpus, _options(tmp_path), HashEmbedder())
    assert f"'x': {tmp_path}/a.jsonl:1 and {tmp_path}/b.jsonl:3" in caught.value.message
    assert f"'y': {tmp_path}/a.jsonl:2 and {tmp_path}/b.jsonl:2" in caught.value.message
    assert "'z'" not in caught.value.message


async def test_no_documents_and_no_embedder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no document to build from"):
        await build_snapshot([], _options(tmp_path), HashEmbedder())
    with pytest.raises(InvalidRequest, match="there is no embedder"):
        await build_snapshot(DOCUMENTS, _options(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shards": 0}, "shards is 0; 1..64"),
        ({"shards": 65}, "shards is 65; 1..64"),
        ({"collection": "No"}, "collection name 'No'"),
        ({"chunks": ChunkOptions(max_tokens=-1)}, "chunk_tokens is -1"),
        ({"index": IndexOptions(metric="l2")}, "metric is 'l2'"),
        (
            {"index": IndexOptions(factory="Nonsense7")},
            "factory 'Nonsense7'.*could not parse",
        ),
        ({"index": IndexOptions(factory="PQ3")}, "index factory 'PQ3'.*multiple of"),
        (
            {"index": IndexOptions(factory="IVF64,Flat"), "shards": 2},
            "IVF64,Flat' needs at least 64 vectors per shard .* shard 0 has",
        ),
    ],
)
async def test_a_bad_option_is_refused_before_anything_is_embedded(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    embedder = HashEmbedder()
    with pytest.raises(InvalidRequest, match=said):
        await build_snapshot(DOCUMENTS, _options(tmp_path, **changes), embedder)
    assert embedder.texts == []


async def test_builds_take_the_next_epoch_and_no_promote_takes_none(
    tmp_path: Path,
) -> None:
    options = _options(tmp_path)
    first = await build_snapshot(DOCUMENTS, options, HashEmbedder())
    second = await build_snapshot(DOCUMENTS, options, HashEmbedder())
    third = await build_snapshot(DOCUMENTS, _options(tmp_path, promote=False), HashEmbedder())
    store = Store.open(options.store)
    assert [first.epoch, second.epoch, third.epoch] == [1, 2, None]
    assert store.alias_in_force("default").current == second.snapshot_id
    assert set(store.snapshot_ids("default")) == {
        result.snapshot_id for result in (first, second, third)
    }


async def test_a_busy_embedder_is_retried_and_a_refused_text_is_named(tmp_path: Path) -> None:
    busy = HashEmbedder(
        failures=[Overloaded("full", retry_after_s=0.0), Overloaded("full", retry_after_s=0.0)]
    )
    result = await build_snapshot(DOCUMENTS, _options(tmp_path), busy)
    assert result.embedded == 40
    assert len(busy.texts) == 40
    picky = HashEmbedder(poison="Title 7 Text 7.")
    with pytest.raises(InvalidRequest, match="refuses a text of document 'd007'"):
        await build_snapshot(DOCUMENTS, _options(tmp_path), picky)


async def test_an_embedder_that_stays_away_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline.retry.AWAY_S", 0.0)
    away = HashEmbedder(failures=[NotReady("connection refused")])
    with pytest.raises(NotReady, match="connection refused"):
        await build_snapshot(DOCUMENTS, _options(tmp_path), away)
    assert not list((tmp_path / "store").rglob("*.sqlite"))


async def test_texts_truncated_by_the_model_are_counted(tmp_path: Path) -> None:
    result = await build_snapshot(DOCUMENTS, _options(tmp_path), HashEmbedder(max_tokens=3))
    assert result.truncated == 40
    report = json.loads((result.folder / "golden" / "report.json").read_text())
    assert report["truncated"] == 40


async def test_the_same_build_at_the_same_time_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with locked(folder, keep=True), pytest.raises(Conflict, match="another build"):
        with locked(folder, keep=True):
            raise AssertionError("two builds hold one lock")


async def test_other_files_in_the_work_folder_of_the_user_stay(tmp_path: Path) -> None:
    work = tmp_path / "mine"
    work.mkdir()
    (work / "thesis.txt").write_text("precious")
    await build_snapshot(DOCUMENTS, _options(tmp_path, work_dir=work), HashEmbedder())
    assert [path.name for path in work.iterdir()] == ["thesis.txt"]

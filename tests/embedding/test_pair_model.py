"""Finding a cross-encoder and reading its folder: no weights are loaded here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedding.pair_model import find_pair_model
from nearline.errors import NotReady, SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    write(made / "config.json", {"architectures": ["BertForSequenceClassification"]})
    write(made / "tokenizer.json", {})
    (made / "model.safetensors").write_bytes(b"not really weights")
    return made


def write(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")


def fingerprint(folder: Path) -> str:
    return find_pair_model(str(folder), "reranker").fingerprint


def test_the_fingerprint_follows_weights_tokenizer_and_configuration(folder: Path) -> None:
    seen = {fingerprint(folder)}
    (folder / "model.safetensors").write_bytes(b"other weights")
    seen.add(fingerprint(folder))
    write(folder / "tokenizer.json", {"other": 1})
    seen.add(fingerprint(folder))
    write(folder / "config.json", {"architectures": ["BertForSequenceClassification"], "a": 1})
    seen.add(fingerprint(folder))
    # A score head in a module of its own counts, too.
    write(folder / "modules.json", [{"type": "Transformer", "path": ""}, {"path": "1_Dense"}])
    write(folder / "1_Dense" / "config.json", {})
    seen.add(fingerprint(folder))
    (folder / "1_Dense" / "model.safetensors").write_bytes(b"head")
    seen.add(fingerprint(folder))
    assert len(seen) == 6


def test_the_fingerprint_follows_neither_place_nor_what_is_not_read(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("about", "utf-8")
    write(folder / "onnx" / "config.json", {})
    assert fingerprint(folder.rename(folder.parent / "elsewhere")) == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "config.json",
            {"architectures": ["BertModel"]},
            "no cross-encoder: its architecture is BertModel",
        ),
        ("config.json", {}, "not given, one that ends in ForSequenceClassification"),
        ("config.json", [], "not a JSON object"),
        ("modules.json", [1], "modules.json cannot be read"),
    ],
)
def test_a_folder_of_another_kind_is_an_error(
    folder: Path, name: str, content: object, words: str
) -> None:
    write(folder / name, content)
    with pytest.raises(SettingsError, match=words):
        fingerprint(folder)


def test_a_folder_that_sentence_transformers_calls_a_cross_encoder_is_one(folder: Path) -> None:
    write(folder / "config.json", {"architectures": ["BertModel"]})
    write(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    assert fingerprint(folder)


def test_pickled_weights_are_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match=r"pickled weights are not loaded: save"):
        fingerprint(folder)


def test_an_empty_folder_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"config.json is missing.*CrossEncoder\(…\)"):
        fingerprint(tmp_path)


def test_a_name_that_is_neither_folder_nor_hub_name_is_an_error() -> None:
    with pytest.raises(SettingsError, match="leave the setting entailment empty"):
        find_pair_model("no such/folder/here", "entailment")


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*arguments: object, **options: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(NotReady, match=r"ConnectionError.*leave the setting reranker empty"):
        find_pair_model("somebody/some-model", "reranker")


def test_reading_a_folder_imports_no_torch(folder: Path) -> None:
    script = (
        "import sys; from embedding.pair_model import find_pair_model;"
        "import embedding.service;"
        "find_pair_model(sys.argv[1], 'reranker');"
        "sys.exit(bool({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(folder)]
    assert subprocess.run(command, cwd=root, check=False).returncode == 0

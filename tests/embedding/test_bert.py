"""Holds the graph built from weights against the reference in numpy, without torch."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedding.backend import TokenBatch, pad
from embedding.bert_reference import NumpyBackend
from embedding.bert_weights import BertWeights, read_bert
from embedding.convert import convert
from embedding.model import EmbeddingModel, read_model
from embedding.model_cache import ModelCache
from nearline.errors import SettingsError
from tests.embedding.fakes import DIM, write_bert
from tests.optional_packages import needs

TEXTS = [[2, 5, 3], [2, 6, 7, 8, 9, 3], [2, 3]]
# The fourth token of the second text is the padding id, written out.
WITH_PADDING_ID = [[2, 5, 3], [2, 6, 7, 1, 9, 3], [2, 3]]


@pytest.fixture(
    params=[("bert", "mean"), ("bert", "cls"), ("xlm-roberta", "mean"), ("roberta", "cls")]
)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddingModel:
    kind, pooling = request.param
    return read_model(write_bert(tmp_path / "model", kind=kind, pooling=pooling))


def _reference(model: EmbeddingModel, texts: list[list[int]], multiple: int) -> NDArray[np.float32]:
    weights = read_bert(model)
    assert weights is not None
    return NumpyBackend(weights).embed(_batch(model, texts, multiple), 0)


def _batch(model: EmbeddingModel, texts: list[list[int]], multiple: int) -> TokenBatch:
    return pad([np.array(ids) for ids in texts], model.pad_id, multiple)


def test_padding_does_not_change_a_vector(model: EmbeddingModel) -> None:
    vectors = _reference(model, TEXTS, 8)
    assert (vectors.shape, vectors.dtype.name) == ((3, DIM), "float32")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    alone = np.concatenate([_reference(model, [text], 1) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


@needs("openvino", "embedding")
def test_the_graph_gives_the_vectors_of_the_reference_without_torch(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding.openvino_backend import OpenVINOBackend

    for name in ("torch", "transformers", "embedding.torch_backend"):
        monkeypatch.setitem(sys.modules, name, None)
    cache = ModelCache(tmp_path / "cache", model)
    assert convert(model, cache) == {}
    backend = OpenVINOBackend(cache.graph, "f32", threads=1, streams=1)
    vectors = backend.embed(_batch(model, WITH_PADDING_ID, 8), 0)
    reference = _reference(model, WITH_PADDING_ID, 8)
    assert (backend.dim, backend.slots) == (DIM, 1)
    np.testing.assert_allclose(vectors, reference, atol=1e-5)
    # A second conversion finds everything.
    before = cache.graph.stat().st_mtime_ns
    assert convert(model, cache) == {} and cache.graph.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "mpnet"},
        {"hidden_act": "relu"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
    ],
)
def test_an_encoder_that_computes_something_else_is_not_read(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    folder = write_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changed), "utf-8")
    assert read_bert(read_model(folder)) is None


def test_names_may_have_a_prefix_and_numbers_may_be_f16(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    half = {f"bert.{name}": tensor.astype("f2") for name, tensor in tensors.items()}
    half["bert.embeddings.position_ids"] = np.arange(64)
    save_file(half, folder / "model.safetensors")
    weights = read_bert(read_model(folder))
    assert isinstance(weights, BertWeights) and weights.words.dtype == np.float32
    np.testing.assert_allclose(
        weights.words, tensors["embeddings.word_embeddings.weight"], rtol=1e-3
    )


def test_bfloat16_is_left_to_torch(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    data = struct.pack("<Q", len(header)) + header + b"\x80\x3f"
    (folder / "model.safetensors").write_bytes(data)
    assert read_bert(read_model(folder)) is None


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def _more_layers(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(
        file.read_text("utf-8").replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )


def _no_heads(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text("utf-8").replace("num_attention_heads", "heads"))


@pytest.mark.parametrize("damage", [_cut, _more_layers, _no_heads])
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = write_bert(tmp_path / "model")
    damage(folder)
    with pytest.raises(SettingsError, match=r"do not fit its config.json .*download the model"):
        read_bert(read_model(folder))

"""Holds the torch backend, the reference for all others, against its own transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedding import convert as converter
from embedding.backend import pad
from embedding.bert_reference import NumpyBackend
from embedding.bert_weights import read_bert
from embedding.convert import convert
from embedding.model import EmbeddingModel, read_model
from embedding.model_cache import ModelCache
from embedding.reference_texts import cosines
from nearline.errors import SettingsError
from tests.embedding.fakes import DIM, write_bert, write_model
from tests.optional_packages import needs

pytestmark = [pytest.mark.service, needs("transformers", "torch")]
TEXTS = [[2, 5, 3], [2, 6, 7, 8, 9, 3], [2, 3]]


@pytest.fixture(scope="module", params=["mean", "cls"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> EmbeddingModel:
    """A BERT of one layer with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    pooling = {"embedding_dimension": DIM, "pooling_mode": request.param}
    folder = write_model(tmp_path_factory.mktemp("model") / "bert", pooling=pooling)
    config = BertConfig(
        vocab_size=104,
        hidden_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)
    return read_model(folder)


def _pooled(model: EmbeddingModel, ids: list[int]) -> NDArray[np.float32]:
    """Returns the vector of one text from the states of plain transformers."""
    import torch
    from transformers import AutoModel

    with torch.inference_mode():
        states = AutoModel.from_pretrained(model.folder)(torch.tensor([ids])).last_hidden_state
    rows: NDArray[np.float32] = states[0].numpy()
    vector = rows[0] if model.pooling.value == "cls" else rows.mean(axis=0)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


def test_vectors_of_a_padded_batch_are_the_pooled_states_of_each_text(
    model: EmbeddingModel,
) -> None:
    from embedding.torch_backend import TorchBackend

    backend = TorchBackend(model)
    vectors = backend.embed(pad([np.array(ids) for ids in TEXTS], 0, 8), 0)
    assert (backend.name, backend.dim, vectors.dtype.name) == ("torch-f32", DIM, "float32")
    np.testing.assert_allclose(vectors, [_pooled(model, ids) for ids in TEXTS], atol=1e-5)


def test_an_unknown_precision_or_device_is_refused(model: EmbeddingModel) -> None:
    from embedding.torch_backend import TorchBackend

    with pytest.raises(SettingsError, match="no precision 'i4'; use one of f32, bf16, f16"):
        TorchBackend(model, "i4")
    with pytest.raises(SettingsError, match=r"device 'cuda:99' cannot be used \(.*\); use cpu"):
        TorchBackend(model, device="cuda:99")


@needs("openvino", "openvino")
def test_a_traced_model_gives_the_vectors_of_torch(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding.openvino_backend import OpenVINOBackend

    # As if its architecture were unknown.
    monkeypatch.setattr(converter, "read_bert", lambda model: None)
    cache = ModelCache(tmp_path, model)
    assert convert(model, cache) == {}
    backend = OpenVINOBackend(cache.graph, "f32", threads=1, streams=1)
    vectors = backend.embed(pad([np.array(ids) for ids in TEXTS], 0, 8), 0)
    assert (backend.dim, backend.slots) == (DIM, 1)
    np.testing.assert_allclose(vectors, [_pooled(model, ids) for ids in TEXTS], atol=1e-4)
    # A second conversion finds everything.
    before = cache.graph.stat().st_mtime_ns
    assert convert(model, cache) == {} and cache.graph.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "roberta"])
def test_the_reference_in_numpy_is_what_torch_computes(kind: str, tmp_path: Path) -> None:
    from embedding.torch_backend import TorchBackend

    model = read_model(write_bert(tmp_path / "model", kind=kind))
    weights = read_bert(model)
    assert weights is not None
    # The fourth token of the last text is the padding id of RoBERTa, written out.
    texts = [np.array(ids) for ids in (*TEXTS, [2, 6, 7, 1, 9, 3])]
    batch = pad(texts, model.pad_id, 8)
    by_numpy = NumpyBackend(weights).embed(batch, 0)
    assert cosines(by_numpy, TorchBackend(model).embed(batch, 0)).min() >= 0.99999

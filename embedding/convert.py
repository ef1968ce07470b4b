"""Converts a model once, in a separate process: `python -m embedding.convert`.

It writes the OpenVINO graph and the reference vectors of fp32 to the cache. BERT-like models need
no torch: the graph is built from their weights, and the reference is a forward pass in numpy.
Images run it at build time.
"""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Before numpy is loaded. Its products are small here: threads would spend more on waiting for each
# other than they save (8 to 13 s of two busy cores for the reference, instead of 2 s of one).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from embedding.backend import Backend
from embedding.bert_reference import NumpyBackend
from embedding.bert_weights import BertWeights, read_bert
from embedding.model import EmbeddingModel, find_model
from embedding.model_cache import ModelCache, installed_version
from embedding.reference_texts import ReferenceSet, check_vectors, measure_throughput
from embedding.settings import EmbeddingSettings, cache_folder
from embedding.tokenizer import TextTokenizer
from nearline import serving, settings, telemetry
from nearline.errors import SettingsError

if TYPE_CHECKING:
    import openvino as ov

# An argument in addition to those of the service: also measure torch f32 and print the figures.
MEASURE_FLAG = "--measure"
# Padded tokens of one batch of the reference texts.
_REFERENCE_BUDGET = 1024


def convert(
    model: EmbeddingModel, cache: ModelCache, *, measure_budget: int = 0
) -> dict[str, float]:
    """Writes missing files to the cache.

    Args:
        model: The model.
        cache: Its cache.
        measure_budget: Measure torch f32 with batches of this many tokens; 0 disables it.
    Returns: `tokens_per_s` and `min_cosine` of torch f32, if measured.
    Raises: SettingsError: the model or the measurement needs torch, which is not installed, or the
        weights cannot be read. StoreError: the cache cannot be written.
    """
    # A complete cache may be read-only, as in an image: only what is missing needs the lock.
    if not _is_complete(cache):
        with cache.lock():
            cache.sweep()
            _fill(model, cache, measure_budget or _REFERENCE_BUDGET)
    if not measure_budget:
        return {}
    reference = cache.reference()
    assert reference is not None
    golden = _reference_set(model, measure_budget)
    backend = _torch_backend(model)
    return {
        "min_cosine": check_vectors(backend.name, golden.embed(backend), reference),
        "tokens_per_s": measure_throughput(backend, golden),
    }


def _is_complete(cache: ModelCache) -> bool:
    return cache.reference_file.is_file() and not _needs_graph(cache)


def _needs_graph(cache: ModelCache) -> bool:
    return bool(installed_version("openvino")) and not cache.graph.is_file()


def _fill(model: EmbeddingModel, cache: ModelCache, budget: int) -> None:
    """Writes what is missing; another process may have written it meanwhile."""
    reference, needs_graph = cache.reference(), _needs_graph(cache)
    if reference is not None and not needs_graph:
        return
    bert = read_bert(model)
    if reference is None:
        backend = _torch_backend(model) if bert is None else NumpyBackend(bert)
        reference = _reference_set(model, budget).embed(backend)
        with cache.temporary() as folder:
            np.save(folder / "golden.npy", reference)
            (folder / "golden.npy").replace(cache.reference_file)
    if needs_graph:
        _write_graph(model, bert, cache)


def _reference_set(model: EmbeddingModel, budget: int) -> ReferenceSet:
    tokenizer = TextTokenizer(model.folder, model.max_tokens)
    return ReferenceSet(tokenizer, model.pad_id, budget, 1)


@contextlib.contextmanager
def _needing_torch(model: EmbeddingModel) -> Iterator[None]:
    """Turns a failed import of torch into an error with the remedy."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"model {model.name} needs torch ({error}): only BERT-like models in f32 or f16 are "
            "converted without; run pip install 'nearline-server[torch]', or copy a cache folder "
            "that has the model"
        ) from error


def _torch_backend(model: EmbeddingModel) -> Backend:
    with _needing_torch(model):
        from embedding.torch_backend import TorchBackend
    return TorchBackend(model)


def _write_graph(model: EmbeddingModel, bert: BertWeights | None, cache: ModelCache) -> None:
    from embedding.bert_graph import build_graph
    from embedding.openvino_backend import save_graph

    graph = _trace(model) if bert is None else build_graph(bert)
    with cache.temporary() as folder:
        made = folder / "graph"
        made.mkdir()
        save_graph(graph, made / "model.xml")
        made.rename(cache.graph_folder)


def _trace(model: EmbeddingModel) -> ov.Model:
    with _needing_torch(model):
        import torch

        from embedding.torch_backend import PooledEncoder
    from embedding.openvino_backend import trace_graph

    ids = torch.randint(5, 100, (2, 16))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode(), warnings.catch_warnings():
        # The tracer warns about branches on shapes that the graph does not take.
        warnings.simplefilter("ignore")
        return trace_graph(PooledEncoder(model), example)


async def main(argv: list[str]) -> None:
    """Converts and prints one JSON object."""
    measured = MEASURE_FLAG in argv
    chosen = settings.load_from_process(
        EmbeddingSettings, [argument for argument in argv if argument != MEASURE_FLAG]
    )
    telemetry.configure_logging(chosen.log_level, "embedding.convert")
    folder = cache_folder(chosen, os.environ)
    model = find_model(
        chosen.model,
        cache_folder=folder,
        sha256=chosen.model_sha256,
        revision=chosen.model_revision,
        store=chosen.store,
    )
    cache = ModelCache(folder, model)
    figures = convert(model, cache, measure_budget=chosen.batch_tokens if measured else 0)
    sys.stdout.write(json.dumps({"folder": str(cache.folder), **figures}) + "\n")


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding.convert")

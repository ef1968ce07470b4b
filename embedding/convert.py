"""Converts a model once, in a separate process with torch: `python -m embedding.convert`.

It writes the OpenVINO graph and the reference vectors of fp32 to the cache. Serving then needs
neither torch nor this module. Images run it at build time.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

import numpy as np

from embedding.model import EmbeddingModel, find_model
from embedding.model_cache import ModelCache, installed_version
from embedding.reference_texts import ReferenceSet, check_vectors, measure_throughput
from embedding.settings import EmbeddingSettings, cache_folder
from embedding.tokenizer import TextTokenizer
from nearline import serving, settings, telemetry
from nearline.errors import SettingsError

# An argument in addition to those of the service: also measure torch f32 and print the figures.
MEASURE_FLAG = "--measure"


def convert(
    model: EmbeddingModel, cache: ModelCache, *, measure_budget: int = 0
) -> dict[str, float]:
    """Writes missing files to the cache.

    Args:
        model: The model.
        cache: Its cache.
        measure_budget: Measure torch f32 with batches of this many tokens; 0 disables it.
    Returns: `tokens_per_s` and `min_cosine` of torch f32, if measured.
    Raises: SettingsError: torch is not installed. StoreError: the cache cannot be written.
    """
    figures: dict[str, float] = {}
    with cache.lock():
        cache.sweep()
        needs_graph = bool(installed_version("openvino")) and not cache.graph.is_file()
        reference = cache.reference()
        if not (needs_graph or reference is None or measure_budget):
            return figures
        try:
            from embedding.torch_backend import TorchBackend
        except ImportError as error:
            raise SettingsError(
                f"model {model.name} must be converted once, which needs torch ({error}); run "
                "pip install 'nearline[torch]', or copy a cache folder that has it"
            ) from error
        backend = TorchBackend(model)
        golden = ReferenceSet(
            TextTokenizer(model.folder, model.max_tokens), model.pad_id, measure_budget or 1024, 1
        )
        vectors = golden.embed(backend)
        if reference is None:
            with cache.temporary() as folder:
                np.save(folder / "golden.npy", vectors)
                (folder / "golden.npy").replace(cache.reference_file)
            reference = vectors
        if needs_graph:
            _write_graph(model, cache)
    if measure_budget:
        figures["min_cosine"] = check_vectors(backend.name, vectors, reference)
        figures["tokens_per_s"] = measure_throughput(backend, golden)
    return figures


def _write_graph(model: EmbeddingModel, cache: ModelCache) -> None:
    import torch

    from embedding.openvino_backend import save_graph
    from embedding.torch_backend import PooledEncoder

    encoder = PooledEncoder(model)
    ids = torch.randint(5, 100, (2, 16))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with (
        cache.temporary() as folder,
        torch.inference_mode(),
        warnings.catch_warnings(),
    ):
        # The tracer warns about branches on shapes that the graph does not take.
        warnings.simplefilter("ignore")
        made = folder / "graph"
        made.mkdir()
        save_graph(encoder, example, made / "model.xml")
        made.rename(cache.graph_folder)


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
    figures = convert(model, cache, measure_budget=chosen.token_budget if measured else 0)
    sys.stdout.write(json.dumps({"folder": str(cache.folder), **figures}) + "\n")


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "embedding.convert")

"""`nearline bench embed`: speed and agreement of the embedding service, compared with plain
encode().
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.baselines.processes import single_process_pool
from benchmarks.workloads import text_samples
from benchmarks.workloads.bulk_callers import (
    BATCH_TEXTS,
    IN_FLIGHT,
    BulkCallers,
    EmbeddingRate,
    OtherCpuUse,
)
from benchmarks.workloads.figures import measured_on, percentile_ms
from nearline.clients import EmbeddingClient
from nearline.contract import TextRole
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import EMBEDDING_SERVICES, service_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_TEXTS, _QUERY_RATE = 1_000, 20.0
_BASELINE_BATCH = 32
_WARM_UP_S = 1.0
# Seconds of bulk load before the first query.
_LEAD_S = 1.0
_TIMEOUT_S = 120.0
_QUERY_WORDS = 8


@dataclass(slots=True)
class EmbeddingMeasurements:
    """Measurements: one number per round, and the latencies of all rounds together."""

    texts_per_s: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    baseline_texts_per_s: list[float] = field(default_factory=list)
    kept_ratio: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)


def bench_embed(
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Texts: one per line, or .jsonl with "text". \\[default: the docstrings of this '
            "Python's standard library]",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds per round.")] = 5.0,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of each kind; medians are printed.")
    ] = 3,
    backend: Annotated[str, typer.Option(help="Backend of the embedding service.")] = "auto",
    model: Annotated[
        str, typer.Option(help="Model name, folder or hub name. \\[default: the default model]")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Measure the embedding service over gRPC, compared with plain SentenceTransformer.encode.

    For example: nearline bench embed --seconds 5 --rounds 3

    Service and callers share this machine. Rounds of bulk load alone, bulk load with 20 queries per
    second, and plain encode (torch f32, batches of 32, service idle) take turns, so that other load
    on the machine affects all three.
    """
    chosen = text_samples.sample_texts(texts, _TEXTS)
    record = asyncio.run(_measure(chosen, seconds, rounds, backend, model)) | {
        "texts": len(chosen),
        "seconds": seconds,
        "rounds": rounds,
        **measured_on(
            "nearline", "grpcio", "torch", "tokenizers", "sentence-transformers", "openvino"
        ),
    }
    print_figures(record, as_json=as_json)


async def _measure(
    texts: Sequence[str], seconds: float, rounds: int, backend: str, model: str
) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    measured = EmbeddingMeasurements()
    with single_process_pool() as baseline:
        async with (
            service_process(
                "embedding",
                ("--backend", backend, *(("--model", model) if model else ())),
                ready_services=EMBEDDING_SERVICES,
                ready_timeout_s=300.0,
            ) as service,
            EmbeddingClient(service.address) as client,
            # A separate connection: queries and bulk load come from different callers.
            EmbeddingClient(service.address) as querying,
        ):
            info = await client.info()
            bulk = BulkCallers(client, texts, info, BATCH_TEXTS, IN_FLIGHT)
            vectors = await bulk.vectors()
            reference = await loop.run_in_executor(baseline, _encode_all, texts, model)
            similar = _cosines(vectors, reference)
            await bulk.rate(_WARM_UP_S)
            others = OtherCpuUse()
            for _ in range(rounds):
                alone = await bulk.rate(seconds)
                kept, latencies = await _bulk_with_queries(bulk, querying, texts, seconds)
                spent_s = await loop.run_in_executor(baseline, _encode_timed, texts)
                measured.texts_per_s.append(alone.texts)
                measured.tokens_per_s.append(alone.tokens)
                measured.kept_ratio.append(kept.tokens / alone.tokens)
                measured.latencies_s += latencies
                measured.baseline_texts_per_s.append(len(texts) / spent_s)
            others_cpu_ratio = others.cpu_ratio()
    rate, base = median(measured.texts_per_s), median(measured.baseline_texts_per_s)
    return {
        "ratio": round(rate / base, 3),
        "mean_cosine": round(float(similar.mean()), 6),
        "min_cosine": round(float(similar.min()), 6),
        "texts_per_s": round(rate, 1),
        "baseline_texts_per_s": round(base, 1),
        "tokens_per_s": round(median(measured.tokens_per_s), 1),
        "interactive_p50_ms": percentile_ms(measured.latencies_s, 50),
        "interactive_p99_ms": percentile_ms(measured.latencies_s, 99),
        "interactive_calls": len(measured.latencies_s),
        "bulk_kept_ratio": round(median(measured.kept_ratio), 3),
        # Load of other processes. It slows plain encode far more than the service, because the
        # threads of encode wait for each other; above 0.05 the ratio is not meaningful.
        "others_cpu_ratio": round(others_cpu_ratio, 3),
        "backend": info.backend,
        "model": info.model,
        "fingerprint": info.fingerprint,
    }


async def _bulk_with_queries(
    bulk: BulkCallers, client: EmbeddingClient, texts: Sequence[str], seconds: float
) -> tuple[EmbeddingRate, list[float]]:
    """Runs the bulk load with single short queries in an open loop."""
    latencies: list[float] = []
    queries = itertools.cycle([" ".join(text.split()[:_QUERY_WORDS]) for text in texts])

    loop = asyncio.get_running_loop()

    async def send(number: int, due: float) -> None:
        await client.embed([next(queries)], TextRole.QUERY, timeout_s=_TIMEOUT_S)
        # Latencies count from the due time, so that a late start counts as waiting.
        latencies.append(loop.time() - due)

    # The bulk stream first fills the queue: that is the measured state.
    numbers = range(math.ceil(_QUERY_RATE * seconds))
    rate, _ = await asyncio.gather(
        bulk.rate(_LEAD_S + seconds),
        run_open_loop(_QUERY_RATE, numbers, send, start=loop.time() + _LEAD_S),
    )
    return rate, latencies


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    wide, other = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((wide * other).sum(axis=1) / norms, np.float64)


# --- the baseline, in a separate process -----------------------------------------------------


_encoder: list[object] = []


def _encode_all(texts: Sequence[str], model: str) -> NDArray[np.float32]:
    """Loads the model in the usual way; returns (n, dim) float32."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import platformdirs
    import transformers
    from sentence_transformers import SentenceTransformer

    from embedding.model import DEFAULT_MODEL, find_model

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(os.environ.get("NEARLINE_CACHE_DIR") or platformdirs.user_cache_dir("nearline"))
    found = find_model(model or DEFAULT_MODEL, cache_folder=folder)
    _encoder.append(SentenceTransformer(str(found.folder), device="cpu"))
    return _encode(texts)


def _encode(texts: Sequence[str]) -> NDArray[np.float32]:
    encoder = _encoder[0]
    vectors: NDArray[np.float32] = encoder.encode(list(texts), batch_size=_BASELINE_BATCH)  # type: ignore[attr-defined]
    return vectors


def _encode_timed(texts: Sequence[str]) -> float:
    start = time.perf_counter()
    _encode(texts)
    return time.perf_counter() - start

"""A cross-encoder with its queue: loads the model, queues pairs of texts, scores batches."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Engine
from embedding.batcher import Batcher, InferenceResult
from embedding.gpu.backend import GpuPairEngine
from embedding.gpu.pool import GpuModel, GpuPool, worker_command
from embedding.metrics import Metrics
from embedding.model_files import StoredModel
from embedding.pair_model import find_pair_model
from embedding.pairs import TextPair, make_pairs, pack_pairs
from embedding.reference_texts import REFERENCE_TEXTS
from embedding.settings import EmbeddingSettings
from nearline.contract import ENTAILMENT_JUDGE, Lane
from nearline.errors import DeadlineExceeded, SettingsError

if TYPE_CHECKING:
    from embedding.cross_encoder import CrossEncoderEngine

RERANKER = "reranker"
ENTAILMENT = "entailment"
# What an entailment model calls its labels, in lower case; of the last two, one.
_ENTAILMENT_LABELS = ("entailment", "contradiction")
_NEUTRAL_LABELS = ("neutral", "not_entailment")
# Every so many golden texts are paired to check a GPU, whose scores may differ by this share.
_SAMPLE_STEP = 6
_MOST_DIFFERENCE = 0.01
_log = logging.getLogger(__name__)


class PairScorer:
    """One cross-encoder with its queue. Use it from one event loop.

    name, fingerprint: Name and fingerprint of the model. batcher: Runs its pairs; the owner starts
    and closes it.

    Args:
        model: The model.
        engine: The loaded engine of the model.
        columns: Columns of the engine's output to return, in the order of the result.
        max_tokens: Tokens that the model reads of a pair.
        setting: "reranker" or "entailment".
        settings: Limits.
        on_broken: Called once if the model fails on everything.
    """

    def __init__(
        self,
        model: StoredModel,
        engine: Engine[TextPair],
        *,
        columns: Sequence[int] = (0,),
        max_tokens: int,
        setting: str,
        settings: EmbeddingSettings,
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        self.name = model.name
        self.fingerprint = model.fingerprint
        self._columns = list(columns)
        self._max_tokens = max_tokens
        self._metrics = Metrics(setting)
        fallback = engine.fallback if isinstance(engine, GpuPairEngine) else None
        self.batcher = Batcher(
            engine,
            budget=settings.batch_tokens if fallback else settings.cpu_batch_tokens,
            max_queued_tokens=settings.queued_tokens,
            metrics=self._metrics,
            field="texts" if setting == RERANKER else "premises",
            on_broken=on_broken,
            fallback=fallback,
        )

    @classmethod
    def load(
        cls,
        setting: str,
        settings: EmbeddingSettings,
        *,
        cache_folder: Path | None = None,
        on_broken: Callable[[], None] | None = None,
    ) -> Self | None:
        """Finds and loads the model that a setting names, and scores a pair as a test.

        Args:
            setting: "reranker" or "entailment".
            settings: Settings of the service.
            cache_folder: See `fetch_model`.
            on_broken: See the class.
        Raises: SettingsError: torch is not installed, the model does not exist or is of a different
            kind, it lacks a required label, or its scores are not finite. NotReady: the hub cannot
            be reached.
        """
        name = settings.reranker if setting == RERANKER else settings.entailment
        if not name or (setting == ENTAILMENT and is_change(name)):
            return None
        start = time.perf_counter()
        model = find_pair_model(name, setting, store=settings.store, cache_folder=cache_folder)
        try:
            from embedding.cross_encoder import CrossEncoderEngine
        except ImportError as error:
            raise SettingsError(
                f"{setting} {name} runs on sentence-transformers, which is not installed "
                f"({error}); run pip install 'nearline-server[torch]', or leave the setting empty"
            ) from error
        probabilities = setting == ENTAILMENT
        engine = CrossEncoderEngine(
            model.folder, probabilities=probabilities, threads=settings.threads
        )
        columns = label_columns(setting, engine.labels, name)
        try:
            engine.run(make_pairs(["warm"], ["up"], engine.max_tokens), 0)
        # Whatever the engine raises, the model is of no use.
        except Exception as error:
            raise SettingsError(
                f"{setting} {name} cannot score a pair of words ({type(error).__name__}: {error}); "
                "download the model again, choose another, or leave the setting empty"
            ) from error
        scorer = cls(
            model,
            _on_gpus(engine, model.folder, probabilities, settings) if settings.on_gpu else engine,
            columns=columns,
            max_tokens=engine.max_tokens,
            setting=setting,
            settings=settings,
            on_broken=on_broken,
        )
        _log.info(
            f"{setting}_loaded",
            extra={
                "model": model.name,
                "fingerprint": model.fingerprint,
                "seconds": round(time.perf_counter() - start, 3),
            },
        )
        return scorer

    async def score(
        self, firsts: Sequence[str], seconds: Sequence[str], lane: Lane, timeout_s: float | None
    ) -> InferenceResult:
        """Scores n pairs, all or nothing; cancelling drops pairs that have not run yet.

        Args:
            firsts, seconds: n texts each, n >= 1, not empty.
            lane: Queue to wait in.
            timeout_s: Seconds to the caller's deadline; None if there is no deadline.
        Returns: Rows (n, columns) float32.
        Raises: Overloaded, DeadlineExceeded, NotReady, InternalError: as `Batcher.infer`.
        """
        if timeout_s is None:
            return await self._score(firsts, seconds, lane, math.inf)
        # Refuse before any work, with what is known; tokens are counted below and checked again.
        self.batcher.check(lane, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._score(firsts, seconds, lane, time.monotonic() + timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the pairs were not scored within {timeout_s:.3f} s; raise the timeout or send "
                "less at a time"
            ) from None

    async def _score(
        self, firsts: Sequence[str], seconds: Sequence[str], lane: Lane, deadline: float
    ) -> InferenceResult:
        start = time.monotonic()
        pairs = await asyncio.to_thread(make_pairs, firsts, seconds, self._max_tokens)
        now = time.monotonic()
        scored = await self.batcher.infer(pairs, lane, left_s=deadline - now)
        self._metrics.lanes[lane].request(
            len(pairs), 0, (now - start, scored.queue_s, scored.inference_s)
        )
        return replace(scored, rows=scored.rows[:, self._columns])


def _on_gpus(
    cpu: CrossEncoderEngine, folder: Path, probabilities: bool, settings: EmbeddingSettings
) -> GpuPairEngine:
    """Starts a loaded model on the GPUs; the CPU's scores of a few pairs check them."""
    texts = REFERENCE_TEXTS[::_SAMPLE_STEP]
    pairs = make_pairs(texts[:-1], texts[1:], cpu.max_tokens)
    known = cpu.run(pairs, 0)

    def problem(rows: NDArray[np.float32]) -> str:
        far = float(np.abs(rows - known).max(initial=0.0))
        if far <= _MOST_DIFFERENCE * max(1.0, float(np.abs(known).max())):
            return ""
        return f"a score differs by {far:g} from that of the CPU"

    pool = GpuPool(
        GpuModel(
            command=worker_command(),
            values={"folder": str(folder), "probabilities": probabilities},
            sample=pack_pairs(pairs),
            problem=problem,
        ),
        settings.devices,
        timeout_s=settings.gpu_timeout_s,
    )
    pool.wait_ready()
    return GpuPairEngine(pool, cpu)


def is_change(name: str) -> bool:
    """Returns whether a setting names a change of the embedding model; see `judges`."""
    return name == ENTAILMENT_JUDGE or name.endswith(".safetensors")


def label_columns(setting: str, labels: Sequence[str], name: str) -> tuple[int, ...]:
    """Returns the columns of the labels whose scores are returned.

    For a reranker, this is its only column; for an entailment model, the columns of entailment and
    contradiction, in this order.

    Args:
        setting: "reranker" or "entailment".
        labels: Labels of the model, in lower case.
        name: Name of the model, for errors.
    Raises: SettingsError: the model lacks the required labels.
    """
    if setting == RERANKER:
        if len(labels) != 1:
            raise SettingsError(
                f"reranker {name} has {len(labels)} labels ({', '.join(labels)}), 1 is needed: a "
                "score; choose a model trained to rank, and set entailment for one that "
                "classifies pairs"
            )
        return (0,)
    if not (set(_ENTAILMENT_LABELS) <= set(labels) and set(_NEUTRAL_LABELS) & set(labels)):
        raise SettingsError(
            f"entailment {name} has the labels {', '.join(labels)}; needed are "
            f"{', '.join(_ENTAILMENT_LABELS)} and {' or '.join(_NEUTRAL_LABELS)}: choose a model "
            "of natural language inference, or write its labels into id2label of its config.json"
        )
    return tuple(labels.index(label) for label in _ENTAILMENT_LABELS)

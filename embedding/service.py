"""The embedding service without gRPC: checks texts, tokenises and batches them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Backend, PaddedBackend
from embedding.backend_selection import select_backend
from embedding.batcher import Batcher
from embedding.gpu.backend import GpuBackend
from embedding.judges.answer_judge import open_judge
from embedding.judges.entailment_judge import open_entailment_judge
from embedding.judges.snapshot_rerankers import SnapshotRerankers
from embedding.metrics import Metrics
from embedding.model import EmbeddingModel, find_model
from embedding.pair_scorer import ENTAILMENT, RERANKER, PairScorer
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings
from embedding.tokenizer import TokenizerThreads, most_threads
from nearline import contract as c
from nearline.errors import DeadlineExceeded, InvalidRequest, SnapshotMismatch, Unsupported
from nearline.tracing.spans import current_span, record_part, set_facts
from nearline.vectors import normalise


def check_text(text: str, field: str, max_characters: int) -> None:
    """Refuses a text that is blank, too long, or not valid Unicode.

    Args:
        text: The text.
        field: Its field in the request, for example "texts[3]".
        max_characters: Code points allowed.
    Raises: InvalidRequest.
    """
    if not text or text.isspace():
        raise InvalidRequest(
            f"{field} is empty or only white space; remove it, because it has no meaning to embed",
            field=field,
        )
    if len(text) > max_characters:
        raise InvalidRequest(
            f"{field} has {len(text)} characters, {max_characters} are allowed; split it into "
            "chunks",
            field=field,
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{field} has a lone surrogate at position {error.start}; it is not valid "
                "Unicode: decode the source with errors='replace'",
                field=field,
            ) from error


def check_count(count: int, field: str, max_texts: int) -> None:
    """Refuses a request with no text, or with more than are allowed.

    Raises: InvalidRequest.
    """
    if not 1 <= count <= max_texts:
        raise InvalidRequest(f"{field} has {count} texts; send 1..{max_texts}", field=field)


class StreamWindow:
    """The batches in progress of one stream, in order: limited by their texts, but at least two."""

    def __init__(self, max_texts: int) -> None:
        self._max_texts = max_texts
        self._texts = 0
        self._batches = 0
        self._left = asyncio.Event()
        self._work: asyncio.Queue[tuple[asyncio.Task[c.Embeddings], int] | None] = asyncio.Queue()

    async def enter(self, texts: int, work: Coroutine[None, None, c.Embeddings]) -> None:
        """Starts a batch once there is room."""
        try:
            while self._batches >= 2 and self._texts + texts > self._max_texts:
                self._left.clear()
                await self._left.wait()
        except asyncio.CancelledError:
            work.close()
            raise
        self._texts += texts
        self._batches += 1
        self._work.put_nowait((asyncio.create_task(work), texts))

    def leave(self, texts: int) -> None:
        """Records that a batch was answered."""
        self._texts -= texts
        self._batches -= 1
        self._left.set()

    async def next(self) -> tuple[asyncio.Task[c.Embeddings], int] | None:
        """Returns the next batch in order; None after the last."""
        return await self._work.get()

    def end(self) -> None:
        """Records that no more batches come."""
        self._work.put_nowait(None)

    async def cancel(self) -> None:
        """Cancels the batches in progress."""
        tasks = []
        while not self._work.empty():
            work = self._work.get_nowait()
            if work is not None:
                work[0].cancel()
                tasks.append(work[0])
        await asyncio.gather(*tasks, return_exceptions=True)


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """One batch of a bulk stream; see `Embedder.embed` for the fields."""

    texts: Sequence[str]
    role: c.TextRole = c.TextRole.DOCUMENT
    dimensions: int | None = None
    expected_fingerprint: str = ""


class EmbeddingService:
    """An `Embedder`, and also a `Reranker` and an `Entailment` if it has their models.

    Use it from one event loop.

    Args:
        model: The model; it may be a truncated one.
        backend: The loaded backend of the model; its vectors may be longer than those of a
            truncated model.
        settings: Limits.
        min_cosine: Lowest cosine of the backend to the fp32 reference.
        tokens_per_s: Initial estimate of the rate; 0 if unknown.
        reranker, entailment: Optional models of text pairs.
        on_broken: Called once if the model fails on everything.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        backend: Backend,
        settings: EmbeddingSettings,
        *,
        min_cosine: float = 1.0,
        tokens_per_s: float = 0.0,
        reranker: PairScorer | None = None,
        entailment: PairScorer | None = None,
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._backend = backend
        self._min_cosine = min_cosine
        self._reranker = reranker
        self._entailment = entailment
        self._snapshot_rerankers = SnapshotRerankers(model, settings)
        self._fingerprint = model.fingerprint
        self._metrics = Metrics()
        fallback = backend.fallback if isinstance(backend, GpuBackend) else None
        self._batcher = Batcher(
            PaddedBackend(backend, model.pad_id),
            budget=settings.batch_tokens,
            max_queued_tokens=settings.queued_tokens,
            tokens_per_s=tokens_per_s,
            metrics=self._metrics,
            on_broken=on_broken,
            fallback=fallback,
        )
        # Threads per lane, so that a query does not wait while a bulk batch is tokenised. On a CPU,
        # the model needs the cores.
        threads = most_threads() if fallback else 1
        self._tokenizers = {
            lane: TokenizerThreads(model.folder, model.max_tokens, lane.value, threads)
            for lane in c.Lane
        }
        self._prompts = {
            c.TextRole.QUERY: model.query_prompt,
            c.TextRole.DOCUMENT: model.document_prompt,
        }

    @classmethod
    async def open(
        cls,
        settings: EmbeddingSettings,
        cache_folder: Path,
        *,
        on_broken: Callable[[], None] | None = None,
    ) -> Self:
        """Loads and checks the models, choosing the embedding model's backend, and starts.

        Raises: SettingsError, NotReady, StoreError: as `PairScorer.load`, `find_model`,
            `select_backend`.
        """
        # Asks for GPUs, which takes seconds.
        await asyncio.to_thread(lambda: settings.batch_tokens)
        # Before the embedding model, whose first start takes minutes.
        reranker, entailment = [
            await asyncio.to_thread(
                PairScorer.load,
                setting,
                settings,
                cache_folder=cache_folder,
                on_broken=on_broken,
            )
            for setting in (RERANKER, ENTAILMENT)
        ]
        start = time.perf_counter()
        model = await asyncio.to_thread(
            find_model,
            settings.model,
            cache_folder=cache_folder,
            sha256=settings.model_sha256,
            revision=settings.model_revision,
            store=settings.store,
        )
        served = model.truncated(settings.dimensions)
        # Cached files and reference vectors are those of the whole model.
        chosen = await select_backend(model, settings, cache_folder)
        if reranker is None:
            reranker = await asyncio.to_thread(open_judge, model, settings, on_broken=on_broken)
        if entailment is None:
            entailment = await asyncio.to_thread(
                open_entailment_judge, model, settings, on_broken=on_broken
            )
        service = cls(
            served,
            chosen.backend,
            settings,
            min_cosine=chosen.figures.min_cosine,
            tokens_per_s=chosen.figures.tokens_per_s,
            reranker=reranker,
            entailment=entailment,
            on_broken=on_broken,
        )
        await service.start()
        _log.info(
            "model_loaded",
            extra={
                "model": model.name,
                "fingerprint": served.fingerprint,
                "dim": served.dim,
                "backend": chosen.backend.name,
                "min_cosine": round(chosen.figures.min_cosine, 6),
                "seconds": round(time.perf_counter() - start, 3),
            },
        )
        return service

    async def start(self) -> None:
        """Starts the threads."""
        for part in self._batchers():
            part.start()
        for lane in c.Lane:
            await self._tokenizers[lane].tokenize(["warm"])

    async def close(self) -> None:
        """Waits for running batches, fails waiting requests, ends the threads."""
        for part in self._batchers():
            await part.close()
        await self._snapshot_rerankers.close()
        for tokenizer in self._tokenizers.values():
            tokenizer.close()

    async def embed(
        self,
        texts: Sequence[str],
        role: c.TextRole = c.TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`."""
        call = EmbedCall(
            texts=texts,
            role=role,
            dimensions=dimensions,
            expected_fingerprint=expected_fingerprint,
        )
        self._check(call)
        if timeout_s is None:
            return await self._embed(call, lane, math.inf)
        # Refuse before any work, as far as is known; tokens are counted and checked again below.
        self._batcher.check(lane, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(call, lane, time.monotonic() + timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the texts were not embedded within {timeout_s:.3f} s; raise the timeout or send "
                "fewer at once"
            ) from None

    async def embed_stream(
        self, calls: AsyncIterator[EmbedCall]
    ) -> AsyncGenerator[c.Embeddings, None]:
        """Embeds batches on the bulk lane and yields the answers in order.

        It reads ahead until `read_ahead_texts` texts, but at least two batches, are in
        progress. If the queue is full it waits; nothing is refused.

        Raises: InvalidRequest, SnapshotMismatch, NotReady: from the first batch that fails.
        """
        window = StreamWindow(self._settings.read_ahead_texts)

        async def read() -> None:
            try:
                async for call in calls:
                    self._check(call)
                    await window.enter(
                        len(call.texts), self._embed(call, c.Lane.BULK, math.inf, wait=True)
                    )
            finally:
                window.end()

        reader = asyncio.create_task(read())
        try:
            while (work := await window.next()) is not None:
                task, count = work
                yield await task
                # Only now, so that a caller who does not read replies stops the reading ahead.
                window.leave(count)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, window.cancel(), return_exceptions=True)

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.RerankScores:
        """Scores texts against a query; see `Reranker.rerank`."""
        if snapshot:
            scorer = await self._snapshot_rerankers.of(snapshot)
        else:
            scorer = _loaded(self._reranker, RERANKER, "Rerank")
        check_text(query, "query", self._settings.max_characters)
        self._check_texts("texts", texts)
        scored = await scorer.score([query] * len(texts), texts, lane, timeout_s)
        return c.RerankScores(scored.rows[:, 0].tolist(), scored.served_by, scorer.fingerprint)

    async def entail(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        *,
        lane: c.Lane = c.Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> c.EntailmentScores:
        """Judges pairs of texts; see `Entailment.entail`."""
        scorer = _loaded(self._entailment, ENTAILMENT, "Entail")
        self._check_texts("premises", premises)
        self._check_texts("hypotheses", hypotheses)
        if len(premises) != len(hypotheses):
            raise InvalidRequest(
                f"there are {len(premises)} premises and {len(hypotheses)} hypotheses; send the "
                "same number of each",
                field="hypotheses",
            )
        scored = await scorer.score(premises, hypotheses, lane, timeout_s)
        return c.EntailmentScores(
            entailment=scored.rows[:, 0].tolist(),
            contradiction=scored.rows[:, 1].tolist(),
            fingerprint=scorer.fingerprint,
            served_by=scored.served_by,
        )

    async def info(self) -> c.EmbedderInfo:
        """Returns the embedder's description."""
        return c.EmbedderInfo(
            model=self._model.name,
            fingerprint=self._fingerprint,
            dim=self._model.dim,
            max_tokens=self._model.max_tokens,
            max_texts=self._settings.max_texts,
            max_characters=self._settings.max_characters,
            max_queued_tokens=self._settings.queued_tokens,
            backend=self._backend.name,
            min_cosine=self._min_cosine,
            tokens_per_second=self._batcher.tokens_per_s,
            query_prompt=self._model.query_prompt,
            document_prompt=self._model.document_prompt,
            reranker=self._reranker.name if self._reranker else "",
            reranker_fingerprint=self._reranker.fingerprint if self._reranker else "",
            entailment=self._entailment.name if self._entailment else "",
            entailment_fingerprint=self._entailment.fingerprint if self._entailment else "",
        )

    async def _embed(
        self, call: EmbedCall, lane: c.Lane, deadline: float, *, wait: bool = False
    ) -> c.Embeddings:
        start = time.monotonic()
        prompt = self._prompts[call.role]
        texts = [prompt + text for text in call.texts] if prompt else call.texts
        tokenized = await self._tokenizers[lane].tokenize(texts)
        now = time.monotonic()
        embedded = await self._batcher.infer(
            [text.ids for text in tokenized], lane, left_s=deadline - now, wait=wait
        )
        tokens = np.fromiter((text.count for text in tokenized), np.int64, len(tokenized))
        truncated = tokens > self._model.max_tokens
        tokenize_s = now - start
        self._metrics.lanes[lane].request(
            len(tokens), int(truncated.sum()), (tokenize_s, embedded.queue_s, embedded.inference_s)
        )
        if (span := current_span()) is not None:
            record_part(span, "tokenize", tokenize_s, embedded.queue_s + embedded.inference_s)
            record_part(span, "queue", embedded.queue_s, embedded.inference_s)
            record_part(span, "inference", embedded.inference_s)
            set_facts(span, {"tokens": int(tokens.sum()), "lane": lane.value})
        vectors = embedded.rows
        dim = self._model.dim if call.dimensions is None else call.dimensions
        if dim < vectors.shape[1]:
            vectors = normalise(vectors[:, :dim])
        return c.Embeddings(
            vectors=vectors,
            fingerprint=self._fingerprint,
            tokens=tokens,
            truncated=truncated,
            tokenize_s=tokenize_s,
            queue_s=embedded.queue_s,
            inference_s=embedded.inference_s,
            served_by=embedded.served_by,
        )

    def _check(self, call: EmbedCall) -> None:
        if call.expected_fingerprint not in ("", self._fingerprint):
            raise SnapshotMismatch(
                f"the embedder has fingerprint {self._fingerprint}, the request expects "
                f"{call.expected_fingerprint}; send it to the embedder of that model, or rebuild "
                "the index with this one"
            )
        dim = self._model.dim
        if call.dimensions is not None and not 1 <= call.dimensions <= dim:
            raise InvalidRequest(
                f"dimensions is {call.dimensions}; 1..{dim} are served", field="dimensions"
            )
        self._check_texts("texts", call.texts)

    def _check_texts(self, field: str, texts: Sequence[str]) -> None:
        check_count(len(texts), field, self._settings.max_texts)
        for index, text in enumerate(texts):
            check_text(text, f"{field}[{index}]", self._settings.max_characters)

    def _batchers(self) -> Iterator[Batcher[NDArray[np.int64]] | Batcher[TextPair]]:
        yield self._batcher
        yield from (one.batcher for one in (self._reranker, self._entailment) if one is not None)


def _loaded(scorer: PairScorer | None, setting: str, method: str) -> PairScorer:
    if scorer is None:
        raise Unsupported(
            f"{method} needs a model, and this embedding service has none: set --{setting} or "
            f"NEARLINE_EMBEDDING_{setting.upper()} to a CrossEncoder folder or hub name"
        )
    return scorer


@contextlib.asynccontextmanager
async def open_service(
    settings: EmbeddingSettings, cache_folder: Path
) -> AsyncIterator[EmbeddingService]:
    """Runs an embedder inside this process for the length of the block."""
    service = await EmbeddingService.open(settings, cache_folder)
    try:
        yield service
    finally:
        await service.close()

"""The embedder as a domain object: checks texts, tokenises, batches; knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from embedding.backend import Backend
from embedding.batcher import Batcher
from embedding.calibration import choose
from embedding.metrics import Metrics
from embedding.model import Model, find_model
from embedding.settings import EmbeddingSettings
from embedding.tokenizing import TextTokenizer, TokenizedText
from nearline import contract as c
from nearline.errors import DeadlineExceeded, InvalidRequest, SnapshotMismatch
from nearline.vectors import normalise

_log = logging.getLogger(__name__)
# One task of a tokeniser thread: small, so that nobody waits long for the thread.
_TOKENIZE_CHARACTERS = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedCall:
    """One batch of a bulk stream; see `Embedder.embed` for the fields."""

    texts: Sequence[str]
    role: c.TextRole = c.TextRole.DOCUMENT
    dimensions: int | None = None
    expected_fingerprint: str = ""


class EmbeddingService:
    """An `Embedder` over one model in this process. Use it from one event loop.

    Args:
        model: The model.
        backend: The same model, loaded.
        settings: Limits.
        min_cosine: Lowest cosine of the backend to the fp32 reference.
        tokens_per_s: First guess of the rate; 0: unknown.
        on_broken: Called once when the model fails on everything.
    """

    def __init__(
        self,
        model: Model,
        backend: Backend,
        settings: EmbeddingSettings,
        *,
        min_cosine: float = 1.0,
        tokens_per_s: float = 0.0,
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._backend = backend
        self._min_cosine = min_cosine
        self._fingerprint = model.fingerprint
        self._metrics = Metrics()
        self._batcher = Batcher(
            backend,
            budget=settings.token_budget,
            max_queued_tokens=settings.max_queued_tokens,
            tokens_per_s=tokens_per_s,
            pad_id=model.pad_id,
            metrics=self._metrics,
            on_broken=on_broken,
        )
        # A thread per lane: a query does not wait for the tokenising of a bulk batch.
        self._tokenizers = {lane: _TokenizerThread(model, lane.value) for lane in c.Lane}
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
        """Finds the model, chooses and loads the backend, checks its golden vectors, starts.

        Raises: SettingsError, NotReady, StoreError: as `find_model` and `choose`.
        """
        start = time.perf_counter()
        model = await asyncio.to_thread(
            find_model,
            settings.model,
            cache_folder=cache_folder,
            sha256=settings.model_sha256,
            revision=settings.model_revision,
        )
        chosen = await choose(model, settings, cache_folder)
        service = cls(
            model,
            chosen.backend,
            settings,
            min_cosine=chosen.figures.min_cosine,
            tokens_per_s=chosen.figures.tokens_per_s,
            on_broken=on_broken,
        )
        await service.start()
        _log.info(
            "model_loaded",
            extra={
                "model": model.name,
                "fingerprint": model.fingerprint,
                "backend": chosen.backend.name,
                "min_cosine": round(chosen.figures.min_cosine, 6),
                "seconds": round(time.perf_counter() - start, 3),
            },
        )
        return service

    async def start(self) -> None:
        """Starts the threads."""
        self._batcher.start()
        for lane in c.Lane:
            await self._tokenizers[lane].tokenize(["warm"])

    async def close(self) -> None:
        """Lets running batches end, fails what waits, ends the threads."""
        await self._batcher.close()
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
        # Refuse before any work, with what is known; tokens are counted below and checked again.
        self._batcher.check(lane, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._embed(call, lane, time.monotonic() + timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the texts were not embedded within {timeout_s:.3f} s; raise the timeout or send "
                "less at a time"
            ) from None

    async def embed_stream(
        self, calls: AsyncIterator[EmbedCall]
    ) -> AsyncGenerator[c.Embeddings, None]:
        """Embeds batches on the bulk lane and yields the answers in order.

        It reads ahead until `stream_read_ahead_texts` are in work, at least two batches, and waits
        where the queue is full: nobody is refused.

        Raises: InvalidRequest, SnapshotMismatch, NotReady: of the first batch that has it.
        """
        window = _StreamWindow(self._settings.stream_read_ahead_texts)

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
                # Only now: a caller who does not read the answers stops the reading ahead.
                window.leave(count)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, window.cancel(), return_exceptions=True)

    async def info(self) -> c.EmbedderInfo:
        """Gives the embedder's card."""
        return c.EmbedderInfo(
            model=self._model.name,
            fingerprint=self._fingerprint,
            dim=self._model.dim,
            max_tokens=self._model.max_tokens,
            max_texts=self._settings.max_texts,
            max_characters=self._settings.max_characters,
            max_queued_tokens=self._settings.max_queued_tokens,
            backend=self._backend.name,
            min_cosine=self._min_cosine,
            tokens_per_second=self._batcher.tokens_per_s,
            query_prompt=self._model.query_prompt,
            document_prompt=self._model.document_prompt,
        )

    async def _embed(
        self, call: EmbedCall, lane: c.Lane, deadline: float, *, wait: bool = False
    ) -> c.Embeddings:
        start = time.monotonic()
        prompt = self._prompts[call.role]
        texts = [prompt + text for text in call.texts] if prompt else call.texts
        tokenized = await self._tokenizers[lane].tokenize(texts)
        now = time.monotonic()
        embedded = await self._batcher.embed(
            [text.ids for text in tokenized], lane, left_s=deadline - now, wait=wait
        )
        tokens = np.fromiter((text.count for text in tokenized), np.int64, len(tokenized))
        truncated = tokens > self._model.max_tokens
        tokenize_s = now - start
        self._metrics.lanes[lane].request(
            len(tokens), int(truncated.sum()), (tokenize_s, embedded.queue_s, embedded.inference_s)
        )
        vectors = embedded.vectors
        if call.dimensions is not None and call.dimensions < self._model.dim:
            vectors = normalise(vectors[:, : call.dimensions])
        return c.Embeddings(
            vectors=vectors,
            fingerprint=self._fingerprint,
            tokens=tokens,
            truncated=truncated,
            tokenize_s=tokenize_s,
            queue_s=embedded.queue_s,
            inference_s=embedded.inference_s,
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
        if not 1 <= len(call.texts) <= self._settings.max_texts:
            raise InvalidRequest(
                f"the request has {len(call.texts)} texts; send 1..{self._settings.max_texts}",
                field="texts",
            )
        for index, text in enumerate(call.texts):
            self._check_text(index, text)

    def _check_text(self, index: int, text: str) -> None:
        field = f"texts[{index}]"
        if not text or text.isspace():
            raise InvalidRequest(
                f"{field} is empty or only white space; leave it out: it has no meaning to embed",
                field=field,
            )
        if len(text) > self._settings.max_characters:
            raise InvalidRequest(
                f"{field} has {len(text)} characters, {self._settings.max_characters} are allowed; "
                "split it into chunks",
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


class _StreamWindow:
    """The batches of one stream in work, in order, of so many texts at most but always two."""

    def __init__(self, max_texts: int) -> None:
        self._max_texts = max_texts
        self._texts = 0
        self._batches = 0
        self._left = asyncio.Event()
        self._work: asyncio.Queue[tuple[asyncio.Task[c.Embeddings], int] | None] = asyncio.Queue()

    async def enter(self, texts: int, work: Coroutine[None, None, c.Embeddings]) -> None:
        """Starts the work once there is room."""
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
        """A batch was answered."""
        self._texts -= texts
        self._batches -= 1
        self._left.set()

    async def next(self) -> tuple[asyncio.Task[c.Embeddings], int] | None:
        """Gives the next batch in order; None after the last."""
        return await self._work.get()

    def end(self) -> None:
        """No more batches come."""
        self._work.put_nowait(None)

    async def cancel(self) -> None:
        """Cancels what is still in work."""
        tasks = []
        while not self._work.empty():
            work = self._work.get_nowait()
            if work is not None:
                work[0].cancel()
                tasks.append(work[0])
        await asyncio.gather(*tasks, return_exceptions=True)


class _TokenizerThread:
    """One thread with its own copy of the tokenizer."""

    def __init__(self, model: Model, name: str) -> None:
        self._local = threading.local()
        self._model = model
        self._pool = ThreadPoolExecutor(1, f"tokenize-{name}", self._load)

    async def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Tokenises off the loop, a piece at a time."""
        loop = asyncio.get_running_loop()
        result: list[TokenizedText] = []
        start, characters = 0, 0
        for end, text in enumerate(texts, 1):
            characters += len(text)
            if characters >= _TOKENIZE_CHARACTERS or end == len(texts):
                piece = texts[start:end]
                result += await loop.run_in_executor(self._pool, self._run, piece)
                start, characters = end, 0
        return result

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        self._local.tokenizer = TextTokenizer(self._model.folder, self._model.max_tokens)

    def _run(self, texts: Sequence[str]) -> list[TokenizedText]:
        tokenizer: TextTokenizer = self._local.tokenizer
        return tokenizer.tokenize(texts)


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

"""Rerankers of snapshots: changes of the default model that builds have trained.

Their input is [CLS] query [SEP] title [SEP] chunk [SEP], their output one logit. A snapshot has its
own in reranker.safetensors; it is loaded from the store with the first request that names it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from embedding.bert_weights import UNREADABLE, read_tensors
from embedding.judges.low_rank import (
    JudgeEngine,
    JudgeInput,
    changeable_weights,
    judge_model,
    load_backend,
)
from embedding.model import EmbeddingModel
from embedding.pair_scorer import RERANKER, PairScorer
from embedding.settings import EmbeddingSettings
from nearline.errors import InvalidRequest, SnapshotCorrupt, Unsupported
from nearline.store.snapshot import RERANKER_FILE, Store

# Most tokens of the query, the title and the chunk, as in training; and of a pair, with four
# special tokens.
QUERY_TOKENS, TITLE_TOKENS, CHUNK_TOKENS = 48, 32, 96
MAX_TOKENS = QUERY_TOKENS + TITLE_TOKENS + CHUNK_TOKENS + 4
# A snapshot in service and one on trial, of two collections; each takes 60 MB.
MOST_LOADED = 4


def reranker_input(folder: Path) -> JudgeInput:
    """Returns the encoder of a query and a chunk below its title, for a model's folder."""
    return JudgeInput(folder, (QUERY_TOKENS, TITLE_TOKENS, CHUNK_TOKENS))


class SnapshotRerankers:
    """Loads rerankers of snapshots, and keeps those that were used last.

    Args:
        model: The embedding model.
        settings: Settings of the service, which name the store.
    """

    def __init__(self, model: EmbeddingModel, settings: EmbeddingSettings) -> None:
        self._model = model
        self._settings = settings
        self._loaded: OrderedDict[str, PairScorer] = OrderedDict()
        self._loading: dict[str, asyncio.Task[None]] = {}
        # One is loaded at a time: each takes the cores for about a second.
        self._turn = asyncio.Lock()

    async def of(self, snapshot: str) -> PairScorer:
        """Returns the reranker of a snapshot, COLLECTION/SNAPSHOT_ID.

        Raises: InvalidRequest: the name has another form. NotFound: there is no such snapshot.
            Unsupported: it has no reranker, or this service has no store or cannot run it.
            SnapshotCorrupt: its file is damaged.
        """
        while snapshot not in self._loaded:
            if snapshot not in self._loading:
                task = asyncio.create_task(self._open(snapshot))
                self._loading[snapshot] = task
                task.add_done_callback(lambda _: self._loading.pop(snapshot))
            # Loading goes on for the next request if this one runs out of time.
            await asyncio.shield(self._loading[snapshot])
        self._loaded.move_to_end(snapshot)
        return self._loaded[snapshot]

    async def close(self) -> None:
        """Ends the threads of all."""
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        for scorer in self._loaded.values():
            await scorer.batcher.close()

    async def _open(self, snapshot: str) -> None:
        async with self._turn:
            scorer = await asyncio.to_thread(self._load, snapshot)
            scorer.batcher.start()
            self._loaded[snapshot] = scorer
            if len(self._loaded) > MOST_LOADED:
                _, oldest = self._loaded.popitem(last=False)
                await oldest.batcher.close()

    def _load(self, snapshot: str) -> PairScorer:
        collection, _, snapshot_id = snapshot.partition("/")
        if not snapshot_id:
            raise InvalidRequest(
                f"snapshot is {snapshot!r}; name one as COLLECTION/SNAPSHOT_ID", field="snapshot"
            )
        if not self._settings.store:
            raise Unsupported(
                "this embedding service has no store with rerankers; start it with --store",
                field="snapshot",
            )
        store = Store.open(self._settings.store)
        if not store.manifest(collection, snapshot_id).HasField("reranker"):
            raise Unsupported(
                f"snapshot {snapshot} has no reranker; build it with --train-reranker",
                field="snapshot",
            )
        weights = changeable_weights(self._model, self._settings)
        if weights is None:
            raise Unsupported(
                "rerankers of snapshots change all-MiniLM-L6-v2 on OpenVINO, but this embedding "
                "service runs another model or engine",
                field="snapshot",
            )
        store.fetch(collection, snapshot_id, [RERANKER_FILE])
        file = store.snapshot_folder(collection, snapshot_id) / RERANKER_FILE
        try:
            backend = load_backend(weights, read_tensors([file]), self._settings.threads)
        except (*UNREADABLE, KeyError) as error:
            raise SnapshotCorrupt(
                f"{file} is damaged ({type(error).__name__}); build the snapshot again"
            ) from error
        return PairScorer(
            judge_model(snapshot, self._model, file),
            JudgeEngine(reranker_input(self._model.folder), backend),
            max_tokens=MAX_TOKENS,
            setting=RERANKER,
            settings=self._settings,
        )

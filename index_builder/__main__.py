"""Runs one build as a batch job: `python -m index_builder --corpus FILE --embedding HOST:PORT …`.

With `--learn`, it trains the models of users as well; without a corpus, only these. The job logs
its progress, and prints one JSON object on standard output at the end.
"""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import contextlib
import json
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from index_builder.execution.executor_factory import open_executor
from index_builder.execution.progress import TextProgress
from index_builder.options.build_options import BuildOptions
from index_builder.options.devices import AUTO_DEVICE
from index_builder.pipeline.builder import build_corpus
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.pipeline.settings import IndexBuilderSettings
from index_builder.pipeline.training_data import current_card, with_recorded_users
from index_builder.readers.corpus import Corpus
from index_builder.readers.folder import describe_skipped
from index_builder.releases.build_gate import check_promoted, gate_of_build
from nearline import serving, settings, telemetry
from nearline.store.snapshot import Store
from retrieval.changelog.registry import ChangeLogs
from retrieval.embedders.clients import embedding_client
from retrieval.shards.topology import parse_addresses
from retrieval.snapshots import aliases

if TYPE_CHECKING:
    from embedding.settings import EmbeddingSettings

_log = logging.getLogger("index_builder")


async def main(argv: list[str]) -> None:
    """Runs one build."""
    config = settings.load_from_process(IndexBuilderSettings, argv)
    telemetry.configure_logging(config.log_level, "index_builder")
    options = replace(config.options(), gate=gate_of_build(config.force_promote))
    corpus = Corpus(config.paths(), config.columns()) if config.corpus or not config.learn else None
    if corpus is None:
        options = compaction_options(options)
    elif corpus.skipped:
        _log.warning("files skipped", extra={"reason": describe_skipped(corpus.skipped)})
    progress = TextProgress(lambda line: _log.info("progress", extra={"line": line}))
    store = Store.open(config.store)
    async with contextlib.AsyncExitStack() as stack:
        # Open the executor before any gRPC channel: it starts processes, and gRPC does not support
        # forking.
        executor = stack.enter_context(
            open_executor(
                config.executor,
                config.ray_address,
                lambda: _workers_model(config.device),
                config.ray_gpu_share,
            )
        )
        log = states = None
        if config.redis:
            logs = ChangeLogs(
                store, config.redis, who=aliases.operator_name(), users_url=config.redis_users
            )
            stack.push_async_callback(logs.close)
            log = logs.log(config.collection)
            states = log.user_states()
            if store.log_in_force(config.collection) is None:
                log = None
        options = await with_recorded_users(options, states, learn=config.learn)
        options = _without_nothing(options)
        embedder = None
        addresses = parse_addresses(config.embedding, "--embedding")
        if addresses and not (corpus and corpus.brings_vectors):
            embedder = await stack.enter_async_context(embedding_client(addresses))
        if corpus is None:
            result = await compact(options, log, embedder, progress, executor)
        else:
            result = await build_corpus(corpus, options, embedder, progress, log, executor)
    print(json.dumps(result.record(), ensure_ascii=False))
    check_promoted(result, store)


def _without_nothing(options: BuildOptions) -> BuildOptions:
    """Returns the options without a training that has nothing to learn from.

    A nightly job must not fail before the first interaction was recorded.
    """
    training = options.training
    if training is None or len(training.interactions.user):
        return options
    if current_card(Store.open(options.store), options.collection) is not None:
        return options
    _log.warning(
        "nothing is learned: no interactions were imported, or recorded in the Redis of --redis"
    )
    return replace(options, training=None)


def _workers_model(device: str) -> EmbeddingSettings:
    from embedding.settings import EmbeddingSettings

    words = () if device == AUTO_DEVICE else ("--device", device)
    return settings.load_from_process(EmbeddingSettings, words)


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "index_builder")

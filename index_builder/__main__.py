"""Runs one build as a batch job: `python -m index_builder --corpus FILE --embedding HOST:PORT …`.

Tells what it does in log lines and ends with one JSON object on standard output.
"""

from __future__ import annotations

import json
import logging
import sys

from index_builder.corpus import Corpus, build_corpus
from index_builder.progress import Lines
from index_builder.settings import IndexBuilderSettings
from nearline import serving, settings, telemetry
from nearline.clients import EmbeddingClient

_log = logging.getLogger("index_builder")


async def main(argv: list[str]) -> None:
    """Builds once."""
    chosen = settings.load_from_process(IndexBuilderSettings, argv)
    telemetry.configure_logging(chosen.log_level, "index_builder")
    options = chosen.options()
    corpus = Corpus(chosen.paths(), chosen.columns())
    progress = Lines(lambda line: _log.info("progress", extra={"line": line}))
    if chosen.embedding and not corpus.brings_vectors:
        async with EmbeddingClient(chosen.embedding) as embedder:
            result = await build_corpus(corpus, options, embedder, progress)
    else:
        result = await build_corpus(corpus, options, None, progress)
    print(json.dumps(result.record(), ensure_ascii=False))


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "index_builder")

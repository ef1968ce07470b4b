"""Embeds real texts into a file of vectors for `nearline bench search`.

    python -m benchmarks.make_vectors --out vectors.npy --n 50000 CORPUS.jsonl …

Texts are the titles and sentences of the corpora (BEIR layout), in file order, without repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.bulk_callers import BATCH_TEXTS, IN_FLIGHT, BulkCallers
from nearline import EmbeddingClient
from nearline_cli.local.processes import embedding_process

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def sentences(files: Sequence[Path], n: int) -> list[str]:
    """Returns up to n distinct sentences of at least 20 characters."""
    found: dict[str, None] = {}
    for sentence in _all_sentences(files):
        found.setdefault(sentence)
        if len(found) == n:
            break
    return list(found)


def _all_sentences(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                for part in (row.get("title", ""), *_SENTENCE_END.split(row.get("text", ""))):
                    if len(part) >= 20:
                        yield part


async def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeds the texts with an embedding service of its own; returns (n, d) float32."""
    async with embedding_process() as service, EmbeddingClient(service.address) as client:
        callers = BulkCallers(client, texts, await client.info(), BATCH_TEXTS, IN_FLIGHT)
        return await callers.vectors()


def main() -> None:
    """Parses the arguments and runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--n", type=int, default=50_000)
    arguments = parser.parse_args()
    texts = sentences(arguments.corpus, arguments.n)
    np.save(arguments.out, asyncio.run(embed(texts)))
    print(json.dumps({"vectors": len(texts), "file": str(arguments.out)}))


if __name__ == "__main__":
    main()

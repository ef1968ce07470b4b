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

from nearline import EmbeddingClient
from nearline.contract import Lane
from nearline_cli.local.processes import embedding_process

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_BATCH = 64
_IN_FLIGHT = 4


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


async def embed(texts: Sequence[str], out: Path) -> None:
    """Embeds the texts with an embedding service of its own; writes (n, d) float32."""
    async with embedding_process() as service, EmbeddingClient(service.address) as client:
        dim = (await client.info()).dim
        matrix = np.lib.format.open_memmap(
            out, mode="w+", dtype=np.float32, shape=(len(texts), dim)
        )
        starts = iter(range(0, len(texts), _BATCH))

        async def work() -> None:
            for start in starts:
                batch = texts[start : start + _BATCH]
                reply = await client.embed(batch, lane=Lane.BULK, timeout_s=120)
                matrix[start : start + len(batch)] = reply.vectors

        await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
        matrix.flush()


def main() -> None:
    """Parses the arguments and runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--n", type=int, default=50_000)
    arguments = parser.parse_args()
    texts = sentences(arguments.corpus, arguments.n)
    asyncio.run(embed(texts, arguments.out))
    print(json.dumps({"vectors": len(texts), "file": str(arguments.out)}))


if __name__ == "__main__":
    main()

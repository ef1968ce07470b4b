"""Exports a snapshot and reports the first written rows, to be killed then."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from index_builder.execution.progress import NoProgress
from index_builder.indexes import milvus_writer
from nearline.store.snapshot import Store
from retrieval.milvus.open_client import open_client


class Told(NoProgress):
    """Prints that rows were written, then waits to be killed."""

    def advance(self, units: int) -> None:
        """Prints and blocks."""
        print("written", flush=True)
        sys.stdin.read()


async def main(store: str, collection: str, snapshot_id: str, uri: str) -> None:
    """Exports in small batches."""
    milvus_writer._BATCH_ROWS = 50
    await milvus_writer.export(
        Store(Path(store)), collection, snapshot_id, open_client(uri), progress=Told()
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

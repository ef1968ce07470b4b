"""Builds on its own Ray cluster, in a process that may be killed.

Arguments: STORE CORPUS FOLDER STALL_AFTER, then pairs of fingerprint and poison, as in `HashModel`.
Standard output has only its own lines: the messages of errors, and "done N" for every step.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil

from index_builder.execution.progress import NoProgress
from index_builder.execution.ray_cluster import cluster
from index_builder.execution.ray_executor import RayExecutor
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.errors import NearlineError
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.execution.ray_models import HashModel

_out = sys.stdout


class _Told(NoProgress):
    """Reports embedded chunks."""

    def __init__(self) -> None:
        self._stage, self._done = "", 0

    def start(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        self._stage, self._done = stage, done

    def advance(self, units: int) -> None:
        if self._stage == "embed":
            self._done += units
            print("done", self._done, flush=True, file=_out)


async def main(store: str, corpus: str, folder: str, stall_after: str, *models: str) -> None:
    """Builds once for each fingerprint and poison, then with the fingerprint of the service."""
    options = BuildOptions(store=store, golden_queries=0)
    found = Corpus([Path(corpus)], DocumentColumns())
    split = [one.partition(":") for one in models]
    wrong = [HashModel(Path(folder), fingerprint, poison) for fingerprint, _, poison in split]
    with cluster(""):
        print("listening", *_addresses(), flush=True, file=_out)
        for model in [*wrong, HashModel(Path(folder), stall_after=int(stall_after))]:
            executor = RayExecutor(model)
            try:
                result = await build_corpus(
                    found, options, HashEmbedder(), _Told(), executor=executor
                )
                print("built", result.embedded, result.resumed, flush=True, file=_out)
            except NearlineError as error:
                print("refused", type(error).__name__, error.message, flush=True, file=_out)


def _addresses() -> set[str]:
    """Returns the addresses on which this process and those of Ray listen."""
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for one in ours for socket in one.net_connections("tcp")]
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

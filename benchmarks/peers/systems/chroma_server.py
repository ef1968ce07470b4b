"""Chroma's HTTP server, called by its HTTP client."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.client_threads import in_batches
from benchmarks.peers.dataset import Condition, PeerDataset, row_id
from benchmarks.peers.server_process import server_process
from benchmarks.peers.system import PeerClient, Place, System
from nearline_cli.local.processes import free_port

_PROGRAM = Path(sys.executable).with_name("chroma")
_COLLECTION = "items"
_QUIET = {"ANONYMIZED_TELEMETRY": "False"}
_PROBE_S = 2.0


class ChromaClient(PeerClient):
    """`HttpClient`; the width is a setting of the collection, read when the server opens it."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        import chromadb

        super().__init__(address, dataset)
        host, _, port = address.partition(":")
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client: Any = chromadb.HttpClient(host, int(port), settings=settings)
        self._collection: Any = self._client.get_or_create_collection(
            _COLLECTION, configuration={"hnsw": {"space": "ip"}}, embedding_function=None
        )

    def load(self) -> None:
        rows = range(len(self.dataset.base))
        for part in in_batches(len(rows)):
            self.upsert(rows[part], self.dataset.base[part])

    def use_width(self, width: int) -> None:
        self._collection.modify(configuration={"hnsw": {"ef_search": width}})

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=self.dataset.k,
            where={condition.attribute: condition.value} if condition else None,
            include=["distances", "documents"] if payload else ["distances"],
        )
        return list(map(int, found["ids"][0]))

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        self._collection.upsert(
            ids=[row_id(row) for row in rows],
            embeddings=np.asarray(vectors),
            metadatas=[self.dataset.attributes(row) for row in rows],
            documents=[self.dataset.text(row) for row in rows],
        )


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_port()}"
    command = [str(_PROGRAM), "run", "--path", str(place.folder / "data")]
    command += ["--host", "127.0.0.1", "--port", address.partition(":")[2]]

    def ready() -> bool:
        with contextlib.suppress(OSError):
            url = f"http://{address}/api/v2/heartbeat"
            with urllib.request.urlopen(url, timeout=_PROBE_S) as reply:
                return bool(reply.status == 200)
        return False

    async with server_process(command, place.folder / "chroma.log", ready, environ=_QUIET):
        yield address


def _missing() -> str:
    return "" if find_spec("chromadb") and _PROGRAM.exists() else "pip: chromadb"


CHROMA = System(
    name="chroma",
    label="Chroma server (HNSW, 16 neighbours)",
    client=ChromaClient,
    serve=_serve,
    missing=_missing,
    width_at_start=True,
)

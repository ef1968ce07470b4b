"""Milvus 2.3.5 standalone, the last server that PyPI has, called by pymilvus."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nearline
from benchmarks.peers.client_threads import in_batches
from benchmarks.peers.dataset import ATTRIBUTES, Condition, PeerDataset
from benchmarks.peers.server_process import server_process
from benchmarks.peers.system import PeerClient, Place, System
from nearline.errors import NotReady
from nearline_cli.local.processes import free_port

# Made by `make .venv-milvus/.stamp`: the packages of the server fit nothing else.
_PROGRAM = Path(nearline.__file__).parents[1] / ".venv-milvus" / "bin" / "milvus-server"
_NAMESPACE = "tests.milvus.network_namespace"
# Its etcd has a fixed port.
_ETCD_PORT = 2380
_COLLECTION = "items"
# The defaults that its documentation names.
_GRAPH = {"M": 30, "efConstruction": 360}
_TIMEOUT_S = 60.0
_LOAD_TIMEOUT_S = 300.0
_SESSION_S = 10
_TEXT_BYTES = 1_000


class MilvusPeerClient(PeerClient):
    """A `MilvusClient`; searches do not wait for writes ("Eventually")."""

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        import pymilvus

        super().__init__(address, dataset)
        self._pymilvus: Any = pymilvus
        self._client: Any = pymilvus.MilvusClient(address, timeout=_TIMEOUT_S)
        if self._client.has_collection(_COLLECTION):
            self._client.load_collection(_COLLECTION, timeout=_LOAD_TIMEOUT_S)

    def load(self) -> None:
        kinds = self._pymilvus.DataType
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self.dataset.base.shape[1])
        for name in ATTRIBUTES:
            schema.add_field(name, kinds.INT64)
        schema.add_field("text", kinds.VARCHAR, max_length=_TEXT_BYTES)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=_GRAPH)
        self._client.create_collection(_COLLECTION, schema=schema)
        rows = range(len(self.dataset.base))
        for part in in_batches(len(rows)):
            self._client.insert(_COLLECTION, self._entities(rows[part], self.dataset.base[part]))
        self._client.flush(_COLLECTION, timeout=_LOAD_TIMEOUT_S)
        self._client.create_index(_COLLECTION, index, timeout=_LOAD_TIMEOUT_S)
        self._client.load_collection(_COLLECTION, timeout=_LOAD_TIMEOUT_S)

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        (hits,) = self._client.search(
            _COLLECTION,
            data=[vector],
            anns_field="vector",
            limit=self.dataset.k,
            filter=f"{condition.attribute} == {condition.value}" if condition else "",
            output_fields=["text"] if payload else None,
            search_params={"params": {"ef": max(width, self.dataset.k)}},
            consistency_level="Eventually",
            timeout=_TIMEOUT_S,
        )
        return [hit["id"] for hit in hits]

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        self._client.upsert(_COLLECTION, self._entities(rows, vectors), timeout=_TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def _entities(
        self, rows: Sequence[int], vectors: NDArray[np.float32]
    ) -> list[dict[str, object]]:
        return [
            {"id": row, "vector": vector, "text": self.dataset.text(row)}
            | self.dataset.attributes(row)
            for row, vector in zip(rows, vectors, strict=True)
        ]


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", _ETCD_PORT)) == 0:
            raise NotReady(f"port {_ETCD_PORT} of its etcd is taken; stop the program that has it")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [str(_PROGRAM), "--data", str(place.folder / "data"), "--proxy-port", str(port)]
    command += ["--extra-config", f"common.session.ttl={_SESSION_S}"]

    def ready() -> bool:
        import pymilvus

        try:
            client: Any = pymilvus.MilvusClient(uri, timeout=5)
        except pymilvus.MilvusException:
            return False
        with contextlib.closing(client), contextlib.suppress(pymilvus.MilvusException):
            client.list_collections(timeout=5)
            return True
        return False

    async with server_process(command, place.folder / "milvus.log", ready):
        yield uri


def _missing() -> str:
    wanted = [] if _PROGRAM.exists() else ["make .venv-milvus/.stamp"]
    if any(name != "lo" for _, name in socket.if_nameindex()):
        # It listens on all addresses.
        wanted.append(f"a network without others: python -m {_NAMESPACE} COMMAND")
    if not find_spec("pymilvus"):
        wanted.append("pip: pymilvus")
    return "; ".join(wanted)


MILVUS = System(
    name="milvus",
    label="Milvus 2.3.5 (HNSW, M 30)",
    client=MilvusPeerClient,
    serve=_serve,
    missing=_missing,
)
